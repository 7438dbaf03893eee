"""Inputs of patches: limits, footprints, reasons."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.skymap import rings_skymap
from skyloom.algorithms.vocabulary import RejectedInput
from skyloom.algorithms.warp import SelectionParameters, select_inputs
from tests.algorithms.warp.scenes import plane

GOOD = {
    "psf_fwhm": 0.8, "ellipticity_residual": 0.003, "size_scatter": 0.01,
    "trace_radius_range": 0.3, "aperture_flux_range": 0.1, "aperture_correction_range": 0.1,
    "star_count": 20, "star_ellipticity": 0.1, "unnormalized_ellipticity": 1.0,
    "calibration": 3.0, "aperture_correction": 0.9,
}  # fmt: skip
JUST_TOO_BAD = {
    "psf_fwhm": (1.801, RejectedInput.SEEING),
    "ellipticity_residual": (0.00701, RejectedInput.ELLIPTICITY_RESIDUAL),
    "size_scatter": (0.0191, RejectedInput.SIZE_SCATTER),
    "trace_radius_range": (0.701, RejectedInput.TRACE_RADIUS_RANGE),
    "aperture_flux_range": (0.241, RejectedInput.APERTURE_FLUX_RANGE),
    "aperture_correction_range": (0.221, RejectedInput.APERTURE_CORRECTION_RANGE),
    "star_count": (5, RejectedInput.FEW_STARS),
    "star_ellipticity": (0.401, RejectedInput.STAR_ELLIPTICITY),
    "unnormalized_ellipticity": (2.81, RejectedInput.UNNORMALIZED_ELLIPTICITY),
}
LIMITS = {
    "psf_fwhm": 1.8, "ellipticity_residual": 0.007, "size_scatter": 0.019,
    "trace_radius_range": 0.7, "aperture_flux_range": 0.24, "aperture_correction_range": 0.22,
    "star_count": 6, "star_ellipticity": 0.4, "unnormalized_ellipticity": 2.8,
}  # fmt: skip


def table_of(rows):
    """Return a table of rows that are good but for what is given."""
    columns = {
        name: ("input", np.array([row.get(name, good) for row in rows], float))
        for name, good in GOOD.items()
    }
    labels = [f"D{index}" for index in range(len(rows))]
    return xr.Dataset(
        columns | {"visit": ("input", np.arange(len(rows))), "detector": ("input", labels)}
    )


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_at_its_limit_passes_and_one_beyond_is_named(name):
    value, code = JUST_TOO_BAD[name]
    found = select_inputs(table_of([{}, {name: LIMITS[name]}, {name: value}, {name: np.nan}]))
    assert found["selected"].values.tolist() == [True, True, False, False]
    assert found["rejected"].values[2] == code
    assert found["rejected"].values[3] & code
    assert found["reason"].values[2].startswith(f"{name} {value:g} is ")
    assert f"{name} is nan" in found["reason"].values[3]
    assert found["reason"].values[0] == ""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("calibration", RejectedInput.NO_CALIBRATION),
        ("psf_fwhm", RejectedInput.NO_PSF),
        ("aperture_correction", RejectedInput.NO_APERTURE_CORRECTION),
    ],
)
def test_what_is_needed_must_be_finite(name, code):
    for value in (np.nan, np.inf, -np.inf):
        found = select_inputs(table_of([{}, {name: value}]))
        assert found["selected"].values.tolist() == [True, False]
        assert found["rejected"].values[1] & code


def test_every_reason_is_recorded():
    found = select_inputs(table_of([{"psf_fwhm": 3.0, "star_count": 2}]), excluded=["D0"])
    code = RejectedInput.SEEING | RejectedInput.FEW_STARS | RejectedInput.EXCLUDED
    assert found["rejected"].values[0] == code
    assert found["reason"].values[0].split("; ") == [
        "detector D0 is excluded",
        "psf_fwhm 3 is above 1.8",
        "star_count 2 is below 6",
    ]
    assert found["visit"].values.tolist() == [0]


def test_a_rejection_stays_with_its_row():
    # rows without a measurement must not shift what is said of others
    rows = [{"psf_fwhm": np.nan}, {}, {"star_count": 1}, {}]
    found = select_inputs(table_of(rows))
    assert found["detector"].values[found["selected"].values].tolist() == ["D1", "D3"]
    order = [2, 0, 3, 1]
    shuffled = select_inputs(table_of(rows).isel(input=order))
    xr.testing.assert_identical(shuffled, found.isel(input=order))


def test_limits_of_none_ask_for_no_column():
    table = table_of([{}]).drop_vars(["size_scatter", "star_count", "aperture_correction"])
    with pytest.raises(KeyError, match=r"aperture_correction, size_scatter, star_count"):
        select_inputs(table)
    fewer = SelectionParameters(size_scatter=None, star_count=None, needed=("calibration",))
    assert select_inputs(table, parameters=fewer)["selected"].all()


def footprint(shape, center, turn, sky=(209.0, -20.25)):
    corners = np.array([[-0.5, -0.5], [shape[1], -0.5], [shape[1], shape[0]], [-0.5, shape[0]]])
    source = plane(turn, center=((shape[1] - 1) / 2, (shape[0] - 1) / 2))
    x, y = plane(sky=sky).x, plane(sky=sky).y
    ra, dec = plane(sky=sky).to_sky(x + center[0], y + center[1])
    placed = source._replace(right_ascension=float(ra), declination=float(dec))
    return placed.to_sky(corners[:, 0], corners[:, 1])


def with_corners(footprints):
    table = table_of([{}] * len(footprints))
    for name, index in (("corner_right_ascension", 0), ("corner_declination", 1)):
        table[name] = (("input", "corner"), np.array([one[index] for one in footprints]))
    return table


def test_detectors_must_meet_the_patch():
    shape = (200, 100)
    footprints = [
        footprint(shape, (0, 0), 0), footprint(shape, (200, 0), 0), footprint(shape, (98, 0), 0),
        footprint(shape, (148, 0), 90), footprint(shape, (0, 152), 0),
        (np.full(4, np.nan), np.full(4, np.nan)), footprint(shape, (0, 0), 0, sky=(29.0, 20.25)),
    ]  # fmt: skip
    found = select_inputs(with_corners(footprints), target=plane(), box=(0, 101, 0, 101))
    assert found["selected"].values.tolist() == [True, False, True, True, False, False, False]
    codes = [RejectedInput(int(code)) for code in found["rejected"].values]
    assert codes[1] == codes[4] == codes[6] == RejectedInput.NO_OVERLAP
    assert codes[5] == RejectedInput.BAD_WCS


@settings(max_examples=30, deadline=None)
@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(0, 360))
def test_overlap_is_that_of_points(x, y, turn):
    shape = (120, 80)
    ra, dec = footprint(shape, (x, y), turn)
    found = select_inputs(with_corners([(ra, dec)]), target=plane(), box=(0, 101, 0, 101))
    # points of the detector, found in the patch
    steps = np.linspace(0, 1, 150)
    u, w = np.meshgrid(steps, steps)
    corner_x, corner_y = plane().to_pixels(ra, dec)
    points = [
        (1 - u) * (1 - w) * c[0] + u * (1 - w) * c[1] + u * w * c[2] + (1 - u) * w * c[3]
        for c in (corner_x, corner_y)
    ]
    inside = (np.abs(points[0] - 50) < 50.5) & (np.abs(points[1] - 50) < 50.5)
    grown = (np.abs(points[0] - 50) < 52) & (np.abs(points[1] - 50) < 52)
    if inside.any():
        assert found["selected"].values[0]
    if not grown.any():
        assert not found["selected"].values[0]


def test_tracts_and_patches_are_taken_as_they_are():
    tract = rings_skymap()[9813]
    patch = tract.patch(24)
    middle = (patch.inner.y_start + 2000, patch.inner.x_start + 2000)
    corners = tract.plane.to_sky(
        middle[1] + np.array([-50, 50, 50, -50.0]), middle[0] + np.array([-50, -50, 50, 50.0])
    )
    found = select_inputs(with_corners([corners]), target=tract, box=patch)
    assert found["selected"].all()
    other = select_inputs(with_corners([corners]), target=tract, box=tract.patch(0))
    assert not other["selected"].any()


def test_nothing_given_changes_and_misuse_is_named():
    table = with_corners([footprint((10, 10), (0, 0), 0)])
    before = table.copy(deep=True)
    select_inputs(table, target=plane(), box=(0, 101, 0, 101), excluded=("D0",))
    xr.testing.assert_identical(table, before)
    with pytest.raises(ValueError, match="belong together"):
        select_inputs(table, target=plane())
    with pytest.raises(ValueError, match="dimension input"):
        select_inputs(table.rename(input="row"))
    with pytest.raises(KeyError, match="corner_declination"):
        select_inputs(table.drop_vars("corner_declination"), target=plane(), box=(0, 101, 0, 101))
