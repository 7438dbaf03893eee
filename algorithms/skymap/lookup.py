"""Which tract and patch a position of the sky belongs to."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.skymap.tracts import SkyMap, Tract

__all__ = ["find_patch", "find_tract", "locate", "unit_vectors"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def find_tract(sky_map: SkyMap, right_ascension: ArrayLike, declination: ArrayLike) -> Integers:
    """Return the tract that each position belongs to.

    In rings that is the nearest in right ascension of those of its ring; in a discrete map the
    nearest of those that hold the position.

    Parameters
    ----------
    sky_map : SkyMap
    right_ascension, declination : array_like, deg
        Any shapes that broadcast.

    Returns
    -------
    ndarray, int64
        Indices of tracts, in the shape of the positions.

    Raises
    ------
    LookupError
        If a position is in no tract of a discrete map.
    ValueError
        If a position is not finite or its declination is beyond a pole.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> find_tract(rings_skymap(), [150.1, 0.0, 10.0], [2.2, 2.2, -90.0])
    array([9813, 9712,    0])
    """
    ra, dec = _positions(right_ascension, declination)
    if sky_map.parameters.kind == "discrete":
        return _nearest_tract(sky_map, ra, dec)
    height = 180.0 / (sky_map.parameters.rings + 1)
    row = np.floor((dec + 90.0 - height / 2) / height).astype(np.int64) + 1
    row = np.clip(row, 0, len(sky_map.rows) - 1)
    first, count = (
        np.array([getattr(row, name) for row in sky_map.rows], dtype=np.int64)[row]
        for name in ("first", "count")
    )
    turned = ra - sky_map.parameters.first_right_ascension
    place = np.floor(turned / (360.0 / count) + 0.5).astype(np.int64)
    return np.asarray(first + place % count)


def find_patch(tract: Tract, right_ascension: ArrayLike, declination: ArrayLike) -> Integers:
    """Return the patch of a tract whose inner box holds each position.

    Parameters
    ----------
    tract : Tract
    right_ascension, declination : array_like, deg
        Any shapes that broadcast.

    Returns
    -------
    ndarray, int64
        Indices of patches, in the shape of the positions.

    Raises
    ------
    LookupError
        If a position is outside the tract.
    ValueError
        If a position is not finite or its declination is beyond a pole.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> int(find_patch(rings_skymap()[9813], 150.2479339, 2.231405))
    24
    """
    ra, dec = _positions(right_ascension, declination)
    iy, ix, inside = _places(tract, ra, dec)
    if not inside.all():
        outside = np.flatnonzero(~inside.ravel())
        raise LookupError(
            f"{outside.size} of {inside.size} positions are outside tract {tract.index}, "
            f"the first at {ra.ravel()[outside[0]]:.7f}, {dec.ravel()[outside[0]]:.7f} deg"
        )
    return np.asarray(iy * tract.grid[1] + ix)


def locate(
    sky_map: SkyMap, right_ascension: ArrayLike, declination: ArrayLike
) -> tuple[Integers, Integers]:
    """Return the tract each position belongs to and the patch whose inner box holds it.

    Parameters
    ----------
    sky_map : SkyMap
    right_ascension, declination : array_like, deg
        Any shapes that broadcast.

    Returns
    -------
    tract, patch : ndarray, int64
        Indices, in the shape of the positions.

    Raises
    ------
    LookupError
        If a position is in no tract, which only discrete maps and tracts of four points leave out.
    ValueError
        If a position is not finite or its declination is beyond a pole.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> tract, patch = locate(rings_skymap(), 150.1, 2.2)
    >>> int(tract), int(patch)
    (9813, 25)
    """
    ra, dec = _positions(right_ascension, declination)
    tract = find_tract(sky_map, ra, dec)
    patch = np.empty(tract.shape, np.int64)
    for index in np.unique(tract):
        here = tract == index
        patch[here] = find_patch(sky_map[int(index)], ra[here], dec[here])
    return tract, patch


def unit_vectors(right_ascension: ArrayLike, declination: ArrayLike) -> Floats:
    """Return unit vectors (..., 3) of positions on the sky (deg)."""
    ra, dec = np.deg2rad(right_ascension), np.deg2rad(declination)
    return np.stack(
        np.broadcast_arrays(np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)), -1
    )


def _positions(right_ascension: ArrayLike, declination: ArrayLike) -> tuple[Floats, Floats]:
    """Return positions as arrays of one shape."""
    ra, dec = np.broadcast_arrays(
        np.asarray(right_ascension, np.float64), np.asarray(declination, np.float64)
    )
    if not np.isfinite(ra).all() or not (np.abs(dec) <= 90).all():
        raise ValueError(
            "right_ascension must be finite and declination -90 to 90 degrees, got "
            f"{ra[~np.isfinite(ra)][:3].tolist()} and {dec[~(np.abs(dec) <= 90)][:3].tolist()}"
        )
    return ra, dec


def _places(tract: Tract, ra: Floats, dec: Floats) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Return (iy, ix) of the patch at each position, and whether the tract holds it."""
    x, y = tract.plane.to_pixels(ra, dec)
    with np.errstate(invalid="ignore"):  # behind the horizon there is no pixel
        inside = (x >= -0.5) & (x < tract.shape[1] - 0.5) & (y >= -0.5) & (y < tract.shape[0] - 0.5)
        iy, ix = (
            np.floor((np.where(inside, pixel, 0.0) + 0.5) / size).astype(np.int64)
            for pixel, size in zip((y, x), tract.inner_shape, strict=True)
        )
    return iy, ix, np.asarray(inside)


def _nearest_tract(sky_map: SkyMap, ra: Floats, dec: Floats) -> Integers:
    """Return the nearest of the tracts of a discrete map that hold each position."""
    nearest = np.full(ra.shape, -np.inf)
    found = np.full(ra.shape, -1, np.int64)
    directions = unit_vectors(ra, dec)
    for row in sky_map.rows:
        tract = sky_map[row.first]
        closeness = directions @ unit_vectors(tract.right_ascension, tract.declination)
        better = _places(tract, ra, dec)[2] & (closeness > nearest)
        nearest = np.where(better, closeness, nearest)
        found = np.where(better, row.first, found)
    if (found < 0).any():
        outside = np.flatnonzero(found.ravel() < 0)
        raise LookupError(
            f"{outside.size} of {found.size} positions are in no tract, the first at "
            f"{ra.ravel()[outside[0]]:.7f}, {dec.ravel()[outside[0]]:.7f} deg"
        )
    return np.asarray(found)
