"""The bins of a tract: squares of pixels that tile it, all visits on the same ones.

Bin (j, i) covers the pixels ``[j size, (j + 1) size)`` by ``[i size, (i + 1) size)`` of the tract;
the last bins may be cut by its end. Every pixel is in exactly one bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.background.geometry import bin_centers
from skyloom.algorithms.boxes import Box
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.skymap.tracts import Tract

__all__ = ["TractGrid", "tract_grid"]

WANTED_SIZE = 150
"""Size of bins unless chosen, pixel: the size that divides the patch and is nearest to this."""


@dataclass(frozen=True)
class TractGrid:
    """Bins of ``bin_size`` on a tract of ``shape`` whose patches have inner boxes ``inner_shape``.

    All (y, x), pixel. Each bin lies in one patch, unless ``allow_partials``, or the bins are
    larger than patches and tile the tract: then parts of bins from several patches are added up.
    With a ``tract`` warps are checked to lie on it.

    Raises
    ------
    ConfigurationError
        If the bin size does not divide that of patches and partial bins are not allowed.
    GeometryError
        If patches do not tile the tract or sizes are not positive.
    """

    shape: tuple[int, int]
    bin_size: tuple[int, int]
    inner_shape: tuple[int, int]
    allow_partials: bool = False
    tract: Tract | None = None

    def __post_init__(self) -> None:
        """Check that everything fits."""
        if min(*self.shape, *self.bin_size, *self.inner_shape) < 1:
            raise GeometryError(f"sizes must be >= 1 pixel, got {self}")
        for name, size, inner, side in zip(
            "yx", self.shape, self.inner_shape, self.bin_size, strict=True
        ):
            if size % inner:
                raise GeometryError(f"patches of {inner} pixels do not tile {size} along {name}")
            tiles = inner % side == 0 or (side > inner and size % side == 0)
            if not (tiles or self.allow_partials):
                raise ConfigurationError(
                    f"bin_size {side} along {name} does not divide the {inner} pixels of a patch; "
                    f"usable are {', '.join(map(str, usable_sizes(inner, side)))}, or any size "
                    "with allow_partials"
                )

    @property
    def bins(self) -> tuple[int, int]:
        """Return the number of bins along (y, x)."""
        rows, columns = (
            -(-size // side) for size, side in zip(self.shape, self.bin_size, strict=True)
        )
        return rows, columns

    @property
    def has_partials(self) -> bool:
        """Return whether bins reach over several patches."""
        return any(
            inner % side for inner, side in zip(self.inner_shape, self.bin_size, strict=True)
        )

    @property
    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the edges of bins along y and x: bin i is ``[edges[i], edges[i + 1])``."""
        y, x = (
            np.minimum(np.arange(count + 1, dtype=np.int64) * side, size)
            for count, side, size in zip(self.bins, self.bin_size, self.shape, strict=True)
        )
        return y, x

    @property
    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the centres of bins along y and x, in pixels of the tract."""
        y, x = (bin_centers(edges) for edges in self.edges)
        return y, x

    @property
    def areas(self) -> NDArray[np.int64]:
        """Return the number of pixels of each bin, (y, x)."""
        y, x = (np.diff(edges) for edges in self.edges)
        return np.multiply.outer(y, x)

    def slices(self, box: Sequence[int]) -> tuple[slice, slice]:
        """Return the bins (y, x) that tile a box of pixels.

        Raises
        ------
        GeometryError
            If the box does not begin and end at edges of bins, or is empty.

        Examples
        --------
        >>> TractGrid((400, 600), (50, 50), (200, 200)).slices((0, 200, 100, 600))
        (slice(0, 4, None), slice(2, 12, None))
        """
        if len(box) != 4:
            raise GeometryError(f"box must be [y_start, y_stop, x_start, x_stop], got {list(box)}")
        found = []
        for edges, start, stop in zip(self.edges, box[::2], box[1::2], strict=True):
            first, last = (int(np.searchsorted(edges, value)) for value in (start, stop))
            aligned = last < edges.size and edges[first] == start and edges[last] == stop
            if not (aligned and first < last):
                raise GeometryError(
                    f"box {tuple(box)} is not tiled by bins of {self.bin_size} pixels (y, x)"
                )
            found.append(slice(first, last))
        return found[0], found[1]

    def touched(self, box: Sequence[int]) -> Box:
        """Return the box of bins that a box of pixels inside the tract touches.

        Examples
        --------
        >>> TractGrid((400, 600), (50, 50), (200, 200)).touched((0, 201, 149, 600))
        Box(y_start=0, y_stop=5, x_start=2, x_stop=12)
        """
        side_y, side_x = self.bin_size
        y_start, y_stop, x_start, x_stop = box
        return Box(y_start // side_y, -(-y_stop // side_y), x_start // side_x, -(-x_stop // side_x))

    def inner_box(self, patch: int) -> Box:
        """Return the inner box of a patch.

        Raises
        ------
        IndexError
            If there is no such patch.
        """
        height, width = self.inner_shape
        rows, columns = self.shape[0] // height, self.shape[1] // width
        if not 0 <= patch < rows * columns:
            raise IndexError(f"the tract has patches 0 to {rows * columns - 1}, got {patch}")
        iy, ix = divmod(int(patch), columns)
        return Box(iy * height, (iy + 1) * height, ix * width, (ix + 1) * width)


def tract_grid(
    tract: Tract,
    *,
    bin_size: int | tuple[int, int] | None = None,
    allow_partials: bool = False,
) -> TractGrid:
    """Return the bins of a tract.

    Parameters
    ----------
    tract : Tract
    bin_size : int or (int, int), pixel, optional
        Along both axes or along (y, x); by default the divisor of the inner size of patches that
        is nearest to 150.
    allow_partials : bool
        Whether bins may reach over several patches.

    Returns
    -------
    TractGrid

    Raises
    ------
    ConfigurationError
        If the bin size does not divide that of patches and partial bins are not allowed; the
        message names usable sizes.

    Examples
    --------
    >>> from skyloom.algorithms.skymap import rings_skymap
    >>> grid = tract_grid(rings_skymap()[9813])
    >>> grid.bin_size, grid.bins
    ((160, 160), (175, 175))
    """
    if bin_size is None:
        height, width = tract.inner_shape
        size = usable_sizes(height, WANTED_SIZE, 1)[0], usable_sizes(width, WANTED_SIZE, 1)[0]
    else:
        size = (bin_size, bin_size) if isinstance(bin_size, int) else bin_size
    return TractGrid(tract.shape, size, tract.inner_shape, allow_partials, tract)


def usable_sizes(inner: int, wanted: int, count: int = 4) -> list[int]:
    """Return the divisors of a patch size that are nearest to a bin size, ascending.

    Examples
    --------
    >>> usable_sizes(4000, 128), usable_sizes(3000, 128)
    ([80, 100, 125, 160], [100, 120, 125, 150])
    """
    divisors = [size for size in range(1, inner + 1) if inner % size == 0]
    return sorted(sorted(divisors, key=lambda size: (abs(size - wanted), size))[:count])
