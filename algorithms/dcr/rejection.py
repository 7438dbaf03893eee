"""Rejecting what only few visits show, once the model predicts each visit with its refraction."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms.coadd.artifacts import few_epochs
from skyloom.algorithms.dcr.linear import Problem, residuals_of, spectrum_of, weighted_mean
from skyloom.algorithms.dcr.operator import FourierOperator, Images, Spectra

__all__ = ["MODEL_ERROR", "reject_pixels"]

MODEL_ERROR: Final = 0.02
"""Part of its own flux by which a model may be wrong at a source: PSFs are not better known."""
GROW: Final = 2
"""Pixels around a rejected one that go with it: its wings."""
ECHO: Final = 0.5
"""Deviations below this part of the largest one nearby may only be its echo."""
SQUARE: Final = np.ones((3, 3), bool)


def reject_pixels(
    problem: Problem, operator: FourierOperator, planes: Images, threshold: float
) -> tuple[Problem, NDArray[np.int64]]:
    """Return the problem without groups of pixels that deviate in few visits.

    A group of deviating pixels of a visit stays if somewhere on it more visits deviate than may
    show an artifact, `skyloom.algorithms.coadd.few_epochs`: the source varies, or is not described
    by the model.

    Parameters
    ----------
    problem : Problem
    operator : FourierOperator
    planes : array, (subfilter, y, x)
        The solution so far.
    threshold : float
        Deviation of a pixel, standard deviations.

    Returns
    -------
    problem : Problem
        The same one if nothing is rejected.
    rejected : ndarray, (visit,)
        Pixels rejected of each visit.
    """
    spectrum = spectrum_of(planes, operator)
    visits = range(operator.visits)
    deviation = np.stack([_excess(problem, operator, spectrum, visit) for visit in visits])
    # What one visit shows is in the model by its part, and as much too little in all others.
    largest = ndimage.maximum_filter(deviation.max(axis=0), 3)
    deviating = deviation > np.maximum(threshold, ECHO * largest)
    rejected = np.zeros(operator.visits, np.int64)
    if not deviating.any():
        return problem, rejected
    count = np.zeros(problem.coadd.shape, np.int64)
    for visit in visits:
        count += ndimage.binary_dilation(deviating[visit], SQUARE)
    epochs = (problem.weights > 0).sum(axis=0)
    static = count > few_epochs(epochs)
    weights = problem.weights.copy()
    for visit in visits:
        groups, number = ndimage.label(deviating[visit], SQUARE)
        if not number:
            continue
        stays = np.zeros(number + 1, bool)
        stays[np.unique(groups[static])] = True
        stays[0] = True
        gone = ndimage.binary_dilation(~stays[groups], SQUARE, iterations=GROW)
        rejected[visit] = int((gone & (weights[visit] > 0)).sum())
        weights[visit][gone] = 0.0
    if not rejected.any():
        return problem, rejected
    images = np.where(weights > 0, problem.images, np.float32(0.0))
    coadd = weighted_mean(images, weights, problem.coadd)
    return problem._replace(images=images, weights=weights, coadd=coadd), rejected


def _excess(problem: Problem, operator: FourierOperator, spectrum: Spectra, visit: int) -> Images:
    """Return the deviation, in standard deviations, beyond what the model may be wrong by."""
    deviation = residuals_of(problem, operator, spectrum, visit)
    root = np.sqrt(problem.weights[visit])
    seen = problem.images[visit] * root - deviation
    return np.asarray(np.abs(deviation) - np.float32(MODEL_ERROR) * np.abs(seen), np.float32)
