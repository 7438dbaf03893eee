"""The flow ``biases_darks``: raw biases and darks to a combined bias and dark of each detector.

``bias_frames`` and ``dark_frames`` fan out over exposures and detectors, ``bias`` and ``dark``
over detectors; the darks of a detector are begun when its bias is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.combine import (
    CombineParameters,
    add_bias_variance,
    combine_bias,
    combine_dark,
)
from skyloom.algorithms.detrend import (
    OverscanParameters,
    SaturationParameters,
    ScienceDetrendParameters,
    VarianceParameters,
)
from skyloom.algorithms.errors import StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.camera_constants import AMPLIFIERS
from skyloom.flows.detrend_flow import frame_step
from skyloom.flows.flow import Flow
from skyloom.flows.frame_blocks import (
    calibration_quality,
    combination_bytes,
    combined,
    trimmed_sizes,
)
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    of_types,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.step import Input, Labels, Reduction, Same, Step
from skyloom.storage.frame_schemas import BIAS, BIAS_FRAMES, DARK, DARK_FRAMES

if TYPE_CHECKING:
    from skyloom.flows.step import Algorithm
    from skyloom.storage.dataset_schema import ProductSchema
    from skyloom.storage.store import Store

__all__ = ["BiasesDarksConfiguration", "biases_darks"]

Inputs = Mapping[str, xr.Dataset]


class DarkBlockParameters(Parameters):
    """How the darks of a detector are combined."""

    combine: CombineParameters = Field(
        CombineParameters(), description="how frames are clipped and averaged"
    )
    overhead: float = Field(
        0.0, ge=0, description="dark time beyond the exposure time where it is not known, s"
    )


class BiasesDarksConfiguration(Parameters):
    """Everything that can be chosen about biases and darks."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    overscan: OverscanParameters = Field(
        OverscanParameters(), description="levels subtracted before biases are combined"
    )
    saturation: SaturationParameters = Field(
        SaturationParameters(), description="saturated and suspect pixels"
    )
    combine: CombineParameters = Field(
        CombineParameters(), description="how frames are clipped and averaged"
    )
    overhead: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="dark time of darks beyond their exposure time where no dark time is known, "
        "s; kept with the dark, for what it is taken from",
    )
    minimum: int = Field(3, ge=1, description="fewest frames that are combined")


def biases_darks(
    store: Store, configuration: BiasesDarksConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that combines the biases and darks of a store.

    Parameters
    ----------
    store : Store
        With ingested biases; darks as well if there are any.
    configuration : BiasesDarksConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was ingested, or no bias.
    ConfigurationError
        If the configuration is wrong, or selects a detector that the store does not have.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> biases_darks(create_store("memory://doctest-biases-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-biases-flow holds no exposures: \
ingest biases first (skyloom ingest)
    """
    configuration = configured(BiasesDarksConfiguration, configuration)
    table = selected_exposures(store, configuration.selection, what="biases")
    detectors = selected_detectors(store, configuration.selection)
    biases, darks = of_types(table, (v.BIAS,)), of_types(table, (v.DARK,))
    if not biases:
        raise StoreError(
            f"{store.url} has no biases among the exposures selected: ingest some, or look at "
            "`selection` in the configuration"
        )
    chain = ScienceDetrendParameters(
        units="adu", overscan=configuration.overscan, saturation=configuration.saturation
    )
    # All darks lose the same bias: its noise is added once, to their combination.
    own_noise = chain.model_copy(update={"variance": VarianceParameters(calibrations=False)})
    steps = [
        frame_step(store, BIAS_FRAMES, chain, biases, detectors),
        _combination(
            store,
            BIAS,
            BIAS_FRAMES,
            combined_bias,
            configuration.combine,
            configuration.minimum,
            biases,
            detectors,
        ),
    ]
    notes = []
    bias = (Same("bias", "bias"),)
    if darks:
        steps += [
            frame_step(store, DARK_FRAMES, own_noise, darks, detectors, bias),
            _combination(
                store,
                DARK,
                DARK_FRAMES,
                combined_dark,
                DarkBlockParameters(combine=configuration.combine, overhead=configuration.overhead),
                configuration.minimum,
                darks,
                detectors,
                bias,
            ),
        ]
    else:
        notes.append(f"{store.url} has no darks among the exposures selected: no dark is made")
    return Flow("biases_darks", store, tuple(steps), configuration, tuple(notes))


def _combination(
    store: Store,
    schema: ProductSchema,
    frames: ProductSchema,
    algorithm: Algorithm,
    parameters: Parameters,
    minimum: int,
    exposures: Labels,
    detectors: Labels,
    calibrations: tuple[Input, ...] = (),
) -> Step:
    read, memory = combination_bytes(store, detectors, len(exposures))
    return Step(
        algorithm,
        parameters,
        schema,
        {v.DETECTOR: detectors},
        (
            Reduction("frames", frames.name, v.EXPOSURE, minimum, lazy=True),
            AMPLIFIERS,
            *calibrations,
        ),
        sizes=trimmed_sizes(store, detectors),
        memory_bytes=memory,
        read_bytes=read,
        quality=calibration_quality,
        revision=2,
    )


def combined_bias(inputs: Inputs, parameters: CombineParameters) -> xr.Dataset:
    """Combine the biases of a detector."""
    frames = inputs["frames"]
    return combined(
        combine_bias(frames, amplifiers=inputs["amplifiers"], parameters=parameters), frames
    )


def combined_dark(inputs: Inputs, parameters: DarkBlockParameters) -> xr.Dataset:
    """Combine the darks of a detector."""
    frames = inputs["frames"]
    dark = combine_dark(
        frames,
        amplifiers=inputs["amplifiers"],
        overhead=parameters.overhead,
        parameters=parameters.combine,
    )
    equal = parameters.combine.equal_weights
    return combined(add_bias_variance(dark, inputs["bias"], equal_weights=equal), frames)
