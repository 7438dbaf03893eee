"""Crosstalk between amplifiers that are read at the same time.

What an amplifier reads is its own signal plus fractions of the signals that the others read at
that moment, ``crosstalk`` (amp, source_amp). Amplifiers are read in the order in which their data
sections are stored; where a camera stores them in another, the calibration says so by
``read_flip_y`` and ``read_flip_x`` (amp): the raw section runs against the read-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows
from skyloom.algorithms.detrend.calibrations import told
from skyloom.algorithms.detrend.chain_kernels import cross_talk
from skyloom.algorithms.detrend.channels import amplifier_values
from skyloom.algorithms.detrend.parameters import CrosstalkParameters
from skyloom.algorithms.detrend.planes import frame_planes, whole

__all__ = ["Crosstalk", "correct_crosstalk", "crosstalk_shares"]

Floats = NDArray[np.float64]


class Crosstalk(NamedTuple):
    """What is to be added to each amplifier, ``shares`` (amp, source), and who talks to whom.

    ``flips`` (amp, 2) says whether a raw section runs against the read-out along y and x.
    """

    shares: Floats
    talks: NDArray[np.bool_]
    flips: NDArray[np.bool_]

    @classmethod
    def none(cls) -> Crosstalk:
        """Return what stands for no correction."""
        return cls(np.empty((0, 0)), np.empty((0, 0), np.bool_), np.empty((0, 2), np.bool_))


def crosstalk_shares(
    crosstalk: xr.Dataset | xr.DataArray | None, rows: Sequence[Amplifier], detector: str
) -> Crosstalk:
    """Return the correction that a crosstalk calibration asks for.

    The signals that were read are (1 + C) times the true ones; the correction is the inverse
    of that, exactly.

    Parameters
    ----------
    crosstalk : Dataset or DataArray
        ``crosstalk`` (amp, source_amp), fractions; see the module. The diagonal does not count.
    rows : sequence of Amplifier
        The amplifiers, in order.
    detector : str
        Name of the detector, or ''.

    Raises
    ------
    ValueError
        If it is of another detector, lacks an amplifier, is not finite, or couples amplifiers
        whose data sections differ in shape.
    """
    if crosstalk is None:
        return Crosstalk.none()
    found = told(crosstalk, v.DETECTOR)
    if found and detector and found != detector:
        raise ValueError(f"crosstalk is of detector {found!r}, the frame of {detector!r}")
    table = crosstalk["crosstalk"] if isinstance(crosstalk, xr.Dataset) else crosstalk
    if set(table.dims) != {v.AMP, v.SOURCE_AMP}:
        raise ValueError(f"crosstalk has dimensions {table.dims}, needs ('amp', 'source_amp')")
    names = [row.name for row in rows]
    for dim in (v.AMP, v.SOURCE_AMP):
        known = [str(name) for name in table[dim].to_numpy()] if dim in table.coords else []
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"crosstalk lacks {dim} {', '.join(missing)}; it has {known}")
    chosen = table.sel({v.AMP: names, v.SOURCE_AMP: names}).transpose(v.AMP, v.SOURCE_AMP)
    matrix = chosen.to_numpy().astype(np.float64)
    np.fill_diagonal(matrix, 0.0)
    if not np.isfinite(matrix).all():
        raise ValueError("crosstalk has fractions that are not finite")
    if not matrix.any():
        return Crosstalk.none()
    if len({row.data.shape for row in rows}) > 1:
        shapes = ", ".join(f"{row.name} {row.data.shape}" for row in rows)
        raise ValueError(
            f"amplifiers with crosstalk must have data sections of one shape: {shapes}"
        )
    flips = np.zeros((len(rows), 2), np.bool_)
    for axis, name in enumerate(("read_flip_y", "read_flip_x")):
        if isinstance(crosstalk, xr.Dataset) and name in crosstalk:
            flips[:, axis] = amplifier_values(crosstalk[name], rows, name) != 0
    one = np.eye(len(rows))
    return Crosstalk(np.linalg.inv(one + matrix) - one, matrix != 0, flips)


def correct_crosstalk(
    exposure: xr.Dataset,
    amplifiers: xr.Dataset,
    crosstalk: xr.Dataset | xr.DataArray,
    *,
    parameters: CrosstalkParameters | None = None,
) -> xr.Dataset:
    """Take out of each amplifier what it heard of the others.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, adu, overscan subtracted, trimmed; perhaps ``mask``, whose SAT is heard.
        May be lazy.
    amplifiers : Dataset, (amp)
        Amplifier table.
    crosstalk : Dataset or DataArray, (amp, source_amp), dimensionless
        Fractions of the signal of the source; see the module.
    parameters : CrosstalkParameters, optional
        From where on crosstalk is flagged.

    Returns
    -------
    Dataset, (..., y, x)
        As ``exposure``, with ``image`` corrected and ``mask`` (int32) with CROSSTALK where an
        amplifier with a fraction that is not 0 had, at the same time, a pixel above the threshold
        or saturated. NaN stays NaN and talks to nobody.

    Raises
    ------
    ValueError
        As `crosstalk_shares`, or if the image is not in adu.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 2), (2, 2))
    >>> image = xr.DataArray(
    ...     [[1000.0, 0.0, 10.0, 0.0], [0.0] * 4], dims=("y", "x"), attrs={"units": "adu"}
    ... )
    >>> names = {"amp": ["C00", "C01"], "source_amp": ["C00", "C01"]}
    >>> heard = xr.DataArray([[0.0, 0.0], [0.01, 0.0]], names)
    >>> found = correct_crosstalk(xr.Dataset({"image": image}), table, heard)
    >>> found.image.values[0].tolist()
    [1000.0, 0.0, 0.0, 0.0]
    """
    parameters = parameters or CrosstalkParameters()
    rows = amplifier_rows(amplifiers)
    detector = told(exposure, v.DETECTOR) or told(amplifiers, v.DETECTOR)
    found = crosstalk_shares(crosstalk, rows, detector)
    planes = frame_planes(exposure, units=(v.ADU,), rows=rows)
    image, mask = xr.apply_ufunc(
        _corrected,
        whole(planes["image"]),
        whole(planes[v.MASK]),
        kwargs={"rows": rows, "found": found, "threshold": parameters.threshold},
        input_core_dims=[[v.Y, v.X]] * 2,
        output_core_dims=[[v.Y, v.X]] * 2,
        dask="parallelized",
        output_dtypes=[planes["image"].dtype, np.int32],
    )
    return exposure.assign(
        image=image.transpose(*exposure["image"].dims).assign_attrs(exposure["image"].attrs),
        mask=mask.transpose(*exposure["image"].dims).assign_attrs(v.mask_attributes()),
    )


def _corrected(
    image: NDArray[Any],
    mask: NDArray[np.int32],
    rows: list[Amplifier],
    found: Crosstalk,
    threshold: float,
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    image, mask = np.array(image), np.array(np.broadcast_to(mask, image.shape))
    if not found.shares.size:
        return image, mask
    count, shape = len(rows), rows[0].data.shape
    boxes = [row.trimmed.slices for row in rows]
    turns = [_turn(row, flip) for row, flip in zip(rows, found.flips, strict=True)]
    for index in np.ndindex(image.shape[:-2]):
        own, own_mask = image[index], mask[index]
        signals = np.array([own[b][t] for b, t in zip(boxes, turns, strict=True)], np.float64)
        planes = np.array([own_mask[b][t] for b, t in zip(boxes, turns, strict=True)])
        signals, planes = signals.reshape(count, -1), planes.reshape(count, -1)
        cross_talk(found.shares, found.talks, threshold, signals, planes, np.empty_like(signals))
        for box, turn, signal, plane in zip(boxes, turns, signals, planes, strict=True):
            own[box][turn] = signal.reshape(shape)
            own_mask[box][turn] = plane.reshape(shape)
    return image, mask


def _turn(row: Amplifier, flip: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return what turns a trimmed section into the order of read-out."""
    against = row.flip_y != flip[0], row.flip_x != flip[1]
    return slice(None, None, -1 if against[0] else 1), slice(None, None, -1 if against[1] else 1)
