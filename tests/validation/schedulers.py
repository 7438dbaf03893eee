"""The same products, bit for bit, on threads, processes and a cluster."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row
from tests.validation.stores import identical, ingested_night, small_flow


def _rows_of_products() -> list[Row]:
    from distributed import Client, LocalCluster

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = ingested_night(folder)
        expected = folder / "expected"
        shutil.copytree(raw, expected)
        small_flow(expected).run(workers=1, progress=False)
        with (
            LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as c,
            Client(c) as client,
        ):
            ways: dict[str, dict[str, Any]] = {
                "4 threads": {"scheduler": "threads", "workers": 4},
                "2 processes": {"scheduler": "processes", "workers": 2},
                "a LocalCluster, 2 workers of 2 threads, by its client": {"client": client},
                "the same cluster, by its address": {"scheduler": c.scheduler_address},
            }
            for number, (way, options) in enumerate(ways.items()):
                path = folder / str(number)
                shutil.copytree(raw, path)
                summary = small_flow(path).run(progress=False, **options)
                same, arrays = identical(path, expected)
                rows.append(
                    Row(f"photon transfer of a simulated night on {way}, compared with one thread",
                        "every array the same, bit for bit",
                        f"{same} of {arrays} arrays, {summary.made} blocks, exit code "
                        f"{summary.exit_code}", same == arrays and summary.exit_code == 0)
                )  # fmt: skip
    return rows


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [*_rows_of_products(), *rows_of_tests("tests/flows/test_schedulers.py", jobs=1)]
