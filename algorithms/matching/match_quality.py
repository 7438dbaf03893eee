"""How well matched visits agree: residuals, pairs of visits, steps at the edges of visits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["match_quality"]

Floats = NDArray[np.float64]


def match_quality(
    before: Floats,
    after: Floats,
    weight: Floats,
    sky: Floats,
    total: Floats,
    shape: tuple[int, int],
    effective: float,
    kept: float,
) -> tuple[dict[str, tuple[float, bool]], dict[str, Floats]]:
    """Return measures of a match, each with whether it has the unit of levels, and of visits.

    Parameters
    ----------
    before, after : ndarray, (bin, visit)
        Levels less the mean of their bin, without and with the fields.
    weight : ndarray, (bin, visit)
    sky, total : ndarray, (bin,)
    shape : (int, int)
        Bins along y and x.
    effective : float
        Number of parameters that the fields took from the levels.
    kept : float
        What robust weights leave of the sum of squares of a Gaussian.
    """
    seen = weight > 0
    count = seen.sum(axis=1)
    shared = count > 1
    samples = float(count[shared].sum())
    free = samples - float(shared.sum())
    measures: dict[str, tuple[float, bool]] = {}
    covered = max(float((count > 0).sum()), 1.0)
    for name, chosen in (("one", count == 1), ("two", count == 2), ("more", count > 2)):
        measures[f"bins_with_{name}"] = float(chosen.sum()) / covered, False
    inner = weight[shared]
    noise = np.sqrt(samples / inner.sum()) if samples else np.nan
    measures["bin_noise"] = float(noise), True
    counts = seen[shared].astype(np.float64)
    common = counts.T @ counts
    for name, rest, taken in (("before", before, 0.0), ("after", after, effective)):
        dof = free - taken
        square = float(np.vdot(inner * rest[shared], rest[shared]))
        ratio = np.sqrt(square / (dof * kept)) if dof > 0 else np.nan
        measures[f"overlap_rms_{name}"] = float(ratio * noise), True
        measures[f"overlap_ratio_{name}"] = float(ratio), False
        steps = _pair_differences(rest[shared], counts, common)
        for label, percent in (("median", 50), ("95", 95)):
            value = float(np.percentile(steps, percent)) if steps.size else np.nan
            measures[f"pair_difference_{label}_{name}"] = value, True
    measures["seam_step"], measures["inner_step"] = (
        (value, False) for value in _steps(sky, total, seen, shape)
    )
    return measures, _of_visits(after, weight, sky, total)


def _pair_differences(rest: Floats, counts: Floats, common: Floats) -> Floats:
    """Return the sizes of mean differences of pairs of visits over the bins they share.

    ``rest`` is 0 where a visit has no level.
    """
    sums = rest.T @ counts
    difference = sums - sums.T
    first, second = np.triu_indices(len(common), 1)
    number = common[first, second]
    found: Floats = np.abs(difference[first, second])[number > 0] / number[number > 0]
    return found


def _steps(
    sky: Floats, total: Floats, seen: NDArray[np.bool_], shape: tuple[int, int]
) -> tuple[float, float]:
    """Return rms steps of the sky between neighbours, in their noise.

    Where the set of visits changes, and where it does not: the sky itself has steps, so that only
    the two together tell of seams.
    """
    variance = np.where(total > 0, 1.0 / np.where(total > 0, total, 1.0), np.nan)
    values, spread = sky.reshape(shape), variance.reshape(shape)
    sets = seen.reshape(*shape, -1)
    squares: tuple[list[Floats], list[Floats]] = ([], [])
    for axis in (0, 1):
        low = [slice(None)] * 2
        high = [slice(None)] * 2
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(low), tuple(high)
        step = (values[a] - values[b]) ** 2 / (spread[a] + spread[b])
        changed = (sets[a] != sets[b]).any(axis=-1)
        for kept, where in zip(squares, (changed, ~changed), strict=True):
            kept.append(step[where & np.isfinite(step)])
    edge, inner = (np.concatenate(part) for part in squares)
    return tuple(  # type: ignore[return-value]
        float(np.sqrt(part.mean())) if part.size else np.nan for part in (edge, inner)
    )


def _of_visits(after: Floats, weight: Floats, sky: Floats, total: Floats) -> dict[str, Floats]:
    """Return the studentised mean residual of each visit, and its correlation with the sky."""
    share = weight / np.where(total > 0, total, 1.0)[:, None]
    rest = after * weight
    spread = (weight * (1.0 - share)).sum(axis=0)
    usable = spread > 0
    mean = np.full(weight.shape[1], np.nan)
    mean[usable] = rest.sum(axis=0)[usable] / np.sqrt(spread[usable])
    structure = np.where(np.isfinite(sky), sky, 0.0)
    structure = structure - np.average(structure, weights=total) if total.any() else structure
    norm = np.sqrt((weight * after**2).sum(axis=0) * (structure[:, None] ** 2 * weight).sum(axis=0))
    correlation = np.full(weight.shape[1], np.nan)
    known = norm > 0
    correlation[known] = (rest * structure[:, None]).sum(axis=0)[known] / norm[known]
    return {"mean_residual": mean, "sky_correlation": correlation}
