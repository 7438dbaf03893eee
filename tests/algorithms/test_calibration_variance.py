"""The noise of a bias and a dark that all flats of a combination lost."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.combine import (
    CombineParameters,
    add_bias_variance,
    add_calibration_variance,
    combine_flats,
)
from skyloom.algorithms.errors import GeometryError

PLANE = ("y", "x")
SIDE = 160
SCALES = np.array([400.0, 800.0, 1600.0, 600.0])
TIMES = np.array([4.0, 8.0, 16.0, 30.0])
BIAS, DARK, GAIN = 6.0, 0.8, 1.5  # adu, adu/s, electron/adu


def frame(level: float) -> xr.Dataset:
    return xr.Dataset({"variance": (PLANE, np.full((SIDE, SIDE), level))})


def flats() -> xr.Dataset:
    """Return faint flats that lost one bias and one dark, with the noise of their photons."""
    rng = np.random.default_rng(4)
    shape = (SCALES.size, SIDE, SIDE)
    level = np.broadcast_to(SCALES[:, None, None], shape)
    bias, dark = (GAIN * s * rng.standard_normal((SIDE, SIDE)) for s in (BIAS, DARK))
    image = rng.poisson(level) - bias - dark * TIMES[:, None, None]
    dims = ("exposure", *PLANE)
    return xr.Dataset(
        {
            "image": (dims, image.astype(np.float32), {"units": "electron"}),
            "variance": (dims, level.astype(np.float32)),
        },
        coords={"exposure": np.arange(SCALES.size), "exposure_time": ("exposure", TIMES)},
    )


@pytest.mark.parametrize("weights", ["noise", "equal"])
def test_the_scatter_of_faint_flats_is_that_of_their_variance(weights: str) -> None:
    parameters = CombineParameters(weights=weights, pattern=1.0)
    flat = combine_flats(flats(), SCALES, parameters=parameters)
    before = flat.copy(deep=True)
    found = add_calibration_variance(
        flat,
        bias=frame(BIAS**2),
        dark=frame(DARK**2),
        gain=GAIN,
        equal_weights=weights == "equal",
    )
    xr.testing.assert_identical(flat, before)
    scatter = float(np.var(flat["image"].values, dtype=np.float64))
    told = float(np.mean(found["variance"].values, dtype=np.float64))
    assert scatter / told == pytest.approx(1.0, abs=0.05)
    assert scatter / float(flat["variance"].mean()) > 1.3
    assert found["variance"].dtype == flat["variance"].dtype


def test_gains_are_those_of_each_pixel_and_nothing_given_adds_nothing() -> None:
    flat = xr.Dataset({"variance": (PLANE, [[0.0, 0.0]]), "input_scale": ("input", [10.0, 10.0])})
    gain = xr.DataArray([[1.0, 2.0]], dims=PLANE)
    bias = xr.Dataset({"variance": (PLANE, [[4.0, 4.0]])})
    found = add_calibration_variance(flat, bias=bias, gain=gain)
    np.testing.assert_allclose(found["variance"], [[0.04, 0.16]])
    xr.testing.assert_identical(add_calibration_variance(flat), flat)


def test_what_does_not_belong_together_is_refused() -> None:
    flat = xr.Dataset({"variance": (PLANE, [[0.0]]), "input_scale": ("input", [10.0])})
    with pytest.raises(GeometryError, match="the bias has shape"):
        add_calibration_variance(flat, bias=frame(1.0))
    with pytest.raises(KeyError, match="neither input_dark_time nor input_exposure_time"):
        add_calibration_variance(flat, dark=xr.Dataset({"variance": (PLANE, [[1.0]])}))
    of_amplifiers = flat.assign(input_scale=(("input", "amp"), [[1.0, 2.0]]))
    with pytest.raises(ValueError, match="must not differ between amplifiers"):
        add_calibration_variance(of_amplifiers)


@pytest.mark.parametrize(
    ("parameters", "share"),
    [
        (CombineParameters(), 12.0 / 104.0),
        (CombineParameters(weights="equal"), (1 / 2 + 1 / 10) / 2),
        (CombineParameters(method="clip_reference"), (1 / 2 + 1 / 10) / 2),
    ],
)
def test_a_bias_counts_in_a_dark_as_its_frames_are_weighted(
    parameters: CombineParameters, share: float
) -> None:
    dark = frame(0.25).assign(input_scale=("input", [2.0, 10.0]))
    found = add_bias_variance(dark, frame(4.0), equal_weights=parameters.equal_weights)
    assert found["variance"].values == pytest.approx(0.25 + 4.0 * share**2)
