"""Combining the flats of a large detector from a store, beside reading the same frames."""

from __future__ import annotations

import json
import os
from pathlib import Path

from skyloom.storage.frame_schemas import TILE
from tests.benchmarks.combination_cost import cost_of, write_frames

NUMBER, SHAPE = 10, (4096, 2048)
BYTES_PER_PIXEL = 12  # image, variance and mask of a frame
FLAT_BYTES_PER_PIXEL = 20  # image, variance, mask and two counts of the flat


def test_flats_are_combined_nearly_as_fast_as_they_are_read(benchmark, tmp_path):
    write_frames(tmp_path, SHAPE, NUMBER)
    plain = cost_of("read", tmp_path)
    ours = benchmark.pedantic(cost_of, args=("combine", tmp_path), rounds=1)
    tiles = 3 * BYTES_PER_PIXEL * TILE * SHAPE[1] * NUMBER
    flat = FLAT_BYTES_PER_PIXEL * SHAPE[0] * SHAPE[1]
    row = {
        "name": "combined flat from a store",
        "size": f"{NUMBER} x {SHAPE[0]} x {SHAPE[1]}, {ours.grown_bytes / (tiles + flat):.2f} of "
        "the memory of three tiles of all exposures and the flat",
        "ours_s": ours.processor_s,
        "peer": "reading the same frames, seconds of the processor",
        "peer_s": plain.processor_s,
        "ratio": plain.processor_s / ours.processor_s,
        "clock_ratio": plain.clock_s / ours.clock_s,
        "target": 0.6,
        "ours_mb": 1e-6 * ours.grown_bytes,
        "limit_mb": 1e-6 * (tiles + flat),
    }
    print(f"\n{row}")
    results = os.environ.get("SKYLOOM_BENCHMARK_RESULTS")
    if results:
        with Path(results).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    assert row["ratio"] >= 0.6
    assert ours.grown_bytes <= tiles + flat
