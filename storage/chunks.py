"""Chunks of one product: writing whole ones, reading them back without ever trusting them.

Every chunk ends in a CRC-32C. Zarr says that a checksum is wrong but not whose, and takes a
missing chunk for fill values; here a damaged chunk, or a missing one of a block that is done,
is a `ChecksumError` that names product, variable, block, chunk and file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from skyloom.algorithms.errors import ChecksumError, StoreError
from skyloom.storage.dataset_schema import Variable
from skyloom.storage.layout import Layout
from skyloom.storage.notes import read_notes
from skyloom.storage.objects import Objects, medium_errors

__all__ = ["Chunks", "Window", "create_array", "resize_array"]

Window: TypeAlias = tuple[slice, ...]
"""Extent along each dimension that is not a block dimension; starts and stops are given."""


def _codecs(variable: Variable) -> list[Any]:
    """Return the compressors of a variable; the checksum is outermost, over the stored bytes."""
    if variable.codec == "image":
        return [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()]
    return [ZstdCodec(), Crc32cCodec()]


def create_array(zarr_store: Any, layout: Layout, variable: Variable) -> None:
    """Create the empty array of a variable."""
    name = f"{layout.schema.name}/{variable.name}"
    chunks, parts = layout.chunks(variable), layout.parts(variable)
    with medium_errors(f"create {name}"):
        zarr.create_array(
            zarr_store,
            name=name,
            shape=layout.shape(variable),
            dtype=np.dtype(variable.dtype),
            chunks=parts,
            shards=None if parts == chunks else chunks,
            compressors=_codecs(variable),
            fill_value=np.dtype(variable.dtype).type(variable.fill),
            dimension_names=variable.dims,
            attributes=variable.attributes(),
            overwrite=True,
        )


def resize_array(zarr_store: Any, layout: Layout, variable: Variable) -> None:
    """Enlarge the array of a variable to a layout that was extended."""
    name = f"{layout.schema.name}/{variable.name}"
    array = zarr.open_array(zarr_store, path=name, mode="r+")
    # A coordinator that died before writing the document may have left it larger already.
    shape = tuple(map(max, array.shape, layout.shape(variable)))
    if shape != array.shape:
        with medium_errors(f"enlarge {name}"):
            array.resize(shape)


class Chunks:
    """The arrays of one product in one layout.

    Parameters
    ----------
    objects : Objects
        The place of the store.
    zarr_store : zarr store
        The same place for Zarr.
    layout : Layout
        How the product lies.
    """

    def __init__(self, objects: Objects, zarr_store: Any, layout: Layout) -> None:
        self._objects = objects
        self._zarr = zarr_store
        self.layout = layout
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def write(self, name: str, place: Sequence[int], values: NDArray[Any]) -> int:
        """Write all chunks of one variable of one block; return the bytes before compression."""
        path = self._objects.location(f"{self.layout.schema.name}/{name}")
        with medium_errors(f"write a block of {path}"):
            self._array(name)[tuple(place)] = values
        return int(values.nbytes)

    def read(
        self,
        name: str,
        rows: Sequence[NDArray[np.intp]],
        done: NDArray[np.bool_] | None = None,
        window: Window | None = None,
    ) -> NDArray[Any]:
        """Read blocks of one variable.

        Parameters
        ----------
        name : str
            The variable.
        rows : sequence of array of int
            Positions along each block dimension; their outer product is read.
        done : array of bool, optional
            Which of these blocks are done, block dims; the others come back as fill values
            whatever is on disk. By default all have to be there.
        window : tuple of slice, optional
            Extent along each of the variable's other dimensions; all of them by default.

        Returns
        -------
        array
            Block dims, then the variable's others.

        Raises
        ------
        ChecksumError
            If a chunk of a block that is done is damaged or missing.
        """
        layout = self.layout
        variable = layout.variable(name)
        counts = tuple(len(row) for row in rows)
        done = np.ones(counts, bool) if done is None else done
        window = window or tuple(slice(0, size) for size in layout.shape(variable)[len(rows) :])
        shape = (*counts, *(extent.stop - extent.start for extent in window))
        if not done.any():
            return np.full(shape, variable.fill, variable.dtype)
        array = self._array(name)
        try:
            values = np.asarray(array.oindex[(*map(_compact, rows), *window)])
        except Exception:  # whatever a codec makes of damaged bytes
            values = self._read_singly(name, rows, done, window)
        self._require(name, values, rows, done, window)
        if not done.all():
            values[~done] = variable.fill
        return values

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            self._arrays[name] = self._open(name)
        return self._arrays[name]

    def _open(self, name: str) -> zarr.Array[Any]:
        variable = self.layout.variable(name)
        path = f"{self.layout.schema.name}/{name}"
        document = self._objects.location(f"{path}/zarr.json")
        try:
            array: zarr.Array[Any] = zarr.open_array(self._zarr, path=path, mode="r+")
            fits = (
                array.dtype == np.dtype(variable.dtype)
                and array.chunks == self.layout.parts(variable)
                and (array.shards or array.chunks) == self.layout.chunks(variable)
                and all(map(int.__ge__, array.shape, self.layout.shape(variable)))
                and np.array_equal(
                    array.fill_value, np.dtype(variable.dtype).type(variable.fill), equal_nan=True
                )
            )
        except Exception as error:  # damaged metadata fails in many ways
            raise StoreError(
                f"{document} is missing or damaged ({error}); restore it from a copy, or run "
                "the step again after deleting this product"
            ) from error
        if not fits:
            raise StoreError(
                f"{document} does not describe the array that product "
                f"{self.layout.schema.name!r} needs; restore it from a copy"
            )
        # A chunk that happens to be all fill must exist: only then is absence an error.
        return array.with_config({"write_empty_chunks": True})

    def _parts(
        self, variable: Variable, window: Window
    ) -> Iterator[tuple[tuple[int, ...], Window, Window, Window]]:
        """Yield the chunks along the other dimensions that a window touches.

        Each with its index, its extent, the part of it in the window, and where in the window
        that part lies.
        """
        depth = len(self.layout.schema.block)
        shape = self.layout.shape(variable)[depth:]
        chunks = self.layout.chunks(variable)[depth:]
        touched = [
            range(extent.start // chunk, -(-extent.stop // chunk))
            for extent, chunk in zip(window, chunks, strict=True)
        ]
        for index in itertools.product(*touched):
            whole = tuple(
                slice(i * chunk, min(size, (i + 1) * chunk))
                for i, chunk, size in zip(index, chunks, shape, strict=True)
            )
            part = tuple(
                slice(max(extent.start, given.start), min(extent.stop, given.stop))
                for extent, given in zip(whole, window, strict=True)
            )
            local = tuple(
                slice(extent.start - given.start, extent.stop - given.start)
                for extent, given in zip(part, window, strict=True)
            )
            yield index, whole, part, local

    def _require(
        self,
        name: str,
        values: NDArray[Any],
        rows: Sequence[NDArray[np.intp]],
        done: NDArray[np.bool_],
        window: Window,
    ) -> None:
        """Raise if a chunk is missing. Only what reads as fill throughout can be."""
        variable = self.layout.variable(name)
        depth = len(rows)
        for index, extent, _, local in self._parts(variable, window):
            part = values[(slice(None),) * depth + local]
            empty = np.isnan(part) if _nan_fill(variable) else part == variable.fill
            blank = empty.all(axis=tuple(range(depth, part.ndim))) & done
            for where in np.argwhere(blank):
                place = tuple(int(row[i]) for row, i in zip(rows, where, strict=True))
                key = self._key(name, place, index)
                if not self._objects.exists(key) and self._expected(variable, place, extent):
                    raise ChecksumError(self._message(name, place, key, "is missing"))

    def _expected(self, variable: Variable, place: tuple[int, ...], chunk: Window) -> bool:
        """Return whether a block had reached this far along a growable dimension."""
        depth = len(place)
        growable = [
            (dim, extent.start)
            for dim, extent in zip(variable.dims[depth:], chunk, strict=True)
            if dim in self.layout.schema.growable and extent.start
        ]
        if not growable:
            return True
        note = read_notes(self, [np.array([i]) for i in place]).ravel()[0]
        return all(start < note["sizes"][dim] for dim, start in growable)

    def _read_singly(
        self,
        name: str,
        rows: Sequence[NDArray[np.intp]],
        done: NDArray[np.bool_],
        window: Window,
    ) -> NDArray[Any]:
        """Read chunk by chunk to find the damaged one; blocks that are not done may be."""
        variable = self.layout.variable(name)
        array = self._array(name)
        shape = (*done.shape, *(extent.stop - extent.start for extent in window))
        values = np.full(shape, variable.fill, variable.dtype)
        for found in np.argwhere(done):
            where = tuple(int(i) for i in found)
            place = tuple(int(row[i]) for row, i in zip(rows, where, strict=True))
            for index, _, part, local in self._parts(variable, window):
                key = self._key(name, place, index)
                here: tuple[int | slice, ...] = (*where, *local)
                there: tuple[int | slice, ...] = (*place, *part)
                try:
                    values[here] = array[there]
                except OSError as error:
                    with medium_errors(f"read {self._objects.location(key)}"):
                        raise error
                except Exception as error:  # whatever a codec makes of damaged bytes
                    message = self._message(name, place, key, f"is damaged ({error})")
                    raise ChecksumError(message) from error
        return values

    def _key(self, name: str, place: Sequence[int], index: Sequence[int]) -> str:
        path = "/".join(map(str, ("c", *place, *index)))
        return f"{self.layout.schema.name}/{name}/{path}"

    def _message(self, name: str, place: Sequence[int], key: str, what: str) -> str:
        layout = self.layout
        block = ", ".join(
            f"{dim}={layout.labels[dim][position]}"
            for dim, position in zip(layout.schema.block, place, strict=True)
        )
        chunk = key.split("/", 2)[2]
        again = (
            "ingest the exposure again with replacing allowed (--replace)"
            if layout.schema.name == "raw"
            else f"make step {layout.step!r} again (--redo {layout.step})"
        )
        return (
            f"product {layout.schema.name!r}, variable {name!r}, block {block}: chunk {chunk} "
            f"{what}; file {self._objects.location(key)}; restore the file from a copy, or {again}"
        )


def _nan_fill(variable: Variable) -> bool:
    return np.dtype(variable.dtype).kind == "f" and bool(np.isnan(variable.fill))


def _compact(row: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return positions as a slice where they are consecutive."""
    if len(row) and np.array_equal(row, np.arange(row[0], row[0] + len(row))):
        return slice(int(row[0]), int(row[0]) + len(row))
    return row
