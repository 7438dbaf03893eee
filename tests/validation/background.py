"""Backgrounds in bins: pulls, histograms, errors of pixels, and independent packages.

SWarp is a program of its own (in Debian, ``apt install swarp``); without it its row says so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import sep
import xarray as xr
from astropy.io import fits
from astropy.stats import SigmaClip, sigma_clip
from numpy.typing import NDArray
from photutils.background import Background2D, MeanBackground
from scipy.interpolate import Akima1DInterpolator, CubicSpline

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    common_cells,
    interpolate,
    measure_background,
    merge_sketches,
    render_background,
    render_variance,
    sketch_exposure,
    sketch_statistics,
    subtract_from_bins,
)
from tests.validation.rows import Row, at_most, between, not_measured, within

__all__ = ["measure"]

Floats = NDArray[np.float64]
SIDE = 128


def _image(values: NDArray[np.floating]) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, np.float32), dims=("y", "x"))


def _rms(values: NDArray[np.floating] | xr.DataArray) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def pulls() -> list[Row]:
    """Return the rows of 10240 bins of 128² Gaussian pixels."""
    found: dict[bool, list[Floats]] = {True: [], False: []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        image = _image(100.0 + 7.0 * rng.standard_normal((4096, 4096), dtype=np.float32))
        for debias, collected in found.items():
            background = measure_background(image, bin_size=(SIDE, SIDE), debias=debias)
            pull = (background["level"] - 100.0) / np.sqrt(background["variance"])
            collected.append(pull.values.astype(np.float64).ravel())
    unbiased, plain = (np.concatenate(found[debias]) for debias in (True, False))
    what = "of 10240 bins of 128² Gaussian pixels"
    return [
        within(f"mean pull {what}", float(unbiased.mean()), 0.0, 0.03),
        within(f"width of pulls {what}, unbiased variance", float(unbiased.std()), 1.0, 0.03),
        within(f"width of pulls {what}, clipped variance", float(plain.std()), 1.016, 0.03),
    ]


def _crowded(seed: int = 0) -> xr.Dataset:
    """Return 4096² pixels of noise, 3 per cent with exponential sources, 6 per cent masked."""
    rng = np.random.default_rng(seed)
    image = 1000.0 + 30.0 * rng.standard_normal((4096, 4096), dtype=np.float32)
    sources = rng.random(image.shape, dtype=np.float32) < 0.03
    image[sources] += rng.exponential(150.0, int(sources.sum())).astype(np.float32)
    mask = rng.random(image.shape, dtype=np.float32) < 0.06
    planes = np.where(mask, np.int32(v.MASK_PLANES["DETECTED"]), np.int32(0))
    return xr.Dataset(
        {"image": (("y", "x"), image), "mask": (("y", "x"), planes, v.mask_attributes())}
    )


def histograms() -> list[Row]:
    """Return the rows of histograms against exact statistics, and of merging them."""
    rows = []
    exposure = _crowded()
    center, half_range = common_cells(exposure)
    for side, cells in ((128, 512), (32, 512), (32, 128)):
        exact = measure_background(exposure, bin_size=(side, side))
        sketch = sketch_exposure(
            exposure, center=center, half_range=half_range, cells=cells, bin_size=(side, side)
        )
        found = sketch_statistics(sketch)
        difference = (found["level"] - exact["level"]) / np.sqrt(exact["variance"])
        what = f"histogram of {cells} cells less exact clipped mean, {difference.size} bins of "
        what += f"{side}², 3 % of pixels with sources"
        spread, largest = _rms(difference), float(np.abs(difference).max())
        if side == SIDE:
            rows += [
                between(f"{what}: rms", spread, -np.inf, 0.04, "standard errors"),
                between(f"{what}: largest", largest, -np.inf, 0.25, "standard errors"),
            ]
        else:
            told = f"{spread:.3f} and {largest:.2f} standard errors"
            rows.append(Row(f"{what}: rms and largest", "no target", told, True))
    options = {"center": center, "half_range": half_range, "bins": (1, 1)}
    strip = exposure.isel(y=slice(0, 256))
    whole = sketch_exposure(strip, **options)
    merged = merge_sketches(
        sketch_exposure(strip.isel(x=slice(256 * i, 256 * i + 256)), **options) for i in range(16)
    )
    moved = int(np.abs(merged["cell_count"] - whole["cell_count"]).sum())
    means = [
        center + float(sketch["cell_sum"].sum()) / float(sketch["cell_count"].sum())
        for sketch in (merged, whole)
    ]
    return [
        *rows,
        at_most("16 partial histograms less one of all: counts that differ", moved, 0),
        at_most("the same: relative difference of the mean", means[0] / means[1] - 1.0, 1e-12),
    ]


def models_of_bins() -> list[Row]:
    """Return the rows of subtracting a model from bins instead of from pixels."""
    rows = []
    rng = np.random.default_rng(1)
    noise = rng.normal(50.0, 10.0, (2048, 2048))
    x = np.arange(2048.0)
    for variation, published in ((0.03, 0.034), (0.3, 0.10), (1.0, 0.18), (3.0, 0.31)):
        ramp = np.broadcast_to(variation * 10.0 / 32 * x, noise.shape)
        model = measure_background(_image(ramp), clip=20.0)
        image = _image(noise + ramp)
        late = subtract_from_bins(measure_background(image), model)
        early = measure_background(image - render_background(model))
        difference = _rms((late["level"] - early["level"]) / np.sqrt(early["variance"]))
        what = f"bins less a model that varies by {variation} pixel sigmas across them, against "
        what += "bins of pixels less the model: rms"
        rows.append(between(what, difference, -np.inf, published, "standard errors"))
        if variation == 0.3:
            rows.append(between(what, difference, -np.inf, 0.15, "standard errors"))
    return rows


def errors_of_pixels() -> list[Row]:
    """Return the rows of the variance of rendered pixels."""
    rng = np.random.default_rng(2)
    variance = rng.uniform(0.5, 2.0, (6, 7))
    bins = xr.Dataset(
        {
            "level": (("bin_y", "bin_x"), np.zeros((6, 7), np.float32)),
            "variance": (("bin_y", "bin_x"), variance),
        },
        attrs={"box": [0, 36, 0, 42]},
    )
    expected = render_variance(bins).values
    total, draws = np.zeros(expected.shape), 40_000
    for _ in range(20):
        noisy = np.sqrt(variance) * rng.standard_normal((draws // 20, 6, 7))
        stack = xr.Dataset(
            {"level": (("draw", "bin_y", "bin_x"), noisy.astype(np.float32))}, attrs=bins.attrs
        )
        total += np.square(render_background(stack).values.astype(np.float64)).sum(axis=0)
    flat = xr.Dataset(
        {
            "level": (("bin_y", "bin_x"), np.zeros((20, 20), np.float32)),
            "variance": (("bin_y", "bin_x"), np.ones((20, 20), np.float32)),
        },
        attrs={"box": [0, 640, 0, 640]},
    )
    gain = render_variance(flat).values
    along = np.sqrt(np.diag(gain))
    largest = float(np.abs(total / draws / expected - 1.0).max())
    what = "variance of pixels of a natural spline over that of bins, along an axis:"
    return [
        at_most(f"predicted variance of pixels less that of {draws} draws, worst", largest, 0.05),
        within(f"{what} mean between knots", float(along[160:480].mean()), 0.87, 0.01),
        within(f"{what} smallest", float(along.min()), 0.62, 0.01),
        within(f"{what} outermost pixel", float(along[0]), 3.3, 0.1),
        within("the same in two dimensions: corner", float(gain[0, 0]), 11.0, 0.5),
    ]


def response() -> list[Row]:
    """Return the rows of what stays out of a background, by wavelength."""
    rows = []
    bins, size = 96, 64
    x = np.arange(bins * size)
    inner = slice(20 * size, -20 * size)
    published = {3: 0.232, 4: 0.113, 6: 0.047, 8: 0.026, 12: 0.011, 16: 0.0064}
    for wavelength, residual in published.items():
        left = []
        for phase in np.linspace(0, 2 * np.pi, 8, endpoint=False):
            wave = np.sin(2 * np.pi * x / (wavelength * size) + phase)
            level = wave.reshape(bins, size).mean(axis=1)
            model = interpolate(size * np.arange(bins) + 0.5 * (size - 1), level, x)
            left.append(np.std((wave - model)[inner]) / np.std(wave[inner]))
        what = f"fraction of a wave of {wavelength} bins that stays out of the background"
        rows.append(within(what, float(np.mean(left)), residual, 0.001, form=".4f"))
    return rows


def splines() -> list[Row]:
    """Return the rows of one-dimensional styles beside scipy."""
    worst = {"natural_spline": 0.0, "akima": 0.0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = np.sort(rng.uniform(0, 100, 12)), rng.normal(size=12)
        at = np.linspace(x[0], x[-1], 300)
        peers = {
            "natural_spline": CubicSpline(x, y, bc_type="natural")(at),
            "akima": Akima1DInterpolator(x, y)(at),
        }
        for style, expected in peers.items():
            found = interpolate(x, y, at, style)  # type: ignore[arg-type]
            scale = np.maximum(1.0, np.abs(expected))
            worst[style] = max(worst[style], float(np.max(np.abs(found - expected) / scale)))
    return [at_most(f"{style} less that of scipy, worst", d, 1e-12) for style, d in worst.items()]


def _swarp_background(image: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return the background that SWarp subtracts, or None if it is not installed."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        header = fits.Header()
        for axis, kind in ((1, "RA---TAN"), (2, "DEC--TAN")):
            header[f"CTYPE{axis}"] = kind
            header[f"CRPIX{axis}"] = image.shape[2 - axis] / 2 + 0.5
            header[f"CRVAL{axis}"] = 0.0
            header[f"CDELT{axis}"] = -1e-4 if axis == 1 else 1e-4
        fits.PrimaryHDU(image, header).writeto(path / "image.fits")
        results = []
        for subtract in ("N", "Y"):
            name = path / f"out{subtract}.fits"
            options = {
                "SUBTRACT_BACK": subtract,
                "BACK_SIZE": str(SIDE),
                "BACK_FILTERSIZE": "1",
                "RESAMPLING_TYPE": "NEAREST",
                "CENTER_TYPE": "MANUAL",
                "CENTER": "0.0,0.0",
                "PIXELSCALE_TYPE": "MANUAL",
                "PIXEL_SCALE": "0.36",
                "IMAGE_SIZE": f"{image.shape[1]},{image.shape[0]}",
                "FSCALASTRO_TYPE": "NONE",
                "IMAGEOUT_NAME": str(name),
                "WEIGHTOUT_NAME": str(path / "weight.fits"),
                "WRITE_XML": "N",
                "VERBOSE_TYPE": "QUIET",
            }
            command = [program, str(path / "image.fits")]
            for key, value in options.items():
                command += [f"-{key}", value]
            subprocess.run(command, cwd=path, check=True, capture_output=True)
            results.append(fits.getdata(name).astype(np.float64))
    return results[0] - results[1]


def peers() -> list[Row]:
    """Return the rows beside photutils, sep, SWarp and astropy, on clean noise."""
    image = np.random.default_rng(3).normal(500.0, 10.0, (2048, 2048)).astype(np.float32)
    background = measure_background(_image(image), bin_size=(SIDE, SIDE))
    error = np.sqrt(background["variance"].values.astype(np.float64))
    model = render_background(background).values.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photutils = Background2D(
            image,
            SIDE,
            filter_size=1,
            sigma_clip=SigmaClip(3.0, maxiters=3),
            bkg_estimator=MeanBackground(),
        )
    inner = (slice(SIDE, -SIDE),) * 2
    unit = "standard errors"
    mesh = _rms((photutils.background_mesh - background["level"].values) / error)
    whole = _rms((photutils.background - model)[inner]) / float(error.mean())
    theirs = sep.Background(image, bw=SIDE, bh=SIDE, fw=1, fh=1).back().astype(np.float64)
    places = SIDE * np.arange(2048 // SIDE) + SIDE // 2
    centers = np.ix_(places, places)
    apart = (theirs[centers] - model[centers]) / error
    rows = [
        between("photutils.Background2D, mesh: rms", mesh, -np.inf, 0.06, unit),
        between("photutils.Background2D, image without its border: rms", whole, -np.inf, 0.5, unit),
        between("sep.Background at the centres of bins: rms", _rms(apart), -np.inf, 2.5, unit),
        within("sep.Background at the centres of bins: mean", float(apart.mean()), 0.0, 0.4, unit),
    ]
    swarp = _swarp_background(image)
    if swarp is None:
        rows.append(
            not_measured("SWarp less sep: rms", "≤ 0.6 standard errors", "SWarp is not installed")
        )
    else:
        apart = (swarp - theirs) / float(error.mean())
        rows.append(between("SWarp less sep: rms", _rms(apart), -np.inf, 0.6, unit))
    clipped = np.empty(error.shape)
    for i, j in np.ndindex(*clipped.shape):
        part = image[SIDE * i : SIDE * i + SIDE, SIDE * j : SIDE * j + SIDE].astype(np.float64)
        clipped[i, j] = sigma_clip(
            part, sigma=3.0, maxiters=3, cenfunc="median", stdfunc="std"
        ).mean()
    apart = (clipped - background["level"].values) / error
    what = "astropy.stats.sigma_clip (its first pass uses the standard deviation): rms"
    return [*rows, between(what, _rms(apart), -np.inf, 0.05, unit)]


def measure() -> list[Row]:
    """Return all rows."""
    return [
        *pulls(),
        *histograms(),
        *models_of_bins(),
        *errors_of_pixels(),
        *response(),
        *splines(),
        *peers(),
    ]
