"""Run a flow again and again, each time killed at a random moment; then once to the end.

    python kill_repeatedly.py <module:function that returns a flow> <store> <kills> <seed> <blocks>

Of several flows, with commas between them, each is begun when the one before is done.

A process of one thread imports everything once and forks a child for each life, so that twenty
lives take seconds. A life ends a random short while after a random number of blocks, at most
<blocks>, or already while it starts: moments that do not depend on how busy the machine is.
Prints one JSON line a flow: how many children were killed while they worked, how many blocks were
done after each, and what the last, undisturbed run made.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def done(store: str, steps: list[str]) -> int:
    """Return how many blocks are done."""
    from skyloom.storage.store import open_store

    opened = open_store(store)
    return sum(record.done for step in steps for record in opened.records(step).values())


class Teller:
    """An observer that writes a byte for every block to a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def begin(self, totals: Any) -> None:
        """Say nothing."""

    def finished(self, outcome: Any) -> None:
        """Tell of one block."""
        os.write(self._pipe, b".")

    def end(self) -> None:
        """Say nothing."""


def live(flow: Any, blocks: int, pause: float) -> bool:
    """Run a flow in a child, kill it after some blocks and a pause; return whether it lived."""
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        flow.run(workers=2, progress=Teller(tell))
        os._exit(0)
    os.close(tell)
    seen = 0
    while seen < blocks and (told := os.read(listen, blocks - seen)):
        seen += len(told)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(listen)
    return os.WIFSIGNALED(status)


def main(made_by: str, store: str, kills: int, seed: int, most: int) -> None:
    """Kill, kill again, finish."""
    import dask.threaded  # noqa: F401  # what a run imports late, children would import each

    module, _, name = made_by.partition(":")
    make = getattr(importlib.import_module(module), name)
    steps = [step.name for step in make(store).steps]
    generator = random.Random(seed)
    killed, progress = 0, []
    while killed < kills and live(
        make(store), generator.randint(0, most), generator.expovariate(1 / 0.02)
    ):
        killed += 1
        progress.append(done(store, steps))
    last = make(store).run(workers=2, progress=False)
    again = make(store).run(workers=2, progress=False)
    print(
        json.dumps(
            {
                "killed": killed,
                "progress": progress,
                "last": last.made,
                "again": again.made,
                "exit_code": last.exit_code,
            }
        )
    )


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        main(each, sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
