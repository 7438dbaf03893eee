"""The flow ``detrend``: raw exposures to frames fit for science, one block per detector."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend import ScienceDetrendParameters
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.camera_constants import AMPLIFIERS
from skyloom.flows.flow import Flow
from skyloom.flows.frame_blocks import (
    detrended_frame,
    frame_bytes,
    frame_quality,
    trimmed_sizes,
)
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    of_types,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.step import Constant, Input, Labels, Lookup, Same, Step
from skyloom.storage.corrections import Corrections, read_corrections
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.frame_schemas import frame_schema
from skyloom.storage.records import Label

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.store import Store

__all__ = [
    "CalibrationParameters",
    "DetrendConfiguration",
    "FlatCalibrationParameters",
    "detrend",
    "frame_step",
]

Use = Literal["auto", "required", "none"]


class FlatCalibrationParameters(Parameters):
    """Which calibrations of the store are applied to flats: auto takes those that it has."""

    bias: Use = Field("auto", description="combined bias")
    dark: Use = Field("auto", description="combined dark, scaled by the dark time")
    gain: Use = Field("auto", description="measured gains and noises, else those of the camera")
    brighter_fatter: Use = Field("none", description="kernel of the brighter-fatter effect")
    corrections: str | None = Field(
        None, description="YAML file with crosstalk, linearity and defects by detector"
    )


class CalibrationParameters(FlatCalibrationParameters):
    """Which calibrations of the store are applied: auto takes those that it has."""

    flat: Use = Field("auto", description="combined flat of the exposure's filter")


PRODUCTS: Mapping[str, str] = {
    "bias": "bias",
    "dark": "dark",
    "flat": "flat",
    "gain": "ptc",
    "brighter_fatter": "brighter_fatter",
}
"""The product that holds each calibration."""


class DetrendConfiguration(Parameters):
    """Everything that can be chosen about detrending."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    types: tuple[str, ...] = Field(
        (v.SCIENCE,), description="observation types of the exposures that are detrended"
    )
    calibrations: CalibrationParameters = Field(
        CalibrationParameters(), description="which calibrations are applied"
    )
    detrend: ScienceDetrendParameters = Field(
        ScienceDetrendParameters(), description="the chain from raw pixels to signal"
    )


def detrend(
    store: Store, configuration: DetrendConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that detrends exposures of a store.

    Parameters
    ----------
    store : Store
        With ingested exposures, and calibrations if earlier flows made some.
    configuration : DetrendConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was ingested, no exposure is chosen, or a required calibration is missing.
    ConfigurationError
        If the configuration or its file of corrections is wrong, or it selects a detector that
        the store does not have.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> detrend(create_store("memory://doctest-detrend-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-detrend-flow holds no exposures: \
ingest exposures first (skyloom ingest)
    """
    configuration = configured(DetrendConfiguration, configuration)
    unknown = [name for name in configuration.types if name not in v.OBSERVATION_TYPES]
    if unknown:
        raise ConfigurationError(
            f"types: {', '.join(unknown)} are no observation types; there are "
            f"{', '.join(v.OBSERVATION_TYPES)}"
        )
    table = selected_exposures(store, configuration.selection)
    exposures = of_types(table, configuration.types)
    if not exposures:
        raise StoreError(
            f"{store.url} has no {' or '.join(configuration.types)} exposures among those "
            "selected: look at `types` and `selection` in the configuration"
        )
    schema = frame_schema("detrended", configuration.detrend.units, "exposures fit for science")
    inputs, notes = calibration_inputs(store, configuration.calibrations, table, exposures)
    step = frame_step(
        store,
        schema,
        configuration.detrend,
        exposures,
        selected_detectors(store, configuration.selection),
        inputs,
    )
    return Flow("detrend", store, (step,), configuration, notes)


def frame_step(
    store: Store,
    schema: ProductSchema,
    parameters: ScienceDetrendParameters,
    exposures: Labels,
    detectors: Labels,
    calibrations: tuple[Input, ...] = (),
) -> Step:
    """Return the step that detrends exposures into a product of frames."""
    read, memory = frame_bytes(store, len(calibrations))
    return Step(
        detrended_frame,
        parameters,
        schema,
        {
            v.EXPOSURE: exposures,
            v.DETECTOR: detectors,
            v.AMP: tuple(store.camera.amplifier_names()),
        },
        (Same("raw", "raw"), AMPLIFIERS, *calibrations),
        sizes=trimmed_sizes(store, detectors),
        memory_bytes=memory,
        read_bytes=read,
        quality=frame_quality,
    )


def calibration_inputs(
    store: Store, use: CalibrationParameters, table: xr.Dataset, exposures: Labels
) -> tuple[tuple[Input, ...], tuple[str, ...]]:
    """Return the calibrations that are there to be applied, and what to say of those that lack.

    Raises
    ------
    StoreError
        If a required calibration is not in the store.
    ConfigurationError
        If the file of corrections cannot be read, or something in it is wrong.
    """
    inputs: list[Input] = []
    notes = []
    for name, product in PRODUCTS.items():
        wanted: Use = getattr(use, name)
        if wanted == "none":
            continue
        if product not in store:
            if wanted == "required":
                raise StoreError(
                    f"{store.url} has no product {product!r}, which calibrations.{name} requires: "
                    "make it first"
                )
            notes.append(f"no {name} is applied: {store.url} has no product {product!r}")
        elif name == "flat":
            filters: dict[Label, Label] = {
                exposure: physical_filter
                for physical_filter, members in exposures_by_filter(table, exposures).items()
                for exposure in members
            }
            inputs.append(Lookup(name, product, v.EXPOSURE, v.FILTER, filters))
        else:
            inputs.append(Same(name, product))
    if use.corrections is not None:
        corrections = read_corrections(use.corrections, store.camera)
        inputs += [
            Constant(kind, partial(_correction, corrections, kind), (v.DETECTOR,))
            for kind in corrections.kinds()
        ]
    return tuple(inputs), tuple(notes)


def _correction(
    corrections: Corrections, kind: str, store: Store, block: Mapping[str, Label]
) -> xr.Dataset:
    """Return a correction of a block's detector; without variables if it has none."""
    return corrections.dataset(str(block[v.DETECTOR]), kind)
