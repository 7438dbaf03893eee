"""Photon transfer of 1000 pairs x detectors on two worker processes, their memory being watched.

Pixels are cheap: one pair of frames a level is simulated and stored for every detector. What is
watched is the resident memory of each worker process, several times a second, against the number
of blocks that were made by then.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.algorithms.simulate import flat_plan, flat_truth, simulate_exposure
from skyloom.flows import photon_transfer
from skyloom.flows.block import Outcome
from skyloom.flows.scheduler import Processes
from skyloom.storage.records import Record
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store, create_store

ROOT = Path(__file__).resolve().parents[2]
DETECTORS, PAIRS, WORKERS = 20, 50, 2
WARM_UP = 0.2
"""Share of the blocks after which workers have imported and compiled all they need."""
INTERVAL_S = 0.1
CAMERA = """
name: twenty
pixel_type: uint16
layout: {{file: exposure, hdu: detector, identify: EXTNAME}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type: {{key: OBSTYPE, required: true, values: {{flat: flat}}}}
  exposure_time: {{key: EXPTIME, required: true}}
templates:
  detectors:
    ccd:
      shape: [512, 512]
      amplifiers:
        - &amp
          name: A
          data: {{y: [0, 512], x: [0, 240]}}
          overscan: {{y: [0, 512], x: [240, 256]}}
          gain: 1.5
          read_noise: 6.0
          saturation: 60000
        - {{<<: *amp, name: B, origin: [0, 256]}}
detectors:
{detectors}
"""


@dataclass(frozen=True)
class Memory:
    """Resident memory of worker processes during a run.

    Parameters
    ----------
    blocks : mapping of int to array
        Blocks done by all workers at each sample, by process id.
    resident : mapping of int to array
        Memory in MB at the same samples.
    made, seconds
        Blocks that were made, and how long the run took.
    """

    blocks: Mapping[int, NDArray[np.float64]]
    resident: Mapping[int, NDArray[np.float64]]
    made: int
    seconds: float

    def warm(self, pid: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return blocks and memory of a worker after the warm-up and before the end."""
        blocks, resident = self.blocks[pid], self.resident[pid]
        used = (blocks > WARM_UP * self.made) & (blocks < self.made)
        return blocks[used], resident[used]

    @property
    def slopes(self) -> list[float]:
        """MB by which each worker grows in 100 blocks, after the warm-up."""
        return [100 * float(np.polyfit(*self.warm(pid), 1)[0]) for pid in self.blocks]

    @property
    def growths(self) -> list[float]:
        """MB between the medians of the first and the last quarter after the warm-up."""
        found = []
        for pid in self.blocks:
            blocks, resident = self.warm(pid)
            early, late = np.quantile(blocks, [0.25, 0.75])
            medians = [np.median(resident[part]) for part in (blocks <= early, blocks >= late)]
            found.append(float(medians[1] - medians[0]))
        return found

    @property
    def highest(self) -> list[float]:
        """Highest memory of each worker, MB."""
        return [float(resident.max()) for resident in self.resident.values()]


class Watch:
    """An observer of a run that samples the memory of all child processes meanwhile."""

    def __init__(self) -> None:
        self.done = 0
        self.samples: list[tuple[int, int, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def begin(self, totals: Mapping[str, int]) -> None:
        """Start sampling."""
        self._thread.start()

    def finished(self, outcome: Outcome) -> None:
        """Count a block."""
        self.done += 1

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(INTERVAL_S):
            for child in this.children(recursive=True):
                try:
                    self.samples.append((child.pid, self.done, child.memory_info().rss / 1e6))
                except psutil.NoSuchProcess:
                    continue


def filled_store(folder: Path, detectors: int = DETECTORS, pairs: int = PAIRS) -> Store:
    """Return a store with raw flats of a mosaic, made without files."""
    names = [f"D{number:02d}" for number in range(detectors)]
    lines = [f"  - {{name: {name}, hdu: {name}, template: ccd}}" for name in names]
    camera = folder / "twenty.yaml"
    camera.write_text(CAMERA.format(detectors="\n".join(lines)))
    store = create_store(folder / "store", camera)
    amplifiers = store.camera.amplifiers(names[0])
    truth = flat_truth(amplifiers, seed=1)
    plan = flat_plan(np.geomspace(1e3, 7e4, pairs), seed=1)
    exposures = [int(number) for number in plan["exposure"].to_numpy()]
    store.prepare(
        raw_schema("uint16"),
        {"exposure": exposures, "detector": names},
        sizes={"y": 512, "x": 512},
    )
    for exposure in exposures:
        frame = simulate_exposure(plan, exposure, amplifiers, truth)
        for name in names:
            block = {"exposure": exposure, "detector": name}
            store.write_block("raw", block, frame.assign_coords(detector=name))
            headers = {
                "exposure": exposure,
                "observation_type": "flat",
                "exposure_time": float(frame["exposure_time"]),
            }
            done = Record("ingest", block, "done", fingerprint=f"{exposure:032x}", headers=headers)
            store.write_record(done)
    return store


def watch_run(folder: Path, detectors: int = DETECTORS, pairs: int = PAIRS) -> Memory:
    """Run photon transfer on two worker processes and return what they took.

    Parameters
    ----------
    folder : Path
        An empty directory for the store, about 1 GB.
    detectors, pairs : int
        Size of the run.
    """
    store = filled_store(folder, detectors, pairs)
    watch = Watch()
    flow = photon_transfer(store, {"solve": {"model": "exp00"}})
    start = time.perf_counter()
    summary = flow.run(scheduler=Processes(processes=WORKERS), progress=watch)
    seconds = time.perf_counter() - start
    if summary.exit_code:
        raise RuntimeError(f"the run did not succeed: {summary}")
    workers = {record.worker.split("/")[0] for record in store.records("flat_pairs").values()}
    blocks, resident = {}, {}
    for pid in sorted(map(int, workers)):
        mine = np.array([sample[1:] for sample in watch.samples if sample[0] == pid], dtype=float)
        blocks[pid], resident[pid] = mine.T
    return Memory(blocks, resident, watch.done, seconds)


EXTRACTION = """
import sys
import numpy as np
import xarray as xr
from skyloom.algorithms.photon_transfer.extraction import extract_detector
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.simulate import amplifier_grid
from tests.benchmarks.peak_memory import grown_bytes

def raw(rows, seed):
    amplifiers = amplifier_grid("R0", (2, 8), (rows, 512), overscan=64, saturation=60000.0)
    shape = (2 * rows, 8 * 576)
    image = np.empty(shape, np.uint16)
    rng = np.random.default_rng(seed)
    for row in range(shape[0]):
        image[row] = rng.normal(21000.0, 120.0, shape[1])
    image.reshape(shape[0], 8, 576)[:, :, 512:] -= 20000
    coords = {"exposure": seed, "exposure_time": 2.0, "mjd_start": 6e4, "detector": "R0"}
    data = {"image": (("y", "x"), image, {"units": "adu"})}
    return xr.Dataset(data, coords=coords), amplifiers

def extract(rows):
    (one, amplifiers), (two, _) = raw(rows, 1), raw(rows, 2)
    grown, pair = grown_bytes(
        lambda: extract_detector(one, two, amplifiers, parameters=parameters)
    )
    assert (pair["pair_status"] == 0).all(), pair["pair_status"].values
    return grown, one["image"].size

parameters = ExtractParameters(region=sys.argv[1])
extract(300)
taken, pixels = extract(2002)
print(taken / pixels / 4)
"""
"""Prints the memory that the extraction of a pair takes, in float32 images of the detector."""


def images_of_extraction(region: str) -> float:
    """Return the memory a pair takes beyond its inputs, in float32 images of its detector.

    Parameters
    ----------
    region : {"AMP", "DETECTOR"}
        Whether amplifiers are measured one by one, or the detector as a whole.
    """
    command = [sys.executable, "-c", EXTRACTION, region]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def draw(memory: Memory, path: Path) -> Path:
    """Draw memory against blocks done, one line a worker."""
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvspan(0, WARM_UP * memory.made, color="0.92", lw=0)
    axes.text(0.5 * WARM_UP * memory.made, 8, "warm-up", ha="center", color="0.35", fontsize=8)
    for number, (pid, color) in enumerate(zip(memory.blocks, ("#0072B2", "#D55E00"), strict=False)):
        label = f"worker {number + 1}: {memory.slopes[number]:+.2f} MB per 100 blocks"
        axes.plot(memory.blocks[pid], memory.resident[pid], color=color, lw=1.0, label=label)
    axes.set_ylim(0, 1.25 * max(memory.highest))
    axes.set_xlim(0, memory.made)
    axes.set_xlabel("blocks made by both workers")
    axes.set_ylabel("resident memory (MB)")
    axes.set_title(
        f"Photon transfer, {memory.made} blocks on {len(memory.blocks)} worker processes",
        fontsize=10,
    )
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    axes.grid(color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
