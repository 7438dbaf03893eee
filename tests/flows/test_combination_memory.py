"""Calibrations are combined tile by tile: in a fraction of the memory of all frames at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("combination_memory.py")


def test_biases_and_darks_are_combined_in_a_fifth_of_the_memory_of_their_frames(
    tmp_path: Path,
) -> None:
    # What arrays held is given back at once, so that the second is not measured too small.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"bias", "dark"}
    for told in found.values():
        assert told["result"] < told["grown"] <= told["inputs"] / 5
