"""Pixels of a template that lack light, because it comes from beyond the planes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms.dcr.operator import FourierOperator

__all__ = ["lacking_light"]

Floats = NDArray[np.float64]

LACKING: Final = 0.02
"""Part of what comes from beyond the planes, were they as bright there, that a pixel may lack."""


def lacking_light(operator: FourierOperator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where an image of planes of some shape lacks more than 2 % of the light of a plane.

    Refraction and a wider point-spread function bring light from where the planes end into pixels
    near their borders.

    Parameters
    ----------
    operator : FourierOperator
        Of one visit, over any image that is larger than displacements and point-spread functions
        are wide.
    shape : (y, x)
        Of the planes.

    Returns
    -------
    ndarray of bool, (y, x)
    """
    points = fft.irfft2(operator.shown(0), operator.shape, axes=(0, 1))
    at_rows, at_columns = (
        np.any([_lacking_along(light, side) for light in points.sum(axis=other).T], axis=0)
        for side, other in zip(shape, (1, 0), strict=True)
    )
    return np.asarray(at_rows[:, None] | at_columns)


def _lacking_along(light: Floats, side: int) -> NDArray[np.bool_]:
    """Return which pixels of a row lack light that is moved by as much as that of a point at 0.

    Where the light of a sharpened point changes its sign, pixels nearer to the border than others
    that lack light are taken to lack it too.
    """
    offset = np.rint(fft.fftfreq(len(light)) * len(light)).astype(int)
    first, last = (np.arange(side)[:, None] + end for end in (0, 1 - side))
    before = np.where(offset > first, light, 0.0).sum(axis=1)
    after = np.where(offset < last, light, 0.0).sum(axis=1)
    at_first, at_last = np.abs(before) > LACKING, np.abs(after) > LACKING
    return np.logical_or.accumulate(at_first[::-1])[::-1] | np.logical_or.accumulate(at_last)
