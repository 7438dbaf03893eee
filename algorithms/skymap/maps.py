"""Sky maps from their parameters.

A tract has the half size ``radius + overlap`` (half the height of a ring, and the overlap). Its
box holds the circle of that radius about the tangent point and grows to a whole number of patches,
by the smaller half of what is missing on the low side. Where that leaves out positions that belong
to the tract, as in the rings next to the poles, the box holds those, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.skymap.parameters import DiscreteTract, SkyMapParameters
from skyloom.algorithms.skymap.tracts import SkyMap, TractRow, plane_matrix
from skyloom.algorithms.tangent_plane import to_tangent_plane

__all__ = ["discrete_skymap", "make_skymap", "rings_skymap"]

Floats = NDArray[np.float64]

EDGE_POINTS = 257
"""Points along an edge of the region of a tract where its extremes are sought."""

LARGEST_RADIUS = 50.0
"""How far the corner of a tract may be from its centre, deg: tangent planes end at 90."""


def make_skymap(parameters: SkyMapParameters | None = None) -> SkyMap:
    """Return the sky map of some parameters.

    Parameters
    ----------
    parameters : SkyMapParameters, optional
        120 rings by default.

    Returns
    -------
    SkyMap

    Raises
    ------
    ConfigurationError
        If tracts are so large that a tangent plane does not hold them.

    Examples
    --------
    >>> len(make_skymap()), len(make_skymap(SkyMapParameters(rings=3)))
    (18938, 26)
    """
    chosen = parameters or SkyMapParameters()
    if chosen.kind == "rings":
        return rings_skymap(chosen)
    return discrete_skymap(chosen.tracts, parameters=chosen)


def rings_skymap(parameters: SkyMapParameters | None = None) -> SkyMap:
    """Return a map of the whole sky in rings of tracts between two polar caps.

    Of n rings each is ``180 / (n + 1)`` deg high and has as many tracts as fit without gaps along
    its longest edge. Tract 0 is the south cap, then the rings follow from south to north, each
    from ``first_right_ascension`` eastwards; the last tract is the north cap.

    Parameters
    ----------
    parameters : SkyMapParameters, optional
        120 rings by default.

    Returns
    -------
    SkyMap

    Raises
    ------
    ConfigurationError
        If the parameters are those of a discrete map, or tracts are so large that a tangent plane
        does not hold them.

    Examples
    --------
    >>> sky_map = rings_skymap()
    >>> tract = sky_map[9813]
    >>> round(tract.right_ascension, 7), round(tract.declination, 7), tract.shape
    (150.2479339, 2.231405, (28000, 28000))
    """
    chosen = parameters or SkyMapParameters()
    if chosen.kind != "rings":
        raise ConfigurationError("rings_skymap needs parameters with kind='rings'")
    height = 180.0 / (chosen.rings + 1)
    lowest = math.tan(math.radians(90.0 - height / 2))
    rows = [_row(0, 1, 0.0, -90.0, height / 2, _circle(lowest), chosen)]
    for ring in range(chosen.rings):
        center = height * (ring + 1) - 90.0
        count = ring_tracts(height, center)
        edge = np.linspace(-180.0 / count, 180.0 / count, EDGE_POINTS)
        limits = np.repeat([center - height / 2, center + height / 2], EDGE_POINTS)
        region = to_tangent_plane(np.tile(edge, 2), limits, 0.0, center)
        first = rows[-1].first + rows[-1].count
        rows.append(
            _row(
                first,
                count,
                chosen.first_right_ascension,
                center,
                height / 2,
                np.stack(region),
                chosen,
            )
        )
    first = rows[-1].first + rows[-1].count
    rows.append(_row(first, 1, 0.0, 90.0, height / 2, _circle(lowest), chosen))
    return SkyMap(chosen, tuple(rows))


def ring_tracts(height: float, center: float) -> int:
    """Return how many tracts a ring has, from its height and declination (deg).

    Examples
    --------
    >>> [ring_tracts(180 / 121, 180 / 121 * (ring + 1) - 90) for ring in (0, 1, 2, 60)]
    [10, 16, 22, 243]
    """
    nearest = min(abs(center - height / 2), abs(center + height / 2))
    # at the equator the quotient is a whole number for any map; rounding must not lose it
    return int(360.0 * math.cos(math.radians(nearest)) / height + 1e-9) + 1


def discrete_skymap(
    tracts: Sequence[DiscreteTract | tuple[float, float, float]],
    *,
    parameters: SkyMapParameters | None = None,
) -> SkyMap:
    """Return a map of tracts that are named one by one, for fields and for tests.

    Parameters
    ----------
    tracts : sequence of DiscreteTract or (right ascension, declination, radius), deg
        Centres and half sizes, in the order of their indices.
    parameters : SkyMapParameters, optional
        Pixels and patches; what it says of rings and tracts does not matter.

    Returns
    -------
    SkyMap

    Raises
    ------
    ValueError
        If there is no tract or a number is out of range.
    ConfigurationError
        If a tract is so large that a tangent plane does not hold it.

    Examples
    --------
    >>> sky_map = discrete_skymap([(209.0, -20.25, 0.2)])
    >>> sky_map[0].shape, sky_map[0].grid
    ((8000, 8000), (2, 2))
    """
    given = tuple(
        tract
        if isinstance(tract, DiscreteTract)
        else DiscreteTract(right_ascension=tract[0], declination=tract[1], radius=tract[2])
        for tract in tracts
    )
    base = (parameters or SkyMapParameters()).model_dump()
    chosen = SkyMapParameters(**(base | {"kind": "discrete", "tracts": given}))
    rows = tuple(
        _row(
            index,
            1,
            tract.right_ascension,
            tract.declination,
            tract.radius,
            np.zeros((2, 1)),
            chosen,
        )
        for index, tract in enumerate(given)
    )
    return SkyMap(chosen, rows)


def _circle(depth: float) -> Floats:
    """Return the polar cap in the tangent plane at its pole (deg): a circle."""
    angles = np.linspace(0.0, 2 * np.pi, EDGE_POINTS)
    radius: Floats = np.rad2deg(1.0 / depth) * np.stack([np.cos(angles), np.sin(angles)])
    return radius


def _row(
    first: int,
    count: int,
    right_ascension: float,
    declination: float,
    radius: float,
    region: Floats,
    parameters: SkyMapParameters,
) -> TractRow:
    """Return tracts of one form; ``region`` is what belongs to one, in the tangent plane (deg)."""
    if radius + parameters.tract_overlap >= LARGEST_RADIUS:
        raise ConfigurationError(_too_large(radius + parameters.tract_overlap))
    to_pixels = np.linalg.inv(plane_matrix(parameters.pixel_scale, parameters.rotation))
    half = math.degrees(math.tan(math.radians(radius + parameters.tract_overlap)))
    if parameters.sizing == "four_points":
        points = to_pixels @ (half * np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]]))
        start, size = _grown(points, parameters.inner_shape)
    else:
        points = half / (parameters.pixel_scale / 3600.0) * np.array([[-1.0, 1.0], [-1.0, 1.0]])
        start, size = _grown(points, parameters.inner_shape)
        belongs = to_pixels @ region
        below = belongs.min(axis=1) < np.array(start) - 0.5
        above = belongs.max(axis=1) > np.array(start) + np.array(size) - 0.5
        if below.any() or above.any():
            points = np.concatenate([points, belongs], axis=1)
            start, size = _grown(points, parameters.inner_shape)
    corner = math.hypot(*(max(-s, s + n) for s, n in zip(start, size, strict=True)))
    reach = math.degrees(math.atan(math.radians(corner * parameters.pixel_scale / 3600.0)))
    if reach >= LARGEST_RADIUS:
        raise ConfigurationError(_too_large(reach))
    return TractRow(
        first,
        count,
        right_ascension,
        declination,
        float(-start[0]),
        float(-start[1]),
        (size[1], size[0]),
    )


def _grown(points: Floats, inner_shape: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return first pixel and width along (x, y) of the box of points, in whole patches."""
    start, size = [], []
    for positions, inner in zip(points, reversed(inner_shape), strict=True):
        low = math.floor(positions.min() + 0.5)
        width = math.ceil(positions.max() - 0.5) - low + 1
        size.append(-(-width // inner) * inner)
        start.append(low - (size[-1] - width) // 2)
    return start, size


def _too_large(reach: float) -> str:
    return (
        f"a tract would reach {reach:.1f} deg from its centre, more than {LARGEST_RADIUS:g}: "
        "use more rings, a smaller radius, overlap, pixel scale or patch"
    )
