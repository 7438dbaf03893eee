"""The store: products, records and a camera under one URL.

A store is one Zarr v3 group. Tasks write whole blocks and then their record; a block is done
if and only if its record says so. The coordinator alone creates and enlarges products, before
tasks run; tasks only ever write chunks of their own, so writers never meet.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.errors import StoreError
from skyloom.storage.blocks import assemble_blocks, block_arrays
from skyloom.storage.camera import Camera, load_camera, parse_camera
from skyloom.storage.chunks import Chunks, create_array, resize_array
from skyloom.storage.dataset_schema import ProductSchema, validate
from skyloom.storage.exposures import exposure_table, sky_corner_table
from skyloom.storage.layout import (
    BLOCK_NOTE,
    UNFINISHED,
    Layout,
    group_document,
    requested_layout,
    sealed_content,
)
from skyloom.storage.lazy import open_lazily
from skyloom.storage.notes import block_note, encode_note
from skyloom.storage.objects import Objects, medium_errors, normalise_url, open_objects
from skyloom.storage.records import Label, Record, RecordBook, records_table

__all__ = ["FORMAT_VERSION", "Store", "create_store", "open_store"]

FORMAT_VERSION: Final = 1
"""Version of the store's layout on disk; a newer one is refused."""
_ROOT: Final = "zarr.json"


class Store:
    """Products, records and a camera under one URL; use `create_store` or `open_store`.

    Picklable: another process opens the same URL again.
    """

    def __init__(
        self, url: str, objects: Objects, camera_text: str, storage_options: Mapping[str, Any]
    ) -> None:
        self.url = url
        self._objects = objects
        self._camera_text = camera_text
        self._storage_options = dict(storage_options)
        self._book = RecordBook(objects)
        self._open: dict[str, tuple[bytes, Chunks]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.url, json.dumps(self._storage_options, sort_keys=True))

    def __dask_tokenize__(self) -> tuple[str, str]:
        """Return what identifies the store in a Dask graph."""
        return ("skyloom.Store", self.url)

    def __repr__(self) -> str:
        lines = [f"<skyloom store {self.url}>", f"camera: {self.camera.name}"]
        for name in self.products():
            layout = self.chunks(name).layout
            sizes = ", ".join(f"{dim}: {layout.length(dim)}" for dim in layout.schema.dims)
            lines.append(f"{name} ({sizes})")
        return "\n  ".join(lines)

    @cached_property
    def camera(self) -> Camera:
        """The camera the store was made for."""
        return parse_camera(self._camera_text, f"the camera of {self.url}")

    @cached_property
    def _zarr(self) -> Any:
        return self._objects.zarr_store()

    # Products -------------------------------------------------------------------------------

    def products(self) -> list[str]:
        """Return the names of the products, sorted."""
        names = [name for name in self._objects.names("") if name not in {_ROOT, "records"}]
        return [name for name in names if name in self]

    def __contains__(self, product: object) -> bool:
        return isinstance(product, str) and self._document(product) is not None

    def _document(self, product: str) -> bytes | None:
        """Return the document of a product, None while its arrays are still being created."""
        with medium_errors(f"read product {product!r}"):
            document = self._objects.read(f"{product}/{_ROOT}")
        return None if document == UNFINISHED else document

    def __getitem__(self, product: str) -> xr.Dataset:
        """Open a product lazily; blocks that are not done read as fill values.

        Raises
        ------
        KeyError
            If the store has no such product; the message lists those it has.
        """
        layout = self.chunks(product).layout
        records = self.records(layout.step)
        stamp = max((record.stamp for record in records.values()), default=0)
        dataset = open_lazily(self, layout, layout.done(records.values()), stamp)
        if product == "raw":
            dataset = dataset.assign_coords(exposure_table(records, layout).coords)
        return dataset

    def schema(self, product: str) -> ProductSchema:
        """Return the schema of a product."""
        return self.chunks(product).layout.schema

    def labels(self, product: str) -> dict[str, list[Label]]:
        """Return the labels along each labelled dimension of a product."""
        return {dim: list(found) for dim, found in self.chunks(product).layout.labels.items()}

    def attrs(self, product: str) -> dict[str, Any]:
        """Return the attributes of a product."""
        return dict(self.chunks(product).layout.attrs)

    def done(self, product: str) -> NDArray[np.bool_]:
        """Return which blocks of a product are done, an array over its block dimensions."""
        layout = self.chunks(product).layout
        return layout.done(self.records(layout.step).values())

    def prepare(
        self,
        schema: ProductSchema,
        labels: Mapping[str, Sequence[Label]],
        *,
        sizes: Mapping[str, int] | None = None,
        attrs: Mapping[str, Any] | None = None,
        replace: bool = True,
    ) -> None:
        """Create a product, or enlarge it to hold new labels. The coordinator calls this alone.

        Parameters
        ----------
        schema : ProductSchema
            The product.
        labels : mapping of str to sequence
            Labels of every block and growable dimension, and of others that have names.
            Those already there keep their place; new ones are appended. Amplifiers may be
            left out: the camera names them.
        sizes : mapping of str to int, optional
            Lengths of the other dimensions.
        attrs : mapping, optional
            Attributes of the product. ``step`` names the step whose records say which blocks
            are done, by default the schema's.
        replace : bool
            What to do if the stored product has another layout (other sizes, variables or
            version): start it anew, its blocks no longer done; or raise.

        Raises
        ------
        SchemaError
            If labels or sizes are missing or contradictory.
        StoreError
            If the layout differs and ``replace`` is False, or the medium refuses.
        """
        given = dict(labels)
        if "amp" in schema.dims and "amp" not in given and "amp" not in (sizes or {}):
            given["amp"] = self.camera.amplifier_names()
        wanted = requested_layout(schema, given, sizes or {}, attrs or {})
        document_key = f"{schema.name}/{_ROOT}"
        document = self._document(schema.name)
        old: Layout | None = None
        if document is not None:
            old = Layout.from_document(document, self._objects.location(document_key))
        layout = old.extended(wanted) if old else None
        if old and layout:
            for variable in layout.variables:
                if layout.shape(variable) != old.shape(variable):
                    resize_array(self._zarr, layout, variable)
        else:
            if old and not replace:
                raise StoreError(
                    f"{self._objects.location(schema.name)} has another layout than this "
                    "version or configuration needs; use a new store"
                )
            self._discard(schema.name, wanted.step, old)
            layout = wanted
            self._objects.write(document_key, UNFINISHED)
            for variable in layout.variables:
                create_array(self._zarr, layout, variable)
        if not old or layout.document() != document:
            self._objects.write(document_key, layout.document())

    def _discard(self, product: str, step: str, old: Layout | None) -> None:
        # Records go first: at no moment does a record vouch for chunks that are gone.
        for name in {step, *([old.step] if old else [])}:
            self._book.forget(name)
        self._objects.delete([f"{product}/{_ROOT}"])
        self._objects.delete_tree(product)

    def chunks(self, product: str) -> Chunks:
        """Return the arrays of a product as they are laid out now.

        Raises
        ------
        KeyError
            If the store has no such product.
        """
        key = f"{product}/{_ROOT}"
        document = self._document(product)
        if document is None:
            names = ", ".join(self.products()) or "none"
            raise KeyError(f"{self.url} has no product {product!r}; it has {names}")
        known = self._open.get(product)
        if known and known[0] == document:
            return known[1]
        layout = Layout.from_document(document, self._objects.location(key))
        chunks = Chunks(self._objects, self._zarr, layout)
        self._open[product] = (document, chunks)
        return chunks

    # Blocks ---------------------------------------------------------------------------------

    def write_block(self, product: str, block: Mapping[str, Label], data: xr.Dataset) -> int:
        """Write all chunks of one block; its record is to follow.

        An older record of the block is first replaced by one that says the block was started,
        so that a task killed between its chunks never leaves a block that looks done.

        Parameters
        ----------
        product : str
            Name of the product.
        block : mapping of str to label
            Label along each block dimension.
        data : Dataset
            The block, without the block dimensions. Amplifiers and pairs are placed by their
            labels; those that are missing are stored as fill.

        Returns
        -------
        int
            Bytes written, before compression.

        Raises
        ------
        SchemaError
            If the dataset does not fit the schema; one line per problem.
        StoreError
            If the block was not prepared, or the medium refuses.
        """
        chunks = self.chunks(product)
        layout = chunks.layout
        place = layout.place(block)
        validate(data, layout.schema)
        arrays = block_arrays(data, layout)
        note = encode_note(block_note(data, layout))
        self.write_record(
            Record(
                layout.step,
                dict(block),
                "started",
                host=socket.gethostname(),
                worker=str(os.getpid()),
                start_time=time.time(),
            )
        )
        written = sum(chunks.write(name, place, values) for name, values in arrays.items())
        return written + chunks.write(BLOCK_NOTE, place, note)

    def read_block(
        self,
        product: str,
        block: Mapping[str, Label | Sequence[Label]],
        *,
        lazy: bool = False,
    ) -> xr.Dataset:
        """Read one block, or several along dimensions for which a sequence of labels is given.

        Parameters
        ----------
        product : str
            Name of the product.
        block : mapping of str to label or sequence of labels
            Along each block dimension one label (the dimension becomes a scalar coordinate)
            or several (it stays a dimension, in the given order).
        lazy : bool
            Read only what is indexed, when it is, in the thread that does it.

        Returns
        -------
        Dataset
            In memory, or lazily indexed. Padding is cut off: a block comes back as it was
            written. Scalar coordinates of several blocks lie along their dimension.

        Raises
        ------
        ChecksumError
            If a chunk is damaged or missing, as in a block that was never written.
        """
        return assemble_blocks(self.chunks(product), block, lazy=lazy)

    # Records --------------------------------------------------------------------------------

    def write_record(self, record: Record) -> Record:
        """Write what became of a block; return the record with its stamp."""
        return self._book.write(record)

    def read_record(self, step: str, block: Mapping[str, Label]) -> Record | None:
        """Return the record of a block, None if it has none or a damaged one."""
        return self._book.read(step, block)

    def recent_record(self, step: str, block: Mapping[str, Label]) -> Record | None:
        """Return the record of a block if it was written since the step's last compaction."""
        return self._book.read(step, block, tables=False)

    def records(self, step: str) -> dict[str, Record]:
        """Return the records of a step by block key."""
        return self._book.read_all(step)

    def steps(self) -> list[str]:
        """Return the steps that have records."""
        return self._book.steps()

    def compact(self, step: str) -> int:
        """Gather the records of a step into one table; return how many there are."""
        return self._book.compact(step)

    def forget(self, step: str) -> None:
        """Delete the records of a step, so that all its blocks are to be done again."""
        self._book.forget(step)

    def table(self, step: str) -> pd.DataFrame:
        """Return the records of a step as a table, one row a block."""
        return records_table(self.records(step))

    def exposures(self) -> xr.Dataset:
        """Return what is known of each ingested exposure, over ``exposure``."""
        layout = self.chunks("raw").layout
        return exposure_table(self.records(layout.step), layout)

    def sky_corners(self) -> xr.Dataset:
        """Return where the corners of detectors lie, over ``exposure, detector, corner``."""
        layout = self.chunks("raw").layout
        return sky_corner_table(self.records(layout.step), layout)


def create_store(
    url: str | os.PathLike[str],
    camera: Camera | str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """Create a store.

    Parameters
    ----------
    url : str or path
        A new local directory, or any URL fsspec knows.
    camera : Camera, str or path
        The camera, its name, or its file.
    storage_options : mapping, optional
        Options of the file system of a remote URL. They are not kept in the store.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        If something is there already, or the place cannot be written.

    Examples
    --------
    >>> store = create_store("memory://doctest-create", "generic")
    >>> store.camera.name, store.products()
    ('generic', [])
    """
    place = normalise_url(url)
    objects = open_objects(place, storage_options)
    if objects.exists(_ROOT):
        raise StoreError(f"{place} is a store already: open it, or choose another place")
    if objects.names(""):
        raise StoreError(f"{place} is not empty: choose another place")
    known = camera if isinstance(camera, Camera) else load_camera(camera)
    content = {
        "format_version": FORMAT_VERSION,
        "created_by": f"skyloom {version('skyloom')}",
        "camera": known.text,
    }
    with medium_errors(f"create a store at {place}"):
        objects.write(_ROOT, group_document(content, {}))
    return open_store(place, storage_options=storage_options)


def open_store(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Store:
    """Open a store.

    Parameters
    ----------
    url : str or path
        Where `create_store` made it.
    storage_options : mapping, optional
        Options of the file system of a remote URL.

    Raises
    ------
    StoreError
        If there is no store, it was damaged, or a newer version of skyloom made it.

    Examples
    --------
    >>> open_store("memory://doctest-nothing")
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-nothing is not a store: \
memory://doctest-nothing/zarr.json is missing; create it first
    """
    place = normalise_url(url)
    objects = open_objects(place, storage_options)
    with medium_errors(f"open {place}"):
        document = objects.read(_ROOT)
    location = objects.location(_ROOT)
    if document is None:
        raise StoreError(f"{place} is not a store: {location} is missing; create it first")
    content, _ = sealed_content(document, location)
    found = content.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise StoreError(
            f"{place} has format version {found}, this skyloom reads up to {FORMAT_VERSION}; "
            f"it was made by {content.get('created_by')}: install that version or a newer one"
        )
    return Store(place, objects, content["camera"], storage_options or {})


@lru_cache(maxsize=32)
def _reopen(url: str, storage_options: str) -> Store:
    """Return the store of a pickled one; one a process, so that tasks share open arrays."""
    return open_store(url, storage_options=json.loads(storage_options))
