"""How well matched visits agree: residuals, pairs of visits, steps at the edges of visits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.matching.match_equations import blocks_of_bins

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
    visits = weight.shape[1]
    # of levels before and after: sums of squares, and sums over the bins of pairs of visits
    squares, all_weight, common = [0.0, 0.0], 0.0, np.zeros((visits, visits))
    sums = np.zeros((2, visits, visits))
    for part in blocks_of_bins(len(sky), visits):
        own = weight[part] * shared[part, None]
        counts = (own > 0).astype(np.float64)
        all_weight += float(own.sum())
        common += counts.T @ counts
        for index, rest in enumerate((before[part], after[part])):
            squares[index] += float(np.vdot(own * rest, rest))
            sums[index] += (rest * counts).T @ counts
    noise = np.sqrt(samples / all_weight) if samples else np.nan
    measures["bin_noise"] = float(noise), True
    for index, (name, taken) in enumerate((("before", 0.0), ("after", effective))):
        dof = free - taken
        ratio = np.sqrt(squares[index] / (dof * kept)) if dof > 0 else np.nan
        measures[f"overlap_rms_{name}"] = float(ratio * noise), True
        measures[f"overlap_ratio_{name}"] = float(ratio), False
        steps = _pair_differences(sums[index], common)
        for label, percent in (("median", 50), ("95", 95)):
            value = float(np.percentile(steps, percent)) if steps.size else np.nan
            measures[f"pair_difference_{label}_{name}"] = value, True
    measures["seam_step"], measures["inner_step"] = (
        (value, False) for value in _steps(sky, total, seen, shape)
    )
    return measures, _of_visits(after, weight, sky, total)


def _pair_differences(sums: Floats, common: Floats) -> Floats:
    """Return the sizes of mean differences of pairs of visits over the bins they share.

    ``sums`` are those of the first visit over the bins of both, ``common`` counts these.
    """
    first, second = np.triu_indices(len(common), 1)
    number = common[first, second]
    found: Floats = np.abs((sums - sums.T)[first, second])[number > 0] / number[number > 0]
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
    structure = np.where(np.isfinite(sky), sky, 0.0)
    structure = structure - np.average(structure, weights=total) if total.any() else structure
    sums = np.zeros((5, weight.shape[1]))
    for part in blocks_of_bins(len(sky), weight.shape[1]):
        own, rest, shape = weight[part], after[part] * weight[part], structure[part]
        share = own / np.where(total[part] > 0, total[part], 1.0)[:, None]
        sums[0] += (own * (1.0 - share)).sum(axis=0)
        sums[1] += rest.sum(axis=0)
        sums[2] += (rest * after[part]).sum(axis=0)
        sums[3] += shape**2 @ own
        sums[4] += shape @ rest
    spread, mean_sum, squares, sky_squares, product = sums
    mean = np.full(weight.shape[1], np.nan)
    usable = spread > 0
    mean[usable] = mean_sum[usable] / np.sqrt(spread[usable])
    norm = np.sqrt(squares * sky_squares)
    correlation = np.full(weight.shape[1], np.nan)
    known = norm > 0
    correlation[known] = product[known] / norm[known]
    return {"mean_residual": mean, "sky_correlation": correlation}
