"""How benchmarks are measured: ours beside its peers in one run, on one thread, in one unit.

The reference (the LSST Science Pipelines, compiled, one core) was timed on a core where sorting
1e7 random float64 with numpy takes 0.656 s and copying a 4096² float32 image 4.2 ms. It cannot be
installed beside us, so its published times are scaled by a calibrator measured in the same run.
numpy sorts with vector instructions where the processor has them, ten times faster on some; no
such core copies ten times faster, so the time of 0.656 s can only be that of the plain sort. The
calibrator therefore is numpy's sort with vector instructions switched off (in a process of its
own); what the vector sort and the copy would have given is printed and recorded beside it.

Seconds are those of the processor, of all threads: other work on the machine lengthens them least.
Every row is printed and, if the environment names a file in SKYLOOM_BENCHMARK_RESULTS, appended
to it as a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

REFERENCE_SORT_S = 0.656
REFERENCE_COPY_S = 4.2e-3

SORT = """
import time
import numpy as np
numbers = np.random.default_rng(1).random(10**7)
times = []
for _ in range(3):
    start = time.process_time()
    np.sort(numbers)
    times.append(time.process_time() - start)
print(min(times))
"""
DISPATCHED = "import numpy._core._multiarray_umath as m; print(*m.__cpu_dispatch__)"


def processor_time() -> float:
    """Return seconds of the processor spent by this process and programs that it has run."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def best(call: Callable[[], Any], rounds: int) -> float:
    """Return the shortest of some runs, in seconds of the processor."""
    times = []
    for _ in range(rounds):
        start = processor_time()
        call()
        times.append(processor_time() - start)
    return min(times)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every benchmark of this folder count seconds of the processor."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.benchmark(timer=time.process_time))


def run_python(source: str, **environment: str) -> str:
    """Return what a fresh interpreter prints."""
    command = [sys.executable, "-W", "ignore", "-c", source]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@dataclass(frozen=True)
class Calibrators:
    """What this core does in how many seconds."""

    plain_sort_s: float
    vector_sort_s: float
    copy_s: float
    multiply_adds_per_s: float

    @classmethod
    def measure(cls) -> Calibrators:
        image = np.ones((4096, 4096), np.float32)
        matrix = np.random.default_rng(1).random((1500, 1500))
        product = best(lambda: matrix @ matrix, 3)
        return cls(
            plain_sort_s=float(run_python(SORT, NPY_DISABLE_CPU_FEATURES=run_python(DISPATCHED))),
            vector_sort_s=float(run_python(SORT)),
            copy_s=best(image.copy, 10),
            multiply_adds_per_s=1500**3 / product,
        )

    @property
    def bytes_per_s(self) -> float:
        return 2 * 4 * 4096**2 / self.copy_s


@dataclass(frozen=True)
class Peer:
    """Another way to get the same, and how many times faster ours is meant to be."""

    name: str
    call: Callable[[], Any]
    target: float | None = None
    rounds: int = 3


@dataclass(frozen=True)
class Row:
    """One comparison. Without a peer it is with the reference alone, and so is the target."""

    name: str
    size: str
    ours_s: float
    peer: str | None
    peer_s: float | None
    ratio: float | None
    reference_s: float | None
    reference_ratio: float | None
    reference_ratio_by_vector_sort: float | None
    reference_ratio_by_copy: float | None
    target: float | None
    bound_s: float | None

    def describe(self) -> str:
        parts = [f"{self.name}, {self.size}: {1e3 * self.ours_s:.4g} ms"]
        if self.bound_s is not None:
            bound = (
                f"{self.ours_s / self.bound_s:.1f} times the bound of {1e3 * self.bound_s:.3g} ms"
            )
            parts.append(bound)
        goal = "" if self.target is None else f" (goal {self.target:g})"
        if self.peer is not None:
            parts.append(
                f"{self.peer} {1e3 * self.peer_s:.4g} ms: {self.ratio:.1f} times faster{goal}"
            )
        elif self.reference_s is not None:
            parts.append(
                f"reference {1e3 * self.reference_s:.4g} ms on this core:"
                f" {self.reference_ratio:.1f} times faster{goal}"
                f" [by vector sort {self.reference_ratio_by_vector_sort:.1f},"
                f" by copy {self.reference_ratio_by_copy:.1f}]"
            )
        return "; ".join(parts)


@pytest.fixture(scope="session")
def calibrators() -> Iterator[Calibrators]:
    """Measure the calibrators once, and keep numpy's and scipy's libraries on one thread."""
    with threadpool_limits(1):
        measured = Calibrators.measure()
        print(f"\n{measured}, {measured.bytes_per_s / 1e9:.1f} GB/s")
        yield measured


@pytest.fixture
def compare(benchmark: Any, calibrators: Calibrators) -> Callable[..., float]:
    """Return a function that times ours and its peers, and prints and records the rows."""

    def measure(
        name: str,
        ours: Callable[[], Any],
        *,
        size: str,
        peers: tuple[Peer, ...] = (),
        published_s: float | None = None,
        target: float | None = None,
        moved_bytes: float | None = None,
        multiply_adds: float | None = None,
        rounds: int = 7,
    ) -> float:
        """Compare with peers, and with a published time of the reference if there is one.

        The bound is the longer of moving the bytes at the speed of a copy and of doing the
        multiply-adds at the speed of a matrix product.
        """
        benchmark.pedantic(ours, rounds=rounds, warmup_rounds=1)
        ours_s = benchmark.stats.stats.min
        bounds = [
            amount / speed
            for amount, speed in (
                (moved_bytes, calibrators.bytes_per_s),
                (multiply_adds, calibrators.multiply_adds_per_s),
            )
            if amount is not None
        ]
        reference: list[float | None] = [None, None, None, None]
        if published_s is not None:
            scales = (
                calibrators.plain_sort_s / REFERENCE_SORT_S,
                calibrators.vector_sort_s / REFERENCE_SORT_S,
                calibrators.copy_s / REFERENCE_COPY_S,
            )
            reference = [published_s * scales[0], *(published_s * s / ours_s for s in scales)]
        compared = [(peer.name, best(peer.call, peer.rounds), peer.target) for peer in peers]
        rows = [
            Row(
                name,
                size,
                ours_s,
                peer,
                peer_s,
                peer_s / ours_s,
                *reference,
                goal,
                max(bounds, default=None),
            )
            for peer, peer_s, goal in compared
        ]
        if published_s is not None or not peers:
            rows.append(
                Row(
                    name,
                    size,
                    ours_s,
                    None,
                    None,
                    None,
                    *reference,
                    target,
                    max(bounds, default=None),
                )
            )
        print()
        for row in rows:
            print(row.describe())
        results = os.environ.get("SKYLOOM_BENCHMARK_RESULTS")
        if results:
            with Path(results).open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        return float(ours_s)

    return measure


@pytest.fixture(scope="session")
def peer() -> type[Peer]:
    """Return the class of peers, which tests cannot import from here."""
    return Peer
