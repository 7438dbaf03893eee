"""Point-spread functions of coadds, kernels that match them, and what convolution leaves."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.psf import (
    AlardLuptonParameters,
    MatchingParameters,
    PsfInput,
    VarianceScalingParameters,
    coadd_psf,
    convolve,
    double_gaussian_psf,
    gaussian_psf,
    match_psf,
    matching_kernel,
    moffat_psf,
    psf_at_points,
    psf_moments,
    rescale_variance,
)
from skyloom.algorithms.psf.alard_lupton import alard_lupton_field
from skyloom.algorithms.psf.fourier_kernels import kernel_residuals
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM
from skyloom.algorithms.tangent_plane import TangentPlane
from tests.validation.rows import Row, at_most, within

__all__ = ["measure"]

BOX = (0, 256, 0, 256)
SIDE = 95  # of images, as in the published table
TARGET = 7.7
WIDTHS = (3.0, 4.0, 5.0, 6.0, 6.5)


def _plane(angle: float = 0.0) -> TangentPlane:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = 0.2 / 3600 * np.diag([-1.0, 1.0]) @ rotation
    return TangentPlane(150.0, 2.0, 500.3, 500.6, matrix)


def coadds() -> list[Row]:
    """Return the rows of stated moments."""
    square = [(0, 0), (1000, 0), (1000, 1000), (0, 1000)]
    rows = []
    for weights, expected in (((1, 1, 1, 1), 43.5), ((1, 2, 3, 4), 50.0)):
        inputs = [
            PsfInput(
                w, _plane(), psf_at_points(gaussian_psf(s * SIGMA_TO_FWHM, size=121), 0, 0), square
            )
            for s, w in zip((5, 6, 7, 8), weights, strict=True)
        ]
        found = float(psf_moments(coadd_psf(inputs, _plane(), 480.0, 390.0))["radius2"])
        what = f"second moment of a coadd of sigma 5, 6, 7, 8, weights {weights}"
        rows.append(within(what, found, expected, 0.01, "pixel2", ".4f"))
    image = gaussian_psf(6.0, axis_ratio=0.6)
    one = PsfInput(1.0, _plane(90.0), psf_at_points(image, 0, 0), square)
    before, after = psf_moments(image), psf_moments(coadd_psf([one], _plane(), 500.0, 500.0))
    rows.append(
        within(
            "elongated along x, warped by 90°: moment along y over that along x before",
            float(after["yy"] / before["xx"]),
            1.0,
            1e-3,
        )
    )
    return rows


def _variance_factor(image: xr.DataArray, regularization: float) -> float:
    chosen = MatchingParameters(min_ratio=1.0, regularization=regularization)
    kernel = matching_kernel(psf_at_points(image, 0, 0), TARGET, BOX, parameters=chosen)
    return float((kernel["kernel"] ** 2).sum())


def kernels() -> list[Row]:
    """Return the rows of matched images and kernel sums."""
    rows = []
    for name, model in (("Gaussian", gaussian_psf), ("Moffat, beta 3", moffat_psf)):
        found = [
            matching_kernel(psf_at_points(model(width, size=SIDE), 0, 0), TARGET, BOX)
            for width in WIDTHS
        ]
        what = f"{name} of {WIDTHS[0]:g} to {WIDTHS[-1]:g} pixels to a Gaussian of {TARGET:g}"
        residual = max(float(kernel["residual"].max()) for kernel in found)
        deviation = max(float(kernel["sum_deviation"]) for kernel in found)
        sides = [kernel.sizes["kernel_y"] for kernel in found]
        rows += [
            at_most(f"{what}: relative rms residual", residual, 1e-3),
            at_most(f"{what}: kernel sum less 1, before it is set", deviation, 1e-4),
            Row(f"{what}: sides of the kernels", "no target", f"{sides} pixel", True),
        ]
    for name, model, width, factor in (
        ("Gaussian", gaussian_psf, 4.0, 0.010),
        ("Gaussian", gaussian_psf, 6.0, 0.019),
        ("Moffat", moffat_psf, 7.5, 0.11),
    ):
        what = f"factor on the variance, {name} of {width:g} to {TARGET:g} pixels"
        found_factor = _variance_factor(model(width, size=SIDE), 1e-3)
        rows.append(within(what, found_factor, factor, 0.05 * factor + 5e-4))
    told = [_variance_factor(gaussian_psf(7.5, size=SIDE), least) for least in (1e-3, 1e-5)]
    what = "the same, Gaussian of 7.5: regularised by 1e-3 and by 1e-5"
    rows.append(Row(what, "no target", f"{told[0]:.4f} and {told[1]:.4f}", True))
    return rows


def compatible() -> list[Row]:
    """Return the rows of Alard-Lupton kernels, as fitted, beside the published ones."""
    wide = AlardLuptonParameters(kernel_size=51, sigmas=(1.0, 2.0, 4.5, 9.0), degrees=(4, 2, 2, 2))
    double, single = double_gaussian_psf(TARGET, size=SIDE), gaussian_psf(TARGET, size=SIDE)
    short = double_gaussian_psf(TARGET, size=23)
    cases = (
        ("double Gaussian", double, None, (0.013, 0.056)),
        ("double Gaussian cut to 23 pixels", short, None, (0.025, 0.036)),
        ("single Gaussian", single, None, (0.0, 0.0035)),
        ("double Gaussian, 51 pixels and sigma 9", double, wide, (0.0004, 0.0008)),
    )
    rows = []
    for name, target, chosen, (low, high) in cases:
        residuals, sums = [], []
        for width in (4.0, 5.0, 6.0, 7.0, 7.5):
            for model in (gaussian_psf, moffat_psf):
                psf = psf_at_points(model(width, size=SIDE), 0, 0)
                field, cells, total = alard_lupton_field(psf, target, BOX, parameters=chosen)
                unscaled = field._replace(images=field.images * total)
                residuals.append(kernel_residuals(unscaled, cells, target.values, SIDE).max())
                sums.append(total)
        told = f"{100 * min(residuals):.2f} … {100 * max(residuals):.2f} %"
        told += f", sums {min(sums):.3f} … {max(sums):.3f}"
        aim = f"published {100 * low:.2f} … {100 * high:.2f} %"
        met = bool(max(residuals) <= 1.1 * high)
        rows.append(Row(f"Alard-Lupton, to a {name}: residual", aim, told, met))
    worst = 0.0
    for total in (0.5, 1.0, 2.7):
        given = MatchingParameters(
            method="alard_lupton", alard_lupton=AlardLuptonParameters(kernel_sum=total)
        )
        psf = psf_at_points(gaussian_psf(4.0, size=SIDE), 0, 0)
        kernel = matching_kernel(psf, TARGET, BOX, parameters=given)["kernel"]
        worst = max(worst, abs(float(kernel.sum()) - total))
    return [*rows, at_most("kernel sums of 0.5, 1 and 2.7 less what was asked for", worst, 1e-7)]


def stars() -> list[Row]:
    """Return the rows of a field of stars whose width and shape change, matched in pixels."""
    side, rng = 2048, np.random.default_rng(5)

    def model(x: float, y: float, size: int = 61) -> xr.DataArray:
        u, w = x / side, y / side
        return moffat_psf(
            4.0 + 0.5 * u + 0.3 * w, beta=3.0, axis_ratio=0.95 - 0.08 * u, angle=30 * w, size=size
        )

    place = (np.arange(14) + 0.5) * side / 14
    y, x = (values.ravel() for values in np.meshgrid(place, place, indexing="ij"))
    psf = psf_at_points(np.stack([model(a, b) for a, b in zip(x, y, strict=True)]), x, y)
    image = np.zeros((side, side))
    places = rng.integers(100, side - 100, (60, 2))
    for b, a in places:
        image[b - 30 : b + 31, a - 30 : a + 31] += 1e5 * model(a, b).values
    warp = xr.Dataset({"image": (("y", "x"), image.astype(np.float32))})
    found = match_psf(warp, psf, TARGET)
    # stars alone: what a star gives where no other is near
    target = found["psf"].values[26:-26, 26:-26]
    reach = target.shape[0] // 2
    residuals, fluxes = [], []
    for b, a in places:
        if np.sort(np.abs(places - (b, a)).max(1))[1] < 110:
            continue
        part = found["image"].values[b - reach : b + reach + 1, a - reach : a + reach + 1]
        residuals.append(np.sqrt(((part / 1e5 - target) ** 2).sum() / (target**2).sum()))
        wide = found["image"].values[b - 60 : b + 61, a - 60 : a + 61]
        fluxes.append(wide.sum(dtype=float) / 1e5 - 1.0)
    what = f"{len(residuals)} stars of a changing Moffat matched to {TARGET:g} pixels"
    return [
        at_most(f"{what}: largest residual", max(residuals), 2e-3),
        at_most(f"{what}: largest error of the flux", max(np.abs(fluxes)), 1e-3),
    ]


def noise() -> list[Row]:
    """Return the rows of variances of convolved noise, and of rescaling them."""
    rng, side = np.random.default_rng(6), 2048
    rows = []
    for width in (4.0, 6.0):
        image = 3.0 * rng.standard_normal((side, side), dtype=np.float32)
        image[rng.random(image.shape) < 1e-3] = np.nan
        variance = np.full_like(image, 9.0)
        exposure = xr.Dataset({"image": (("y", "x"), image), "variance": (("y", "x"), variance)})
        psf = psf_at_points(gaussian_psf(width, size=SIDE), 0, 0)
        found = convolve(exposure, matching_kernel(psf, TARGET, (0, side, 0, side)))
        good = np.isfinite(found["image"].values)
        ratio = found["image"].values[good].var() / found["variance"].values[good].mean()
        what = f"noise of {side}² pixels, 0.1 % missing, matched from {width:g} to {TARGET:g}"
        rows.append(within(f"{what}: scatter over variance", float(ratio), 1.0, 0.02))
        factors = [
            float(
                rescale_variance(found, parameters=VarianceScalingParameters(bin_size=size))[
                    "variance_factor"
                ]
            )
            for size in (32, 128)
        ]
        told = f"{factors[0]:.3f} and {factors[1]:.3f}"
        rows.append(Row(f"{what}: factor with bins of 32 and 128", "no target", told, True))
    return rows


def measure() -> list[Row]:
    """Return all rows."""
    return [*coadds(), *kernels(), *compatible(), *stars(), *noise()]
