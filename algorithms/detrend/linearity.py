"""Linearity: from what an amplifier reads to what it would read if it were linear.

A calibration holds one of two forms over ``amp``, for signals s in adu above overscan and bias:

* ``polynomial`` (amp, coefficient): the linear signal is s + c0 s^2 + c1 s^3 + ...;
* ``knot_signal`` and ``knot_correction`` (amp, knot), adu: the linear signal is s plus the
  correction, interpolated between the knots and constant beyond them. The attribute
  ``interpolation`` is ``"natural_spline"`` (without it too) or ``"linear"``. Knots of an
  amplifier that needs fewer are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.interpolate
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows
from skyloom.algorithms.detrend.calibrations import told
from skyloom.algorithms.detrend.planes import frame_planes, whole
from skyloom.algorithms.detrend.row_kernels import polynomial_row

__all__ = ["correct_linearity", "linearity_pieces"]

Floats = NDArray[np.float64]
CUBIC = 4  # coefficients of a piece


def linearity_pieces(
    linearity: xr.Dataset | None, rows: Sequence[Amplifier], detector: str
) -> tuple[Floats, Floats]:
    """Return the linear signal as a piecewise polynomial of the signal that is read.

    Parameters
    ----------
    linearity : Dataset, (amp)
        See the module.
    rows : sequence of Amplifier
        The amplifiers, in order.
    detector : str
        Name of the detector, or ''.

    Returns
    -------
    knots : ndarray, (amp, piece), adu
        Where pieces start; the first holds below its start too.
    pieces : ndarray, (amp, piece, power)
        Coefficients of powers of the distance from the start, lowest first. Empty without a
        calibration.

    Raises
    ------
    ValueError
        If it is of another detector, lacks an amplifier, holds neither form or both, is not
        finite, has knots that do not increase, or an unknown interpolation.
    """
    if linearity is None:
        return np.zeros((len(rows), 0)), np.zeros((len(rows), 0, 0))
    found = told(linearity, v.DETECTOR)
    if found and detector and found != detector:
        raise ValueError(f"linearity is of detector {found!r}, the frame of {detector!r}")
    names = [row.name for row in rows]
    known = [str(name) for name in linearity[v.AMP].to_numpy()] if v.AMP in linearity.coords else []
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"linearity lacks the amplifiers {', '.join(missing)}; it has {known}")
    chosen = linearity.sel({v.AMP: names})
    knotted = "knot_signal" in chosen and "knot_correction" in chosen
    if ("polynomial" in chosen) == knotted:
        raise ValueError("linearity needs 'polynomial', or 'knot_signal' and 'knot_correction'")
    if not knotted:
        terms = chosen["polynomial"].transpose(v.AMP, v.COEFFICIENT).to_numpy().astype(np.float64)
        if not np.isfinite(terms).all():
            raise ValueError("linearity has coefficients that are not finite")
        pieces = np.concatenate([np.zeros((len(rows), 1)), np.ones((len(rows), 1)), terms], axis=1)
        return np.zeros((len(rows), 1)), pieces[:, None, :]
    style = str(linearity.attrs.get("interpolation", "natural_spline"))
    if style not in ("natural_spline", "linear"):
        raise ValueError(f"interpolation is {style!r}; it can be 'natural_spline' or 'linear'")
    columns = [
        chosen[name].transpose(v.AMP, v.KNOT).to_numpy()
        for name in ("knot_signal", "knot_correction")
    ]
    curves = [
        _curve(name, signal, correction, style)
        for name, signal, correction in zip(names, *columns, strict=True)
    ]
    most = max(len(starts) for starts, _ in curves)
    knots, all_pieces = np.full((len(rows), most), np.inf), np.zeros((len(rows), most, CUBIC))
    for index, (starts, pieces) in enumerate(curves):
        knots[index, : len(starts)], all_pieces[index, : len(starts)] = starts, pieces
    return knots, all_pieces


def _curve(
    name: str, signal: NDArray[Any], correction: NDArray[Any], style: str
) -> tuple[Floats, Floats]:
    """Return starts and coefficients of the pieces of one amplifier."""
    there = np.isfinite(signal) & np.isfinite(correction)
    x, y = signal[there].astype(np.float64), correction[there].astype(np.float64)
    if x.size < 2 or np.any(np.diff(x) <= 0):
        raise ValueError(
            f"linearity of amplifier {name} needs two or more knots that increase, got {x}"
        )
    pieces = np.zeros((x.size + 1, CUBIC))
    if style == "linear":
        pieces[1:-1, 1] = np.diff(y) / np.diff(x)
    else:
        spline = scipy.interpolate.CubicSpline(x, y, bc_type="natural")
        pieces[1:-1] = spline.c[::-1].T
    pieces[1:-1, 0] = y[:-1]
    starts = np.concatenate([x[:1], x])  # the first piece lies below the first knot
    pieces[0, 0], pieces[-1, 0] = y[0], y[-1]
    # the correction is added to the signal itself
    pieces[:, 0] += starts
    pieces[:, 1] += 1.0
    return starts, pieces


def correct_linearity(
    exposure: xr.Dataset, amplifiers: xr.Dataset, linearity: xr.Dataset
) -> xr.Dataset:
    """Return an exposure as linear amplifiers would have read it.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, adu, overscan and bias subtracted, trimmed. May be lazy.
    amplifiers : Dataset, (amp)
        Amplifier table.
    linearity : Dataset, (amp)
        See the module.

    Returns
    -------
    Dataset, (..., y, x)
        As ``exposure``, with ``image`` corrected.

    Raises
    ------
    ValueError
        As `linearity_pieces`, or if the image is not in adu.

    Notes
    -----
    The variance is not changed: where the correction is small its slope hardly matters.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 1), (1, 2))
    >>> image = xr.DataArray([[100.0, 1000.0]], dims=("y", "x"), attrs={"units": "adu"})
    >>> linearity = xr.Dataset(
    ...     {"polynomial": (("amp", "coefficient"), [[1e-5]])}, coords={"amp": ["C00"]}
    ... )
    >>> correct_linearity(xr.Dataset({"image": image}), table, linearity).image.values.tolist()
    [[100.1, 1010.0]]
    """
    rows = amplifier_rows(amplifiers)
    detector = told(exposure, v.DETECTOR) or told(amplifiers, v.DETECTOR)
    knots, pieces = linearity_pieces(linearity, rows, detector)
    image = frame_planes(exposure, units=(v.ADU,), rows=rows)["image"]
    linear = xr.apply_ufunc(
        _linear,
        whole(image),
        kwargs={"rows": rows, "knots": knots, "pieces": pieces},
        input_core_dims=[[v.Y, v.X]],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[image.dtype],
    )
    return exposure.assign(
        image=linear.transpose(*exposure["image"].dims).assign_attrs(exposure["image"].attrs)
    )


def _linear(
    image: NDArray[Any], rows: list[Amplifier], knots: Floats, pieces: Floats
) -> NDArray[Any]:
    out = np.array(image)
    for index in np.ndindex(image.shape[:-2]):
        for row, own_knots, own_pieces in zip(rows, knots, pieces, strict=True):
            section = out[index][row.trimmed.slices]
            signal = section.astype(np.float64).ravel()
            polynomial_row(own_knots, own_pieces, signal)
            section[...] = signal.reshape(section.shape)
    return out
