"""The noise of what was subtracted from every frame of a combination: it does not average out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.dark_times import dark_overhead, dark_times
from skyloom.algorithms.errors import GeometryError

__all__ = ["add_bias_variance", "add_calibration_variance"]


def add_bias_variance(
    dark: xr.Dataset, bias: xr.Dataset, *, equal_weights: bool = False
) -> xr.Dataset:
    """Add the variance of a bias to that of a dark made of frames it was subtracted from.

    Parameters
    ----------
    dark : Dataset, (y, x), adu/s
        As `combine_dark` makes it from frames whose variances leave that of the bias out;
        ``input_scale`` holds their dark times (s).
    bias : Dataset, (y, x), adu
        With ``variance``.
    equal_weights : bool
        Whether the frames were averaged with equal weights, or with those of their noise.

    Returns
    -------
    Dataset
        The dark with ``variance`` raised by ``Var(bias) (sum t / sum t²)²``: with weights t², those
        of frames that read noise limits, a bias that is wrong by 1 makes the dark wrong by
        ``sum t / sum t²``; with equal weights by the mean of ``1 / t``.

    Raises
    ------
    GeometryError
        If the shapes differ.

    Examples
    --------
    >>> plane = ("y", "x")
    >>> dark = xr.Dataset({"variance": (plane, [[0.5]]), "input_scale": ("input", [2.0, 2.0])})
    >>> bias = xr.Dataset({"variance": (plane, [[1.0]])})
    >>> float(add_bias_variance(dark, bias)["variance"][0, 0])
    0.75
    """
    if dict(bias["variance"].sizes) != dict(dark["variance"].sizes):
        raise GeometryError(
            f"the bias has shape {dict(bias['variance'].sizes)}, the dark "
            f"{dict(dark['variance'].sizes)}"
        )
    times = np.asarray(dark["input_scale"].values, np.float64).ravel()
    share = (1.0 / times).mean() if equal_weights else times.sum() / (times**2).sum()
    own = dark["variance"]
    raised = own.values + share**2 * bias["variance"].transpose(*own.dims).values
    return dark.assign(variance=own.copy(data=raised.astype(own.dtype)))


def add_calibration_variance(
    flat: xr.Dataset,
    *,
    bias: xr.Dataset | None = None,
    dark: xr.Dataset | None = None,
    gain: xr.DataArray | float = 1.0,
    equal_weights: bool = False,
) -> xr.Dataset:
    """Add the variances of a bias and a dark to that of a flat made of frames they were taken off.

    Parameters
    ----------
    flat : Dataset, (y, x)
        As `combine_flats` makes it of frames in electron whose variances leave those of bias and
        dark out; ``input_scale`` (electron), ``input_dark_time`` or ``input_exposure_time`` (s).
    bias, dark : Dataset, (y, x), adu and adu/s, optional
        With ``variance``.
    gain : DataArray, (y, x), or float
        Electron/adu.
    equal_weights : bool
        Whether the frames were averaged with equal weights, or with those of their photons.

    Returns
    -------
    Dataset
        The flat with ``variance`` raised by ``g² (Var(bias) a² + Var(dark) b²)``: a is the weighted
        mean of 1 / E, b that of t / E, for frames of scale E and dark time t.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ValueError
        If scales differ between amplifiers.
    KeyError
        If a dark is given and the flat knows no times.

    Examples
    --------
    >>> plane = ("y", "x")
    >>> flat = xr.Dataset({"variance": (plane, [[0.5]]), "input_scale": ("input", [2.0, 2.0])})
    >>> bias = xr.Dataset({"variance": (plane, [[1.0]])})
    >>> float(add_calibration_variance(flat, bias=bias)["variance"][0, 0])
    0.75
    """
    if flat["input_scale"].ndim > 1:
        raise ValueError("the scales of the flat's exposures must not differ between amplifiers")
    scale = np.asarray(flat["input_scale"].values, np.float64)
    weight = np.ones_like(scale) if equal_weights else scale
    own = flat["variance"]
    raised = own.values.astype(np.float64)
    for name, calibration in (("bias", bias), ("dark", dark)):
        if calibration is None:
            continue
        if dict(calibration["variance"].sizes) != dict(own.sizes):
            raise GeometryError(
                f"the {name} has shape {dict(calibration['variance'].sizes)}, the flat "
                f"{dict(own.sizes)}"
            )
        each = np.ones_like(scale)
        if name == "dark":
            known = [n for n in ("dark_time", "exposure_time") if f"input_{n}" in flat]
            if not known:
                raise KeyError("the flat has neither input_dark_time nor input_exposure_time")
            times = xr.Dataset(coords={n: flat[f"input_{n}"].variable for n in known})
            each = dark_times(times, dark_overhead(calibration)).values
        share = float((weight * each / scale).sum() / weight.sum())
        electrons = calibration["variance"] * gain**2
        raised += share**2 * electrons.transpose(*own.dims).values
    return flat.assign(variance=own.copy(data=raised.astype(own.dtype)))
