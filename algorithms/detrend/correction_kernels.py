"""Brighter-fatter kernels as the chain takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.detrend.calibrations import told

__all__ = ["correction_kernels"]

Floats = NDArray[np.float64]


def correction_kernels(
    kernels: xr.Dataset | xr.DataArray | None,
    rows: Sequence[Amplifier],
    detector: str,
    level: str = "detector",
) -> Floats:
    """Return the kernels to correct with, one for the detector or one for each amplifier.

    Parameters
    ----------
    kernels : Dataset, DataArray or None
        What `brighter_fatter_kernel` returns, or one kernel (kernel_y, kernel_x), 1/electron.
    rows : sequence of Amplifier
        The amplifiers, in order.
    detector : str
        Name of the detector, or ''.
    level : str
        ``"detector"``, or ``"amplifier"``: amplifiers without a valid kernel get that of the
        detector.

    Returns
    -------
    ndarray, (kernel, kernel_y, kernel_x), float64, 1/electron
        None of them without kernels.

    Raises
    ------
    ValueError
        If they are of another detector, have even sides, are larger than what they are applied
        to, are not finite or all 0, or lack a variable or an amplifier.

    Examples
    --------
    >>> one = xr.DataArray(np.full((3, 3), -1e-7), dims=("kernel_y", "kernel_x"))
    >>> correction_kernels(one, [], "").shape
    (1, 3, 3)
    """
    if kernels is None:
        return np.empty((0, 0, 0))
    found = told(kernels, v.DETECTOR)
    if found and detector and found != detector:
        raise ValueError(f"brighter_fatter is of detector {found!r}, the frame of {detector!r}")
    if isinstance(kernels, xr.DataArray) and level != "detector":
        raise ValueError("one kernel is of the detector; for level 'amplifier' give a dataset")
    if isinstance(kernels, xr.Dataset) and "detector_kernel" not in kernels:
        raise ValueError(
            f"brighter_fatter lacks detector_kernel; it has {', '.join(map(str, kernels))}"
        )
    one = kernels["detector_kernel"] if isinstance(kernels, xr.Dataset) else kernels
    if set(one.dims) != {v.KERNEL_Y, v.KERNEL_X}:
        raise ValueError(f"kernel has dimensions {one.dims}, needs ('kernel_y', 'kernel_x')")
    chosen = one.transpose(v.KERNEL_Y, v.KERNEL_X).to_numpy()[None].astype(np.float64)
    if level == "amplifier":
        chosen = _of_amplifiers(kernels, rows, chosen[0])
    sides = chosen.shape[1:]
    if not (sides[0] % 2 and sides[1] % 2):
        raise ValueError(f"kernel has shape {sides}, needs odd sides")
    if not np.isfinite(chosen).all() or not chosen.any(axis=(1, 2)).all():
        raise ValueError("a brighter-fatter kernel is 0 or not finite: none was valid")
    small = [
        row.name for row in rows if row.data.shape[0] < sides[0] or row.data.shape[1] < sides[1]
    ]
    if small:
        raise ValueError(f"amplifiers {', '.join(small)} are smaller than the kernel, {sides}")
    return chosen


def _of_amplifiers(
    kernels: xr.Dataset | xr.DataArray, rows: Sequence[Amplifier], detector_kernel: Floats
) -> Floats:
    names = [row.name for row in rows]
    known = [str(name) for name in kernels[v.AMP].to_numpy()] if v.AMP in kernels.coords else []
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"brighter_fatter lacks the amplifiers {', '.join(missing)}; it has {known}"
        )
    own = kernels.sel({v.AMP: names})
    planes = own["kernel"].transpose(v.AMP, v.KERNEL_Y, v.KERNEL_X).to_numpy()
    valid = own["kernel_valid"].to_numpy() if "kernel_valid" in own else np.ones(len(names), bool)
    return np.where(valid[:, None, None], planes, detector_kernel).astype(np.float64)
