"""Which blocks an input is made of, and reading them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skyloom.flows.fingerprint import Gathered
from skyloom.flows.step import Constant, Input, Labels, Lookup, Reduction, Same, Step
from skyloom.storage.records import Label

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.store import Store

__all__ = ["Source", "blocks_wanted", "input_block", "provenance", "read_input"]

_KEPT: Final = 8
_reductions: OrderedDict[tuple[Any, ...], xr.Dataset] = OrderedDict()
_lock = threading.Lock()


class Source(NamedTuple):
    """Which blocks a product may have: those of a step, or those in the store at planning."""

    product: str
    dims: tuple[str, ...]
    labels: Mapping[str, Labels]

    @classmethod
    def of_step(cls, step: Step) -> Source:
        """Return the blocks that a step of the run makes."""
        return cls(step.name, step.dims, step.labels)

    @classmethod
    def stored(cls, product: str, store: Store) -> Source:
        """Return the blocks that a product of the store has room for."""
        dims, labels = store.schema(product).block, store.labels(product)
        return cls(product, dims, {dim: tuple(labels[dim]) for dim in dims})


def input_block(
    step: Step, item: Same | Lookup | Reduction, labels: Labels, dims: tuple[str, ...]
) -> dict[str, Label]:
    """Return the labels of the block(s) that one block needs; a reduced dimension is left out.

    Raises
    ------
    ValueError
        If the product has a dimension about which the step's labels say nothing.
    """
    block = step.block(labels)
    if isinstance(item, Lookup):
        block[item.to] = item.table[block[item.dim]]
    elif isinstance(item, Reduction) and item.at:
        dim, to, table = item.at
        block[to] = table[block[dim]]
    reduced = item.dim if isinstance(item, Reduction) else None
    unknown = [dim for dim in dims if dim not in block and dim != reduced]
    if unknown:
        raise ValueError(
            f"input {item.name!r} of step {step.name!r}: nothing says which {unknown[0]} of "
            f"{item.product} is needed"
        )
    return {dim: block[dim] for dim in dims if dim != reduced}


def provenance(item: Input, wanted: Mapping[str, Any], token: str) -> dict[str, Any]:
    """Return what a record keeps of an input: which blocks, and their fingerprint."""
    if isinstance(item, Constant):
        return {"fingerprint": token}
    block = dict(wanted)
    if isinstance(item, Reduction):
        block[item.dim] = f"{len(wanted[item.dim])} blocks"
    return {"product": item.product, "block": block, "fingerprint": token}


def blocks_wanted(
    sources: Mapping[str, Source], step: Step, item: Input, labels: Labels, given: Any
) -> dict[str, Any]:
    """Return the labels to read along each dimension; several along a reduced one."""
    if isinstance(item, Constant):
        return {}
    source = sources[item.product]
    block: dict[str, Any] = dict(input_block(step, item, labels, source.dims))
    if isinstance(item, Reduction) and isinstance(given, Gathered):
        block[item.dim] = given.labels(source.labels[item.dim])
    return block


def read_input(
    store: Store,
    step: Step,
    item: Input,
    labels: Labels,
    wanted: Mapping[str, Any],
    token: str,
) -> xr.Dataset | None:
    """Read one input; None for a reduction that found nothing."""
    if isinstance(item, Constant):
        return item.read(store, step.block(labels))
    block = dict(wanted)
    if not isinstance(item, Reduction):
        return store.read_block(item.product, block)
    if not block[item.dim]:
        return None
    if item.lazy:
        return store.read_block(item.product, block, lazy=True)
    if len(block) - 1 == len(step.dims):
        return store.read_block(item.product, block)
    # Several blocks of this step share the reduction: read it once a process, not once a block.
    # The fingerprint tells its contents apart, so what is remembered never goes stale.
    fixed = tuple((dim, label) for dim, label in block.items() if dim != item.dim)
    key = (store.url, item.product, fixed, token)
    with _lock:
        if key in _reductions:
            _reductions.move_to_end(key)
            return _reductions[key].copy(deep=False)
    dataset = store.read_block(item.product, block)
    with _lock:
        _reductions[key] = dataset
        while len(_reductions) > _KEPT:
            _reductions.popitem(last=False)
    return dataset.copy(deep=False)
