"""Memory: a task holds few images, and workers do not grow while they make many blocks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.benchmarks.memory_of_workers import draw, images_of_extraction, watch_run

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "memory_of_workers.png"


def record(row: dict[str, object]) -> None:
    """Print a row and append it to the results of the benchmarks."""
    print(f"\n{row}")
    results = os.environ.get("SKYLOOM_BENCHMARK_RESULTS")
    if results:
        with Path(results).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


def test_workers_stay_flat_over_a_thousand_pairs_and_detectors(benchmark, tmp_path):
    memory = benchmark.pedantic(watch_run, args=(tmp_path,), rounds=1)
    draw(memory, PICTURE)
    record(
        {
            "name": "memory of two workers, photon transfer of 1000 pairs x detectors",
            "blocks": memory.made,
            "seconds": memory.seconds,
            "slope_mb_per_100_blocks": memory.slopes,
            "growth_mb": memory.growths,
            "highest_mb": memory.highest,
        }
    )
    assert len(memory.blocks) == 2
    assert memory.made == 1040
    assert max(memory.slopes) < 1.0
    assert max(memory.growths) < 0.01 * max(memory.highest)


@pytest.mark.parametrize("region", ["AMP", "DETECTOR"])
def test_the_extraction_of_a_pair_holds_at_most_three_images(benchmark, region):
    images = benchmark.pedantic(images_of_extraction, args=(region,), rounds=1)
    record({"name": "memory of an extraction beyond its inputs", "size": region, "images": images})
    assert images <= 3.0
