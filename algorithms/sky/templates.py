"""Several sky frames for skies that are not always alike: moonlight, twilight, airglow, rotation.

What exposures show beside their smooth sky, relative to it, is taken for a sum of a few templates
with amplitudes of each exposure. The first template is the mean; the others say how exposures
differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.parameters import Parameters

__all__ = ["SkyTemplates", "TemplateParameters", "sky_templates", "template_frame"]

Floats = NDArray[np.float64]
OUTLYING: Final = 7.5
"""Median deviations beyond which a level does not count in the start of an iteration."""
BLOCK: Final = 1 << 16
"""Bins that are solved for at a time."""
FOLDS: Final = 5


class TemplateParameters(Parameters):
    """How sky templates are found, `sky_templates`."""

    count: int | None = Field(
        None, ge=1, description="number of templates; by cross-validation if not given"
    )
    maximum: int = Field(4, ge=1, description="most templates that cross-validation tries")
    gain: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="part by which one more template must lower the squared deviations of bins "
        "that were held out",
    )
    outlier: float = Field(
        4.0, gt=0, description="deviation from which on a bin counts less, standard deviations"
    )
    iterations: int = Field(30, ge=1, description="alternations between amplitudes and templates")


class SkyTemplates(NamedTuple):
    """Templates of each detector, and amplitudes.

    ``frames``: Datasets with ``level`` and ``variance`` (template, bin_y, bin_x), dimensionless,
    of the form of sky frames. ``amplitudes``: Dataset with ``amplitude`` and ``amplitude_sigma``
    (exposure, template), ``chi2`` per bin of each exposure, and ``deviation`` (template), the mean
    squared deviation of bins held out with so many templates, where it was tried.
    """

    frames: dict[Any, xr.Dataset]
    amplitudes: xr.Dataset


def sky_templates(
    residuals: Mapping[int, Mapping[Any, xr.Dataset]],
    *,
    parameters: TemplateParameters | None = None,
) -> SkyTemplates:
    """Return templates whose sums describe what exposures show beside their smooth skies.

    The problem is a factorisation of rank r with weights, which leaves bins out that are missing,
    solved by alternating least squares with weights that fall off for outliers.

    Parameters
    ----------
    residuals : mapping from exposure to mapping from detector to Dataset, (bin_y, bin_x)
        ``level`` and ``variance``, relative to the sky, as of
        `skyloom.algorithms.sky.exposure_residuals`. Detectors may be missing.
    parameters : TemplateParameters, optional

    Returns
    -------
    SkyTemplates
        The first template is the mean over exposures, of amplitude 1 but for noise; the others are
        orthogonal to it and to each other over the bins of all detectors, of root mean square 1 %,
        in order of the variance that they explain.

    Raises
    ------
    GeometryError
        If the bins of a detector are not the same in all exposures.
    NoUsableDataError
        If there are fewer exposures than templates, or no finite bin.

    Notes
    -----
    Bernstein et al. 2017 (PASP 129, 114502) subtract four principal components from exposures of
    the Dark Energy Camera.

    Examples
    --------
    >>> bins = np.linspace(-0.01, 0.01, 12).reshape(3, 4)
    >>> moon = np.cos(3 * bins / 0.01) * 0.01
    >>> parts = {
    ...     exposure: {"S1": xr.Dataset({"level": (("bin_y", "bin_x"), bins + part * moon),
    ...                                  "variance": (("bin_y", "bin_x"), 0 * bins + 1e-8)})}
    ...     for exposure, part in enumerate((-1.0, 0.0, 0.5, 0.5, 1.0, -1.0))
    ... }
    >>> found = sky_templates(parts)
    >>> found.frames["S1"].sizes["template"], found.amplitudes["chi2"].max().item() < 1e-6
    (2, True)
    """
    p = parameters or TemplateParameters()
    data = _Data(residuals)
    most = min(p.maximum if p.count is None else p.count, len(data.exposures))
    if p.count is not None and p.count > len(data.exposures):
        raise NoUsableDataError(
            f"{p.count} templates need at least as many exposures, got {len(data.exposures)}"
        )
    deviation = np.full(most, np.nan)
    count = most
    if p.count is None:
        for number in range(1, most + 1):
            deviation[number - 1] = _held_out(data, number, p)
        count = 1
        while count < most and deviation[count] < (1.0 - p.gain) * deviation[count - 1]:
            count += 1
    factors = _factorise(data, data.weights, count, p)
    return _result(data, factors, deviation[:most], p)


def template_frame(frame: xr.Dataset, amplitudes: Sequence[float]) -> xr.Dataset:
    """Return the sky frame that templates add up to in an exposure.

    Parameters
    ----------
    frame : Dataset, (template, bin_y, bin_x)
        Of one detector, as of `sky_templates`.
    amplitudes : sequence of float
        One of each template.

    Returns
    -------
    Dataset, (bin_y, bin_x)

    Raises
    ------
    ValueError
        If there are not as many amplitudes as templates.
    """
    factors = xr.DataArray(np.asarray(amplitudes, float), dims="template")
    if factors.size != frame.sizes["template"]:
        raise ValueError(f"there must be {frame.sizes['template']} amplitudes, got {factors.size}")
    # what no exposure observed has no level, and no sum of levels either
    level = (frame["level"] * factors).sum("template", skipna=False).astype(np.float32)
    squares = frame["variance"] * factors**2
    variance = squares.where(factors != 0, 0.0).sum("template", skipna=False).astype(np.float32)
    found = {"level": level.assign_attrs(frame["level"].attrs),
             "variance": variance.assign_attrs(frame["variance"].attrs)}  # fmt: skip
    return xr.Dataset(found, attrs=frame.attrs)


class _Data:
    """Levels and weights as matrices (exposure, bin) over the bins of all detectors."""

    def __init__(self, residuals: Mapping[int, Mapping[Any, xr.Dataset]]) -> None:
        self.exposures = list(residuals)
        if not self.exposures:
            raise NoUsableDataError("there are no exposures to find templates of")
        self.first: dict[Any, xr.Dataset] = {}
        for parts in residuals.values():
            for name, part in parts.items():
                self.first.setdefault(name, part)
        columns, weights = [], []
        for name, like in self.first.items():
            shape = (like.sizes[v.BIN_Y], like.sizes[v.BIN_X])
            level = np.full((len(self.exposures), *shape), np.nan)
            variance = np.full_like(level, np.nan)
            for row, exposure in enumerate(self.exposures):
                if name not in residuals[exposure]:
                    continue
                part = residuals[exposure][name]
                if (part.sizes[v.BIN_Y], part.sizes[v.BIN_X]) != shape:
                    raise GeometryError(
                        f"exposure {exposure} has {part.sizes[v.BIN_Y]} x {part.sizes[v.BIN_X]} "
                        f"bins of detector {name}, others {shape[0]} x {shape[1]}"
                    )
                level[row] = part["level"].transpose(v.BIN_Y, v.BIN_X).values
                variance[row] = part["variance"].transpose(v.BIN_Y, v.BIN_X).values
            good = np.isfinite(level) & np.isfinite(variance) & (variance > 0)
            columns.append(np.where(good, level, 0.0).reshape(len(level), -1))
            weight = np.divide(1.0, variance, out=np.zeros_like(variance), where=good)
            weights.append(weight.reshape(len(level), -1))
        self.levels = np.concatenate(columns, axis=1)
        self.weights = np.concatenate(weights, axis=1)
        if not self.weights.any():
            raise NoUsableDataError("no bin of any exposure is finite and has a variance")


class _Factors(NamedTuple):
    amplitudes: Floats  # (exposure, template)
    templates: Floats  # (template, bin)
    weights: Floats  # (exposure, bin), without outliers


def _factorise(data: _Data, weights: Floats, count: int, p: TemplateParameters) -> _Factors:
    """Return amplitudes and templates of some rank, the first template the mean."""
    levels = data.levels
    known = np.where(weights > 0, levels, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # bins that no exposure has
        middle = np.nan_to_num(np.nanmedian(known, axis=0))
    # An outlier must not be what the templates begin with.
    apart = np.where(weights > 0, levels - middle, 0.0)
    limit = OUTLYING * float(np.median(np.abs(apart[weights > 0])))
    apart = np.clip(apart, -limit, limit)
    _, _, rows = np.linalg.svd(apart, full_matrices=False)
    templates = np.concatenate([middle[None], rows[: count - 1] * 0.01 * np.sqrt(middle.size)])
    amplitudes = _amplitudes(middle + apart, weights, templates)
    robust = _robust(levels, weights, amplitudes @ templates, p)[0]
    before = np.inf
    for _ in range(p.iterations):
        templates = _templates(levels, robust, amplitudes)
        amplitudes = _amplitudes(levels, robust, templates)
        robust, cost = _robust(levels, weights, amplitudes @ templates, p)
        if before - cost <= 1e-10 * cost:
            break
        before = cost
    return _Factors(*_ordered(amplitudes, templates), robust)


def _robust(
    levels: Floats, weights: Floats, model: Floats, p: TemplateParameters
) -> tuple[Floats, float]:
    """Return weights that fall off for outliers (Huber), and the cost that they minimise."""
    size = np.abs(levels - model) * np.sqrt(weights)
    robust = weights * np.minimum(1.0, p.outlier / np.maximum(size, p.outlier))
    cost = np.where(size > p.outlier, 2.0 * p.outlier * size - p.outlier**2, size**2).sum()
    return robust, float(cost)


def _amplitudes(levels: Floats, weights: Floats, templates: Floats) -> Floats:
    """Return the best amplitudes of each exposure."""
    return np.stack(
        [_solved((templates * w) @ templates.T, (templates * w) @ x)
         for x, w in zip(levels, weights, strict=True)]
    )  # fmt: skip


def _templates(levels: Floats, weights: Floats, amplitudes: Floats) -> Floats:
    """Return the best templates in each bin."""
    found = np.empty((amplitudes.shape[1], levels.shape[1]))
    pairs = amplitudes[:, :, None] * amplitudes[:, None]
    for start in range(0, levels.shape[1], BLOCK):
        at = slice(start, start + BLOCK)
        matrix = np.einsum("kb,krs->brs", weights[:, at], pairs)
        right = np.einsum("kb,kr->br", weights[:, at] * levels[:, at], amplitudes)
        found[:, at] = _solved(matrix, right).T
    return found


def _solved(matrix: Floats, right: Floats) -> Floats:
    """Return the solution of normal equations; 0 where nothing is known."""
    size = np.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    ridge = np.where(size > 0, 1e-12 * size, 1.0) * np.eye(matrix.shape[-1])
    return np.asarray(np.linalg.solve(matrix + ridge, right[..., None])[..., 0])


def _ordered(amplitudes: Floats, templates: Floats) -> tuple[Floats, Floats]:
    """Return the same products with the mean first and the others orthogonal, the largest first."""
    whole = amplitudes.mean(axis=0) @ templates
    norm = float(whole @ whole)
    count = len(templates)
    if count == 1 or not norm > 0:
        return amplitudes / amplitudes.mean(axis=0), amplitudes.mean(axis=0)[:, None] * templates
    along = templates @ whole / norm
    across = templates - along[:, None] * whole
    basis, triangle = np.linalg.qr(across.T)
    inner = amplitudes @ triangle.T
    _, _, turn = np.linalg.svd(inner, full_matrices=False)
    scale = 0.01 * np.sqrt(templates.shape[1])
    others = (turn[: count - 1] @ basis.T) * scale
    sign = np.where(others[np.arange(count - 1), np.abs(others).argmax(axis=1)] < 0, -1.0, 1.0)
    first = (amplitudes @ along)[:, None]
    rest = inner @ turn[: count - 1].T / scale * sign
    return np.concatenate([first, rest], axis=1), np.concatenate(
        [whole[None], others * sign[:, None]]
    )


def _held_out(data: _Data, count: int, p: TemplateParameters) -> float:
    """Return the mean squared deviation, in variances, of bins that were not fitted."""
    rows, columns = (np.arange(side) for side in data.levels.shape)
    diagonal = rows[:, None] + columns
    total, number = 0.0, 0
    for fold in range(FOLDS):
        out = (diagonal % FOLDS == fold) & (data.weights > 0)
        factors = _factorise(data, np.where(out, 0.0, data.weights), count, p)
        deviation = data.levels - factors.amplitudes @ factors.templates
        squared = np.minimum((deviation**2 * data.weights)[out], p.outlier**2)
        total, number = total + float(squared.sum()), number + squared.size
    return total / number


def _result(
    data: _Data, factors: _Factors, deviation: Floats, p: TemplateParameters
) -> SkyTemplates:
    amplitudes, templates = factors.amplitudes, factors.templates
    weights = factors.weights
    count = len(templates)
    sigma = np.stack(
        [np.sqrt(np.diag(np.linalg.pinv((templates * w) @ templates.T))) for w in weights]
    )
    squared = (data.levels - amplitudes @ templates) ** 2 * data.weights
    number = (data.weights > 0).sum(axis=1)
    chi2 = np.divide(squared.sum(axis=1), number, out=np.full(len(number), np.nan),
                     where=number > 0)  # fmt: skip
    matrix = np.einsum("kb,kr->rb", weights, amplitudes**2)
    variance = np.divide(1.0, matrix, out=np.full_like(matrix, np.inf), where=matrix > 0)
    level = np.where(matrix > 0, templates, np.nan)
    frames, start = {}, 0
    for name, like in data.first.items():
        shape = (like.sizes[v.BIN_Y], like.sizes[v.BIN_X])
        at = slice(start, start + shape[0] * shape[1])
        start = at.stop
        dims = ("template", v.BIN_Y, v.BIN_X)
        kept = {dim: like[dim] for dim in (v.BIN_Y, v.BIN_X) if dim in like.coords}
        planes = {
            key: (dims, values[:, at].reshape(count, *shape).astype(np.float32), {"units": ""})
            for key, values in (("level", level), ("variance", variance))
        }
        frames[name] = xr.Dataset(planes, kept, dict(like.attrs))
    dims2 = (v.EXPOSURE, "template")
    table = xr.Dataset(
        {
            "amplitude": (dims2, amplitudes),
            "amplitude_sigma": (dims2, sigma),
            "chi2": (v.EXPOSURE, chi2),
            "deviation": ("tried", deviation),
        },
        {v.EXPOSURE: data.exposures},
    )
    return SkyTemplates(frames, table)
