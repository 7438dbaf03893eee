"""Steps tied to products, woven into Dask graphs, run anywhere Dask runs.

The flows themselves are imported when they are asked for, so that the command line starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.flows.biases_darks_flow import biases_darks
    from skyloom.flows.coadds_flow import coadds
    from skyloom.flows.dcr_coadds_flow import dcr_coadds
    from skyloom.flows.detrend_flow import detrend
    from skyloom.flows.flat_normalization_flow import flat_normalization
    from skyloom.flows.flow import Flow
    from skyloom.flows.ingest_flow import ingest
    from skyloom.flows.match_backgrounds_flow import match_backgrounds
    from skyloom.flows.photon_transfer_flow import photon_transfer
    from skyloom.flows.sky_frames_flow import sky_frames
    from skyloom.flows.step import Constant, Lookup, Reduction, Same, Step
    from skyloom.flows.warps_flow import warps

__all__ = [
    "Constant",
    "Flow",
    "Lookup",
    "Reduction",
    "Same",
    "Step",
    "biases_darks",
    "coadds",
    "dcr_coadds",
    "detrend",
    "flat_normalization",
    "ingest",
    "match_backgrounds",
    "photon_transfer",
    "sky_frames",
    "warps",
]

_HOMES = {
    "Constant": "step",
    "Flow": "flow",
    "Lookup": "step",
    "Reduction": "step",
    "Same": "step",
    "Step": "step",
    "biases_darks": "biases_darks_flow",
    "coadds": "coadds_flow",
    "dcr_coadds": "dcr_coadds_flow",
    "detrend": "detrend_flow",
    "flat_normalization": "flat_normalization_flow",
    "ingest": "ingest_flow",
    "match_backgrounds": "match_backgrounds_flow",
    "photon_transfer": "photon_transfer_flow",
    "sky_frames": "sky_frames_flow",
    "warps": "warps_flow",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
