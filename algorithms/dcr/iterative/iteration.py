"""The iteration of a tile."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.iterative.clamps import (
    apply_taper,
    average_models,
    clamp_frequency,
    clamp_iteration,
    noise_cutoff,
)
from skyloom.algorithms.dcr.iterative.convergence import (
    convergence_metric,
    next_gain,
    visit_convergence,
)
from skyloom.algorithms.dcr.iterative.forward import (
    Geometry,
    amplified,
    backshift_residual,
    count_and_weight_planes,
    predict_visit,
    prepared_planes,
    update_model,
)
from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters

__all__ = ["Iterated", "IterativeTile", "iterate_tile"]

Images = NDArray[np.float32]
Bools = NDArray[np.bool_]
SHRUNK = 5
LEAST = 2
"""Pixels of background that tell its noise."""


class IterativeTile(NamedTuple):
    """Data of a tile with its buffer: ``images`` and ``weights`` (visit, y, x), 0 where a pixel is
    bad; ``template``, ``taper`` (y, x); where something is ``detected``, and where there is plain
    ``background`` (y, x)."""

    images: Images
    weights: Images
    template: Images
    taper: Images
    detected: Bools
    background: Bools


class Iterated(NamedTuple):
    """Planes (subfilter, y, x), amplified; counts of visits (subfilter, y, x); the convergence
    before and after each iteration, the gain of each, and the status; whether there is no
    background to tell the noise from."""

    planes: Images
    counts: Images
    convergence: list[float]
    gains: list[float]
    status: v.DcrStatus
    crowded: bool


def iterate_tile(
    tile: IterativeTile, geometry: Geometry, parameters: IterativeParameters
) -> Iterated:
    """Return planes after the iteration; those before, if it diverges.

    Each iteration shifts back what visits lack of the model, adds its mean to each plane, clamps
    the planes, averages them with the old ones, and lets them go over into the coadd far from
    sources. A single plane is the mean of visits moved back, without any of these.
    """
    p = parameters
    part = tile.template / np.float32(p.subfilters)
    planes = np.repeat(part[None], p.subfilters, axis=0).astype(np.float32)
    counts, norms = count_and_weight_planes(tile.weights, geometry)
    metrics, gains = list[float](), list[float]()
    crowded = int(_inside(tile.background).sum()) < LEAST

    def ended(planes: Images, status: v.DcrStatus) -> Iterated:
        return Iterated(planes, counts, metrics, gains, status, crowded)

    if not norms.any():
        return ended(planes, v.DcrStatus.NO_VALID_PIXELS)
    if not tile.detected.any():
        return ended(planes, v.DcrStatus.NO_SOURCES)
    metric, residual = _compare(tile, geometry, planes, p)
    metrics.append(metric)
    if np.isnan(metric):  # no visit has a good pixel where something is detected
        return ended(planes, v.DcrStatus.NO_VALID_PIXELS)
    if not geometry.split.any():
        return ended(planes, v.DcrStatus.NO_LEVERAGE)
    if p.subfilters == 1:
        planes = _moved_back(tile, geometry, planes, norms)
        metrics.append(_compare(tile, geometry, planes, p)[0])
        gains.append(1.0)
        return ended(planes, v.DcrStatus.CONVERGED)
    best, status = planes, v.DcrStatus.NOT_CONVERGED
    while len(gains) < p.most and metric > 0.0:
        gain = next_gain(metrics, gains, p.gain, p.progressive_gain)
        planes = _step(tile, planes, residual, norms, gain, p)
        metric, residual = _compare(tile, geometry, planes, p)
        gains.append(gain)
        metrics.append(metric)
        if metric == 0.0:
            break
        improvement = (metrics[-2] - metric) / metric
        if improvement < 0 and len(gains) >= max(p.least, 1) and p.use_convergence:
            return ended(amplified(best, p.accelerate), v.DcrStatus.DIVERGED)
        best = planes
        if improvement <= p.convergence_threshold and len(gains) >= p.least and p.use_convergence:
            status = v.DcrStatus.CONVERGED
            break
    return ended(
        amplified(planes, p.accelerate), v.DcrStatus.CONVERGED if metric == 0.0 else status
    )


def _moved_back(tile: IterativeTile, geometry: Geometry, planes: Images, norms: Images) -> Images:
    """Return the mean of visits moved back, all that a single plane can be.

    To iterate would be to sharpen what the interpolation of each visit smooths.
    """
    total = np.zeros_like(planes)
    for visit, (image, weight) in enumerate(zip(tile.images, tile.weights, strict=True)):
        backshift_residual(image * weight, geometry, visit, total)
    return np.where(norms > 0, norms * total, planes)


def _inside(background: Bools) -> Bools:
    """Return background that is not at the border, where shifted images end."""
    inside = background.copy()
    inside[:SHRUNK] = inside[-SHRUNK:] = inside[:, :SHRUNK] = inside[:, -SHRUNK:] = False
    return inside


def _compare(
    tile: IterativeTile, geometry: Geometry, planes: Images, p: IterativeParameters
) -> tuple[float, Images]:
    """Return the convergence of planes, and what the visits lack of them, shifted back."""
    mean = planes.mean(axis=0, dtype=np.float64)
    middle = planes[min(1, len(planes) - 1)]
    floor = noise_cutoff(middle, tile.background, 1) * 2.0
    significance = (np.abs(mean) + 3.0 * floor).astype(np.float32)
    if not significance.any():
        significance[:] = 1.0
    prepared = prepared_planes(planes, p.accelerate, geometry.order)
    residual = np.zeros_like(planes)
    metrics = []
    for visit, (image, weight) in enumerate(zip(tile.images, tile.weights, strict=True)):
        predicted = predict_visit(prepared, geometry, visit)
        good = weight > 0
        metrics.append(visit_convergence(image, predicted, significance, good & tile.detected))
        lacking = np.where(good, weight * (image - predicted), np.float32(0.0))
        backshift_residual(lacking, geometry, visit, residual)
    return convergence_metric(metrics), residual


def _step(
    tile: IterativeTile, planes: Images, residual: Images, norms: Images, gain: float,
    p: IterativeParameters,
) -> Images:  # fmt: skip
    """Return the planes of the next iteration."""
    new = update_model(planes, residual, norms)
    new = np.stack(
        [
            clamp_iteration(one, old, p.clamp_iteration, p.clamp_width)
            for one, old in zip(new, planes, strict=True)
        ]
    )
    noise = noise_cutoff(new[0], _inside(tile.background), p.clamp_width, norms[0] * residual[0])
    new = clamp_frequency(new, planes, p.clamp_frequency, p.clamp_width, noise)
    new = average_models(new, planes, gain)
    if p.use_model_weights:
        new = apply_taper(new, tile.taper, tile.template)
    # Clamps must not change what no data speak of.
    return np.where(norms > 0, new, planes)
