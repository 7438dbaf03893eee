"""Which patches the footprints of detectors touch.

Great circles are straight lines in the tangent plane of a tract, so there the convex hull of the
corners of a detector and the box of a patch are convex polygons of the plane, and two of them are
apart exactly if a line along an edge of one of them separates them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.skymap.lookup import unit_vectors
from skyloom.algorithms.skymap.tracts import Region, SkyMap, Tract, patch_boxes
from skyloom.algorithms.tangent_plane import TangentPlane, to_tangent_plane

__all__ = ["PatchOverlaps", "overlapping_patches", "sky_polygon"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LARGEST_POLYGON = 20.0
"""How far a corner of a footprint may be from its middle, deg."""


class PatchOverlaps(NamedTuple):
    """Pairs of polygons and patches that overlap, in the order of polygon, tract and patch.

    ``polygon`` indexes the polygons given, ``tract`` and ``patch`` the sky map; (overlap,) each.
    ``unusable`` names the polygons that are none, each with the reason.
    """

    polygon: Integers
    tract: Integers
    patch: Integers
    unusable: tuple[tuple[Hashable, str], ...]


def sky_polygon(wcs: Any, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the corners of a detector on the sky, at the outer edges of its pixels.

    Parameters
    ----------
    wcs : TangentPlane, or an object with ``pixel_to_world_values(x, y)``, or None
        From pixels, counted from 0, to right ascension and declination (deg).
    shape : (height, width), pixel

    Returns
    -------
    right_ascension, declination : ndarray, (4,), deg
        NaN without a WCS, or where it gives no position.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> ra, dec = sky_polygon(rings_skymap()[9813].plane, (28000, 28000))
    >>> round(float(dec.max() - dec.min()), 3)
    1.555
    """
    height, width = shape
    x = np.array([-0.5, width - 0.5, width - 0.5, -0.5])
    y = np.array([-0.5, -0.5, height - 0.5, height - 0.5])
    if wcs is None:
        return np.full(4, np.nan), np.full(4, np.nan)
    to_sky = wcs.to_sky if isinstance(wcs, TangentPlane) else wcs.pixel_to_world_values
    ra, dec = to_sky(x, y)
    return np.asarray(ra, np.float64), np.asarray(dec, np.float64)


def overlapping_patches(
    sky_map: SkyMap,
    right_ascension: ArrayLike,
    declination: ArrayLike,
    *,
    names: Sequence[Hashable] | None = None,
    region: Region = "outer",
    grow: int = 0,
) -> PatchOverlaps:
    """Return the patches that the convex hulls of polygons on the sky overlap.

    Polygons may cross right ascension 0 and hold a pole; the order of their corners does not
    matter. Touching is no overlap.

    Parameters
    ----------
    sky_map : SkyMap
    right_ascension, declination : array_like, (polygon, corner), deg
        At least three corners each, see `sky_polygon`.
    names : sequence, optional
        What the polygons are called in ``unusable``; their indices by default.
    region : "outer" or "inner"
        The boxes of patches that count.
    grow : int
        By how many pixels those boxes grow first; >= 0.

    Returns
    -------
    PatchOverlaps
        Polygons with a corner that is not finite or beyond a pole, without area, or that reach
        more than 20 deg from their middle overlap nothing and are named in ``unusable``: their
        WCS is bad.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than three corners, ``grow`` is negative or the
        region is unknown.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> found = overlapping_patches(
    ...     rings_skymap(), [[359.99, 0.01, 0.01, 359.99]], [[0.7, 0.7, 0.8, 0.8]]
    ... )
    >>> found.tract.tolist(), found.patch.tolist()
    ([9469], [24])
    """
    ra, dec = (np.asarray(angle, np.float64) for angle in (right_ascension, declination))
    if ra.ndim != 2 or ra.shape != dec.shape or ra.shape[1] < 3:
        raise ValueError(
            "right_ascension and declination must have the dimensions (polygon, corner) with at "
            f"least 3 corners, got {ra.shape} and {dec.shape}"
        )
    if names is not None and len(names) != len(ra):
        raise ValueError(f"names must name {len(ra)} polygons, got {len(names)}")
    if grow < 0:
        raise ValueError(f"grow must be >= 0 pixels, got {grow}")
    if region not in ("inner", "outer"):
        raise ValueError(f"region must be 'inner' or 'outer', got {region!r}")
    reasons = _unusable(ra, dec)
    usable = np.array([index for index in range(len(ra)) if index not in reasons], np.int64)
    pairs: list[tuple[Integers, Integers, Integers]] = []
    for tract, near in _candidates(sky_map, ra[usable], dec[usable], grow):
        chosen = usable[near]
        polygon, patch = _overlaps(tract, ra[chosen], dec[chosen], region, grow)
        pairs.append((chosen[polygon], np.full(polygon.shape, tract.index), patch))
    found = [np.concatenate(parts) for parts in zip(*pairs, strict=True)] if pairs else []
    polygon, index, patch = found or [np.empty(0, np.int64)] * 3
    order = np.lexsort((patch, index, polygon))
    named = tuple((names[i] if names is not None else i, why) for i, why in reasons.items())
    return PatchOverlaps(polygon[order], index[order], patch[order], named)


def _unusable(ra: Floats, dec: Floats) -> dict[int, str]:
    """Return why polygons are none, by index."""
    reasons: dict[int, str] = {}
    finite = np.isfinite(ra) & (np.abs(dec) <= 90)
    for index in range(len(ra)):
        if not finite[index].all():
            reasons[index] = f"{(~finite[index]).sum()} corners without a position"
            continue
        middle, reach = _middle(ra[index], dec[index])
        if not reach <= LARGEST_POLYGON:
            reasons[index] = f"corners more than {LARGEST_POLYGON:g} deg from their middle"
            continue
        east, north = to_tangent_plane(ra[index], dec[index], *middle)
        de, dn = east - east[0], north - north[0]
        area = np.abs(np.outer(de, dn) - np.outer(dn, de)).max()
        if not area > 0:
            reasons[index] = "no area"
    return reasons


def _middle(ra: Floats, dec: Floats) -> tuple[tuple[float, float], float]:
    """Return the mean direction (ra, dec) of corners and how far the farthest is, deg."""
    corners = unit_vectors(ra, dec)
    mean = corners.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if not length > 0:
        return (0.0, 0.0), np.inf
    x, y, z = mean / length
    center = float(np.rad2deg(np.arctan2(y, x))), float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))
    # chords keep small angles, cosines do not
    chord = np.linalg.norm(corners - mean / length, axis=1).max()
    return center, float(2 * np.rad2deg(np.arcsin(min(chord / 2, 1.0))))


def _candidates(
    sky_map: SkyMap, ra: Floats, dec: Floats, grow: int
) -> list[tuple[Tract, Integers]]:
    """Return the tracts that polygons may reach, each with those polygons."""
    if not len(ra):
        return []
    corners = unit_vectors(ra, dec)
    middles = corners.mean(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    chords = np.linalg.norm(corners - middles[:, None], axis=2).max(axis=1)
    reach = 2 * np.arcsin(chords / 2)
    border = sky_map.parameters.border + grow + 1
    scale = np.deg2rad(sky_map.parameters.pixel_scale / 3600.0)
    heights = np.arcsin(np.clip(middles[:, 2], -1.0, 1.0))
    found: list[tuple[Tract, Integers]] = []
    for row in sky_map.rows:
        height, width = row.shape
        far = np.hypot(max(row.x, width - row.x), max(row.y, height - row.y)) + 2 * border
        limit = reach + np.arctan(far * scale)
        level = np.flatnonzero(np.abs(heights - np.deg2rad(row.declination)) <= limit)
        if not level.size:
            continue
        longitudes = row.right_ascension + 360.0 * np.arange(row.count) / row.count
        centers = unit_vectors(longitudes, row.declination)
        apart = np.linalg.norm(centers[:, None] - middles[level], axis=2)  # (tract, polygon)
        near = apart <= 2 * np.sin(np.minimum(limit[level], np.pi) / 2)
        found += [
            (sky_map[row.first + int(place)], level[near[place]])
            for place in np.flatnonzero(near.any(axis=1))
        ]
    return found


def _overlaps(
    tract: Tract, ra: Floats, dec: Floats, region: Region, grow: int
) -> tuple[Integers, Integers]:
    """Return the pairs (polygon, patch) that overlap in one tract."""
    x, y = tract.plane.to_pixels(ra, dec)
    boxes = patch_boxes(tract, region=region).astype(np.float64)
    # half-open boxes of pixel indices reach from the outer edge of one pixel to that of another
    low_y, high_y, low_x, high_x = boxes.T + np.array([-grow, grow, -grow, grow])[:, None] - 0.5
    apart = (
        (x.min(axis=1)[:, None] >= high_x)
        | (x.max(axis=1)[:, None] <= low_x)
        | (y.min(axis=1)[:, None] >= high_y)
        | (y.max(axis=1)[:, None] <= low_y)
    )
    middle_x, middle_y = 0.5 * (low_x + high_x), 0.5 * (low_y + high_y)
    half_x, half_y = 0.5 * (high_x - low_x), 0.5 * (high_y - low_y)
    # the edges of the convex hull are among the lines through two corners, in whatever order
    for one, other in combinations(range(x.shape[1]), 2):
        across_x = y[:, one] - y[:, other]
        across_y = x[:, other] - x[:, one]
        along = across_x[:, None] * x + across_y[:, None] * y
        middle = across_x[:, None] * middle_x + across_y[:, None] * middle_y
        half = np.abs(across_x)[:, None] * half_x + np.abs(across_y)[:, None] * half_y
        separates = (along.min(axis=1)[:, None] >= middle + half) | (
            along.max(axis=1)[:, None] <= middle - half
        )
        distinct = (across_x != 0) | (across_y != 0)
        apart |= separates & distinct[:, None]
    polygon, patch = np.nonzero(~apart)
    return polygon, patch
