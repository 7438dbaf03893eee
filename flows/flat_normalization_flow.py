"""The flow ``flat_normalization``: raw flats to one flat of each filter and detector.

``flat_frames`` (exposure, detector) takes off bias and dark, ``flat_statistics`` (exposure,
detector) measures levels, ``flat_levels`` (exposure) brings them together, ``flat_scales`` (filter)
splits them into the light of each exposure and the response of each detector, ``flat`` (filter,
detector) divides the exposures by their light and averages them, tile by tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.combine import CombineParameters
from skyloom.algorithms.detrend import ScienceDetrendParameters
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    FlatStatisticsParameters,
    select_exposures,
)
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.camera_constants import AMPLIFIERS, CHANNELS
from skyloom.flows.detrend_flow import (
    CalibrationParameters,
    FlatCalibrationParameters,
    calibration_inputs,
    frame_step,
)
from skyloom.flows.flat_blocks import (
    FlatBlockParameters,
    Level,
    Normalization,
    ScaleBlockParameters,
    combined_flat,
    flat_levels,
    flat_quality,
    flat_scales,
    flat_statistics,
    scales_quality,
    statistics_quality,
)
from skyloom.flows.flow import Flow
from skyloom.flows.frame_blocks import combination_bytes, trimmed_sizes
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    of_types,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.step import Input, Labels, Reduction, Same, Step
from skyloom.storage.flat_schemas import FLAT_LEVELS, FLAT_STATISTICS, TERM, flat_scales_schema
from skyloom.storage.frame_schemas import FLAT, FLAT_FRAMES
from skyloom.storage.records import Label

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.store import Store

__all__ = ["FlatNormalizationConfiguration", "flat_normalization"]


class FlatNormalizationConfiguration(Parameters):
    """Everything that can be chosen about flats."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    select: dict[str, tuple[str, ...]] = Field(
        {},
        description="header values that flats must have, by name, such as observation_reason; "
        "upper and lower case are the same",
    )
    calibrations: FlatCalibrationParameters = Field(
        FlatCalibrationParameters(), description="which calibrations are applied to flats"
    )
    detrend: ScienceDetrendParameters = Field(
        ScienceDetrendParameters(), description="the chain from raw pixels to signal"
    )
    statistics: FlatStatisticsParameters = Field(
        FlatStatisticsParameters(), description="how levels are measured"
    )
    level: Level = Field("DETECTOR", description="what has a response: a detector, or amplifiers")
    scales: FlatScaleParameters = Field(
        FlatScaleParameters(), description="how levels are split into scales"
    )
    combine: CombineParameters = Field(
        CombineParameters(), description="how flats are clipped and averaged"
    )
    minimum: int = Field(3, ge=1, description="fewest flats that are combined")
    normalization: Normalization = Field(
        "focal_plane",
        description="focal_plane keeps the response of detectors relative to each other; detector "
        "or amp divides by their means",
    )
    lowest_response: float = Field(
        0.1,
        ge=0,
        description="pixels of a lower response, relative to the focal plane's mean, are BAD",
    )


def flat_normalization(
    store: Store, configuration: FlatNormalizationConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that makes the flats of a store.

    Parameters
    ----------
    store : Store
        With ingested flats, and a combined bias and dark: the flow `biases_darks` makes them.
    configuration : FlatNormalizationConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was ingested, no flat is chosen, or a required calibration is missing.
    NoUsableDataError
        If no flat has the header values asked for.
    ConfigurationError
        If the configuration is wrong, or selects a detector or header value that the store does
        not have.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> flat_normalization(create_store("memory://doctest-flat-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-flat-flow holds no exposures: \
ingest flats first (skyloom ingest)
    """
    configuration = configured(FlatNormalizationConfiguration, configuration)
    if configuration.detrend.units != v.ELECTRON:
        raise ConfigurationError(
            "detrend.units: flats are made of frames in electron, in which amplifiers compare"
        )
    table = selected_exposures(store, configuration.selection, what="flats")
    detectors = selected_detectors(store, configuration.selection)
    exposures = of_types(_with_headers(table, configuration.select), (v.FLAT,))
    if not exposures:
        raise StoreError(
            f"{store.url} has no flats among the exposures selected: ingest some, or look at "
            "`selection` and `select` in the configuration"
        )
    filters = exposures_by_filter(table, exposures)
    use = CalibrationParameters(flat="none", **dict(configuration.calibrations))
    calibrations, notes = calibration_inputs(store, use, table, exposures)
    few = [
        f"{len(members)} flats through {name or 'no known filter'} are fewer than `minimum`, "
        f"{configuration.minimum}: no flat is made of them"
        for name, members in filters.items()
        if len(members) < configuration.minimum
    ]
    # All flats lose the same bias and dark: their noise is added once, to the combination.
    noise = configuration.detrend.variance
    own_noise = configuration.detrend.model_copy(
        update={"variance": noise.model_copy(update={"calibrations": False})}
    )
    common = tuple(
        given for given in calibrations if noise.calibrations and given.name in ("bias", "dark")
    )
    frames = frame_step(store, FLAT_FRAMES, own_noise, exposures, detectors, calibrations)
    steps = (frames, *_level_steps(store, configuration, exposures, detectors, filters))
    steps += (_combination(store, configuration, detectors, filters, common),)
    return Flow("flat_normalization", store, steps, configuration, (*notes, *few))


def _with_headers(table: xr.Dataset, select: Mapping[str, tuple[str, ...]]) -> xr.Dataset:
    try:
        return select_exposures(table, select)
    except KeyError as error:
        raise ConfigurationError(f"select: {error.args[0]}") from error


def _level_steps(
    store: Store,
    configuration: FlatNormalizationConfiguration,
    exposures: Labels,
    detectors: Labels,
    filters: Mapping[str, Labels],
) -> tuple[Step, ...]:
    """Return the steps from frames to scales."""
    sizes = trimmed_sizes(store, detectors)
    pixels = sizes[v.Y] * sizes[v.X]
    amps = tuple(store.camera.amplifier_names())
    statistics = Step(
        flat_statistics,
        configuration.statistics,
        FLAT_STATISTICS,
        {v.EXPOSURE: exposures, v.DETECTOR: detectors, v.AMP: amps},
        (Same("frame", "flat_frames"), AMPLIFIERS),
        memory_bytes=20 * pixels,
        read_bytes=12 * pixels,
        quality=statistics_quality,
    )
    levels = Step(
        flat_levels,
        Parameters(),
        FLAT_LEVELS,
        {v.EXPOSURE: exposures, v.DETECTOR: detectors, v.AMP: amps},
        (Reduction("statistics", "flat_statistics", v.DETECTOR),),
        memory_bytes=4 * statistics.write_bytes * len(detectors),
        read_bytes=statistics.write_bytes * len(detectors),
    )
    of_amplifiers, order = configuration.level == "AMP", configuration.scales.gradient_order
    if order and store.camera.pixel_size is None:
        raise ConfigurationError(
            "scales.gradient_order: gradients need places in the focal plane, but the camera "
            f"{store.camera.name} has no pixel_size"
        )
    schema = flat_scales_schema(configuration.level, gradients=order > 0)
    longest = max(map(len, filters.values()))
    cells = len(detectors) * (len(amps) if of_amplifiers else 1) * longest
    scales = Step(
        flat_scales,
        ScaleBlockParameters(level=configuration.level, scales=configuration.scales),
        schema,
        {
            v.FILTER: tuple(filters),
            v.EXPOSURE: exposures,
            v.DETECTOR: detectors,
            **({v.AMP: amps} if of_amplifiers else {}),
        },
        (
            Reduction("levels", "flat_levels", v.EXPOSURE, among=(v.FILTER, _by_label(filters))),
            *((CHANNELS,) if of_amplifiers or order else ()),
        ),
        sizes={TERM: order + 1} if order else {},
        memory_bytes=80 * cells + levels.write_bytes * longest,
        read_bytes=levels.write_bytes * longest,
        quality=scales_quality,
    )
    return statistics, levels, scales


def _combination(
    store: Store,
    configuration: FlatNormalizationConfiguration,
    detectors: Labels,
    filters: Mapping[str, Labels],
    common: tuple[Input, ...],
) -> Step:
    longest = max(map(len, filters.values()))
    read, memory = combination_bytes(store, detectors, longest)
    among = (v.FILTER, _by_label(filters))
    return Step(
        combined_flat,
        FlatBlockParameters(
            combine=configuration.combine,
            minimum=configuration.minimum,
            normalization=configuration.normalization,
            lowest_response=configuration.lowest_response,
        ),
        FLAT,
        {v.FILTER: tuple(filters), v.DETECTOR: detectors},
        (
            Reduction(
                "frames", "flat_frames", v.EXPOSURE, configuration.minimum, among=among, lazy=True
            ),
            Same("scales", "flat_scales"),
            AMPLIFIERS,
            *common,
        ),
        sizes=trimmed_sizes(store, detectors),
        memory_bytes=memory,
        read_bytes=read,
        quality=flat_quality,
        revision=2,
    )


def _by_label(filters: Mapping[str, Labels]) -> dict[Label, Labels]:
    return dict(filters.items())
