"""The flows there are, and where each is found; imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skyloom.algorithms.errors import SkyloomError

if TYPE_CHECKING:
    from skyloom.algorithms.parameters import Parameters
    from skyloom.flows.flow import Flow

__all__ = ["CATALOGUE", "Entry", "configuration_model", "flow_maker"]


class Entry(NamedTuple):
    """Where a flow is found: ``module`` has ``make`` and ``configuration``; its report, if any."""

    module: str
    make: str
    configuration: str
    report: str = ""


CATALOGUE: Final[Mapping[str, Entry]] = {
    "photon_transfer": Entry(
        "skyloom.flows.photon_transfer_flow",
        "photon_transfer",
        "PhotonTransferConfiguration",
        "skyloom.flows.report.photon_transfer",
    ),
    "biases_darks": Entry(
        "skyloom.flows.biases_darks_flow",
        "biases_darks",
        "BiasesDarksConfiguration",
        "skyloom.flows.report.biases_darks",
    ),
    "flat_normalization": Entry(
        "skyloom.flows.flat_normalization_flow",
        "flat_normalization",
        "FlatNormalizationConfiguration",
        "skyloom.flows.report.flat_normalization",
    ),
    "detrend": Entry(
        "skyloom.flows.detrend_flow",
        "detrend",
        "DetrendConfiguration",
        "skyloom.flows.report.detrend",
    ),
    "sky_frames": Entry(
        "skyloom.flows.sky_frames_flow",
        "sky_frames",
        "SkyFramesConfiguration",
        "skyloom.flows.report.sky_frames",
    ),
    "warps": Entry(
        "skyloom.flows.warps_flow", "warps", "WarpsConfiguration", "skyloom.flows.report.warps"
    ),
    "match_backgrounds": Entry(
        "skyloom.flows.match_backgrounds_flow",
        "match_backgrounds",
        "MatchBackgroundsConfiguration",
        "skyloom.flows.report.match_backgrounds",
    ),
    "coadds": Entry(
        "skyloom.flows.coadds_flow", "coadds", "CoaddsConfiguration", "skyloom.flows.report.coadds"
    ),
    "dcr_coadds": Entry(
        "skyloom.flows.dcr_coadds_flow",
        "dcr_coadds",
        "DcrCoaddsConfiguration",
        "skyloom.flows.report.dcr_coadds",
    ),
}
"""Every flow by its name; a report's module has ``write_report(store, path)``."""


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise SkyloomError(f"there is no flow {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def configuration_model(name: str) -> type[Parameters]:
    """Return the model of a flow's configuration.

    Raises
    ------
    SkyloomError
        If there is no such flow.

    Examples
    --------
    >>> configuration_model("photon_transfer").__name__
    'PhotonTransferConfiguration'
    """
    entry = _entry(name)
    model: type[Parameters] = getattr(importlib.import_module(entry.module), entry.configuration)
    return model


def flow_maker(name: str) -> Callable[..., Flow]:
    """Return the function that makes a flow of a store and a configuration.

    Raises
    ------
    SkyloomError
        If there is no such flow.

    Examples
    --------
    >>> flow_maker("night")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.SkyloomError: there is no flow 'night'; there are \
photon_transfer, biases_darks, flat_normalization, detrend, sky_frames, warps, \
match_backgrounds, coadds, dcr_coadds
    """
    entry = _entry(name)
    maker: Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.make)
    return maker
