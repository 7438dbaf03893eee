"""The algorithms of the photon transfer flow as its tasks call them: one block in, one block out.

No arithmetic on pixels here: what a block is made of is looked up, handed to an algorithm of
`skyloom.algorithms.photon_transfer`, and handed back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend import DetrendParameters
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.photon_transfer.extraction import extract_dark_pair, extract_detector
from skyloom.algorithms.photon_transfer.kernel import brighter_fatter_kernel
from skyloom.algorithms.photon_transfer.offsets import dark_offset
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.prekernel import KernelParameters
from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters

if TYPE_CHECKING:
    pass

__all__ = [
    "PairBlockParameters",
    "dark_pair",
    "flat_pair",
    "kernel",
    "kernel_quality",
    "pair_quality",
    "ptc",
    "ptc_quality",
]

Inputs = Mapping[str, xr.Dataset]


class PairBlockParameters(Parameters):
    """What a block of pairs depends on."""

    detrend: DetrendParameters = Field(DetrendParameters(), description="overscan and saturation")
    extract: ExtractParameters = Field(ExtractParameters(), description="what is measured")
    mode: Literal["time", "flux", "id"] = Field("time", description="what pairs were matched on")
    pixel_size: float | None = Field(None, gt=0, description="distance of pixels, micrometre")


def dark_pair(inputs: Inputs, parameters: PairBlockParameters) -> xr.Dataset:
    """Measure a pair of biases or darks of one detector."""
    return extract_dark_pair(
        inputs["raw_1"],
        inputs["raw_2"],
        inputs["amplifiers"],
        parameters=parameters.extract,
        detrend=parameters.detrend,
    )


def flat_pair(inputs: Inputs, parameters: PairBlockParameters) -> xr.Dataset:
    """Measure a pair of flats of one detector, less what darks of it show."""
    raws, amplifiers = (inputs["raw_1"], inputs["raw_2"]), inputs["amplifiers"]
    size, where = parameters.pixel_size, inputs.get("placement")
    darks = inputs.get("dark_pairs")
    time = float(np.mean([float(raw["exposure_time"]) for raw in raws]))
    return extract_detector(
        *raws,
        amplifiers,
        parameters=parameters.extract,
        detrend=parameters.detrend,
        offsets=None if darks is None else dark_offset(darks, time),
        focal_plane=None if size is None or where is None else _in_metres(where, amplifiers, size),
        pair_key=_pair_key(raws, parameters.mode),
    )


def _in_metres(where: xr.Dataset, amplifiers: xr.Dataset, pixel_size: float) -> NDArray[np.float64]:
    """Return the transform (2, 3) from trimmed pixels (x, y, 1) to the focal plane in m."""
    return 1e-3 * detector_transform(
        (int(amplifiers["y_stop"].max()), int(amplifiers["x_stop"].max())),
        pixel_size=1e-3 * pixel_size,
        offset=(float(where["x"]), float(where["y"])),
        rotation=float(where["rotation"]),
    )


def _pair_key(raws: tuple[xr.Dataset, xr.Dataset], mode: str) -> float | None:
    """Return what a pair was matched on; None for the exposure time, which is known anyway."""
    if mode == "time":
        return None
    name = "flux" if mode == "flux" else v.EXPOSURE
    values = [float(raw[name]) for raw in raws]
    return float(np.mean(values)) if mode == "flux" else min(values)


def pair_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how many amplifiers have which status."""
    return {"pair_status": _counts(block["pair_status"].values, v.PairStatus)}


def ptc(inputs: Inputs, parameters: SolveParameters) -> xr.Dataset:
    """Solve the photon transfer curves of one detector."""
    return solve(inputs["flat_pairs"], parameters=parameters)


def ptc_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how many pairs have which status, and how many amplifiers which flags."""
    flags: Counter[str] = Counter()
    for value in block["amp_flag"].values:
        names = [flag.name for flag in v.AmplifierFlag if int(value) & flag.value]
        flags.update(str(name) for name in names or ["GOOD"])
    return {
        "pair_status": _counts(block["pair_status"].values, v.PairStatus),
        "amp_flag": dict(flags),
        "median_gain": float(np.nanmedian(block["gain"]))
        if block["gain"].notnull().any()
        else None,
    }


def kernel(inputs: Inputs, parameters: KernelParameters) -> xr.Dataset:
    """Make the brighter-fatter kernels of one detector."""
    return brighter_fatter_kernel(inputs["ptc"], parameters=parameters)


def kernel_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how many amplifiers have a kernel that passed its checks."""
    return {"valid_kernels": int(block["kernel_valid"].sum())}


def _counts(values: Any, codes: type[v.PairStatus]) -> dict[str, int]:
    found = Counter(int(value) for value in np.ravel(values))
    return {codes(code).name: count for code, count in sorted(found.items())}
