"""By how many pixels each sub-band is displaced in each visit."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.extinction import extinction_factors
from skyloom.algorithms.dcr.geometry import dispersion, displacement

__all__ = [
    "ShiftMode",
    "dcr_shifts",
    "join_small_splits",
    "shift_margin",
    "subband_nodes",
    "subband_photons",
]

Floats = NDArray[np.float64]
ShiftMode: TypeAlias = Literal["integrated", "split", "endpoint_mean"]

POINTS, GAUSS = np.polynomial.legendre.leggauss(8)
"""Points of the quadrature over a sub-band, from -1 to 1, and their weights."""


def dcr_shifts(
    band: Band,
    conditions: xr.Dataset,
    jacobian: Floats,
    *,
    subfilters: int = 3,
    mode: ShiftMode = "integrated",
    split_threshold: float = 0.1,
) -> xr.Dataset:
    """Return by how much each sub-band of each visit is displaced.

    Parameters
    ----------
    band : Band
    conditions : Dataset, (visit,)
        At the centre of the patch, as of `visit_conditions`.
    jacobian : array, (2, 2), arcsec/pixel
        Of the patch, as of `patch_jacobian`.
    subfilters : int
        Number of sub-bands.
    mode : "integrated", "split" or "endpoint_mean"
        The mean over the photons of a flat spectrum; two displacements per sub-band, at three
        quarters and one quarter between those of its edges; or the mean of those of its edges.
    split_threshold : float, pixel
        Splits smaller than this in both axes are joined, `join_small_splits`.

    Returns
    -------
    Dataset, (visit, subfilter) or (visit, subfilter, half)
        ``shift_y`` and ``shift_x`` (pixel; content moves towards larger indices for positive
        ones), and ``amplitude`` (arcsec towards the zenith).

    Raises
    ------
    ValueError
        If the conditions lack something, there is no sub-band, or the mode is unknown.

    Examples
    --------
    >>> names = ("altitude", "parallactic_angle", "temperature", "pressure", "humidity")
    >>> values = (65.0, 40.0, 20.0, 73892.0, 40.0)
    >>> place = {"latitude": ("visit", [-30.244639]), "height": ("visit", [2663.0])}
    >>> table = {n: ("visit", [x]) for n, x in zip(names, values)} | place
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> found = dcr_shifts(band, xr.Dataset(table), np.diag([-0.2, 0.2]), mode="endpoint_mean")
    >>> (found["amplitude"].values[0] / 0.2).round(3).tolist()
    [0.653, 0.021, -0.432]
    """
    edges = subband_edges(band, subfilters)
    if mode == "integrated":
        wavelengths, weights = subband_nodes(band, subfilters)
        photons = weights * subband_photons(band, subfilters)[:, None]
        seen = weights * extinction_factors(band, conditions, wavelengths, photons)
        lifted = dispersion(band, conditions, wavelengths)
        amplitude = (lifted * seen).sum(axis=-1) / seen.sum(axis=-1)
    elif mode in ("split", "endpoint_mean"):
        at_edges = dispersion(band, conditions, edges)
        blue, red = at_edges[:, :-1], at_edges[:, 1:]
        amplitude = (blue + red) / 2.0
        if mode == "split":
            halves = [0.75 * blue + 0.25 * red, 0.25 * blue + 0.75 * red]
            amplitude = np.stack(halves, axis=-1)
    else:
        raise ValueError(f"mode must be integrated, split or endpoint_mean, got {mode!r}")
    vectors = displacement(conditions, jacobian)
    expanded = vectors.reshape(len(vectors), *(1,) * (amplitude.ndim - 1), 2)
    shifts = amplitude[..., None] * expanded
    if mode == "split":
        shifts = join_small_splits(shifts, split_threshold)
    dims = (v.VISIT, v.SUBFILTER, v.HALF)[: amplitude.ndim]
    names = {
        "shift_y": (dims, shifts[..., 0], {"units": v.PIXEL}),
        "shift_x": (dims, shifts[..., 1], {"units": v.PIXEL}),
        "amplitude": (dims, amplitude, {"units": v.ARCSECOND}),
    }
    coords = {v.VISIT: conditions[v.VISIT]} if v.VISIT in conditions.coords else {}
    return xr.Dataset(names, coords, {"mode": mode, "band": band.name})


def join_small_splits(shifts: Floats, threshold: float) -> Floats:
    """Return shifts in whose pairs those that hardly differ are both their mean.

    Parameters
    ----------
    shifts : array, (..., half, 2), pixel
        Pairs of (dy, dx).
    threshold : float, pixel
        Pairs that differ by at least this in one axis stay.

    Examples
    --------
    >>> pair = np.array([[0.10, 0.0], [0.06, 0.0]])
    >>> join_small_splits(pair, 0.1).round(12).tolist()
    [[0.08, 0.0], [0.08, 0.0]]
    >>> join_small_splits(pair, 0.01).tolist()
    [[0.1, 0.0], [0.06, 0.0]]
    """
    mean = shifts.mean(axis=-2, keepdims=True)
    apart = np.abs(shifts[..., :1, :] - shifts[..., 1:, :]).max(axis=(-2, -1), keepdims=True)
    return np.where(apart >= threshold, shifts, mean)


def shift_margin(shifts: xr.Dataset, half_width: int = 0) -> int:
    """Return how many pixels around a tile its solution needs: the largest shift and a kernel's.

    Examples
    --------
    >>> shifts = xr.Dataset({"shift_y": ("visit", [0.3, -2.2]), "shift_x": ("visit", [1.0, 1.1])})
    >>> shift_margin(shifts, 3)
    7
    """
    largest = max(float(np.abs(shifts[name]).max()) for name in ("shift_y", "shift_x"))
    return math.ceil(largest) + 1 + half_width


def subband_nodes(band: Band, subfilters: int) -> tuple[Floats, Floats]:
    """Return wavelengths (nm) in each sub-band and the weights of an integral over its photons.

    Returns
    -------
    wavelengths, weights : ndarray, (subfilter, node)
        Gauss-Legendre; weights of a sub-band sum to 1. Without throughput in a sub-band all its
        wavelengths count alike.
    """
    edges = subband_edges(band, subfilters)
    middle, half = (edges[1:] + edges[:-1]) / 2.0, np.diff(edges) / 2.0
    wavelengths = middle[:, None] + half[:, None] * POINTS
    weights = GAUSS * band.transmission(wavelengths)
    total = weights.sum(axis=1, keepdims=True)
    return wavelengths, np.where(total > 0, weights / np.where(total > 0, total, 1.0), GAUSS / 2.0)


def subband_photons(band: Band, subfilters: int) -> Floats:
    """Return the photons of a flat spectrum in each sub-band, over those of all.

    Examples
    --------
    >>> subband_photons(Band.from_effective("g", 476.31, 147.0), 3).round(3).tolist()
    [0.333, 0.333, 0.333]
    """
    edges = subband_edges(band, subfilters)
    middle, half = (edges[1:] + edges[:-1]) / 2.0, np.diff(edges) / 2.0
    passed = band.transmission(middle[:, None] + half[:, None] * POINTS)
    photons = half * (GAUSS * passed).sum(axis=1)
    return np.asarray(photons / photons.sum())
