"""The note that lies beside the chunks of every block: what an array alone cannot say.

It holds the true sizes of a block that was padded to the product's, the labels it fills, and
its scalar coordinates. It is a chunk like the others: written once, with a checksum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.errors import SchemaError
from skyloom.storage.layout import BLOCK_NOTE, NOTE_BYTES, Layout
from skyloom.storage.records import Label, plain

if TYPE_CHECKING:
    from skyloom.storage.chunks import Chunks

__all__ = ["block_note", "encode_note", "noted_coords", "read_notes"]


def block_note(data: xr.Dataset, layout: Layout) -> dict[str, Any]:
    """Return what has to be remembered of a block beside its arrays.

    Parameters
    ----------
    data : Dataset
        The block.
    layout : Layout
        Layout of the product it belongs to.

    Returns
    -------
    dict
        ``sizes`` per dimension, for growable ones how far the product reached; ``labels`` of
        labelled dimensions that are neither; ``coords`` if the schema keeps them.
    """
    schema = layout.schema
    inner = [dim for dim in schema.dims if dim not in schema.block and dim in data.dims]
    grown = {dim: layout.length(dim) for dim in schema.growable if dim in inner}
    labels: dict[str, list[Label]] = {
        dim: plain(data[dim].values)
        for dim in inner
        if dim in layout.labels and dim not in schema.growable and dim in data.coords
    }
    note: dict[str, Any] = {
        "sizes": {**{dim: int(data.sizes[dim]) for dim in inner}, **grown},
        "labels": labels,
    }
    if schema.scalar_coords:
        variables = {variable.name for variable in schema.variables}
        note["coords"] = {
            str(name): {"dims": list(coord.dims), "value": plain(coord.values), **_kind(coord)}
            for name, coord in data.coords.items()
            if name not in {*schema.dims, *variables}
        }
    return note


def _kind(coord: xr.DataArray) -> dict[str, Any]:
    return {"dtype": coord.dtype.kind, "attrs": plain(coord.attrs)}


def encode_note(note: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return a note as zero-padded bytes.

    Raises
    ------
    SchemaError
        If the note is too long.
    """
    text = json.dumps(note, separators=(",", ":")).encode()
    if len(text) > NOTE_BYTES:
        raise SchemaError(
            f"the coordinates of a block take {len(text)} bytes, more than {NOTE_BYTES}; keep "
            "fewer of them"
        )
    encoded = np.zeros(NOTE_BYTES, np.uint8)
    encoded[: len(text)] = np.frombuffer(text, np.uint8)
    return encoded


def read_notes(chunks: Chunks, rows: Sequence[NDArray[np.intp]]) -> NDArray[np.object_]:
    """Return the notes of blocks, an array over the block dimensions."""
    encoded = chunks.read(BLOCK_NOTE, rows)
    notes = np.empty(encoded.shape[:-1], object)
    for where in np.ndindex(notes.shape):
        notes[where] = json.loads(encoded[where].tobytes().rstrip(b"\0"))
    return notes


def noted_coords(note: Mapping[str, Any]) -> dict[str, xr.DataArray]:
    """Return the coordinates that a note keeps."""
    coords = {}
    for name, item in note.get("coords", {}).items():
        value = item["value"]
        if item["dtype"] == "f":
            # JSON has no NaN: it was kept as null.
            value = np.array(value, dtype=np.float64)
        coords[name] = xr.DataArray(value, dims=tuple(item["dims"]), attrs=item["attrs"])
    return coords
