"""Run a flow again and again, each time killed at a random moment; then once to the end.

    python kill_repeatedly.py <module:function that returns a flow> <store> <kills> <seed> <seconds>

A process of one thread imports everything once and forks a child for each life, so that twenty
lives take seconds. Prints one JSON line: how many children were killed while they worked, how
many blocks were done after each, and what the last, undisturbed run made.
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

sys.path.insert(0, str(Path(__file__).parent))


def done(store: str, steps: list[str]) -> int:
    """Return how many blocks are done."""
    from skyloom.storage.store import open_store

    opened = open_store(store)
    return sum(record.done for step in steps for record in opened.records(step).values())


def main(made_by: str, store: str, kills: int, seed: int, longest: float) -> None:
    """Kill, kill again, finish."""
    import dask.threaded  # noqa: F401  # what a run imports late, children would import each

    module, _, name = made_by.partition(":")
    make = getattr(importlib.import_module(module), name)
    steps = [step.name for step in make(store).steps]
    generator = random.Random(seed)
    killed, progress = 0, []
    while killed < kills:
        child = os.fork()
        if child == 0:
            make(store).run(workers=2, progress=False)
            os._exit(0)
        time.sleep(generator.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break  # it was finished before: the lives are too long for the work
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
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
