"""Warps and coadds as tasks make them: one block in, one block out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import (
    ArtifactParameters,
    CoaddParameters,
    coadd,
    find_artifacts,
    zero_point_scale,
)
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.algorithms.units import squared_units
from skyloom.algorithms.warp import (
    WarpParameters,
    merge_warps,
    warp_exposure,
    warp_noise_covariance,
)
from skyloom.algorithms.warp.resampling import Kernel, kernel_taps
from skyloom.flows.match_blocks import MATCHED
from skyloom.flows.patches import patch_of
from skyloom.flows.psf_blocks import coadd_psf_variables, located, median_of, without_data

__all__ = [
    "CoaddBlockParameters",
    "WarpBlockParameters",
    "coadd_quality",
    "coadded_patch",
    "warp_quality",
    "warped_visit",
]

Inputs = Mapping[str, xr.Dataset]
PLANES = ("image", "variance", v.MASK, "masked_fraction")
MOST_LAGS = 24  # to either side, of noise that is correlated by warping
GAUSSIAN_FWHM = float(np.sqrt(8.0 * np.log(2.0)))


class WarpBlockParameters(Parameters):
    """How an exposure becomes the warp of a patch."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    warp: WarpParameters = Field(WarpParameters(), description="how pixels are resampled")
    units: Literal["nJy", "electron/s"] = Field("electron/s", description="unit of the warps")


class CoaddBlockParameters(Parameters):
    """How the warps of a patch become a coadd."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    coadd: CoaddParameters = Field(CoaddParameters(), description="how warps are averaged")
    artifacts: ArtifactParameters | None = Field(
        None, description="how artifacts are found that few visits show"
    )
    target_fwhm: float = Field(7.7, gt=0, description="FWHM of stars in the matched warps, pixel")
    psf_spacing: int = Field(
        500, ge=1, description="largest distance of points with a point-spread function, pixel"
    )
    psf_points: int = Field(0, ge=0, description="most of these points; 0 if none is known")


def warped_visit(inputs: Inputs, parameters: WarpBlockParameters) -> xr.Dataset:
    """Resample the detectors of an exposure that touch a patch, and merge them."""
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    # One detector after the other is in memory, and only where it reaches the patch.
    cropped = parameters.warp.model_copy(update={"crop": True})
    found = merge_warps(
        (
            warp_exposure(
                calibrated(frame, parameters.units),
                json.loads(str(frame[v.WCS].values)),
                tract,
                patch,
                parameters=cropped,
            )
            for frame in frames_of(inputs["frames"])
        ),
        box=patch.outer,
        in_order=True,
    )
    warp = (
        found if "image" in found else _without_data(found, without_data(patch, parameters.units))
    )
    if "matrix" in found.attrs:
        factor = noise_correlation(parameters.warp.kernel, found.attrs["matrix"])
        warp = warp.assign(noise_correlation=((), factor, {"units": v.DIMENSIONLESS}))
    names = (*PLANES, "status", "good_count", "noise_correlation")
    kept = warp[[name for name in names if name in warp]]
    gone = (v.DETECTOR, v.EXPOSURE, v.PATCH, v.TRACT, v.WCS)
    return kept.drop_vars(gone, errors="ignore").drop_attrs(deep=False)


def noise_correlation(kernel: Kernel, matrix: Any) -> float:
    """Return the sum of the autocorrelation of white noise after warping, over all lags.

    Examples
    --------
    >>> round(noise_correlation("lanczos3", [[1.0, 0.0], [0.0, 1.0]]), 3)
    1.253
    """
    turn = np.asarray(matrix, np.float64)
    narrow = float(np.linalg.svd(turn, compute_uv=False).min())
    lags = min(int(np.ceil(kernel_taps(kernel) / narrow)), MOST_LAGS)
    found = warp_noise_covariance(kernel, matrix=turn, size=2 * lags + 1)
    return max(1.0, float(found.sum()) / float(found.values[lags, lags]))


def frames_of(frames: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield the frames of a visit in memory, one detector after the other, as they are merged."""
    names = [str(name).rjust(12) for name in frames[v.DETECTOR].values]
    for index in sorted(range(len(names)), key=names.__getitem__):
        one = frames.isel({v.DETECTOR: index})
        planes = [name for name in ("image", "variance", v.MASK) if name in one]
        # A detector that is smaller than others was filled up with pixels that have no data.
        yield one[planes].drop_vars([v.AMP], errors="ignore").load()


def calibrated(frame: xr.Dataset, units: str) -> xr.Dataset:
    """Return a frame in electron as flux: electrons per second, or nJy by its zero point.

    Raises
    ------
    ValueError
        If the exposure time is not positive, or the zero point is needed and unknown.
    """
    seconds = float(frame["exposure_time"]) if "exposure_time" in frame.coords else np.nan
    if not seconds > 0:
        raise ValueError(f"exposure_time must be positive to make a flux, got {seconds} s")
    scale = 1.0 / seconds
    if units == v.NANOJANSKY:
        scale *= zero_point_scale(float(frame["zero_point"]))
    image = (frame["image"] * np.float32(scale)).assign_attrs(units=units)
    variance = (frame["variance"] * np.float32(scale**2)).assign_attrs(units=squared_units(units))
    return frame.assign(image=image, variance=variance)


def _without_data(status: xr.Dataset, planes: xr.Dataset) -> xr.Dataset:
    """Return the warp of an exposure that has no good pixel in a patch after all."""
    fraction = xr.ones_like(planes["image"]).assign_attrs(units=v.DIMENSIONLESS)
    planes = planes.assign(masked_fraction=fraction)
    return status.assign(planes.data_vars).assign(good_count=((), np.int64(0), {"units": v.PIXEL}))


def warp_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how much of a patch an exposure covers, and its level and noise there."""
    image, variance = block["image"].values, block["variance"].values
    good = np.isfinite(image)
    some = good.any()
    return {
        "covered": float(good.mean()),
        "median": float(np.median(image[good])) if some else None,
        "noise": float(np.sqrt(np.median(variance[good]))) if some else None,
    }


def coadded_patch(inputs: Inputs, parameters: CoaddBlockParameters) -> xr.Dataset:
    """Average the warps of a patch, without the artifacts that few of them show."""
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    warps = located(inputs["warps"], tract, patch)
    visits = warps[v.VISIT].values
    match = inputs.get("match")
    if match is not None:
        match = match.assign_attrs(tract_shape=list(tract.shape))
        status = match["status"].reindex({v.VISIT: visits}, fill_value=v.OffsetStatus.NOT_MEASURED)
        warps = warps.isel({v.VISIT: np.isin(status.values, MATCHED)})
        if not warps.sizes[v.VISIT]:
            raise NoUsableDataError(
                "the background of no visit was matched: see status of background_match"
            )
    found = None
    if parameters.artifacts is not None:
        found = _artifacts(inputs, warps, match, parameters)
    made = coadd(
        warps,
        artifacts=None if found is None else found["artifact_mask"],
        match=match,
        parameters=parameters.coadd,
    )
    made = made.assign(_inputs_of(made, found))
    if parameters.psf_points:
        made = made.assign(_psf_of(inputs, made, parameters))
    made = _with_all_inputs(made, visits)
    made = made.drop_vars(["input_scale"]).drop_attrs(deep=False)
    return made.drop_vars([name for name in made.coords if name != v.VISIT])


def _artifacts(
    inputs: Inputs,
    warps: xr.Dataset,
    match: xr.Dataset | None,
    parameters: CoaddBlockParameters,
) -> xr.Dataset:
    """Find the artifacts of warps by comparing those with one point-spread function."""
    matched = inputs.get("matched")
    usable = np.zeros(0, bool)
    if matched is not None:
        usable = np.isin(matched["match_status"].values, WITH_MATCH)
        usable &= np.isin(matched[v.VISIT].values, warps[v.VISIT].values)
    if matched is None or not usable.any():
        raise NoUsableDataError(
            "no warp of the patch could be brought to the common point-spread function: see "
            "match_status of matched_warps, and psf_status of psf"
        )
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    assert parameters.artifacts is not None
    return find_artifacts(
        located(matched, tract, patch).isel({v.VISIT: usable}),
        warps=warps,
        match=match,
        psf_sigma=parameters.target_fwhm / GAUSSIAN_FWHM,
        parameters=parameters.artifacts,
    )


def _inputs_of(made: xr.Dataset, found: xr.Dataset | None) -> dict[str, Any]:
    """Return what a product keeps of the artifacts of each visit, and why it was left out."""
    status = made["input_status"].values.astype(np.uint8)
    number, pixels = np.zeros(status.size, np.int32), np.zeros(status.size, np.int64)
    if found is not None:
        found = found.sel({v.VISIT: made[v.VISIT].values})
        lacking = found["input_status"].values == v.InputStatus.NO_MATCHED_WARP
        status[lacking] = v.InputStatus.NO_MATCHED_WARP
        number[:] = found["artifact_count"].values
        pixels[:] = found["artifact_pixels"].values
    return {
        "input_status": (v.VISIT, status, v.flag_attributes(v.InputStatus)),
        "artifact_count": (v.VISIT, number),
        "artifact_pixels": (v.VISIT, pixels, {"units": v.PIXEL}),
    }


def _with_all_inputs(made: xr.Dataset, visits: NDArray[Any]) -> xr.Dataset:
    """Return a coadd that also tells of the visits whose background was not matched."""
    if made.sizes[v.VISIT] == len(visits):
        return made
    table = made[[name for name in made.data_vars if v.VISIT in made[name].dims]]
    absent: dict[Any, Any] = {
        name: np.nan if values.dtype.kind == "f" else 0 for name, values in table.items()
    }
    absent |= {"input_weight": 0.0, "input_status": int(v.InputStatus.NO_OFFSET)}
    table = table.reindex({v.VISIT: np.sort(visits)}, fill_value=absent)
    return made.drop_dims(v.VISIT).assign(table.data_vars)


def _psf_of(inputs: Inputs, made: xr.Dataset, parameters: CoaddBlockParameters) -> dict[str, Any]:
    if "psfs" not in inputs:
        return {}
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    visits, weights = made[v.VISIT].values, made["input_weight"].values
    return coadd_psf_variables(
        inputs["psfs"],
        {int(visit): float(weight) for visit, weight in zip(visits, weights, strict=True)},
        tract,
        patch,
        spacing=parameters.psf_spacing,
        points=parameters.psf_points,
    )


WITH_MATCH = [int(code) for code in (v.MatchStatus.OK, v.MatchStatus.POOR_KERNEL)]
"""Statuses of matched warps that have data."""


def coadd_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return coverage and noise of a coadd, and how many visits it is made of."""
    image, variance = block["image"].values, block["variance"].values
    good = np.isfinite(image)
    clipped = (block[v.MASK].values & v.MASK_PLANES["CLIPPED"]) != 0
    return {
        "covered": float(good.mean()),
        "noise": float(np.sqrt(np.median(variance[good]))) if good.any() else None,
        "visits": int((block["input_weight"].values > 0).sum()),
        "clipped": float(clipped.mean()),
        "artifacts": int(block["artifact_count"].values.sum()),
        **({"fwhm": median_of(block["fwhm"].values)} if "fwhm" in block else {}),
    }
