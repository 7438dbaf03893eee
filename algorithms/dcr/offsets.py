"""How far a visit lies from where a model says that it should.

A projection that is wrong by a tenth of a pixel leaves dipoles at all stars of a visit, which look
like colours to the others. The offset is found where the sum of weighted squares of what is left is
smallest: coarsely by a correlation over whole pixels, then by steps of Gauss and Newton, in which
pixels that deviate much count little.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.dcr.operator import Images
from skyloom.algorithms.dcr.visit_data import Visit

__all__ = ["Deviation", "Step", "coarse_offset", "deviation", "misfit_map", "offset_step"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
ROBUST: Final = 3.0
"""Standard deviations beyond which a pixel counts by its deviation, not by the square of it."""


class Step(NamedTuple):
    """Normal equations of a step of an offset (dy, dx): ``matrix`` (2, 2) and ``vector`` (2,)."""

    matrix: Floats
    vector: Floats

    def solved(self) -> Floats:
        """Return the step; none where nothing tells of it."""
        if not np.linalg.cond(self.matrix) < 1e8:
            return np.zeros(2)
        return np.asarray(np.linalg.solve(self.matrix, self.vector))


class Deviation(NamedTuple):
    """Pixels of a visit at sources: the sum of squared deviations of those that agree with a
    model, in ``chi2``, how many ``pixels`` these are, and how many do not agree, ``lost``."""

    chi2: float
    pixels: int
    lost: int

    @property
    def per_pixel(self) -> float:
        """Return chi2 per pixel; NaN without pixels."""
        return self.chi2 / self.pixels if self.pixels else float("nan")

    @property
    def part_lost(self) -> float:
        """Return the part of pixels that do not agree."""
        return self.lost / max(self.pixels + self.lost, 1)


def misfit_map(visit: Visit, seen: Images, radius: int) -> Floats:
    """Return the sum of weighted squares of a visit less a template at offsets of whole pixels.

    Parameters
    ----------
    visit : Visit
    seen : array, (y, x)
        Template over the larger, periodic image.
    radius : int, pixel
        Largest offset.

    Returns
    -------
    ndarray, (2 radius + 1, 2 radius + 1)
        But for a constant; offset (0, 0) in the middle.
    """
    product = fft.rfft2(visit.weights * visit.image, seen.shape) * fft.rfft2(seen).conj()
    square = fft.rfft2(visit.weights, seen.shape) * fft.rfft2(seen * seen).conj()
    cost = fft.irfft2(square - 2.0 * product, seen.shape)
    near = np.arange(-radius, radius + 1)
    return np.asarray(cost[np.ix_(near, near)], np.float64)


def coarse_offset(cost: Floats) -> Floats:
    """Return the offset (dy, dx) at which a map is smallest.

    Examples
    --------
    >>> cost = np.ones((5, 5))
    >>> cost[3, 1] = 0.0
    >>> coarse_offset(cost).tolist()
    [1.0, -1.0]
    """
    radius = cost.shape[0] // 2
    place = np.unravel_index(int(cost.argmin()), cost.shape)
    return np.asarray(np.array(place, float) - radius)


def moved(seen: Images, offset: Floats) -> tuple[Images, Images, Images]:
    """Return a periodic image moved by some pixels (dy, dx), and its derivatives by these."""
    ky = 2.0 * np.pi * fft.fftfreq(seen.shape[0])[:, None]
    kx = 2.0 * np.pi * fft.rfftfreq(seen.shape[1])
    turned = fft.rfft2(seen) * np.exp(-1j * (ky * offset[0] + kx * offset[1]))
    found = (
        fft.irfft2(part, seen.shape) for part in (turned, -1j * ky * turned, -1j * kx * turned)
    )
    image, along_y, along_x = (np.asarray(part, np.float32) for part in found)
    return image, along_y, along_x


def offset_step(visit: Visit, seen: Images, offset: Floats, detected: Bools) -> Step:
    """Return the normal equations of a step from an offset.

    Parameters
    ----------
    visit : Visit
    seen : array, (y, x)
        Template over the larger, periodic image, without an offset.
    offset : array, (2,), pixel
    detected : array, (y, x)
        Pixels of sources.
    """
    at = detected & (visit.weights > 0)
    image, *slopes = (part[: at.shape[0], : at.shape[1]][at] for part in moved(seen, offset))
    left = (visit.image[at] - image).astype(np.float64)
    weights = visit.weights[at].astype(np.float64)
    size = np.abs(left) * np.sqrt(weights)
    weights *= ROBUST / np.maximum(size, ROBUST)
    both = np.stack(slopes).astype(np.float64)
    return Step((both * weights) @ both.T, (both * weights) @ left)


def deviation(
    visit: Visit, seen: Images, offset: Floats, detected: Bools, threshold: float,
    model_error: float,
) -> Deviation:  # fmt: skip
    """Return how well a visit agrees with a template at an offset.

    Parameters
    ----------
    visit, seen, offset, detected
        As for `offset_step`.
    threshold : float
        Standard deviations beyond which a pixel does not agree.
    model_error : float
        Part of its flux by which a pixel may be wrong besides.
    """
    at = detected & (visit.weights > 0)
    image = moved(seen, offset)[0][: at.shape[0], : at.shape[1]][at]
    root = np.sqrt(visit.weights[at])
    size = np.abs(visit.image[at] - image) * root
    beyond = size - np.float32(model_error) * np.abs(image) * root > threshold
    return Deviation(
        float(np.square(size[~beyond], dtype=np.float64).sum()), int((~beyond).sum()),
        int(beyond.sum()),
    )  # fmt: skip
