"""Chromatic stars are where the air puts them, with all their light; only noise is chance."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import Band, patch_jacobian
from skyloom.algorithms.refraction import Weather, differential_refraction
from skyloom.algorithms.simulate import (
    ChromaticParameters,
    band_fractions,
    black_body,
    chromatic_conditions,
    chromatic_images,
    chromatic_scene,
    simulate_chromatic,
)
from skyloom.algorithms.simulate.dispersion import midpoints
from skyloom.algorithms.tangent_plane import TangentPlane

G = Band.from_effective("g", 476.31, 147.0)
NORTH_UP = np.diag([-0.2, 0.2])
SHAPE = (65, 61)
FEW = ChromaticParameters(size=48, stars=4, visits=5)


def star(**columns: object) -> xr.Dataset:
    """Return a star a little beside the middle."""
    values = {"y": 32.3, "x": 29.6, "flux": 1000.0} | columns
    return xr.Dataset({name: ("source", [value]) for name, value in values.items()})


def moments(image: np.ndarray) -> tuple[float, float, float]:
    """Return centroid (y, x) and variance along y."""
    y, x = np.indices(image.shape)
    total = image.sum()
    row = float((y * image).sum() / total)
    return row, float((x * image).sum() / total), float(((y - row) ** 2 * image).sum() / total)


def test_a_star_is_where_the_mean_of_its_photons_is_lifted_to() -> None:
    visits = chromatic_conditions([30.0, 50.0, 60.0], [0.0, 70.0, -140.0])
    images = chromatic_images(star(temperature=4000.0), visits, G, NORTH_UP, SHAPE, wavelengths=200)
    nm = midpoints(G.lambda_min, G.lambda_max, 4000)
    weight = black_body(nm, 4000.0)
    for visit, (zenith, angle) in enumerate(((30.0, 0.0), (50.0, 70.0), (60.0, -140.0))):
        lifted = differential_refraction(
            nm, G.lambda_ref, 90.0 - zenith, Weather(20.0, 73892.0, 40.0),
            latitude=-30.244639, height=2663.0,
        )  # fmt: skip
        mean = np.average(lifted, weights=weight) / 0.2
        spread = np.average((lifted / 0.2 - mean) ** 2, weights=weight)
        turned = np.deg2rad(angle)
        row, column, width = moments(images[visit].to_numpy())
        assert row == pytest.approx(32.3 + mean * np.cos(turned), abs=1e-4)
        assert column == pytest.approx(29.6 - mean * np.sin(turned), abs=1e-4)
        drawn = (4.0 / np.sqrt(8 * np.log(2))) ** 2 + spread * np.cos(turned) ** 2
        assert width == pytest.approx(drawn, rel=2e-4)
    assert images.sum(("y", "x")).to_numpy() == pytest.approx(1000.0, rel=1e-6)
    assert images.attrs == {"units": v.NANOJANSKY}


def test_given_spectra_and_throughput_decide_where_light_goes() -> None:
    visits = chromatic_conditions(50.0, 0.0)
    at = np.array([400.0, 440.0, 440.1, 460.0, 460.1, 550.0])
    line = star().assign(spectrum=(("source", "wavelength"), [[0, 0, 1.0, 1.0, 0, 0]]))
    line = line.assign_coords(wavelength=at)
    narrow = Band(
        **(G.model_dump() | {"throughput": tuple(zip(at, line.spectrum[0].values, strict=True))})
    )
    lit = [
        chromatic_images(line, visits, G, NORTH_UP, SHAPE, wavelengths=400),
        chromatic_images(star(), visits, narrow, NORTH_UP, SHAPE, wavelengths=400),
    ]
    xr.testing.assert_allclose(lit[0], lit[1], rtol=1e-10)
    grey = chromatic_images(star(), visits, G, NORTH_UP, SHAPE)
    assert moments(lit[0][0].to_numpy())[0] > moments(grey[0].to_numpy())[0] + 0.5
    edges = [G.lambda_min, 440.0, 460.1, G.lambda_max]
    assert band_fractions(line, G, edges).to_numpy()[0] == pytest.approx([0, 1, 0], abs=0.02)
    dark = chromatic_images(
        line, visits, G.model_copy(update={"lambda_min": 480.0}), NORTH_UP, SHAPE
    )
    assert not dark.any()


@pytest.mark.parametrize("beta", [None, 3.0])
def test_profiles_have_their_width_and_seeing_may_follow_the_wavelength(
    beta: float | None,
) -> None:
    at_zenith = chromatic_conditions(0.0, 0.0)
    where = star(y=32.0, x=30.0)
    image = chromatic_images(where, at_zenith, G, NORTH_UP, SHAPE, fwhm=5.0, beta=beta)[0]
    beside = chromatic_images(
        star(y=34.5, x=30.0), at_zenith, G, NORTH_UP, SHAPE, fwhm=5.0, beta=beta
    )
    assert float(beside[0, 32, 30] / image[32, 30]) == pytest.approx(0.5, rel=1e-12)
    assert float(image.sum()) == pytest.approx(1000.0, rel=1e-6 if beta is None else 0.01)
    red = where.assign(spectrum=(("source", "wavelength"), [[0.0, 0.0, 1.0]]))
    red = red.assign_coords(wavelength=[402.0, 535.0, 536.0])
    sharper = chromatic_images(
        red, at_zenith, G, NORTH_UP, SHAPE, fwhm=5.0, beta=beta, chromatic_seeing=-0.2,
        wavelengths=400,
    )  # fmt: skip
    expected = float(image.max()) * (542.8 / G.lambda_ref) ** 0.4
    assert float(sharper.max()) == pytest.approx(expected, rel=1e-3)


def test_directions_follow_the_projection_of_the_patch() -> None:
    plane = TangentPlane(50.0, -10.0, 400.0, 300.0, np.diag([-0.2, 0.2]) / 3600)
    box = (1000, 1065, 2000, 2061)
    visits = chromatic_conditions(50.0, 60.0)
    upright = chromatic_images(star(), visits, G, patch_jacobian(plane, box), SHAPE)
    mirrored = chromatic_images(
        star(x=60.0 - 29.6), visits, G, np.diag([0.2, 0.2]), SHAPE
    )  # fmt: skip
    assert mirrored.to_numpy()[:, :, ::-1] == pytest.approx(upright.to_numpy(), abs=0.02)


def test_chance_is_the_generator_alone_and_visits_do_not_depend_on_each_other() -> None:
    one, other = (simulate_chromatic(np.random.default_rng(3), parameters=FEW) for _ in range(2))
    xr.testing.assert_identical(one.warps, other.warps)
    before = one.scene.copy(deep=True), one.conditions.copy(deep=True)
    turned = chromatic_images(
        one.scene, one.conditions.isel(visit=[4, 1]), one.band, one.jacobian, (48, 48)
    )
    np.testing.assert_array_equal(turned, one.images.isel(visit=[4, 1]))
    xr.testing.assert_identical(one.scene, before[0])
    xr.testing.assert_identical(one.conditions, before[1])
    noise = (one.warps["image"] - one.images).to_numpy()
    assert noise.std() == pytest.approx(5.0, rel=0.03)
    assert (one.warps["variance"] == 25.0).all()
    assert one.warps["mask"].dtype == np.int32
    airmass = 1.0 / np.sin(np.deg2rad(one.conditions["altitude"]))
    assert airmass.to_numpy()[[0, -1]] == pytest.approx([1.02, 1.8])
    assert (one.coadd["mask"] & v.MASK_PLANES["DETECTED"]).any()


def test_seeing_is_spread_over_visits_at_random() -> None:
    varied = FEW.model_copy(update={"fwhm": (3.3, 5.0), "visits": 8})
    made = simulate_chromatic(np.random.default_rng(1), parameters=varied)
    widths = made.warps["psf_fwhm"].to_numpy()
    np.testing.assert_allclose(np.sort(widths), np.linspace(3.3, 5.0, 8))
    assert (np.diff(widths) < 0).any()


def test_stars_are_drawn_between_their_limits() -> None:
    drawn = chromatic_scene(np.random.default_rng(1), parameters=ChromaticParameters(stars=300))
    assert 2e3 <= drawn["flux"].min() < 2.5e3
    assert 1.6e5 < drawn["flux"].max() <= 2e5
    assert 3500 <= drawn["temperature"].min() < 3700
    assert drawn["y"].min() >= 8
    assert drawn["x"].max() <= 120


@pytest.mark.parametrize(
    "wrong",
    [
        {"airmasses": (0.9, 1.5)}, {"temperatures": (5000.0, 4000.0)}, {"fwhm": (0.0, 4.0)},
        {"brightest": 10.0}, {"border": 30.0, "size": 48},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ChromaticParameters(**wrong)  # type: ignore[arg-type]


def test_conditions_that_lack_something_are_refused() -> None:
    visits = chromatic_conditions(30.0, 0.0).drop_vars("pressure")
    with pytest.raises(ValueError, match="conditions lack pressure"):
        chromatic_images(star(), visits, G, NORTH_UP, SHAPE)
