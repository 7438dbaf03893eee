"""Detrending a detector of 4096² pixels and 16 amplifiers, beside ccdproc doing the same chain.

A pass is a copy of the float32 image into new memory; the chain may take twelve. Counted bytes are
those that have to move once: raw pixels, bias, dark and flat with their masks, image, variance and
mask. That new memory is read before it is written, and cleared, is not counted.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.nddata import CCDData, StdDevUncertainty
from astroscrappy import detect_cosmics
from ccdproc import (
    cosmicray_lacosmic,
    create_deviation,
    flat_correct,
    gain_correct,
    subtract_bias,
    subtract_dark,
    subtract_overscan,
)
from threadpoolctl import threadpool_limits

from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend import (
    CosmicRayParameters,
    ScienceDetrendParameters,
    detrend,
)
from skyloom.algorithms.detrend.brighter_fatter import corrected_image
from skyloom.algorithms.simulate import amplifier_grid

SIDE = 4096
OVERSCAN = 64
PASSES = 12
RAW, FRAME, MASK = 2.0, 4.0, 4.0
"""Bytes of a pixel."""


def detector(side):
    """Return amplifier table, raw frame with cosmic rays, and calibrations of a detector."""
    table = amplifier_grid(
        "R0", (2, 8), (side // 2, side // 8), overscan=OVERSCAN, saturation=60_000.0
    )
    table["flip_y"][8:] = True
    table["flip_x"][::2] = True
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 5.0, (side, side + 8 * OVERSCAN))
    light = rng.poisson(800.0, (side, side)).astype(np.float64)
    for y, x in rng.integers(20, side - 20, (side // 2, 2)):
        light[y, x : x + 5] += 2000.0
    for row in amplifier_rows(table):
        image[row.data.slices] += light[row.trimmed.slices][row.turn] / row.gain
    raw = xr.Dataset(
        {"image": (("y", "x"), np.rint(image).astype(np.uint16), {"units": "adu"})},
        coords={"exposure_time": 30.0},
    )
    calibrations = {
        name: xr.Dataset(
            {
                "image": (
                    ("y", "x"),
                    rng.normal(mean, sigma, (side, side)).astype(np.float32),
                    {"units": unit},
                ),
                "mask": (("y", "x"), np.zeros((side, side), np.int32)),
            }
        )
        for name, mean, sigma, unit in (
            ("bias", 0.0, 1.0, "adu"),
            ("dark", 0.02, 0.005, "electron/s"),
            ("flat", 1.0, 0.01, ""),
        )
    }
    return table, raw, calibrations


@pytest.fixture(scope="module")
def frames():
    """Return table, raw frame and calibrations of a whole detector."""
    return detector(SIDE)


def copies(image):
    """Copy an image as often as the chain may pass over it."""
    for _ in range(PASSES):
        image.copy()


def copies_into(buffer, image):
    """Copy it as often into memory that is there already, which costs no new pages."""
    for _ in range(PASSES):
        np.copyto(buffer, image)


def by_ccdproc(raw, calibrations, table, rays=False):
    """Return what ccdproc makes of the frame, amplifier by amplifier where it must."""
    electron = units.electron
    shape = trimmed_shape(amplifier_rows(table))
    image, deviation = np.empty(shape), np.empty(shape)
    bias = calibrations["bias"]["image"].values
    for row in amplifier_rows(table):
        section = CCDData(raw[row.data.slices].astype(np.float32), unit="adu")
        overscan = CCDData(raw[row.overscan.slices].astype(np.float32), unit="adu")
        trimmed = subtract_overscan(section, overscan=overscan, overscan_axis=1, median=True)
        trimmed.data = trimmed.data[row.turn]
        own = CCDData(bias[row.trimmed.slices], unit="adu")
        trimmed = subtract_bias(trimmed, own)
        noisy = create_deviation(
            trimmed,
            gain=row.gain * electron / units.adu,
            readnoise=row.read_noise * electron,
            disregard_nan=True,
        )
        charge = gain_correct(noisy, row.gain * electron / units.adu)
        image[row.trimmed.slices] = charge.data
        deviation[row.trimmed.slices] = charge.uncertainty.array
    whole = CCDData(image, unit=electron, uncertainty=StdDevUncertainty(deviation))
    dark = CCDData(calibrations["dark"]["image"].values, unit=electron)
    times = {"dark_exposure": 1 * units.s, "data_exposure": 30 * units.s}
    whole = subtract_dark(whole, dark, scale=True, **times)
    whole = flat_correct(
        whole, CCDData(calibrations["flat"]["image"].values, unit=""), norm_value=1.0
    )
    if rays:
        whole = cosmicray_lacosmic(whole, gain=1.0, readnoise=6.0, gain_apply=False)
    return whole


def test_detrending_of_a_detector(compare, peer, frames):
    table, raw, calibrations = frames
    ours = detrend(raw, table, **calibrations)
    theirs = by_ccdproc(raw["image"].values, calibrations, table)
    assert float(np.median(abs(ours["image"].values - theirs.data))) < 1.0
    image = ours["image"].values
    buffer = np.empty_like(image)
    compare(
        "overscan, bias, gain, variance, dark, flat, masks",
        lambda: detrend(raw, table, **calibrations),
        size="4096² uint16, 16 amplifiers",
        peers=(
            peer(
                f"{PASSES} copies of the image",
                lambda: copies(image),
                target=1.0,
                rounds=7,
            ),
            peer(
                f"{PASSES} copies into memory that is there",
                lambda: copies_into(buffer, image),
                rounds=7,
            ),
            peer(
                "ccdproc",
                lambda: by_ccdproc(raw["image"].values, calibrations, table),
                rounds=2,
            ),
        ),
        moved_bytes=(RAW + 3 * FRAME + 3 * MASK + 2 * FRAME + MASK) * SIDE**2,
    )


def test_detrending_with_everything_that_acts_on_pixels(compare, peer, frames):
    table, raw, calibrations = frames
    names = table["amp"].values
    more = {
        "crosstalk": xr.DataArray(np.full((16, 16), 1e-4), {"amp": names, "source_amp": names}),
        "linearity": xr.Dataset(
            {
                "knot_signal": (("amp", "knot"), np.tile(np.linspace(0, 6e4, 12), (16, 1))),
                "knot_correction": (("amp", "knot"), np.tile(np.linspace(0, 300, 12), (16, 1))),
            },
            coords={"amp": names},
        ),
    }
    for each in calibrations.values():
        each["variance"] = xr.full_like(each["image"], 1e-4)
    image = calibrations["flat"]["image"].values
    compare(
        "the same with crosstalk, linearity and the variances of calibrations",
        lambda: detrend(raw, table, **calibrations, **more),
        size="4096² uint16, 16 amplifiers",
        peers=(
            peer(
                f"{PASSES} copies of the image",
                lambda: copies(image),
                rounds=7,
            ),
        ),
        moved_bytes=(RAW + 6 * FRAME + 3 * MASK + 2 * FRAME + MASK) * SIDE**2,
    )
    for each in calibrations.values():
        del each["variance"]


def test_detrending_with_cosmic_rays(compare, peer):
    table, raw, calibrations = detector(SIDE // 2)
    parameters = ScienceDetrendParameters(cosmic_rays=CosmicRayParameters(reject=True))
    plain = detrend(raw, table, **calibrations)
    image, variance = plain["image"].values, plain["variance"].values

    def library():
        with threadpool_limits(1, user_api="openmp"):
            return detect_cosmics(image, invar=variance, satlevel=np.inf)

    compare(
        "detrending with cosmic rays",
        lambda: detrend(raw, table, parameters=parameters, **calibrations),
        size="2048² uint16, 16 amplifiers",
        peers=(
            peer("astroscrappy's part of it", library, rounds=2),
            peer(
                "ccdproc with the same library",
                lambda: by_ccdproc(raw["image"].values, calibrations, table, rays=True),
                rounds=1,
            ),
        ),
        rounds=2,
    )


def test_correction_of_the_brighter_fatter_effect(compare, frames):
    _, _, calibrations = frames
    radius = np.hypot(*np.mgrid[-10:11, -10:11])
    kernel = -1e-7 * np.exp(-radius / 2.0)
    image = 1000.0 * calibrations["flat"]["image"].values
    compare(
        "one iteration of the brighter-fatter correction, kernel of 21²",
        lambda: corrected_image(image, kernel, 1, 1e-9),
        size="4096² float32",
        multiply_adds=float(kernel.size) * SIDE**2,
        rounds=2,
    )
