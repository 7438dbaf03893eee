"""Making the plan: fingerprints chained through the steps, compared with the records.

Fingerprints are chained from those of the ingested files through every step, as they will be if
nothing fails. A block is done if its record is and the fingerprints agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from skyloom.algorithms.errors import StoreError
from skyloom.flows.block import Unavailable, block_fingerprint, shortage
from skyloom.flows.fingerprint import Gathered, dataset_fingerprint, gathered_token, item_digest
from skyloom.flows.inputs import Source, input_block
from skyloom.flows.plan import (
    BlockPlan,
    Gathering,
    Pending,
    PendingGathering,
    Plan,
    Planned,
    StepPlan,
)
from skyloom.flows.step import Constant, Input, Labels, Lookup, Reduction, Same, Step
from skyloom.storage.records import Label, Record

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Lost", "make_plan"]

Lost: TypeAlias = Mapping[tuple[str, Labels], str]


def make_plan(steps: Sequence[Step], store: Store, *, lost: Lost | None = None) -> Plan:
    """Compare what steps would make with what a store holds.

    Parameters
    ----------
    steps : sequence of Step
        Each after those whose products it reads.
    store : Store
        Where inputs and products are.
    lost : mapping, optional
        Blocks not to try again in this run, and why.

    Raises
    ------
    ValueError
        If two steps write the same product, or a step reads one written after it.
    StoreError
        If a product that no step makes is not in the store; the message names the steps that
        need it.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> make_plan([], create_store("memory://doctest-plan", "generic")).todo
    0
    """
    _check_order(steps)
    planner = _Planner({step.name: step for step in steps}, store, lost or {})
    plans = tuple(planner.plan(step) for step in steps)
    return Plan(plans, tuple(planner.gatherings), planner.sources)


def _check_order(steps: Sequence[Step]) -> None:
    names = [step.name for step in steps]
    for i, step in enumerate(steps):
        if step.name in names[:i]:
            raise ValueError(f"two steps write the product {step.name!r}")
        late = [p for p in _products(step.inputs) if p in names[i:]]
        if late:
            raise ValueError(f"step {step.name!r} reads {late[0]!r}, which is written after it")


def _products(inputs: Iterable[Input]) -> list[str]:
    return [item.product for item in inputs if not isinstance(item, Constant)]


class _Planner:
    """What is known while the steps are gone through in order."""

    def __init__(self, steps: Mapping[str, Step], store: Store, lost: Lost) -> None:
        self.steps, self.store, self.lost = steps, store, lost
        self.gatherings: list[Gathering] = []
        self._planned: dict[str, dict[Labels, BlockPlan]] = {}
        self.sources = {name: Source.of_step(step) for name, step in steps.items()}
        self._stored: dict[str, dict[Labels, str]] = {}
        self._constants: dict[tuple[Any, ...], str] = {}
        self._reductions: dict[tuple[Any, ...], tuple[Planned, Gathered]] = {}

    def plan(self, step: Step) -> StepPlan:
        """Return the plan of one step."""
        self._load_stored(step)
        records = {
            tuple(record.block[dim] for dim in step.dims): record
            for record in self.store.records(step.name).values()
            if set(record.block) == set(step.dims)
        }
        blocks = {
            labels: self._block(step, labels, records.get(labels)) for labels in step.blocks()
        }
        self._planned[step.name] = blocks
        return StepPlan(step, blocks)

    def _load_stored(self, step: Step) -> None:
        """Read which blocks of stored products there are, with their fingerprints."""
        for product in _products(step.inputs):
            if product in self._stored or product in self.steps:
                continue
            if product not in self.store:
                raise StoreError(
                    f"{self.store.url} has no product {product!r}, which step {step.name!r} "
                    "reads: ingest or make it first"
                )
            schema = self.store.schema(product)
            dims = schema.block
            found = {
                tuple(record.block[dim] for dim in dims): record.fingerprint or str(record.stamp)
                for record in self.store.records(schema.step or product).values()
                if record.done and set(record.block) == set(dims)
            }
            self._stored[product] = found
            self.sources[product] = Source.stored(product, self.store)

    def _block(self, step: Step, labels: Labels, record: Record | None) -> BlockPlan:
        reason = self.lost.get((step.name, labels))
        if reason:
            return BlockPlan("blocked", reason, recorded=True)
        given: list[Planned] = []
        tokens: list[str] = []
        for item in step.inputs:
            what, token = self._input(step, item, labels)
            if isinstance(what, Unavailable):
                same = (
                    record is not None
                    and record.status == "skipped"
                    and record.reason == what.reason
                )
                others = (what,) * len(step.inputs)
                return BlockPlan("blocked", what.reason, given=others, recorded=same)
            given.append(what)
            tokens.append(token)
        fingerprint = block_fingerprint(step, tokens)
        done = record is not None and record.done
        previous = record.fingerprint if record is not None and done else ""
        if previous == fingerprint:
            return BlockPlan("done", fingerprint=fingerprint, previous=previous)
        why = _why(step, record)
        return BlockPlan("todo", why, fingerprint, previous, tuple(given))

    def _input(self, step: Step, item: Input, labels: Labels) -> tuple[Planned, str]:
        """Return an input as the task gets it, and its expected fingerprint."""
        if isinstance(item, Constant):
            token = self._constant(step, item, labels)
            return token, token
        if isinstance(item, Reduction):
            return self._reduction(step, item, labels)
        return self._single(step, item, labels)

    def _constant(self, step: Step, item: Constant, labels: Labels) -> str:
        block = {dim: label for dim, label in step.block(labels).items() if dim in item.dims}
        key = (item.read, *block.items())
        if key not in self._constants:
            self._constants[key] = dataset_fingerprint(item.read(self.store, block))
        return self._constants[key]

    def _single(self, step: Step, item: Same | Lookup, labels: Labels) -> tuple[Planned, str]:
        made_by = self.steps.get(item.product)
        block = input_block(step, item, labels, self.sources[item.product].dims)
        wanted = tuple(block.values())
        if made_by is None:
            token = self._stored[item.product].get(wanted)
            if token is None:
                return Unavailable(f"no {item.product} of {_named(block)}"), ""
            return token, token
        upstream = self._planned[item.product].get(wanted)
        if upstream is None:
            return Unavailable(f"no {item.product} of {_named(block)}"), ""
        if upstream.state == "blocked":
            reason = f"{item.product} of {_named(block)}: {upstream.why}"
            return Unavailable(reason), ""
        if upstream.state == "done":
            return upstream.fingerprint, upstream.fingerprint
        return Pending(item.product, wanted), upstream.fingerprint

    def _reduction(self, step: Step, item: Reduction, labels: Labels) -> tuple[Planned, str]:
        source = self.sources[item.product]
        block = input_block(step, item, labels, source.dims)
        chosen = item.chosen(step.block(labels))
        key = (item.product, item.dim, chosen, *block.values())
        if key not in self._reductions:
            self._reductions[key] = self._gather(source, item, block, chosen)
        what, expected = self._reductions[key]
        if expected.size < item.minimum:
            return Unavailable(shortage(source, item, expected, chosen)), ""
        return what, gathered_token(expected)

    def _gather(
        self,
        source: Source,
        item: Reduction,
        block: Mapping[str, Any],
        chosen: frozenset[Label] | None,
    ) -> tuple[Planned, Gathered]:
        known, expected, pending = Gathered(), Gathered(), []
        for position, label in enumerate(source.labels[item.dim]):
            if chosen is not None and label not in chosen:
                continue
            wanted = tuple(label if dim == item.dim else block[dim] for dim in source.dims)
            fingerprint, done = self._upstream(item.product, wanted)
            if not fingerprint:
                continue
            digest = item_digest(label, fingerprint)
            expected = expected.plus(position, digest)
            if done:
                known = known.plus(position, digest)
            else:
                pending.append(wanted)
        if not pending:
            return expected, expected
        self.gatherings.append(Gathering(item.product, item.dim, known, expected, tuple(pending)))
        return PendingGathering(len(self.gatherings) - 1), expected

    def _upstream(self, product: str, wanted: Labels) -> tuple[str, bool]:
        """Return the fingerprint that a block has or will have, "" for none, and if it is done."""
        if product not in self.steps:
            return self._stored[product].get(wanted, ""), True
        upstream = self._planned[product].get(wanted)
        if upstream is None or upstream.state == "blocked":
            return "", False
        return upstream.fingerprint, upstream.state == "done"


def _named(block: Mapping[str, Any]) -> str:
    return ", ".join(f"{dim} {label}" for dim, label in block.items())


def _why(step: Step, record: Record | None) -> str:
    """Return why a block is to be made whose inputs are there."""
    if record is None:
        return "no record"
    if record.status == "failed":
        return "failed before"
    if record.status == "skipped":
        return "skipped before"
    if record.status == "started":
        return "interrupted before"
    if record.config_hash != step.config_hash:
        return "configuration changed"
    if record.versions.get("revision") != str(step.revision):
        return "code revision changed"
    return "inputs changed"
