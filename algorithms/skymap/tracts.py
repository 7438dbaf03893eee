"""Sky maps, tracts and patches as immutable values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.boxes import Box
from skyloom.algorithms.skymap.parameters import SkyMapParameters
from skyloom.algorithms.tangent_plane import TangentPlane

__all__ = [
    "Patch",
    "Region",
    "SkyMap",
    "Tract",
    "TractRow",
    "patch_boxes",
    "tract_header",
    "tract_wcs",
]

Region = Literal["inner", "outer"]


@dataclass(frozen=True)
class Patch:
    """A rectangle of a tract.

    ``index`` counts along rows, ``(iy, ix)`` is the place in the grid of patches. ``inner`` is the
    box that no other patch of the tract shares, ``outer`` the one that overlaps its neighbours;
    half-open, in pixels of the tract.
    """

    index: int
    iy: int
    ix: int
    inner: Box
    outer: Box


@dataclass(frozen=True)
class Tract:
    """A tangent-plane grid of pixels, divided into patches.

    The tangent point, (``right_ascension``, ``declination``) in degree, lies at pixel (``x``,
    ``y``). ``shape`` (height, width) is a whole number of inner patches of ``inner_shape``;
    patches reach out by ``border`` pixels, not beyond the tract if ``clips``.
    """

    index: int
    right_ascension: float
    declination: float
    x: float
    y: float
    shape: tuple[int, int]
    pixel_scale: float
    rotation: float
    inner_shape: tuple[int, int]
    border: int
    clips: bool

    @property
    def plane(self) -> TangentPlane:
        """Return the projection of its pixels."""
        return tract_wcs(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Return how many patches there are along (y, x)."""
        return self.shape[0] // self.inner_shape[0], self.shape[1] // self.inner_shape[1]

    @property
    def patch_count(self) -> int:
        """Return how many patches there are."""
        return self.grid[0] * self.grid[1]

    def patch(self, index: int | tuple[int, int]) -> Patch:
        """Return a patch by its index or its place (iy, ix).

        Raises
        ------
        IndexError
            If there is no such patch; negative indices are none.
        """
        rows, columns = self.grid
        if isinstance(index, tuple):
            iy, ix = (int(place) for place in index)
        else:
            iy, ix = divmod(int(index), columns)
        if not (0 <= iy < rows and 0 <= ix < columns):
            raise IndexError(
                f"tract {self.index} has {rows} x {columns} patches (y, x), "
                f"0 to {rows * columns - 1}; there is no patch {index}"
            )
        height, width = self.inner_shape
        inner = Box(iy * height, (iy + 1) * height, ix * width, (ix + 1) * width)
        outer = Box(
            inner.y_start - self.border,
            inner.y_stop + self.border,
            inner.x_start - self.border,
            inner.x_stop + self.border,
        )
        if self.clips:
            outer = Box(
                max(outer.y_start, 0),
                min(outer.y_stop, self.shape[0]),
                max(outer.x_start, 0),
                min(outer.x_stop, self.shape[1]),
            )
        return Patch(iy * columns + ix, iy, ix, inner, outer)

    def __iter__(self) -> Iterator[Patch]:
        """Iterate over its patches in the order of their indices."""
        return (self.patch(index) for index in range(self.patch_count))


@dataclass(frozen=True)
class TractRow:
    """Tracts of the same form at one declination, evenly spaced from ``right_ascension``."""

    first: int
    count: int
    right_ascension: float
    declination: float
    x: float
    y: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class SkyMap:
    """A set of tracts, numbered from 0: ``sky_map[index]`` is one, ``len(sky_map)`` their number.

    ``rows`` holds their geometry in the order of their indices. Equal parameters give equal maps.
    """

    parameters: SkyMapParameters
    rows: tuple[TractRow, ...]

    def __len__(self) -> int:
        """Return how many tracts there are."""
        return self.rows[-1].first + self.rows[-1].count

    def __getitem__(self, index: int) -> Tract:
        """Return a tract.

        Raises
        ------
        IndexError
            If there is no such tract; negative indices are none.
        """
        if not 0 <= index < len(self):
            raise IndexError(
                f"the sky map has tracts 0 to {len(self) - 1}; there is no tract {index}"
            )
        row = self.rows[bisect_right(self.rows, index, key=lambda row: row.first) - 1]
        right_ascension = row.right_ascension + 360.0 * (index - row.first) / row.count
        return Tract(
            int(index),
            right_ascension % 360.0,
            row.declination,
            row.x,
            row.y,
            row.shape,
            self.parameters.pixel_scale,
            self.parameters.rotation,
            self.parameters.inner_shape,
            self.parameters.border,
            self.parameters.patches == "legacy",
        )


def plane_matrix(pixel_scale: float, rotation: float) -> NDArray[np.float64]:
    """Return what takes pixels (x, y) to (east, north), degree, in the tangent plane."""
    turn = np.deg2rad(rotation)
    sky = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # no negative zeros in headers
    matrix: NDArray[np.float64] = pixel_scale / 3600.0 * sky + 0.0
    return matrix


def tract_wcs(tract: Tract) -> TangentPlane:
    """Return the projection of the pixels of a tract, which all its patches share.

    Parameters
    ----------
    tract : Tract

    Returns
    -------
    TangentPlane
        Pixels count from the lower left of the tract.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import SkyMapParameters, rings_skymap
    >>> plane = tract_wcs(rings_skymap()[9813])
    >>> [round(float(angle), 7) for angle in plane.to_sky(13999, 13999)]
    [150.2479339, 2.231405]
    """
    matrix = plane_matrix(tract.pixel_scale, tract.rotation)
    return TangentPlane(tract.right_ascension, tract.declination, tract.x, tract.y, matrix)


def tract_header(tract: Tract, box: tuple[int, int, int, int] | None = None) -> dict[str, Any]:
    """Return the FITS keys of a tract, or of a box of it.

    Parameters
    ----------
    tract : Tract
    box : (y_start, y_stop, x_start, x_stop), optional
        Half-open box in pixels of the tract; all of it by default.

    Returns
    -------
    dict
        NAXIS and the projection; pixels count from 1 there.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> header = tract_header(rings_skymap()[9813], (3900, 8100, 0, 4100))
    >>> header["NAXIS1"], header["CRPIX1"], header["CRPIX2"]
    (4100, 14000.0, 10100.0)
    """
    covered = Box(*box) if box is not None else Box(0, tract.shape[0], 0, tract.shape[1])
    plane = tract_wcs(tract)
    plane = plane._replace(x=plane.x - covered.x_start, y=plane.y - covered.y_start)
    height, width = covered.shape
    return {"NAXIS": 2, "NAXIS1": width, "NAXIS2": height} | plane.header()


def patch_boxes(tract: Tract, *, region: Region = "outer") -> NDArray[np.int64]:
    """Return the boxes of all patches of a tract.

    Parameters
    ----------
    tract : Tract
    region : "outer" or "inner"
        The boxes that overlap, or those that tile the tract.

    Returns
    -------
    ndarray, (patch, 4), int64, pixel
        ``(y_start, y_stop, x_start, x_stop)``, half-open, in pixels of the tract.

    Raises
    ------
    ValueError
        If the region is unknown.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> patch_boxes(rings_skymap()[9813])[[0, 8]].tolist()
    [[0, 4100, 0, 4100], [3900, 8100, 3900, 8100]]
    """
    if region not in ("inner", "outer"):
        raise ValueError(f"region must be 'inner' or 'outer', got {region!r}")
    border = tract.border if region == "outer" else 0
    sides: list[NDArray[np.int64]] = []
    for count, inner, size in zip(tract.grid, tract.inner_shape, tract.shape, strict=True):
        start = np.arange(count, dtype=np.int64) * inner - border
        stop = start + inner + 2 * border
        sides += [np.maximum(start, 0), np.minimum(stop, size)] if tract.clips else [start, stop]
    rows, columns = tract.grid
    return np.stack(
        [
            np.repeat(sides[0], columns),
            np.repeat(sides[1], columns),
            np.tile(sides[2], rows),
            np.tile(sides[3], rows),
        ],
        axis=1,
    )
