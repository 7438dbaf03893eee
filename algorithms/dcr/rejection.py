"""Rejecting what only few visits show, once the model predicts each visit with its refraction."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyloom.algorithms.coadd.artifacts import few_epochs
from skyloom.algorithms.dcr.operator import Images, Spectra
from skyloom.algorithms.dcr.pixel_bits import PixelBits

__all__ = ["MODEL_ERROR", "Deviations", "colour_allowance", "excess_of", "reject_groups"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MODEL_ERROR: Final = 0.02
"""Part of its own flux by which a model may be wrong at a source: PSFs are not better known."""
GROW: Final = 2
"""Pixels around a rejected one that go with it: its wings."""
ECHO: Final = 0.5
"""Deviations below this part of the largest one nearby may only be its echo."""
NEAR: Final = 0.1
"""Model weight from which a pixel is of a source."""
WITHIN: Final = 0.8
"""Part of a group that must lie in sources for these to vary."""
SQUARE: Final = np.ones((3, 3), bool)


def excess_of(image: Images, weights: Images, seen: Images, allowed: Images | None) -> Images:
    """Return the deviation of a visit beyond what the model may be wrong by.

    Parameters
    ----------
    image, weights : array, (y, x)
        Of the visit.
    seen : array, (y, x)
        What the model says.
    allowed : array, (y, x), optional
        What a visit may deviate by besides, in units of the image.

    Returns
    -------
    ndarray, (y, x), standard deviations
    """
    error = np.float32(MODEL_ERROR) * np.abs(seen)
    if allowed is not None:
        error += allowed
    deviation = np.abs(image - seen)
    deviation -= error
    deviation *= np.sqrt(weights)
    return np.asarray(deviation, np.float32)


def colour_allowance(
    spectrum: Spectra, shape: tuple[int, int], vectors: Floats, near: Floats
) -> Images:
    """Return by how much visits may deviate from a single plane, which has no colours.

    Light of any spectrum lies between that of both ends of the band. A visit is drawn out itself,
    and the plane is the mean of visits that are: both count.

    Parameters
    ----------
    spectrum : array, (ky, kx)
        Of the plane.
    shape : (y, x)
        Of its periodic image.
    vectors : array, (visit, 2), pixel
        From the red to the blue end of the band.
    near : array, (y, x)
        Weight of sources; elsewhere there are no colours.

    Returns
    -------
    ndarray, (y, x), float32
        In units of the plane.
    """
    ky = 2.0 * np.pi * fft.fftfreq(shape[0])[:, None]
    kx = 2.0 * np.pi * fft.rfftfreq(shape[1])
    rows, columns = near.shape
    plane = fft.irfft2(spectrum, shape)[:rows, :columns]
    largest = np.zeros(near.shape)
    for vector in vectors:
        for half in (0.5 * vector, -0.5 * vector):
            turned = spectrum * np.exp(-1j * (ky * half[0] + kx * half[1]))
            change = np.abs(fft.irfft2(turned, shape)[:rows, :columns] - plane)
            np.maximum(largest, change, out=largest)
    wide = 2.0 * ndimage.maximum_filter(largest, 3)
    return np.where(near > NEAR, wide, 0.0).astype(np.float32)


class Deviations:
    """The pixels of visits that deviate, and are not the echo of another visit.

    What one visit shows is in the model by its part, and as much too little in all others.

    Parameters
    ----------
    visits : int
    shape : (y, x)
    threshold : float, standard deviations

    Examples
    --------
    >>> found = Deviations(3, (1, 2), 7.5)
    >>> for visit, size in enumerate((90.0, 9.0, 0.0)):
    ...     found.add(visit, np.array([[size, 0.0]], np.float32))
    >>> bits = found.bits()
    >>> [bits.plane(visit)[0].tolist() for visit in range(3)]
    [[True, False], [False, False], [False, False]]
    """

    def __init__(self, visits: int, shape: tuple[int, int], threshold: float) -> None:
        self._visits, self._threshold = visits, np.float32(threshold)
        self._largest = np.zeros(shape, np.float32)
        self._found: dict[int, tuple[NDArray[np.intp], Images]] = {}

    def add(self, visit: int, excess: Images) -> None:
        """Add the deviation (y, x) of a visit, as of `excess_of`."""
        np.maximum(self._largest, excess, out=self._largest)
        places = np.flatnonzero(excess > self._threshold)
        self._found[visit] = places, excess.ravel()[places]

    def bits(self) -> PixelBits:
        """Return which pixels deviate, (visit, y, x)."""
        found = PixelBits(self._visits, self._largest.shape)
        least = np.float32(ECHO) * ndimage.maximum_filter(self._largest, 3).ravel()
        for visit, (places, excess) in self._found.items():
            plane = np.zeros(least.shape, bool)
            plane[places] = excess > least[places]
            found.add_plane(visit, plane.reshape(self._largest.shape))
        return found


def reject_groups(
    deviating: PixelBits, epochs: NDArray[np.integer], objects: Bools, core: float
) -> tuple[PixelBits, NDArray[np.int64]]:
    """Return the pixels of visits to reject: groups that deviate in few visits, and their wings.

    A group stays if somewhere on it more visits deviate than may show an artifact,
    `skyloom.algorithms.coadd.few_epochs`: the source varies, or is not described by the model.

    Parameters
    ----------
    deviating : PixelBits, (visit, y, x)
    epochs : array, (y, x)
        Visits that have a pixel.
    objects : array, (y, x)
        Where sources are.
    core : float, pixel
        Area of the core of a star.

    Returns
    -------
    rejected : PixelBits, (visit, y, x)
    varying : ndarray, (visit,)
        How many of the groups lie in a source and are as large as the core of a star: most likely
        it varies.

    Examples
    --------
    >>> deviating = PixelBits(8, (5, 8))
    >>> trail = np.zeros((5, 8), bool)
    >>> trail[2] = True
    >>> deviating.add_plane(3, trail)
    >>> gone, varying = reject_groups(deviating, np.full((5, 8), 8), ~trail, 8.0)
    >>> int(gone.plane(3).sum()), int(gone.plane(0).sum()), int(varying.sum())
    (40, 0, 0)
    """
    visits = len(deviating.bits)
    rejected, varying = PixelBits(visits, epochs.shape), np.zeros(visits, np.int64)
    count = np.zeros(epochs.shape, np.int16)
    for visit in range(visits):
        plane = deviating.plane(visit)
        if plane.any():
            count += ndimage.binary_dilation(plane, SQUARE)
    if not count.any():
        return rejected, varying
    static = count > few_epochs(epochs)
    for visit in range(visits):
        groups, number = ndimage.label(deviating.plane(visit), SQUARE)
        if not number:
            continue
        stays = np.zeros(number + 1, bool)
        stays[np.unique(groups[static])] = True
        stays[0] = True
        gone = ndimage.binary_dilation(~stays[groups], SQUARE, iterations=GROW)
        rejected.add_plane(visit, gone)
        size = np.bincount(groups.ravel(), minlength=number + 1)
        within = np.bincount(groups[objects], minlength=number + 1)
        varying[visit] = int((~stays & (size >= core) & (within >= WITHIN * size)).sum())
    return rejected, varying
