"""Blocks as arrays and back: padding, placing by label, cutting to size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError
from skyloom.storage.chunks import Chunks
from skyloom.storage.layout import Layout
from skyloom.storage.notes import noted_coords, read_notes
from skyloom.storage.records import Label, plain

__all__ = ["assemble_blocks", "block_arrays"]

_PADDED: Final = (v.Y, v.X)
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


def assemble_blocks(chunks: Chunks, block: Mapping[str, Label | Sequence[Label]]) -> xr.Dataset:
    """Read blocks into one dataset; see `Store.read_block`."""
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
        values = chunks.read(variable.name, rows)[squeeze]
        dims = tuple(dim for dim in variable.dims if dim in several or dim not in schema.block)
        array = xr.DataArray(values, dims=dims, attrs=variable.attributes())
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
    return dataset


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
