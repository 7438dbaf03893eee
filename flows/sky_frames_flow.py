"""The flow ``sky_frames``: detrended exposures to sky frames, and exposures without their sky.

Building: ``sky_bins`` (exposure, detector) masks objects and bins the rest, ``focal_plane_sky``
(exposure) makes one smooth sky of all detectors, ``sky_frame`` (filter, detector) averages what
exposures show beside it. It is done twice: ``first_...`` products are made of masks found beside
no frame, and the others of masks found on exposures less that first sky. Applying: ``sky_fit``
(exposure) fits sky frame and smooth sky together, ``sky_subtracted`` (exposure, detector) takes
both off. Pixels are read once for each mask, and to subtract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.background import BackgroundParameters, bin_count, measure_background
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky import (
    AverageParameters,
    FocalPlaneParameters,
    MaskObjectsParameters,
    SmoothSkyParameters,
    SolveScaleParameters,
)
from skyloom.flows.camera_constants import PLACES, geometry
from skyloom.flows.flow import Flow
from skyloom.flows.frame_blocks import trimmed_sizes
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.sky_blocks import (
    FrameBlockParameters,
    SecondBinsParameters,
    SkyBinsParameters,
    SubtractSkyParameters,
    bins_quality,
    fit_quality,
    focal_plane,
    focal_plane_quality,
    second_sky_bins,
    shared_grid,
    sky_bins,
    sky_fit,
    sky_frame,
    sky_frame_quality,
    sky_subtracted,
    subtracted_quality,
)
from skyloom.flows.step import Labels, Lookup, Reduction, Same, Step
from skyloom.storage.frame_schemas import frame_schema
from skyloom.storage.records import Label
from skyloom.storage.sky_schemas import (
    SKY_BINS,
    SKY_FRAME,
    first_of,
    focal_plane_sky_schema,
    sky_fit_schema,
)

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["SkyFramesConfiguration", "sky_frames"]


class SkyFramesConfiguration(Parameters):
    """Everything that can be chosen about sky frames."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    objects: MaskObjectsParameters = Field(
        MaskObjectsParameters(background_bin=32),
        description="how objects are found and masked beside no sky frame; the structure that is "
        "looked for must be flat in the bins of their background, or it is taken for objects",
    )
    passes: Literal[1, 2] = Field(
        2,
        description="1: objects are found once, beside no sky frame, and an exposure more costs "
        "only itself; 2: found again on exposures less a first sky, from which all is made",
    )
    objects_again: MaskObjectsParameters = Field(
        MaskObjectsParameters(background_bin=128),
        description="how objects are found beside the first sky; larger bins keep more of wings",
    )
    background: BackgroundParameters = Field(
        BackgroundParameters(), description="how the other pixels are binned"
    )
    focal_plane: FocalPlaneParameters | None = Field(
        None,
        description="cells of the smooth sky that is taken off when frames are built; by default "
        "it is what `solve` fits: what cells follow beyond that stays in exposures",
    )
    average: AverageParameters = Field(
        AverageParameters(), description="how exposures are averaged to a frame"
    )
    solve: SolveScaleParameters = Field(
        SolveScaleParameters(order=2),
        description="how sky frame and smooth sky are fitted; template_noise is not corrected for: "
        "exposures are part of their frame, and share its noise",
    )
    undo_smooth: bool = Field(
        False,
        description="leave the smooth sky in the exposures: it is fitted with the sky frame, which "
        "alone is subtracted",
    )
    minimum_exposures: int = Field(3, ge=1, description="fewest exposures of a sky frame")


def sky_frames(
    store: Store, configuration: SkyFramesConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that builds sky frames of a store and takes the sky off its exposures.

    Parameters
    ----------
    store : Store
        With detrended exposures: the flow `detrend` makes them.
    configuration : SkyFramesConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was detrended.
    ConfigurationError
        If the configuration is wrong, selects a detector that the store does not have, or the
        camera does not say how large its pixels are.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> sky_frames(create_store("memory://doctest-sky-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-sky-flow holds no exposures: \
ingest exposures first (skyloom ingest)
    """
    configuration = configured(SkyFramesConfiguration, configuration)
    table = selected_exposures(store, configuration.selection)
    detectors = selected_detectors(store, configuration.selection)
    if "detrended" not in store:
        raise StoreError(
            f"{store.url} has no product 'detrended': run the flow detrend first "
            "(skyloom run STORE detrend)"
        )
    if store.schema("detrended").variable("image").unit != v.ELECTRON:
        raise ConfigurationError("sky frames are made of detrended frames in electron, not adu")
    known = set(store.labels("detrended")[v.EXPOSURE])
    exposures = tuple(int(e) for e in table[v.EXPOSURE].values if int(e) in known)
    if not exposures:
        raise StoreError(f"{store.url} has no detrended exposures among those selected")
    _check_bins(store, configuration.background, detectors)
    smooth = _smooth_sky(store, configuration, detectors)
    filters = exposures_by_filter(table, exposures)
    steps = _steps(store, configuration, smooth, exposures, detectors, filters)
    return Flow("sky_frames", store, steps, configuration)


def _check_bins(store: Store, background: BackgroundParameters, detectors: Labels) -> None:
    """Raise ConfigurationError if detectors cannot be binned so, before any of them is."""
    import dask.array  # heavy

    tables = (store.camera.amplifiers(str(name)) for name in detectors)
    for shape in {trimmed_shape(amplifier_rows(table)) for table in tables}:
        # Lazy: all that can be wrong is found without a pixel.
        zeros = xr.DataArray(dask.array.zeros(shape, np.float32, chunks=-1), dims=(v.Y, v.X))
        mask = zeros.astype(np.int32).assign_attrs(v.mask_attributes())
        empty = xr.Dataset({"image": zeros, "variance": zeros, v.MASK: mask})
        try:
            measure_background(empty, **dict(background))
        except (ConfigurationError, ValueError, KeyError) as error:
            raise ConfigurationError(f"background: {error.args[0]}") from error


def _smooth_sky(
    store: Store, configuration: SkyFramesConfiguration, detectors: Labels
) -> SmoothSkyParameters:
    """Return the polynomials that `solve` fits, or the cells chosen, none smaller than a bin."""
    solve, given = configuration.solve, configuration.focal_plane
    if solve.steps == "type":
        raise ConfigurationError("solve.steps: cameras have no detector types; use detector")
    if solve.mode == "compat":
        raise ConfigurationError(
            "solve.mode: compat fits samples of a sky frame alone (`solve_scales`), and the flow "
            "smooth sky beside it: use joint"
        )
    if solve.order is None:
        raise ConfigurationError(
            "solve.order: without a smooth sky exposures have no level that a sky frame is in "
            "units of: give 0 or more"
        )
    if given is None:
        return SmoothSkyParameters(order=solve.order, steps=solve.steps)
    pixel = 1e-3 * float(store.camera.pixel_size or 0.0)
    places = geometry(store, {})
    shapes = dict(zip(places[v.DETECTOR].values, places["shape"].values.tolist(), strict=True))
    # As `focal_plane_background` does, bins are compared by their shorter side.
    largest = pixel * max(
        min(
            size / number
            for size, number in zip(
                shapes[name], _bins(configuration.background, shapes[name]), strict=True
            )
        )
        for name in detectors
    )
    if min(given.cell_size) * (1.0 + 1e-6) < largest:
        raise ConfigurationError(
            f"focal_plane.cell_size: cells of {given.cell_size} mm are smaller than bins of "
            f"{largest:.4g} mm; make them larger, or background.bin_size smaller"
        )
    return SmoothSkyParameters(cells=given)


def _bins(background: BackgroundParameters, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the number of bins along each axis of a detector."""
    rows, columns = background.bins or (None, None)
    return (
        rows or bin_count(shape[0], background.bin_size[0], rule=background.grid_rule),
        columns or bin_count(shape[1], background.bin_size[1], rule=background.grid_rule),
    )


def _steps(
    store: Store,
    configuration: SkyFramesConfiguration,
    smooth: SmoothSkyParameters,
    exposures: Labels,
    detectors: Labels,
    filters: Mapping[str, Labels],
) -> tuple[Step, ...]:
    sizes = trimmed_sizes(store, detectors)
    pixels = sizes[v.Y] * sizes[v.X]
    background = configuration.background
    numbers = _bins(background, (sizes[v.Y], sizes[v.X]))
    bins = dict(zip((v.BIN_Y, v.BIN_X), numbers, strict=True))
    by_filter: dict[Label, Labels] = dict(filters.items())
    filter_of: dict[Label, Label] = {e: name for name, each in filters.items() for e in each}
    frame = {v.EXPOSURE: exposures, v.DETECTOR: detectors}
    order, steps = configuration.solve.order or 0, configuration.solve.steps == "detector"
    terms = (order + 1) * (order + 2) // 2
    among = (v.FILTER, by_filter)
    minimum = configuration.minimum_exposures
    longest = max(map(len, filters.values()))
    bins_step = Step(
        sky_bins,
        SkyBinsParameters(objects=configuration.objects, background=background),
        SKY_BINS,
        frame,
        (Same("frame", "detrended"),),
        sizes=bins,
        memory_bytes=40 * pixels,
        read_bytes=12 * pixels,
        quality=bins_quality,
    )
    plane_step = Step(
        focal_plane,
        smooth,
        focal_plane_sky_schema(cells=smooth.cells is not None, steps=steps),
        frame if steps else {v.EXPOSURE: exposures},
        (Reduction("bins", "sky_bins", v.DETECTOR), PLACES),
        sizes=_cells(store, smooth.cells) if smooth.cells else {v.COEFFICIENT: terms},
        memory_bytes=20 * bins_step.write_bytes * len(detectors),
        read_bytes=bins_step.write_bytes * len(detectors),
        quality=focal_plane_quality,
    )
    frame_step = Step(
        sky_frame,
        FrameBlockParameters(average=configuration.average, smooth=smooth),
        SKY_FRAME,
        {v.FILTER: tuple(filters), v.DETECTOR: detectors},
        (
            Reduction("bins", "sky_bins", v.EXPOSURE, minimum, among=among),
            Reduction("skies", "focal_plane_sky", v.EXPOSURE, minimum, among=among),
            PLACES,
        ),
        sizes=bins,
        memory_bytes=10 * bins_step.write_bytes * longest,
        read_bytes=bins_step.write_bytes * longest,
        quality=sky_frame_quality,
    )
    first: tuple[Step, ...] = ()
    if configuration.passes == 2:
        first = _first_steps(bins_step, plane_step, frame_step)
        bins_step = _second_bins(bins_step, configuration, smooth, filter_of, pixels)
    fit_step = Step(
        sky_fit,
        # An exposure is part of its frame: what the frame's noise takes from the scale, the noise
        # that both share gives back.
        configuration.solve.model_copy(update={"template_noise": False}),
        sky_fit_schema(steps=steps),
        {v.EXPOSURE: exposures, v.DETECTOR: detectors},
        (
            Reduction("bins", "sky_bins", v.DETECTOR),
            Reduction("frames", "sky_frame", v.DETECTOR, at=(v.EXPOSURE, v.FILTER, filter_of)),
            Same("sky", "focal_plane_sky"),
            PLACES,
        ),
        sizes={v.COEFFICIENT: terms, f"{v.COEFFICIENT}_2": terms},
        memory_bytes=math.ceil(40 + 16 * terms) * 8 * math.prod(bins.values()) * len(detectors),
        read_bytes=2 * bins_step.write_bytes * len(detectors),
        quality=fit_quality,
        revision=2,
    )
    subtract_step = Step(
        sky_subtracted,
        SubtractSkyParameters(undo_smooth=configuration.undo_smooth),
        frame_schema("sky_subtracted", v.ELECTRON, "exposures less their sky"),
        {**frame, v.AMP: tuple(store.camera.amplifier_names())},
        (
            Same("frame", "detrended"),
            Same("fit", "sky_fit"),
            Lookup("sky_frame", "sky_frame", v.EXPOSURE, v.FILTER, filter_of),
            PLACES,
        ),
        sizes=sizes,
        memory_bytes=28 * pixels,
        read_bytes=12 * pixels,
        quality=subtracted_quality,
    )
    return (*first, bins_step, plane_step, frame_step, fit_step, subtract_step)


def _first_steps(bins: Step, plane: Step, frame: Step) -> tuple[Step, ...]:
    """Return steps that do the same to products of their own."""
    return tuple(
        replace(
            step,
            schema=first_of(step.schema),
            inputs=tuple(
                replace(item, product=f"first_{item.product}")
                if isinstance(item, Reduction)
                else item
                for item in step.inputs
            ),
        )
        for step in (bins, plane, frame)
    )


def _second_bins(
    first: Step,
    configuration: SkyFramesConfiguration,
    smooth: SmoothSkyParameters,
    filter_of: Mapping[Label, Label],
    pixels: int,
) -> Step:
    """Return the step that masks beside a first sky, where there is one."""
    own_exposure = (v.EXPOSURE, {e: (e,) for e in first.labels[v.EXPOSURE]})
    own_detector = (v.DETECTOR, {d: (d,) for d in first.labels[v.DETECTOR]})
    at = (v.EXPOSURE, v.FILTER, filter_of)
    return replace(
        first,
        algorithm=second_sky_bins,
        parameters=SecondBinsParameters(
            objects=configuration.objects_again,
            background=configuration.background,
            smooth=smooth,
        ),
        # Reductions of one block each, because that one may be missing.
        inputs=(
            *first.inputs,
            Same("first", "first_sky_bins"),
            Reduction("sky", "first_focal_plane_sky", v.EXPOSURE, 0, among=own_exposure),
            Reduction("sky_frame", "first_sky_frame", v.DETECTOR, 0, among=own_detector, at=at),
            PLACES,
        ),
        memory_bytes=52 * pixels,
    )


def _cells(store: Store, plane: FocalPlaneParameters) -> dict[str, int]:
    grid = shared_grid(geometry(store, {}), plane)
    return {dim: int(grid.sizes[dim]) for dim in (v.FOCAL_Y, v.FOCAL_X)}
