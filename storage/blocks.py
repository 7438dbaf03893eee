"""Blocks as arrays and back: padding, placing by label, cutting to size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError
from skyloom.storage.chunks import Chunks
from skyloom.storage.layout import Layout
from skyloom.storage.lazy import windowed
from skyloom.storage.notes import noted_coords, read_notes
from skyloom.storage.records import Label, plain

__all__ = ["assemble_blocks", "block_arrays"]

_PADDED: Final = (v.Y, v.X, v.BIN_Y, v.BIN_X, v.TRACT_Y, v.TRACT_X, v.SAMPLE)
"""Dimensions along which a block may be smaller than the product: detectors differ."""


def block_arrays(data: xr.Dataset, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return a block's variables in the shapes of the product, padded with fill values.

    Parameters
    ----------
    data : Dataset
        A block that fits the product's schema.
    layout : Layout
        Layout of the product.

    Returns
    -------
    dict of str to array
        One array per variable of the schema; optional ones that are absent hold fill values.

    Raises
    ------
    SchemaError
        If labels are unknown or sizes do not match; one line per problem.
    """
    targets, problems = _targets(data, layout)
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise SchemaError(f"a block of {layout.schema.name!r} is not aligned:{lines}")
    depth = len(layout.schema.block)

    def in_place(dim: str, size: int) -> bool:
        return np.array_equal(targets[dim], np.arange(size))

    arrays = {}
    for variable in layout.schema.variables:
        shape = layout.shape(variable)[depth:]
        dims = variable.dims[depth:]
        given = None
        if variable.name in data.variables:
            given = data[variable.name].transpose(*dims).values
        if given is not None and given.shape == shape and all(map(in_place, dims, shape)):
            arrays[variable.name] = given.astype(variable.dtype, copy=False)
            continue
        values = np.full(shape, variable.fill, variable.dtype)
        if given is not None:
            values[np.ix_(*(targets[dim] for dim in dims))] = given
        arrays[variable.name] = values
    return arrays


def _targets(data: xr.Dataset, layout: Layout) -> tuple[dict[str, NDArray[np.intp]], list[str]]:
    """Return where each index of a block goes along each inner dimension."""
    targets: dict[str, NDArray[np.intp]] = {}
    problems: list[str] = []
    used = {
        dim
        for variable in layout.schema.variables
        if variable.name in data.variables
        for dim in variable.dims
        if dim not in layout.schema.block
    }
    for dim in sorted(used):
        size, full = data.sizes[dim], layout.length(dim)
        targets[dim] = np.arange(size)
        if dim in layout.labels and dim in data.coords:
            labels = [plain(label) for label in data[dim].values]
            known = layout.positions[dim]
            strange = [label for label in labels if label not in known]
            if strange:
                problems.append(f"{dim}: {strange[:5]} are not among the prepared labels")
            elif len(set(labels)) != size:
                problems.append(f"{dim}: labels occur twice")
            else:
                targets[dim] = np.array([known[label] for label in labels], np.intp)
        elif dim in layout.schema.growable:
            problems.append(f"{dim}: needs labels")
        elif size > full or (size < full and dim not in _PADDED):
            problems.append(f"{dim}: has {size}, the product has {full}")
    return targets, problems


class _StoredVariable(BackendArray):
    """One variable of some blocks, read when it is indexed: pixels stay where they are."""

    def __init__(
        self,
        chunks: Chunks,
        name: str,
        rows: Sequence[NDArray[np.intp]],
        several: Sequence[bool],
    ) -> None:
        variable = chunks.layout.variable(name)
        self._chunks, self._name, self._rows, self._several = chunks, name, rows, several
        counts = tuple(len(row) for row, keep in zip(rows, several, strict=True) if keep)
        self.shape = (*counts, *chunks.layout.shape(variable)[len(rows) :])
        self.dtype = np.dtype(variable.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        keys = iter(key)
        rows, outer = [], []
        for row, keep in zip(self._rows, self._several, strict=True):
            chosen = next(keys) if keep else 0
            rows.append(np.atleast_1d(row[chosen]))
            outer.append(0 if np.ndim(row[chosen]) == 0 else slice(None))
        inner = list(keys)
        window, rest = windowed(inner, self.shape[len(self.shape) - len(inner) :])
        values = self._chunks.read(self._name, rows, window=window)[tuple(outer)]
        lead = sum(isinstance(part, slice) for part in outer)
        for axis in reversed(range(len(rest))):  # outer indexing: one dimension after the other
            values = values[(*(slice(None),) * (lead + axis), rest[axis])]
        return values


def assemble_blocks(
    chunks: Chunks, block: Mapping[str, Label | Sequence[Label]], *, lazy: bool = False
) -> xr.Dataset:
    """Read blocks into one dataset, or only when they are indexed; see `Store.read_block`."""
    layout = chunks.layout
    schema = layout.schema
    several = [dim for dim, found in block.items() if not isinstance(found, str | int | np.integer)]
    labels: dict[str, list[Label]] = {
        dim: list(found) if dim in several else [found]  # type: ignore[arg-type,list-item]
        for dim, found in block.items()
    }
    layout.place({dim: found[0] for dim, found in labels.items()})  # checks the dimensions
    rows = [
        np.array([layout.find(dim, label) for label in labels[dim]], np.intp)
        for dim in schema.block
    ]
    notes = read_notes(chunks, rows)
    take = _takes(notes.ravel().tolist(), layout)
    squeeze = tuple(slice(None) if dim in several else 0 for dim in schema.block)
    variables = {}
    for variable in schema.variables:
        dims = tuple(dim for dim in variable.dims if dim in several or dim not in schema.block)
        values: Any
        if lazy:
            kept = [dim in several for dim in schema.block]
            stored = _StoredVariable(chunks, variable.name, rows, kept)
            values = indexing.LazilyIndexedArray(stored)
        else:
            values = chunks.read(variable.name, rows)[squeeze]
        array = xr.Variable(dims, values, variable.attributes())
        if lazy:
            # Readers that go part by part read every byte once.
            parts = dict(zip(variable.dims, layout.parts(variable), strict=True))
            array.encoding["preferred_chunks"] = {dim: parts[dim] for dim in dims}
        variables[variable.name] = array.isel(
            {dim: index for dim, index in take.items() if dim in dims}
        )
    coords: dict[str, Any] = {
        dim: (dim, found) if dim in several else found[0] for dim, found in labels.items()
    }
    for dim, names in layout.labels.items():
        if dim not in schema.block:
            coords[dim] = (dim, np.asarray(names)[take.get(dim, slice(None))])
    dataset = xr.Dataset(variables, coords=coords, attrs=dict(layout.attrs))
    if schema.scalar_coords and notes.size == 1:
        dataset = dataset.assign_coords(noted_coords(notes.ravel()[0]))
    elif schema.scalar_coords and len(several) == 1:
        dataset = dataset.assign_coords(_stacked_coords(notes.ravel().tolist(), several[0]))
    return dataset


def _stacked_coords(notes: Sequence[Mapping[str, Any]], dim: str) -> dict[str, xr.Variable]:
    """Return the scalar coordinates that all blocks have, along the dimension they differ in."""
    each = [noted_coords(note) for note in notes]
    shared = [name for name in each[0] if all(name in coords for coords in each)]
    return {
        name: xr.Variable(dim, [coords[name].values[()] for coords in each], each[0][name].attrs)
        for name in shared
        if all(coords[name].ndim == 0 for coords in each)
    }


def _takes(
    notes: Sequence[Mapping[str, Any]], layout: Layout
) -> dict[str, slice | NDArray[np.intp]]:
    """Return what to keep along each inner dimension: as much as the largest block fills."""
    take: dict[str, slice | NDArray[np.intp]] = {}
    for dim in layout.schema.dims:
        if dim in layout.schema.block:
            continue
        names = {label for note in notes for label in note["labels"].get(dim, ())}
        sizes = [note["sizes"][dim] for note in notes if dim in note["sizes"]]
        if names:
            known = layout.positions[dim]
            take[dim] = np.array(sorted(known[name] for name in names), np.intp)
        elif sizes:
            take[dim] = slice(0, max(sizes))
    return take
