"""What a step is: one algorithm, applied to every block of one product.

A step is a value. It says which product it writes, along which labels it fans out, and for each
input which blocks one output block needs; it does nothing by itself. `skyloom.flows.planner` says
what there is to do, `skyloom.flows.weave` makes the Dask graph.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from skyloom.algorithms.parameters import Parameters
from skyloom.flows.fingerprint import digest
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.records import Label

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.store import Store

__all__ = ["Algorithm", "Constant", "Input", "Labels", "Lookup", "Reduction", "Same", "Step"]

Labels: TypeAlias = tuple[Label, ...]
Algorithm: TypeAlias = "Callable[[Mapping[str, xr.Dataset], Any], xr.Dataset]"


@dataclass(frozen=True, slots=True)
class Same:
    """The block of another product that has the same labels, along the dimensions it has."""

    name: str
    product: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """The block whose label along ``to`` is ``table[label along dim]``; other labels the same.

    A pair and its exposures: ``Lookup("raw_1", "raw", "pair", "exposure", {"3-4": 3})``.
    """

    name: str
    product: str
    dim: str
    to: str
    table: Mapping[Label, Label]


@dataclass(frozen=True, slots=True)
class Reduction:
    """All blocks along ``dim`` that could be made, stacked; skipped with fewer than ``minimum``.

    With ``minimum=0`` the algorithm may get none at all: the input is then absent. With
    ``among=(dim, table)`` only those in ``table[label of the block along dim]`` are taken: of
    all exposures those through one filter; with a tuple of dims the keys are tuples of labels:
    the detectors of an exposure that touch a patch. ``lazy`` ones are read piece by piece as
    they are indexed: for blocks that together do not fit into memory. ``at=(dim, to, table)``
    looks up the label along ``to``, as `Lookup` does.
    """

    name: str
    product: str
    dim: str
    minimum: int = 1
    among: tuple[str | tuple[str, ...], Mapping[Any, Labels]] | None = None
    lazy: bool = False
    at: tuple[str, str, Mapping[Label, Label]] | None = None

    def chosen(self, block: Mapping[str, Label]) -> frozenset[Label] | None:
        """Return the labels that a block takes; None for all there are."""
        if self.among is None:
            return None
        dims, table = self.among
        key = block[dims] if isinstance(dims, str) else tuple(block[dim] for dim in dims)
        return frozenset(table.get(key, ()))


@dataclass(frozen=True, slots=True)
class Constant:
    """A small dataset that belongs to the store, not to a product: ``read(store, block)``.

    ``read`` is an importable function that uses the labels along ``dims`` only.
    """

    name: str
    read: Callable[[Store, Mapping[str, Label]], xr.Dataset]
    dims: tuple[str, ...] = ()


Input: TypeAlias = Same | Lookup | Reduction | Constant


@dataclass(frozen=True)
class Step:
    """One algorithm fanned out over the blocks of one product.

    Parameters
    ----------
    algorithm : callable
        Importable ``f(inputs, parameters) -> Dataset``: inputs by name, the block returned.
    parameters : Parameters
        What the algorithm is given; part of the fingerprint.
    schema : ProductSchema
        The product it writes, whose name is also the step's. It fans out over the block
        dimensions.
    labels : mapping of str to tuple
        Labels along each block dimension, and along others that have names.
    inputs : tuple of Input
        Which blocks one block needs.
    revision : int
        Raised when the same inputs and parameters give other numbers.
    sizes : mapping of str to int
        Lengths of the product's dimensions without labels.
    attrs : mapping
        Attributes of the product.
    memory_bytes, read_bytes : int
        Estimates per task: high-water memory and bytes read, in bytes.
    quality : callable, optional
        Importable ``f(block dataset) -> mapping`` of figures for the record.
    only : frozenset of tuple, optional
        Labels of the blocks there are, where not every combination makes sense: the patches
        that an exposure touches.

    Examples
    --------
    >>> from skyloom.storage.dataset_schema import ProductSchema
    >>> schema = ProductSchema("level", ("exposure",), ("exposure",), ())
    >>> step = Step(lambda inputs, parameters: inputs["raw"], Parameters(), schema,
    ...             {"exposure": (1, 2)}, (Same("raw", "raw"),))
    >>> step.name, step.size, list(step.blocks())
    ('level', 2, [(1,), (2,)])
    """

    algorithm: Algorithm
    parameters: Parameters
    schema: ProductSchema
    labels: Mapping[str, Labels]
    inputs: tuple[Input, ...]
    revision: int = 1
    sizes: Mapping[str, int] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    memory_bytes: int = 0
    read_bytes: int = 0
    quality: Callable[[xr.Dataset], Mapping[str, Any]] | None = None
    only: frozenset[Labels] | None = None

    def __post_init__(self) -> None:
        """Refuse a step that contradicts itself."""
        missing = [dim for dim in self.dims if dim not in self.labels]
        if missing:
            raise ValueError(f"step {self.name!r} needs labels along {', '.join(missing)}")
        names = [given.name for given in self.inputs]
        for name in {*names}:
            if names.count(name) > 1:
                raise ValueError(f"step {self.name!r} has two inputs named {name!r}")

    @property
    def name(self) -> str:
        """Name of the step, of its product and of its records."""
        return self.schema.name

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions it fans out over."""
        return self.schema.block

    @property
    def size(self) -> int:
        """Number of blocks."""
        if self.only is not None:
            return len(self.only)
        return math.prod(len(self.labels[dim]) for dim in self.dims)

    def blocks(self) -> Iterator[Labels]:
        """Yield the labels of every block, in order of the dimensions."""
        everything = itertools.product(*(self.labels[dim] for dim in self.dims))
        return (b for b in everything if b in self.only) if self.only is not None else everything

    def block(self, labels: Labels) -> dict[str, Label]:
        """Return a block as a mapping from dimension to label."""
        return dict(zip(self.dims, labels, strict=True))

    @cached_property
    def positions(self) -> dict[str, dict[Label, int]]:
        """Position of each label along each block dimension."""
        return {dim: {label: i for i, label in enumerate(self.labels[dim])} for dim in self.dims}

    @cached_property
    def config_hash(self) -> str:
        """Fingerprint of the parameters and of the layout they ask for."""
        layout = json.dumps([self.schema.to_json(), dict(self.sizes)], sort_keys=True)
        return digest(self.name, self.parameters.model_dump_json(), layout)

    @cached_property
    def identity(self) -> str:
        """Fingerprint of the step: configuration and revision."""
        return digest(self.config_hash, str(self.revision))

    @cached_property
    def write_bytes(self) -> int:
        """Bytes of one block before compression."""
        lengths = {**{dim: len(found) for dim, found in self.labels.items()}, **self.sizes}
        total = 0
        for variable in self.schema.variables:
            inner = [lengths.get(dim, 1) for dim in variable.dims if dim not in self.dims]
            total += math.prod(inner) * np.dtype(variable.dtype).itemsize
        return total
