"""The noise of a bias that was subtracted from every dark: it does not average out."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.errors import GeometryError

__all__ = ["add_bias_variance"]


def add_bias_variance(dark: xr.Dataset, bias: xr.Dataset) -> xr.Dataset:
    """Add the variance of a bias to that of a dark made of frames it was subtracted from.

    Parameters
    ----------
    dark : Dataset, (y, x), adu/s
        As `combine_dark` makes it from frames whose variances leave that of the bias out;
        ``input_scale`` holds their dark times (s).
    bias : Dataset, (y, x), adu
        With ``variance``.

    Returns
    -------
    Dataset
        The dark with ``variance`` raised by ``Var(bias) (sum t / sum t²)²``: with weights t², those
        of frames that read noise limits, a bias that is wrong by 1 makes the dark wrong by
        ``sum t / sum t²``.

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
    share = times.sum() / (times**2).sum()
    own = dark["variance"]
    raised = own.values + share**2 * bias["variance"].transpose(*own.dims).values
    return dark.assign(variance=own.copy(data=raised.astype(own.dtype)))
