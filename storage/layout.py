"""How a product lies in the store: labels, shapes, chunks, and the document that says so.

The document is the ``zarr.json`` of the product's group. It holds the schema, the labels along
each dimension and the sizes of the others, sealed with a checksum. Labels are only ever
appended, and arrays are enlarged before the document that names their new labels is written:
whatever moment a coordinator dies at, the document describes chunks that can be addressed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.records import Label, Record, plain

__all__ = [
    "BLOCK_NOTE",
    "UNFINISHED",
    "Layout",
    "group_document",
    "requested_layout",
    "sealed_content",
]

GROWTH: Final = 256
"""Chunk length along a growable dimension."""
BYTE: Final = "byte"
BLOCK_NOTE: Final = "_block"
"""Array of one JSON text per block: its true sizes, its labels, its scalar coordinates."""
NOTE_BYTES: Final = 8192
_ATTRIBUTE: Final = "skyloom"


def group_document(content: Mapping[str, Any], attrs: Mapping[str, Any]) -> bytes:
    """Return the ``zarr.json`` of a group that carries sealed content of ours.

    Parameters
    ----------
    content : mapping
        JSON content; a checksum is added.
    attrs : mapping
        Attributes for readers, beside the content.

    Examples
    --------
    >>> document = group_document({"labels": {}}, {"model": "exact"})
    >>> sealed_content(document, "zarr.json")[0]
    {'labels': {}}
    """
    sealed = {**plain(content), "checksum": _checksum(plain(content))}
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**plain(attrs), _ATTRIBUTE: sealed},
    }
    return json.dumps(document, indent=1).encode()


def sealed_content(document: bytes, location: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content and the other attributes of a group document.

    Raises
    ------
    StoreError
        If the document is not ours, or was damaged; the message names its location.
    """
    try:
        attributes = dict(json.loads(document)["attributes"])
        content = dict(attributes.pop(_ATTRIBUTE))
        intact = content.pop("checksum") == _checksum(content)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{location} is damaged or not a skyloom document ({error}); restore this file from "
            "a copy, or make a new store"
        ) from error
    if not intact:
        raise StoreError(
            f"{location} does not match its checksum: it was damaged or edited; restore it from "
            "a copy, or make a new store"
        )
    return content, attributes


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


UNFINISHED: Final = group_document({"unfinished": True}, {})
"""Document of a product whose arrays are being created: one that does not exist yet."""


@dataclass(frozen=True)
class Layout:
    """Where every block of a product lies.

    Parameters
    ----------
    schema : ProductSchema
        The product.
    labels : mapping of str to tuple
        Labels along each labelled dimension, in storage order.
    sizes : mapping of str to int
        Lengths of the dimensions without labels.
    attrs : mapping
        Attributes of the product.
    step : str
        Step whose records say which blocks are done.
    """

    schema: ProductSchema
    labels: Mapping[str, tuple[Label, ...]]
    sizes: Mapping[str, int]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""

    def document(self) -> bytes:
        """Return the ``zarr.json`` of the product's group."""
        content = {
            "schema": self.schema.to_json(),
            "labels": self.labels,
            "sizes": self.sizes,
            "step": self.step,
        }
        return group_document(content, self.attrs)

    @classmethod
    def from_document(cls, document: bytes, location: str) -> Layout:
        """Return the layout that `document` describes; see `sealed_content` for errors."""
        content, attrs = sealed_content(document, location)
        try:
            schema = ProductSchema.from_json(content["schema"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{location} holds a schema this version of skyloom cannot read ({error}); "
                "read it with the version that wrote it"
            ) from error
        labels = {dim: tuple(found) for dim, found in content["labels"].items()}
        return cls(schema, labels, content["sizes"], attrs, content["step"])

    @cached_property
    def positions(self) -> dict[str, dict[Label, int]]:
        """Position of each label along each labelled dimension."""
        return {
            dim: {label: position for position, label in enumerate(labels)}
            for dim, labels in self.labels.items()
        }

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The schema's variables and the block notes."""
        note = Variable(BLOCK_NOTE, (*self.schema.block, BYTE), "uint8", fill=0)
        return (*self.schema.variables, note)

    def variable(self, name: str) -> Variable:
        """Return a variable, block notes included."""
        return self.variables[-1] if name == BLOCK_NOTE else self.schema.variable(name)

    def length(self, dim: str) -> int:
        """Return the length of a dimension."""
        if dim == BYTE:
            return NOTE_BYTES
        return len(self.labels[dim]) if dim in self.labels else self.sizes[dim]

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return tuple(self.length(dim) for dim in variable.dims)

    def chunks(self, variable: Variable) -> tuple[int, ...]:
        """Return the chunk shape of a variable: one block, or tiles of it."""
        return tuple(self._chunk(dim) for dim in variable.dims)

    def parts(self, variable: Variable) -> tuple[int, ...]:
        """Return the shape of what can be read of a chunk without the rest of it."""
        part = self.schema.part
        return tuple(
            min(part.get(dim, chunk), chunk)
            for dim, chunk in zip(variable.dims, self.chunks(variable), strict=True)
        )

    def _chunk(self, dim: str) -> int:
        if dim in self.schema.block:
            return 1
        if dim in self.schema.growable:
            return GROWTH
        length = self.length(dim)
        tile = self.schema.tile.get(dim, length)
        if dim in self.schema.part:  # a chunk is a whole number of parts
            part = self.schema.part[dim]
            length = -(-length // part) * part
        return max(1, min(length, tile))

    def place(self, block: Mapping[str, Label]) -> tuple[int, ...]:
        """Return the position of a block along the block dimensions.

        Raises
        ------
        StoreError
            If the block has other dimensions, or a label that was not prepared.
        """
        name = self.schema.name
        if set(block) != set(self.schema.block):
            raise StoreError(
                f"a block of {name!r} has the dimensions {', '.join(self.schema.block)}, not "
                f"{', '.join(map(str, block)) or 'none'}"
            )
        return tuple(self.find(dim, block[dim]) for dim in self.schema.block)

    def find(self, dim: str, label: Label) -> int:
        """Return the position of one label; `StoreError` if it was not prepared."""
        try:
            return self.positions[dim][_plain_label(label)]
        except KeyError as error:
            known = self.labels[dim]
            shown = ", ".join(map(repr, known[:5])) + (", ..." if len(known) > 5 else "")
            raise StoreError(
                f"{self.schema.name!r} has no {dim} {label!r}; it has {len(known)}: "
                f"{shown or 'none'}"
            ) from error

    def done(self, records: Iterable[Record]) -> NDArray[np.bool_]:
        """Return which blocks records call done, an array over the block dimensions."""
        done = np.zeros([self.length(dim) for dim in self.schema.block], bool)
        for record in records:
            places = [
                self.positions[dim].get(record.block.get(dim, "")) for dim in self.schema.block
            ]
            # A record may be left from a product that was laid out anew: it has no place here.
            if record.done and None not in places and len(record.block) == len(places):
                done[tuple(places)] = True
        return done

    def extended(self, other: Layout) -> Layout | None:
        """Return this layout with another's new labels, None if the two do not fit together."""
        mine, theirs = self.schema.to_json(), other.schema.to_json()
        if mine != theirs or dict(self.sizes) != dict(other.sizes) or self.step != other.step:
            return None
        growing = {*self.schema.block, *self.schema.growable}
        labels = {}
        for dim in self.labels:
            new = [label for label in other.labels[dim] if label not in self.positions[dim]]
            if new and dim not in growing:
                return None
            labels[dim] = (*self.labels[dim], *new)
        return Layout(self.schema, labels, self.sizes, {**self.attrs, **other.attrs}, self.step)


def requested_layout(
    schema: ProductSchema,
    labels: Mapping[str, Sequence[Label]],
    sizes: Mapping[str, int],
    attrs: Mapping[str, Any],
) -> Layout:
    """Return the layout a coordinator asks for.

    Raises
    ------
    SchemaError
        If a dimension has neither labels nor a size, a label occurs twice or labels of one
        dimension have different types; all problems at once.
    """
    problems = []
    known = {str(dim): tuple(map(_plain_label, found)) for dim, found in labels.items()}
    lengths = {str(dim): int(size) for dim, size in sizes.items()}
    for dim in (v.LAG_Y, v.LAG_X):
        if dim in lengths:
            known[dim] = tuple(range(lengths.pop(dim)))
    for dim in schema.dims:
        if dim in known and len(set(known[dim])) != len(known[dim]):
            problems.append(f"{dim}: labels occur twice")
        if dim in known and len({type(label) for label in known[dim]}) > 1:
            problems.append(f"{dim}: labels are both numbers and text")
        if dim not in known and dim in {*schema.block, *schema.growable}:
            problems.append(f"{dim}: needs labels")
        elif dim not in known and lengths.get(dim, 0) < 1:
            problems.append(f"{dim}: needs labels or a size of at least 1")
    problems += [f"{dim}: not a dimension" for dim in {*known, *lengths} - {*schema.dims}]
    if problems:
        raise SchemaError(f"cannot prepare {schema.name!r}: " + "; ".join(sorted(problems)))
    rest = dict(attrs)
    step = str(rest.pop("step", schema.step or schema.name))
    return Layout(schema, known, lengths, rest, step)


def _plain_label(label: Any) -> Label:
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise TypeError(f"a label is text or a whole number, not {label!r}")
    return label
