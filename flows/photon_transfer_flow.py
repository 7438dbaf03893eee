"""The flow ``photon_transfer``: raw flats to gains, covariances, turn-offs and kernels.

``dark_pairs`` and ``flat_pairs`` fan out over pairs and detectors, ``ptc`` and
``brighter_fatter`` over detectors. A detector is solved as soon as its last pair is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend import DetrendParameters
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.photon_transfer.pairing import pair_exposures
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters, PairParameters
from skyloom.algorithms.photon_transfer.prekernel import KernelParameters
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.flows.camera_constants import AMPLIFIERS, placement
from skyloom.flows.flow import Flow
from skyloom.flows.photon_transfer_blocks import (
    PairBlockParameters,
    dark_pair,
    flat_pair,
    kernel,
    kernel_quality,
    pair_quality,
    ptc,
    ptc_quality,
)
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.step import Constant, Labels, Lookup, Reduction, Same, Step
from skyloom.storage.records import Label
from skyloom.storage.schemas import BRIGHTER_FATTER, DARK_PAIRS, flat_pairs_schema, ptc_schema

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["PhotonTransferConfiguration", "photon_transfer"]

FITTED_PARAMETERS = 6


class PhotonTransferConfiguration(Parameters):
    """Everything that can be chosen about photon transfer."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    pairs: PairParameters = Field(PairParameters(), description="how flats are matched to pairs")
    detrend: DetrendParameters = Field(
        DetrendParameters(), description="overscan and saturation, before anything is measured"
    )
    extract: ExtractParameters = Field(
        ExtractParameters(), description="what is measured on a pair of flats"
    )
    solve: SolveParameters = Field(SolveParameters(), description="how curves are fitted")
    kernel: KernelParameters = Field(
        KernelParameters(), description="how brighter-fatter kernels are made"
    )


def photon_transfer(
    store: Store,
    configuration: PhotonTransferConfiguration | Mapping[str, Any] | None = None,
) -> Flow:
    """Return the photon transfer flow of a store.

    Parameters
    ----------
    store : Store
        With ingested exposures; flats are paired, biases and darks as well if there are any.
    configuration : PhotonTransferConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was ingested, or no two flats make a pair.
    ConfigurationError
        If the configuration is wrong, or selects a detector that the store does not have.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> photon_transfer(create_store("memory://doctest-ptc-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-ptc-flow holds no exposures: ingest \
flats first (skyloom ingest)
    """
    configuration = configured(PhotonTransferConfiguration, configuration)
    if configuration.extract.vignetting and store.camera.pixel_size is None:
        raise ConfigurationError(
            "extract.vignetting selects pixels by their place in the focal plane: the camera "
            f"{store.camera.name} needs a pixel_size"
        )
    if (configuration.solve.lags or 0) > configuration.extract.lags:
        raise ConfigurationError(
            f"solve.lags is {configuration.solve.lags}, but only extract.lags = "
            f"{configuration.extract.lags} are measured: lower the one or raise the other"
        )
    table = selected_exposures(store, configuration.selection, what="flats")
    detectors = selected_detectors(store, configuration.selection)
    flats = _pairs(table, (v.FLAT,), configuration.pairs)
    # Biases all have the time 0: every two of them in the order of their ids are a pair.
    dark_parameters = PairParameters(use_extra_pairs=True)
    darks = _pairs(table, (v.BIAS, v.DARK), dark_parameters)
    if not flats.sizes[v.PAIR]:
        counts = dict(zip(*np.unique(table["observation_type"], return_counts=True), strict=True))
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing selected"
        raise StoreError(
            f"no two flats of {store.url} make a pair (it has {found}): ingest flats, or look at "
            "`pairs` and `selection` in the configuration"
        )
    steps = _steps(store, configuration, detectors, flats, darks)
    notes = (*_unpaired_notes(flats), *_offset_notes(store, detectors, darks))
    return Flow("photon_transfer", store, steps, configuration, notes)


def _pairs(table: xr.Dataset, kinds: Iterable[str], parameters: PairParameters) -> xr.Dataset:
    """Return the pairs among exposures of some types; what is left over has a status."""
    chosen = table.isel({v.EXPOSURE: np.isin(table["observation_type"], list(kinds))})
    times = chosen["exposure_time"].values
    key = times
    if parameters.mode == "flux":
        if "flux" not in chosen.coords or not np.isfinite(chosen["flux"].values).any():
            raise ConfigurationError(
                "pairs.mode is flux, but the exposures have none: map `flux` to a header key in "
                "the camera and ingest again, or pair by time"
            )
        key = chosen["flux"].values
    with warnings.catch_warnings():
        # The statuses of exposures that stay alone are kept with the product.
        warnings.simplefilter("ignore", UserWarning)
        return pair_exposures(
            key,
            chosen[v.EXPOSURE].values.astype(np.int64),
            exposure_time=times,
            parameters=parameters,
        )


def _exposure_statuses(pairs: xr.Dataset) -> dict[str, Any]:
    """Return which exposures are in no pair and why, as attributes of the product."""
    statuses = {
        str(int(exposure)): v.PairStatus(int(code)).name
        for exposure, code in zip(
            pairs[v.EXPOSURE].values, pairs["exposure_status"].values, strict=True
        )
    }
    alone = {exposure: name for exposure, name in statuses.items() if name != "OK"}
    return {"exposures": len(statuses), "unpaired_exposures": alone}


def _unpaired_notes(flats: xr.Dataset) -> list[str]:
    """Return what a user should know of flats that are in no pair."""
    status = flats["exposure_status"].values
    notes = []
    for code, remedy in (
        (v.PairStatus.UNPAIRED, "take another of its level, or widen pairs.atol"),
        (v.PairStatus.NONFINITE_KEY, "map what pairs are matched on in the camera"),
        (v.PairStatus.EXTRA, "pairs.use_extra_pairs: true uses them"),
    ):
        if count := int(np.sum(status == code)):
            notes.append(f"{count} of {status.size} flats are in no pair ({code.name}): {remedy}")
    return notes


def _offset_notes(store: Store, detectors: Labels, darks: xr.Dataset) -> list[str]:
    """Return what a user should know where nothing gives the offset of the flats."""
    if darks.sizes[v.PAIR]:
        return []
    tables = {name: store.camera.amplifiers(str(name)) for name in detectors}
    bare = [
        str(name)
        for name, table in tables.items()
        if (table["overscan_x_stop"] <= table["overscan_x_start"]).any()
    ]
    if not bare:
        return []
    return [
        f"no overscan in {', '.join(bare[:5])}{' …' if len(bare) > 5 else ''} and no pairs of "
        "biases or darks: no offset is subtracted, so means, gains and noises are off unless the "
        "files have none; ingest biases"
    ]


def _lookups(pairs: xr.Dataset) -> tuple[Lookup, Lookup]:
    tables: list[dict[Label, Label]] = [
        {
            str(label): int(exposure)
            for label, exposure in zip(pairs[v.PAIR].values, pairs[name].values, strict=True)
        }
        for name in ("exposure_1", "exposure_2")
    ]
    return (
        Lookup("raw_1", "raw", v.PAIR, v.EXPOSURE, tables[0]),
        Lookup("raw_2", "raw", v.PAIR, v.EXPOSURE, tables[1]),
    )


def _steps(
    store: Store,
    configuration: PhotonTransferConfiguration,
    detectors: Labels,
    flats: xr.Dataset,
    darks: xr.Dataset,
) -> tuple[Step, ...]:
    lags = configuration.extract.lags
    keys = configuration.extract.auxiliary_keys
    amps = tuple(store.camera.amplifier_names())
    flat_labels = tuple(map(str, flats[v.PAIR].values))
    dark_labels = tuple(map(str, darks[v.PAIR].values))
    read, memory = _pair_bytes(store, configuration.extract)
    matrices = {v.LAG_Y: lags, v.LAG_X: lags}
    # Only what a pair of darks depends on: it is not to be measured again for other lags.
    dark_extract = ExtractParameters(
        **configuration.extract.model_dump(
            include={"clip", "iterations", "min_pixels", "edge", "edge_level"}
        )
    )
    places = (Constant("placement", placement, (v.DETECTOR,)),)
    dark_step = Step(
        dark_pair,
        PairBlockParameters(detrend=configuration.detrend, extract=dark_extract),
        DARK_PAIRS,
        {v.PAIR: dark_labels, v.DETECTOR: detectors, v.AMP: amps},
        (*_lookups(darks), AMPLIFIERS),
        attrs=_exposure_statuses(darks),
        memory_bytes=memory,
        read_bytes=read,
        quality=pair_quality,
    )
    flat_step = Step(
        flat_pair,
        PairBlockParameters(
            detrend=configuration.detrend,
            extract=configuration.extract,
            mode=configuration.pairs.mode,
            pixel_size=store.camera.pixel_size if configuration.extract.vignetting else None,
        ),
        flat_pairs_schema(keys),
        {v.PAIR: flat_labels, v.DETECTOR: detectors, v.AMP: amps},
        (
            *_lookups(flats),
            AMPLIFIERS,
            *(places if configuration.extract.vignetting else ()),
            Reduction("dark_pairs", "dark_pairs", v.PAIR, minimum=0),
        ),
        sizes=matrices,
        attrs=_exposure_statuses(flats),
        memory_bytes=memory,
        read_bytes=read,
        quality=pair_quality,
    )
    block = flat_step.write_bytes * len(flat_labels)
    sizes = {**matrices, v.PARAMETER: FITTED_PARAMETERS, "parameter_2": FITTED_PARAMETERS}
    long_range = configuration.solve.long_range
    if long_range.enabled:
        sizes[v.COEFFICIENT] = (long_range.degree + 1) ** 2
    solve_step = Step(
        ptc,
        configuration.solve,
        ptc_schema(keys, long_range=long_range.enabled),
        {v.DETECTOR: detectors, v.PAIR: flat_labels, v.AMP: amps},
        (Reduction("flat_pairs", "flat_pairs", v.PAIR, minimum=1),),
        sizes=sizes,
        attrs={"model": configuration.solve.model},
        memory_bytes=6 * block,
        read_bytes=block,
        quality=ptc_quality,
    )
    side = 2 * lags + 1
    kernel_step = Step(
        kernel,
        configuration.kernel,
        BRIGHTER_FATTER,
        {v.DETECTOR: detectors, v.AMP: amps},
        (Same("ptc", "ptc"),),
        sizes={v.KERNEL_Y: side, v.KERNEL_X: side},
        memory_bytes=3 * solve_step.write_bytes,
        read_bytes=solve_step.write_bytes,
        quality=kernel_quality,
    )
    return (dark_step, flat_step, solve_step, kernel_step)


def _pair_bytes(store: Store, parameters: ExtractParameters) -> tuple[int, int]:
    """Return bytes read and memory of one pair: two raw images, and images of one region."""
    item = np.dtype(store.schema("raw").variable("image").dtype).itemsize
    pixels = max(d.shape[0] * d.shape[1] for d in store.camera.detectors)
    region = pixels
    if parameters.region == "AMP":
        region = max(
            amp.data.size for detector in store.camera.detectors for amp in detector.amplifiers
        )
    read = 2 * pixels * item
    # Two images with masks, their difference, weights and copies while they are made: measured.
    return read, 2 * read + 40 * region
