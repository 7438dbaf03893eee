"""Point-spread functions as tasks make them: measured, warped, matched, and those of coadds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf import (
    MatchingParameters,
    PsfInput,
    PsfMeasurementParameters,
    coadd_psf_grid,
    inside,
    local_map,
    match_detectors,
    measure_psf,
    psf_at_points,
    psf_fwhm,
    warp_psf,
)
from skyloom.algorithms.skymap import Patch, SkyMapParameters, Tract
from skyloom.algorithms.units import squared_units
from skyloom.algorithms.warp.positions import sky_pixels
from skyloom.algorithms.warp.resampling import Kernel
from skyloom.flows.patches import patch_of
from skyloom.flows.step import Constant
from skyloom.storage.records import Label
from skyloom.storage.warp_schemas import CORNER

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = [
    "NUMBERS",
    "MatchedWarpParameters",
    "WarpPsfParameters",
    "coadd_points",
    "coadd_psf_variables",
    "located",
    "match_psf_quality",
    "matched_warp",
    "measured_psf",
    "median_of",
    "psf_quality",
    "warp_psf_quality",
    "warped_psf",
    "without_data",
]

Inputs = Mapping[str, xr.Dataset]
Floats = NDArray[np.float64]
SEVERITY = (
    v.MatchStatus.OK,
    v.MatchStatus.POOR_KERNEL,
    v.MatchStatus.NO_PSF,
    v.MatchStatus.TARGET_TOO_NARROW,
)


class WarpPsfParameters(Parameters):
    """How the point-spread functions of an exposure become those of a warp."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    kernel: Kernel = Field("lanczos3", description="with which the exposure was resampled")
    points: int = Field(1, ge=1, description="most points of a patch")


class MatchedWarpParameters(Parameters):
    """How a warp is brought to another point-spread function."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    target_fwhm: float = Field(7.7, gt=0, description="FWHM of the Gaussian that it gets, pixel")
    matching: MatchingParameters = Field(
        MatchingParameters(), description="how kernels are made and applied"
    )


def measured_psf(inputs: Inputs, parameters: PsfMeasurementParameters) -> xr.Dataset:
    """Measure the point-spread function of a frame."""
    frame = inputs["frame"]
    found = measure_psf(frame[["image", "variance", v.MASK]], parameters=parameters)
    found = found.reset_coords(["x", "y"]).rename(x="point_x", y="point_y")
    shape = {name: frame.sizes[dim] for name, dim in (("row_count", v.Y), ("column_count", v.X))}
    kept = {
        name: coord
        for name, coord in frame.coords.items()
        if coord.ndim == 0 and name not in found and name not in shape
    }
    found = found.assign(
        {name: ((), np.int32(side), {"units": v.PIXEL}) for name, side in shape.items()}
    )
    found["psf"] = found["psf"].astype(np.float32)
    return found.assign_coords(kept).drop_vars([v.EXPOSURE, v.DETECTOR], errors="ignore")


def psf_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return width and number of stars of a point-spread function."""
    return {
        "fwhm": median_of(block["fwhm"].values),
        "stars": int(block["star_count"].values.sum()),
        "residual": median_of(block["psf_residual"].values),
    }


def median_of(values: Floats) -> float | None:
    """Return the median of finite values, None without one."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def detector_numbers(store: Store, block: Mapping[str, Label]) -> xr.Dataset:
    """Return the places of detectors among those of the camera."""
    names = list(store.camera.detector_names())
    return xr.Dataset({"number": (v.DETECTOR, np.arange(len(names)))}, coords={v.DETECTOR: names})


NUMBERS = Constant("numbers", detector_numbers)


def warped_psf(inputs: Inputs, parameters: WarpPsfParameters) -> xr.Dataset:
    """Bring the point-spread functions of the detectors of an exposure to pixels of a tract.

    A detector without one gets the mean of those of the others on the patch.
    """
    tract, _ = patch_of(parameters.sky_map, inputs["place"])
    psf = inputs["psf"]
    number = inputs["numbers"]["number"].sel({v.DETECTOR: psf[v.DETECTOR].values}).values
    count, side = parameters.points, psf.sizes[v.PSF_Y]
    images = np.full((count, side, side), np.nan)
    places, corners = np.full((2, count), np.nan), np.full((2, count, 4), np.nan)
    detectors = np.full(count, -1, np.int32)
    status = np.full(count, int(v.PsfStatus.NOT_MEASURED), np.uint8)
    index = 0
    for row in range(psf.sizes[v.DETECTOR]):
        one = psf.isel({v.DETECTOR: row})
        pixels = sky_pixels(json.loads(str(one[v.WCS].values)))
        height, width = int(one["row_count"]), int(one["column_count"])
        outline = (
            np.array([-0.5, width - 0.5, width - 0.5, -0.5]),
            np.array([-0.5, -0.5, height - 0.5, height - 0.5]),
        )
        x, y = tract.plane.to_pixels(*pixels.to_sky(one["point_x"].values, one["point_y"].values))
        here = local_map(pixels, tract.plane, x, y)
        for point in range(one.sizes[v.POINT]):
            places[:, index] = x[point], y[point]
            corners[:, index] = tract.plane.to_pixels(*pixels.to_sky(*outline))
            detectors[index] = number[row]
            status[index] = one["psf_status"].values[point]
            stamp = one["psf"].isel({v.POINT: point})
            if np.isfinite(stamp.values).all():
                images[index] = warp_psf(
                    stamp, here.matrix[point], kernel=parameters.kernel, size=side
                ).values
            index += 1
    known = np.isfinite(images).all(axis=(1, 2))
    lacking = ~known & (detectors >= 0)
    if known.any() and lacking.any():
        images[lacking] = images[known].mean(axis=0)
        status[lacking] = int(v.PsfStatus.NEIGHBOURS)
    stamps = xr.DataArray(images, dims=(v.POINT, v.PSF_Y, v.PSF_X))
    pixel = {"units": v.PIXEL}
    return xr.Dataset(
        {
            "psf": stamps.astype(np.float32).assign_attrs(units=v.DIMENSIONLESS),
            "point_x": (v.POINT, places[0], pixel),
            "point_y": (v.POINT, places[1], pixel),
            "fwhm": psf_fwhm(stamps),
            "corner_x": ((v.POINT, CORNER), corners[0], pixel),
            "corner_y": ((v.POINT, CORNER), corners[1], pixel),
            "detector_number": (v.POINT, detectors),
            "psf_status": (v.POINT, status, v.flag_attributes(v.PsfStatus)),
        }
    )


def warp_psf_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the widths of the point-spread functions of a warp."""
    fwhm = block["fwhm"].values
    known = fwhm[np.isfinite(fwhm)]
    return {
        "fwhm": median_of(fwhm),
        "widest": float(known.max()) if known.size else None,
        "unknown": int((block["psf_status"].values == v.PsfStatus.TOO_FEW_STARS).sum()),
    }


def detectors_of(psf: xr.Dataset) -> Iterator[tuple[int, xr.Dataset, Floats]]:
    """Yield number, point-spread functions and corners (x, y) of each detector of a warp."""
    numbers = psf["detector_number"].values
    for number in sorted({int(one) for one in numbers if one >= 0}):
        own = psf.isel({v.POINT: numbers == number})
        corners = np.stack([own[f"corner_{axis}"].values[0] for axis in "xy"], axis=1)
        images = own["psf"].values.astype(np.float64)
        points = psf_at_points(images, own["point_x"].values, own["point_y"].values)
        yield number, points, corners


def located(warps: xr.Dataset, tract: Tract, patch: Patch) -> xr.Dataset:
    """Return warps that say where they are: box, projection and planes of the tract."""
    attrs = {"box": list(patch.outer), "wcs": tract.plane.header()}
    return warps[["image", "variance", v.MASK]].assign_attrs(attrs)


def matched_warp(inputs: Inputs, parameters: MatchedWarpParameters) -> xr.Dataset:
    """Bring a warp to the target, detector by detector: each has its own point-spread function."""
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    warp = located(inputs["warp"], tract, patch)
    units = str(warp["image"].attrs["units"])
    parts, psfs = [], []
    for number, psf, corners in detectors_of(inputs["psf"]):
        part = _inside(warp, corners, patch)
        if part is not None:
            parts.append(part.assign_coords({v.DETECTOR: number}))
            psfs.append(psf)
    made: xr.Dataset | None = None
    status, width, residual = v.MatchStatus.NO_PSF, np.nan, np.nan
    if parts:
        made = match_detectors(
            parts,
            psfs,
            parameters.target_fwhm,
            box=patch.outer,
            parameters=parameters.matching,
        )
        codes = [v.MatchStatus(int(code)) for code in made["match_status"].values]
        status = max(codes, key=SEVERITY.index)
        width, residual = (
            float(np.nanmax(values)) if np.isfinite(values).any() else np.nan
            for values in (made["input_fwhm"].values, made["match_residual"].values)
        )
    if made is None or "image" not in made:
        made = without_data(patch, units)
    planes = made[["image", "variance", v.MASK]].drop_attrs(deep=False)
    return planes.drop_vars(list(planes.coords)).assign(
        match_status=((), np.uint8(status), v.flag_attributes(v.MatchStatus)),
        input_fwhm=((), width, {"units": v.PIXEL}),
        target_fwhm=((), parameters.target_fwhm, {"units": v.PIXEL}),
        match_residual=((), residual, {"units": v.DIMENSIONLESS}),
    )


def _inside(warp: xr.Dataset, corners: Floats, patch: Patch) -> xr.Dataset | None:
    """Return the part of a warp around a detector, without data beside it, if there is one."""
    box = patch.outer
    x_start, y_start = np.maximum(
        np.floor(corners.min(axis=0)).astype(int), (box.x_start, box.y_start)
    )
    x_stop, y_stop = np.minimum(
        np.ceil(corners.max(axis=0)).astype(int) + 1, (box.x_stop, box.y_stop)
    )
    if x_start >= x_stop or y_start >= y_stop:
        return None
    rows, columns = (
        slice(y_start - box.y_start, y_stop - box.y_start),
        slice(x_start - box.x_start, x_stop - box.x_start),
    )
    part = warp.isel({v.Y: rows, v.X: columns})
    x, y = np.meshgrid(np.arange(x_start, x_stop), np.arange(y_start, y_stop))
    here = xr.DataArray(inside(corners, x, y), dims=(v.Y, v.X))
    if not (here & np.isfinite(part["image"])).any():
        return None
    mask = part[v.MASK].where(here, v.MASK_PLANES["NO_DATA"]).astype(np.int32)
    return part.assign(
        {
            "image": part["image"].where(here).assign_attrs(part["image"].attrs),
            "variance": part["variance"].where(here, np.inf).assign_attrs(part["variance"].attrs),
            v.MASK: mask.assign_attrs(part[v.MASK].attrs),
        }
    ).assign_attrs(box=[int(edge) for edge in (y_start, y_stop, x_start, x_stop)])


def without_data(patch: Patch, units: str) -> xr.Dataset:
    """Return the planes of a warp that has no data."""
    shape = patch.outer.shape
    filled: dict[str, tuple[Any, dict[str, Any]]] = {
        "image": (np.full(shape, np.nan, np.float32), {"units": units}),
        "variance": (np.full(shape, np.inf, np.float32), {"units": squared_units(units)}),
        v.MASK: (np.full(shape, v.MASK_PLANES["NO_DATA"], np.int32), v.mask_attributes()),
    }
    return xr.Dataset({name: ((v.Y, v.X), *given) for name, given in filled.items()})


def match_psf_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return whether a warp was matched, and how much of the patch it covers then."""
    return {
        "covered": float(np.isfinite(block["image"].values).mean()),
        "status": v.MatchStatus(int(block["match_status"])).name,
        "residual": median_of(np.atleast_1d(block["match_residual"].values)),
    }


def coadd_points(shape: tuple[int, int], spacing: int) -> int:
    """Return at how many points a coadd of a shape has a point-spread function.

    Examples
    --------
    >>> coadd_points((500, 1001), 500)
    3
    """
    return math.prod(-(-side // spacing) for side in shape)


def coadd_psf_variables(
    psfs: xr.Dataset,
    weights: Mapping[int, float],
    tract: Tract,
    patch: Patch,
    *,
    spacing: int,
    points: int,
) -> dict[str, Any]:
    """Return the point-spread functions of a coadd as its product keeps them.

    Parameters
    ----------
    psfs : Dataset, (visit, point, psf_y, psf_x)
        Of the warps.
    weights : mapping from visit to float
        With which they went into the coadd.
    tract, patch
        Where it is.
    spacing : int
        Largest distance of points, pixel.
    points : int
        How many the product has room for; those beyond are NaN.
    """
    inputs = [
        PsfInput(weight, tract.plane, psf, corners, visit=visit, detector=number)
        for visit, weight in weights.items()
        if weight > 0 and visit in psfs[v.VISIT].values
        for number, psf, corners in detectors_of(psfs.sel({v.VISIT: visit}))
    ]
    side = psfs.sizes[v.PSF_Y]
    grid = coadd_psf_grid(inputs, tract.plane, patch.outer, spacing=spacing, size=side)
    number = grid.sizes[v.POINT]
    images = np.full((points, side, side), np.nan, np.float32)
    places, count = np.full((2, points), np.nan), np.zeros(points, np.int32)
    images[:number] = grid["psf"].values
    places[:, :number] = grid["x"].values, grid["y"].values
    count[:number] = grid["input_count"].values
    stamps = xr.DataArray(images, dims=(v.POINT, v.PSF_Y, v.PSF_X))
    pixel = {"units": v.PIXEL}
    return {
        "psf": stamps.assign_attrs(units=v.DIMENSIONLESS),
        "point_x": (v.POINT, places[0], pixel),
        "point_y": (v.POINT, places[1], pixel),
        "fwhm": psf_fwhm(stamps),
        "psf_input_count": (v.POINT, count),
    }
