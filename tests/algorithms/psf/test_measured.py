"""The point-spread function that is measured on stars is the one they have."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.psf import (
    PsfMeasurementParameters,
    StarParameters,
    gaussian_psf,
    measure_psf,
    moffat_psf,
)

SIDE, NOISE = 420, 5.0


def field(
    fwhm: float,
    beta: float | None,
    *,
    stars: int = 30,
    galaxies: int = 15,
    rays: int = 80,
    axis_ratio: float = 0.9,
    seed: int = 3,
) -> xr.Dataset:
    """Return stars, wider galaxies and cosmic rays on a tilted sky."""
    rng = np.random.default_rng(seed)
    image = 1000.0 + 0.2 * np.indices((SIDE, SIDE))[1]
    kinds = [(fwhm, beta, axis_ratio)] * stars
    kinds += [(fwhm * rng.uniform(1.4, 3.0), 2.5, 0.8) for _ in range(galaxies)]
    for width, exponent, ratio in kinds:
        y, x = rng.uniform(35, SIDE - 35, 2)
        row, column = round(y), round(x)
        shape = {"size": 61, "axis_ratio": ratio, "angle": 30.0, "offset": (y - row, x - column)}
        stamp = (
            gaussian_psf(width, **shape)
            if exponent is None
            else moffat_psf(width, beta=exponent, **shape)
        )
        flux = NOISE * rng.uniform(300, 4000)
        image[row - 30 : row + 31, column - 30 : column + 31] += flux * stamp.values
    image += rng.normal(0.0, NOISE, image.shape)
    for row, column in rng.integers(2, SIDE - 2, (rays, 2)):
        image[row, column] += NOISE * rng.uniform(20, 300)
    dims = (v.Y, v.X)
    return xr.Dataset(
        {
            "image": (dims, image.astype(np.float32), {"units": v.ELECTRON}),
            "variance": (dims, np.full(image.shape, NOISE**2, np.float32)),
        },
        attrs={"name": "field"},
    )


@pytest.mark.parametrize(
    ("fwhm", "beta"), [(4.2, 3.5), (3.0, 2.5), (6.0, 4.8), (2.5, 3.0), (4.5, None)]
)
def test_the_profile_of_stars_is_found_among_galaxies_and_rays(
    fwhm: float, beta: float | None
) -> None:
    given = field(fwhm, beta)
    kept = given.copy(deep=True)
    found = measure_psf(given)
    xr.testing.assert_identical(given, kept)
    assert int(found["psf_status"][0]) == v.PsfStatus.OK
    assert int(found["star_count"][0]) >= 10
    assert float(found["fwhm"][0]) == pytest.approx(fwhm, rel=0.01)
    assert float(found["axis_ratio"][0]) == pytest.approx(0.9, abs=0.02)
    shape = {"size": 41, "axis_ratio": 0.9, "angle": 30.0}
    true = gaussian_psf(fwhm, **shape) if beta is None else moffat_psf(fwhm, beta=beta, **shape)
    difference = found["psf"].values[0] - true.values
    assert np.sqrt((difference**2).sum() / (true.values**2).sum()) < 0.01
    assert float(found["psf"][0].sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_same_bits_every_time_and_whatever_the_unit() -> None:
    given = field(4.0, 3.0)
    one, two = measure_psf(given), measure_psf(given.copy(deep=True))
    xr.testing.assert_identical(one, two)
    scaled = given.assign(image=given["image"] * 7.0, variance=given["variance"] * 49.0)
    np.testing.assert_allclose(measure_psf(scaled)["psf"], one["psf"], atol=1e-6)


def test_too_few_stars_are_told_or_a_width_is_assumed() -> None:
    given = field(4.0, 3.0, stars=2, galaxies=0)
    found = measure_psf(given)
    assert found["psf_status"].values.tolist() == [v.PsfStatus.TOO_FEW_STARS]
    assert np.isnan(found["psf"]).all()
    assumed = measure_psf(given, parameters=PsfMeasurementParameters(assumed=4.0))
    assert assumed["psf_status"].values.tolist() == [v.PsfStatus.ASSUMED]
    assert float(assumed["fwhm"][0]) == pytest.approx(4.0, rel=1e-3)


def test_cosmic_rays_alone_are_no_stars() -> None:
    found = measure_psf(field(4.0, 3.0, stars=0, galaxies=0, rays=200))
    assert int(found["psf_status"][0]) != v.PsfStatus.OK
    assert np.isnan(found["psf"]).all()


def test_an_image_without_data_has_no_stars() -> None:
    given = field(4.0, 3.0)
    found = measure_psf(given.assign(image=given["image"] * np.nan))
    assert found["psf_status"].values.tolist() == [v.PsfStatus.TOO_FEW_STARS]


def test_saturated_stars_are_left_out() -> None:
    given = field(4.0, 3.0)
    brightest = given["image"] > given["image"].quantile(0.9997)
    mask = xr.where(brightest, v.MASK_PLANES["SAT"], 0).astype(np.int32)
    flat = given["image"].where(~brightest, float(given["image"].quantile(0.9997)))
    spoilt = given.assign(image=flat.astype(np.float32))
    spoilt[v.MASK] = mask.assign_attrs(v.mask_attributes())
    found = measure_psf(spoilt)
    assert 5 <= int(found["star_count"][0]) < int(measure_psf(given)["star_count"][0])
    assert float(found["fwhm"][0]) == pytest.approx(4.0, rel=0.01)


def test_parts_of_an_image_have_their_own() -> None:
    left, right = field(3.5, 3.0, rays=0), field(4.5, 3.0, rays=0, seed=4)
    both = xr.concat([left, right], dim=v.X)
    parameters = PsfMeasurementParameters(cells=(1, 2), size=31)
    found = measure_psf(both, parameters=parameters)
    assert found["fwhm"].values == pytest.approx([3.5, 4.5], rel=0.02)
    assert found["x"].values.tolist() == [SIDE / 2 - 0.5, 1.5 * SIDE - 0.5]
    assert found.sizes["psf_y"] == 31


def test_misuse_is_named() -> None:
    given = field(4.0, 3.0)
    with pytest.raises(KeyError, match="variance"):
        measure_psf(given.drop_vars("variance"))
    with pytest.raises(ValueError, match="size must be odd, got 40"):
        measure_psf(given, parameters=PsfMeasurementParameters(size=40))
    masked = given.assign(mask=given["image"].astype(np.int32) * 0)
    wrong = PsfMeasurementParameters(stars=StarParameters(rejected_planes=("NOT_A_PLANE",)))
    with pytest.raises(KeyError, match="NOT_A_PLANE"):
        measure_psf(masked, parameters=wrong)
