"""The sky as the tasks of its flow make it: bins, focal planes, frames, fits, subtraction."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import (
    BackgroundParameters,
    measure_background,
)
from skyloom.algorithms.errors import DroppedInputWarning, NoUsableDataError
from skyloom.algorithms.focal_plane import box_corners, to_focal_plane
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky import (
    AverageParameters,
    FocalPlaneParameters,
    MaskObjectsParameters,
    SmoothSkyParameters,
    SolveScaleParameters,
    average_backgrounds,
    exposure_residuals,
    fit_visit_background,
    focal_plane_grid,
    mask_objects,
    mask_objects_beside_sky,
    sky_frame_residual,
    subtract_fit,
)
from skyloom.flows.frame_blocks import frame_quality
from skyloom.storage.sky_products import (
    background_of,
    polynomials_of,
    stored_background,
    stored_polynomials,
)

__all__ = [
    "FrameBlockParameters",
    "SecondBinsParameters",
    "SkyBinsParameters",
    "SubtractSkyParameters",
    "bins_quality",
    "fit_quality",
    "focal_plane",
    "focal_plane_quality",
    "second_sky_bins",
    "shared_grid",
    "sky_bins",
    "sky_fit",
    "sky_frame",
    "sky_frame_quality",
    "sky_subtracted",
    "subtracted_quality",
]

Inputs = Mapping[str, xr.Dataset]

MOST_ADDED: Final = 0.25
"""Part of a detector by which second masks may cover more than the first: wings of objects seldom
cover more, but a first sky that is wrong looks like objects itself."""


class SkyBinsParameters(Parameters):
    """How the sky of a detector is binned."""

    objects: MaskObjectsParameters = Field(
        MaskObjectsParameters(), description="how objects are found and masked"
    )
    background: BackgroundParameters = Field(
        BackgroundParameters(), description="how the other pixels are binned"
    )


class SecondBinsParameters(SkyBinsParameters):
    """How the sky of a detector is binned when a first sky frame is known."""

    smooth: SmoothSkyParameters = Field(description="what the smooth sky of exposures is")


class FrameBlockParameters(Parameters):
    """How bins of many exposures become a sky frame."""

    average: AverageParameters = Field(
        AverageParameters(), description="how exposures are averaged"
    )
    smooth: SmoothSkyParameters = Field(description="what the smooth sky of exposures is")


class SubtractSkyParameters(Parameters):
    """What of the fitted sky is taken off exposures."""

    undo_smooth: bool = Field(
        False, description="leave the smooth sky in the exposures: only the sky frame goes"
    )


def _transforms(places: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    names = [str(name) for name in places[v.DETECTOR].values]
    return dict(zip(names, places["transform"].values, strict=True))


def shared_grid(places: xr.Dataset, parameters: FocalPlaneParameters) -> xr.Dataset:
    """Return the cells that all exposures share: those of the whole camera."""
    transforms = _transforms(places)
    sizes = (tuple(map(int, shape)) for shape in places["shape"].values)
    shapes: dict[Any, tuple[int, int]] = dict(zip(transforms, sizes, strict=True))  # type: ignore[arg-type]
    return focal_plane_grid(
        transforms, shapes, cell_size=parameters.cell_size, alignment=parameters.alignment
    )


def _each(blocks: xr.Dataset, dim: str) -> dict[Any, xr.Dataset]:
    """Return the backgrounds of several blocks by their label; empty ones are left out."""
    found = {}
    for i, label in enumerate(blocks[dim].values.tolist()):
        found[label] = background_of(blocks.isel({dim: i}))
    return found


def sky_bins(inputs: Inputs, parameters: SkyBinsParameters) -> xr.Dataset:
    """Mask the objects of a frame and bin what is left."""
    frame = inputs["frame"]
    mask = mask_objects(frame[["image", "variance", v.MASK]], parameters=parameters.objects)
    return _bins_beside(frame, mask, parameters, passes=1)


def second_sky_bins(inputs: Inputs, parameters: SecondBinsParameters) -> xr.Dataset:
    """Mask the objects that a frame shows less its first sky, and bin the rest of the frame.

    The first bins stay if there is no first sky frame of the detector or no smooth sky of the
    exposure, or if that first sky is so wrong that much more would be masked.
    """
    first = inputs["first"]
    if "sky_frame" not in inputs or "sky" not in inputs:
        return first
    frame, sky = inputs["frame"], inputs["sky"].isel({v.EXPOSURE: 0})
    detector = str(frame[v.DETECTOR].values)
    mask = mask_objects_beside_sky(
        frame[["image", "variance", v.MASK]],
        background_of(inputs["sky_frame"].isel({v.DETECTOR: 0})),
        _smooth_sky(sky, inputs["places"], parameters.smooth),
        _transforms(inputs["places"])[detector],
        scale=float(sky["scale"]),
        detector=detector,
        parameters=parameters.objects,
    )
    if mask is None or _covered(mask) > float(first["masked_fraction"]) + MOST_ADDED:
        return first
    return _bins_beside(frame, mask, parameters, passes=2)


def _covered(mask: xr.DataArray) -> float:
    """Return the part of a detector that objects cover."""
    return float((mask & v.plane_bits(["DETECTED"]) != 0).mean())


def _bins_beside(
    frame: xr.Dataset, mask: xr.DataArray, parameters: SkyBinsParameters, *, passes: int
) -> xr.Dataset:
    """Return what a mask leaves of a frame in bins, as its product keeps it."""
    background = measure_background(
        frame[["image", "variance"]].assign({v.MASK: mask}), **dict(parameters.background)
    )
    names = ("level", "variance", "flags", "count", "count_used")
    return stored_background(background, names).assign_coords(
        masked_fraction=((), _covered(mask)),
        mask_passes=((), passes),
    )


def _smooth_sky(sky: xr.Dataset, places: xr.Dataset, smooth: SmoothSkyParameters) -> xr.Dataset:
    """Return the smooth sky of an exposure as algorithms know it, from its block."""
    if smooth.cells is None:
        return polynomials_of(sky)
    grid = shared_grid(places, smooth.cells)
    model = grid.assign({name: sky[name] for name in ("level", "variance", "flags")})
    model.attrs["interpolation"] = smooth.cells.interpolation
    return model


def bins_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the level of the sky, how much of it objects and empty bins cover, and how found."""
    level = block["level"].values
    good = np.isfinite(level)
    return {
        "level": float(np.median(level[good])) if good.any() else None,
        "masked_fraction": float(block["masked_fraction"]),
        "empty_bins": int((~good).sum()),
        "mask_passes": int(block["mask_passes"]),
    }


def focal_plane(inputs: Inputs, parameters: SmoothSkyParameters) -> xr.Dataset:
    """Make one smooth sky of the bins of all detectors of an exposure."""
    places = inputs["places"]
    backgrounds = _each(inputs["bins"], v.DETECTOR)
    found = exposure_residuals(
        backgrounds,
        {name: _transforms(places)[name] for name in backgrounds},
        parameters=parameters,
        focal_box=_focal_box(places),
        grid=None if parameters.cells is None else shared_grid(places, parameters.cells),
    )
    electron = {"units": v.ELECTRON}
    scalars = {
        "scale": ((), found.scale, electron),
        "scale_sigma": ((), found.scale_sigma, electron),
    }
    if parameters.cells is not None:
        planes = found.model[["level", "variance", "flags"]]
        return planes.drop_vars(list(planes.coords)).assign(scalars)
    with_steps = parameters.steps == "detector"
    names = ["coefficients", "step", *([v.DETECTOR] if with_steps else [])]
    stored = stored_polynomials(found.model[names], steps=with_steps)
    return stored.assign(scalars)


def focal_plane_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the sky level of an exposure and its error."""
    return {name: float(block[name]) for name in ("scale", "scale_sigma")}


def sky_frame(inputs: Inputs, parameters: FrameBlockParameters) -> xr.Dataset:
    """Average what exposures show beside their smooth sky, in units of it."""
    bins, skies, places = inputs["bins"], inputs["skies"], inputs["places"]
    detector = str(bins[v.DETECTOR].values)
    transform = _transforms(places)[detector]
    common = [e for e in bins[v.EXPOSURE].values if e in skies[v.EXPOSURE].values]
    backgrounds = _each(bins.sel({v.EXPOSURE: common}), v.EXPOSURE)
    residuals, left_out = [], []
    for exposure, background in backgrounds.items():
        sky = skies.sel({v.EXPOSURE: exposure})
        model = _smooth_sky(sky, places, parameters.smooth)
        scale, sigma = float(sky["scale"]), float(sky["scale_sigma"])
        residual = sky_frame_residual(
            background, model, transform, scale=scale, scale_sigma=sigma, detector=detector
        )
        status = v.SkyLevelStatus(int(residual["sky_status"]))
        if status != v.SkyLevelStatus.OK:
            left_out.append(f"{exposure} ({status.name}: {scale:.4g} ± {sigma:.2g} electron)")
        residuals.append(residual.assign_coords({v.EXPOSURE: exposure}))
    if left_out:
        warnings.warn(
            f"the sky of exposures {', '.join(left_out)} is no measure of a pattern: they are "
            f"not in the sky frame of {detector}",
            DroppedInputWarning,
            stacklevel=2,
        )
    frame = average_backgrounds(residuals, parameters=parameters.average)
    used = len(residuals) - len(left_out)
    return stored_background(frame, ("level", "variance", "flags", "exposure_count")).assign_coords(
        id=f"sky frame of {detector} from {used} exposures"
    )


def sky_frame_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the strength of a sky frame, its noise, and how much of it was measured."""
    level, variance = block["level"].values, block["variance"].values
    good = np.isfinite(level) & (block["exposure_count"].values > 0)
    return {
        "rms": float(np.std(level[good])) if good.any() else None,
        "noise": float(np.sqrt(np.nanmedian(variance[good]))) if good.any() else None,
        "unmeasured_bins": int((~good).sum()),
        "exposures": int(block["exposure_count"].max()),
    }


def sky_fit(inputs: Inputs, parameters: SolveScaleParameters) -> xr.Dataset:
    """Fit sky frame and smooth sky together to the bins of all detectors of an exposure."""
    places = inputs["places"]
    backgrounds, frames = _each(inputs["bins"], v.DETECTOR), _each(inputs["frames"], v.DETECTOR)
    names = [name for name in backgrounds if name in frames]
    if not names:
        raise NoUsableDataError(
            f"no detector has both bins and a sky frame: there are bins of "
            f"{', '.join(map(str, backgrounds))} and frames of {', '.join(map(str, frames))}"
        )
    transforms = {name: _transforms(places)[name] for name in names}
    chosen = {name: backgrounds[name] for name in names}
    box = _focal_box(places)
    level = float(inputs["sky"]["scale"])
    fit = fit_visit_background(
        chosen,
        transforms,
        sky_frames={name: frames[name] for name in names},
        focal_box=box,
        level=level,
        parameters=parameters,
    )
    smooth = fit_visit_background(chosen, transforms, focal_box=box, parameters=parameters)
    electron = {"units": v.ELECTRON}
    scalars = {"level": ((), level, electron), "rms_before": ((), float(smooth["rms"]), electron)}
    found = stored_polynomials(fit, steps=parameters.steps == "detector").assign(scalars)
    found["status"].attrs.setdefault("units", v.DIMENSIONLESS)
    return found


def _focal_box(places: xr.Dataset) -> tuple[float, float, float, float]:
    """Return the box (mm) around all detectors, x first."""
    corners = []
    for transform, (height, width) in zip(
        places["transform"].values, places["shape"].values, strict=True
    ):
        corners.append(np.stack(to_focal_plane(transform, *box_corners(0, height, 0, width))))
    points = np.concatenate(corners, axis=1)
    return (
        float(points[0].min()),
        float(points[0].max()),
        float(points[1].min()),
        float(points[1].max()),
    )


def fit_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the scale of an exposure, its error, and the residuals before and after."""
    names = ("scale", "scale_sigma", "level", "rms_before", "rms", "collinearity")
    status = v.ScaleStatus(int(block["status"])).name
    return {**{name: float(block[name]) for name in names}, "status": status}


def sky_subtracted(inputs: Inputs, parameters: SubtractSkyParameters) -> xr.Dataset:
    """Take sky frame and, unless it is to stay, smooth sky of a fit off a frame."""
    frame, fit, places = inputs["frame"], inputs["fit"], inputs["places"]
    detector = str(frame[v.DETECTOR].values)
    less: xr.Dataset
    less, layers = subtract_fit(
        frame,
        polynomials_of(fit),
        sky_frame=background_of(inputs["sky_frame"]),
        transform=_transforms(places)[detector],
        detector=detector,
        smooth=not parameters.undo_smooth,
    )
    applied = [*frame.attrs.get("applied", []), f"sky: {len(layers)} layers"]
    return less.assign_attrs(applied=applied)


def subtracted_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return the median of what is left of the sky, beside what frames are told of."""
    image = block["image"].values
    good = np.isfinite(image)
    return {**frame_quality(block), "median": float(np.median(image[good])) if good.any() else None}
