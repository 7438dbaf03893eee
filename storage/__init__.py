"""The Zarr store: cameras, ingest from FITS, products, records, export.

Attributes load their module when first used, so that importing one part stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera, load_camera
    from skyloom.storage.camera_check import check_camera
    from skyloom.storage.exports import export
    from skyloom.storage.ingest import ingest_fits
    from skyloom.storage.records import Record, block_key
    from skyloom.storage.store import Store, create_store, open_store

__all__ = [
    "Camera",
    "Record",
    "Store",
    "block_key",
    "check_camera",
    "create_store",
    "export",
    "ingest_fits",
    "load_camera",
    "open_store",
]

_HOMES = {
    "Camera": "camera",
    "load_camera": "camera",
    "check_camera": "camera_check",
    "export": "exports",
    "ingest_fits": "ingest",
    "Record": "records",
    "block_key": "records",
    "Store": "store",
    "create_store": "store",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
