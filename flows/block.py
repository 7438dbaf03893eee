"""What runs inside a task: one block read, computed, written and recorded.

A task never raises: whatever happens to its block becomes a record and a small outcome, so that
one bad block stops nothing but what depends on it. Only an interrupt by the user passes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from threadpoolctl import threadpool_limits

from skyloom.flows.captured_warnings import captured_warnings
from skyloom.flows.fingerprint import Gathered, digest, gathered_token, item_digest
from skyloom.flows.inputs import Source, blocks_wanted, provenance, read_input
from skyloom.flows.process_memory import watched_memory
from skyloom.flows.step import Labels, Reduction, Step
from skyloom.storage.records import Label, Record, Status

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["Context", "Given", "Outcome", "Unavailable", "block_fingerprint", "gather", "run_block"]

LONGEST_REASON: Final = 1000
NAMED: Final = 5
"""How many missing blocks a reason names."""


class Unavailable(NamedTuple):
    """An input that does not exist, and why."""

    reason: str


class Outcome(NamedTuple):
    """What became of one block, small enough to travel.

    ``kept`` means that an up-to-date result was there already.
    """

    step: str
    labels: Labels
    status: Literal["done", "kept", "failed", "skipped"]
    fingerprint: str = ""
    reason: str = ""
    seconds: float = 0.0
    warnings: int = 0
    bytes_written: int = 0

    @property
    def good(self) -> bool:
        """Whether the block is there for others to use."""
        return self.status in {"done", "kept"}


Given: TypeAlias = str | Gathered | Outcome | Unavailable
"""An input of a task: a fingerprint known beforehand, or what an earlier task returned."""


@dataclass(frozen=True)
class Context:
    """What all tasks of a run share; travels once to every worker.

    ``sources`` are the blocks of every product that is made or read.
    """

    store: Store
    steps: Mapping[str, Step]
    sources: Mapping[str, Source]


def block_fingerprint(step: Step, tokens: Sequence[str]) -> str:
    """Return the fingerprint of a block from those of its inputs, in the step's order."""
    named = (f"{given.name}={token}" for given, token in zip(step.inputs, tokens, strict=True))
    return digest(step.identity, *named)


def gather(
    context: Context, product: str, dim: str, known: Gathered, *outcomes: Outcome
) -> Gathered:
    """Add the blocks that earlier tasks made to those known when the graph was built."""
    step = context.steps[product]
    axis = step.dims.index(dim)
    for outcome in outcomes:
        if outcome.good:
            label = outcome.labels[axis]
            item = item_digest(label, outcome.fingerprint)
            known = known.plus(step.positions[dim][label], item)
    return known


def run_block(context: Context, name: str, labels: Labels, previous: str, *given: Given) -> Outcome:
    """Make one block, unless an up-to-date one is there, and record what happened.

    Parameters
    ----------
    context : Context
        Store and steps.
    name : str
        Name of the step.
    labels : tuple
        Label along each of the step's dimensions.
    previous : str
        Fingerprint of the block that is there, "" if none is done.
    *given
        One per input of the step.
    """
    with watched_memory() as peak_memory:
        return _run_block(context, name, labels, previous, given, peak_memory)


def _run_block(
    context: Context,
    name: str,
    labels: Labels,
    previous: str,
    given: Sequence[Given],
    peak_memory: Callable[[], int],
) -> Outcome:
    step = context.steps[name]
    started = time.time()
    clock, cpu_clock = time.perf_counter(), time.thread_time()

    def record(status: Status, **details: Any) -> Record:
        return Record(
            step=name,
            block=step.block(labels),
            status=status,
            config_hash=step.config_hash,
            versions={"skyloom": _version(), "revision": str(step.revision)},
            host=socket.gethostname(),
            worker=f"{os.getpid()}/{threading.current_thread().name}",
            start_time=started,
            end_time=time.time(),
            wall_seconds=time.perf_counter() - clock,
            cpu_seconds=time.thread_time() - cpu_clock,
            peak_memory_bytes=peak_memory(),
            **details,
        )

    tokens, lacking = _tokens(context, step, labels, given)
    if lacking:
        return _skip(context.store, record("skipped", reason=lacking), labels)
    fingerprint = block_fingerprint(step, tokens)
    if fingerprint == previous:
        return Outcome(name, labels, "kept", fingerprint)
    if made := _made_meanwhile(context.store, step, labels, fingerprint):
        return _outcome(made, labels)
    with captured_warnings() as caught:
        try:
            found = _compute(context, step, labels, given, tokens)
            done = record("done", fingerprint=fingerprint, warnings=tuple(caught), **found)
            context.store.write_record(done)
        except Exception as error:  # anything an algorithm or a medium may do to one block
            failed = record(
                "failed",
                fingerprint=fingerprint,
                warnings=tuple(caught),
                reason=describe(error),
                traceback="".join(traceback.format_exception(error)),
            )
            return _fail(context.store, failed, labels)
    return _outcome(done, labels)


def _outcome(record: Record, labels: Labels) -> Outcome:
    """Return the outcome of a block that is done."""
    return Outcome(
        record.step,
        labels,
        "done",
        record.fingerprint,
        seconds=record.wall_seconds,
        warnings=len(record.warnings),
        bytes_written=record.bytes_written,
    )


def _made_meanwhile(store: Store, step: Step, labels: Labels, fingerprint: str) -> Record | None:
    """Return the record of this very block if it was made since the plan.

    A cluster forgets what a worker has done when it loses it, and asks again; the store knows.
    """
    record = store.recent_record(step.name, step.block(labels))
    return record if record and record.done and record.fingerprint == fingerprint else None


def _compute(
    context: Context, step: Step, labels: Labels, given: Sequence[Given], tokens: Sequence[str]
) -> dict[str, Any]:
    """Read, compute and write a block; return what its record says about that."""
    inputs, origin, read = {}, {}, 0
    for item, what, token in zip(step.inputs, given, tokens, strict=True):
        wanted = blocks_wanted(context.sources, step, item, labels, what)
        origin[item.name] = provenance(item, wanted, token)
        dataset = read_input(context.store, step, item, labels, wanted, token)
        if dataset is not None:
            inputs[item.name] = dataset
            read += dataset.nbytes
    # OpenMP keeps its number of threads per thread, so a limit set where the run began is not seen.
    with threadpool_limits(limits=1, user_api="openmp"):
        result = step.algorithm(inputs, step.parameters)
    quality = step.quality(result) if step.quality else {}
    written = context.store.write_block(step.name, step.block(labels), result)
    return {
        "inputs": origin,
        "quality": quality,
        "bytes_read": read,
        "bytes_written": written,
    }


def _tokens(
    context: Context, step: Step, labels: Labels, given: Sequence[Given]
) -> tuple[list[str], str]:
    """Return the fingerprint of each input, and why the block cannot be made, if so."""
    tokens = []
    for item, what in zip(step.inputs, given, strict=True):
        match what:
            case str():
                tokens.append(what)
            case Unavailable():
                return [], what.reason
            case Outcome():
                if not what.good:
                    return [], upstream_reason(context.steps[what.step], what)
                tokens.append(what.fingerprint)
            case _:
                if isinstance(item, Reduction) and what.size < item.minimum:
                    chosen = item.chosen(step.block(labels))
                    return [], shortage(context.sources[item.product], item, what, chosen)
                tokens.append(gathered_token(what))
    return tokens, ""


def upstream_reason(step: Step, outcome: Outcome) -> str:
    """Return why a block is skipped whose input was not made."""
    block = ", ".join(f"{dim} {label}" for dim, label in step.block(outcome.labels).items())
    return shorten(f"{outcome.step} of {block} {outcome.status}: {outcome.reason}")


def shortage(
    source: Source, item: Reduction, found: Gathered, chosen: frozenset[Label] | None = None
) -> str:
    """Return why a reduction is skipped; ``chosen`` are the labels it takes, None for all."""
    known = source.labels[item.dim]
    expected = [label for label in known if chosen is None or label in chosen]
    present = {*found.labels(known)}
    missing = [label for label in expected if label not in present]
    names = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
    return (
        f"needs at least {item.minimum} blocks of {item.product} along {item.dim}, has "
        f"{found.size} of {len(expected)}" + (f"; not there: {names}" if missing else "")
    )


def describe(error: BaseException) -> str:
    """Return an exception as one line: its kind and the start of its message.

    Examples
    --------
    >>> describe(ValueError("lags must be >= 1, got 0"))
    'ValueError: lags must be >= 1, got 0'
    """
    return shorten(f"{type(error).__name__}: {error}")


def shorten(text: str) -> str:
    """Return a text on one line, cut where it gets long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."


def _skip(store: Store, record: Record, labels: Labels) -> Outcome:
    reason = _write_or_say(store, record)
    return Outcome(record.step, labels, "skipped", reason=reason)


def _fail(store: Store, record: Record, labels: Labels) -> Outcome:
    reason = _write_or_say(store, record)
    return Outcome(
        record.step,
        labels,
        "failed",
        reason=reason,
        seconds=record.wall_seconds,
        warnings=len(record.warnings),
    )


def _write_or_say(store: Store, record: Record) -> str:
    """Write a record; return its reason, with why it could not be written if so."""
    try:
        store.write_record(record)
    except Exception as error:  # the disk that refused the block may refuse the record as well
        return shorten(f"{record.reason}; nor could its record be written: {describe(error)}")
    return record.reason


@cache
def _version() -> str:
    return version("skyloom")
