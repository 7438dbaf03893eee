"""Coadds: the mean of the warps of a patch, tile by tile."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.coadd_kernels import clipped_pixels, mean_pixels
from skyloom.algorithms.coadd.inputs import Planes, Warps, masked, own_mask, warps_of
from skyloom.algorithms.coadd.parameters import CoaddParameters, Statistic
from skyloom.algorithms.coadd.products import Rules, coadd_dataset, inputs_table, rules_of
from skyloom.algorithms.coadd.weights import mean_variance_of_parts, status_of
from skyloom.algorithms.errors import DroppedInputWarning, GeometryError, NoUsableDataError
from skyloom.algorithms.sorting_network import comparisons
from skyloom.algorithms.stack_arrays import limits_of
from skyloom.algorithms.stack_kernels import rank_tables

__all__ = ["NANOJANSKY_ZERO_POINT", "apply_artifacts", "coadd", "zero_point_scale"]

NANOJANSKY_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""

PLANES = ("image", "variance", v.MASK, "n_image", "weight_sum")
INTERVAL = ("center", "half_width")
Numbers = xr.DataArray | NDArray[Any] | Sequence[float]
Columns = dict[str, NDArray[Any]]


def zero_point_scale(zero_point: float, *, target: float = NANOJANSKY_ZERO_POINT) -> float:
    """Return what pixels with a zero point are multiplied by to have another one.

    Parameters
    ----------
    zero_point : float, AB magnitude of 1 unit
    target : float, AB magnitude of 1 unit afterwards
        Without it the unit is nJy.

    Raises
    ------
    ValueError
        If a zero point is not finite.

    Examples
    --------
    >>> zero_point_scale(28.9)
    10.0
    """
    if not (np.isfinite(zero_point) and np.isfinite(target)):
        raise ValueError(f"zero points must be finite, got {zero_point} and {target}")
    return float(10.0 ** (0.4 * (target - zero_point)))


def coadd(
    warps: xr.Dataset | Sequence[xr.Dataset],
    *,
    statistic: Statistic | None = None,
    weights: Numbers | None = None,
    zero_points: Numbers | None = None,
    artifacts: xr.DataArray | None = None,
    match: xr.Dataset | None = None,
    parameters: CoaddParameters | None = None,
) -> xr.Dataset:
    r"""Return the mean of the warps of a patch, with its variance and planes.

    A value is good if it and its variance are finite, the variance is not negative and no bad
    plane is set. With a weight :math:`w` for each warp and sums over its good values :math:`v`
    with variances :math:`s`,

    .. math::

        c = \frac{\sum w v}{\sum w}, \qquad
        \mathrm{var}(c) = \frac{\sum w^2 s}{(\sum w)^2}.

    The clipped mean first keeps the values within ``clip * 0.7413 IQR`` of their median, in later
    passes those within ``clip`` standard deviations of the mean of the pass before; every pass
    tests all good values. With ``noise_clip`` the first pass is no wider than that many times the
    root of the mean variance.

    Parameters
    ----------
    warps : Dataset (visit, y, x), or sequence of Dataset (y, x), each with its ``visit``
        ``image`` (float32, any unit), ``variance`` (its square) and perhaps ``mask``. Lazy ones,
        and those that are read as they are indexed, are read tile by tile; the result is in
        memory.
    statistic : {"mean", "clipped_mean"}, optional
        Takes the place of that of the parameters.
    weights : DataArray or sequence over ``visit``, in the order of the warps, optional
        Without them each warp weighs what `warp_weight` says, 1 over its mean variance.
        Given weights are trusted, and each warp is read only once. 0 leaves a warp out.
    zero_points : DataArray or sequence over ``visit``, AB magnitude of 1 unit, optional
        The warps are scaled to nJy by them; without them they must be on one scale already.
    artifacts : DataArray (visit, y, x), integer, optional
        ``artifact_mask`` of `find_artifacts`: the masks of the warps are read with these planes,
        as `apply_artifacts` puts them there. CLIPPED is bad then, and EDGE is not.
    match : Dataset, optional
        From `skyloom.algorithms.matching.match_backgrounds`: its offsets are added to the warps as
        they are read, before they are scaled. Warps need the attribute ``box`` then.
    parameters : CoaddParameters, optional

    Returns
    -------
    Dataset, (y, x)
        ``image``, ``variance`` (of the coadd), ``mask``, ``n_image`` (good values before
        clipping), ``weight_sum`` (of the values used). Without a value the image is NaN, the
        variance infinite and the mask NO_DATA. Of every warp, over ``visit``: ``input_weight``,
        ``input_scale``, ``input_mean_variance``, ``input_good_count`` and ``input_status``, which
        says why a warp was left out.

        The mask joins the planes of the values used; a plane in ``propagated`` is also set where
        the weight of the values left out that have it exceeds its fraction. SENSOR_EDGE is set
        where any warp has EDGE, CLIPPED where any has CLIPPED or a value was clipped, REJECTED
        where any other bad plane left a value out, and INEXACT_PSF where any of these three is:
        there the PSF of the coadd is not that of its surroundings.

    Raises
    ------
    NoUsableDataError
        If there are no warps, or none can be used; the message says why.
    ValueError
        If visits are missing or occur twice, or warps are of several bands, units or patches.
    GeometryError
        If shapes, boxes or projections of the warps differ.
    KeyError
        If a plane is unknown, or a warp has no image or no variance.

    Warns
    -----
    DroppedInputWarning
        If warps are left out; all are named in one warning.

    Notes
    -----
    Weights and planes are those of the LSST Science Pipelines (AssembleCoaddTask), except that
    EDGE is told wherever it occurs and that an unknown plane is an error.

    Examples
    --------
    >>> values = np.array([1.0, 3.0], "float32")[:, None, None]
    >>> warps = xr.Dataset(
    ...     {
    ...         "image": (("visit", "y", "x"), values, {"units": "nJy"}),
    ...         "variance": (("visit", "y", "x"), np.array([4.0, 1.0], "float32")[:, None, None]),
    ...     },
    ...     coords={"visit": [11, 12]},
    ... )
    >>> made = coadd(warps, weights=[1.0, 3.0])
    >>> float(made.image[0, 0]), float(made.variance[0, 0]), int(made.n_image[0, 0])
    (2.5, 0.8125, 2)
    """
    parameters = parameters or CoaddParameters()
    if statistic is not None:
        parameters = CoaddParameters(**(parameters.model_dump() | {"statistic": statistic}))
    ordered = warps_of(warps)
    if artifacts is not None:
        ordered = ordered._replace(artifacts=artifacts_of(artifacts, ordered))
        parameters = rejecting(parameters)
    ordered = ordered.with_match(match)
    made, _ = _coadd(ordered, labels_of(warps), weights, zero_points, parameters)
    return made


def rejecting(parameters: CoaddParameters) -> CoaddParameters:
    """Return parameters by which CLIPPED is bad and EDGE is not.

    Examples
    --------
    >>> rejecting(CoaddParameters()).bad_planes
    ('NO_DATA', 'BAD', 'SAT', 'CLIPPED')
    """
    kept = [name for name in parameters.bad_planes if name not in ("EDGE", "CLIPPED")]
    return parameters.model_copy(update={"bad_planes": (*kept, "CLIPPED")})


def coadd_with_intervals(
    warps: xr.Dataset | Sequence[xr.Dataset],
    *,
    weights: Numbers | None = None,
    match: xr.Dataset | None = None,
    parameters: CoaddParameters,
) -> xr.Dataset:
    """Return a coadd with ``center`` and ``half_width`` of the interval of the values used."""
    ordered = warps_of(warps).with_match(match)
    made, planes = _coadd(
        ordered, labels_of(warps), weights, None, parameters, (*PLANES, *INTERVAL)
    )
    attrs = {"units": ordered.units}
    return made.assign(
        {name: ((v.Y, v.X), planes[name].reshape(ordered.shape), attrs) for name in INTERVAL}
    )


def _coadd(
    warps: Warps,
    given: Sequence[Any],
    weights: Numbers | None,
    zero_points: Numbers | None,
    parameters: CoaddParameters,
    wanted: Sequence[str] = PLANES,
) -> tuple[xr.Dataset, Columns]:
    """Return a coadd, and the planes that are wanted as arrays."""
    rules = rules_of(parameters)
    scales, units = scales_of(zero_points, warps, given)
    columns = weigh(warps, weights, scales, given, parameters)
    used = columns["weight"] > 0
    planes: Columns = {}
    if used.any():
        planes, good = _tile_by_tile(
            warps.keep(used), columns["weight"][used], scales[used], rules, parameters, wanted
        )
        columns["good_count"][used] = good
        forget_empty(columns)
    _tell(warps, columns)
    table = inputs_table(warps, columns, units)
    made = coadd_dataset(planes, warps.shape, table, units, warps.coords, warps.attrs)
    return made, planes


def artifacts_of(artifacts: xr.DataArray, warps: Warps) -> tuple[xr.DataArray, ...]:
    """Return the planes of artifacts of each warp, by visit.

    Raises
    ------
    KeyError
        If a visit has none.
    GeometryError
        If the shape is not that of the warps.
    """
    if v.VISIT not in artifacts.coords:
        raise KeyError("artifacts need a coordinate visit that names their visits")
    missing = sorted(set(warps.visits.tolist()) - set(artifacts[v.VISIT].values.tolist()))
    if missing:
        raise KeyError(f"artifacts lack visits {missing}")
    if (artifacts.sizes.get(v.Y), artifacts.sizes.get(v.X)) != warps.shape:
        raise GeometryError(
            f"artifacts have shape {dict(artifacts.sizes)}, the warps {warps.shape}"
        )
    ordered = artifacts.transpose(v.VISIT, v.Y, v.X)
    return tuple(ordered.sel({v.VISIT: visit}) for visit in warps.visits)


def apply_artifacts(warp: xr.Dataset, artifacts: xr.DataArray) -> xr.Dataset:
    """Return warps whose masks have the planes of artifacts.

    Parameters
    ----------
    warp : Dataset, (y, x) or (visit, y, x)
        With the coordinate ``visit``. May be lazy; the new mask then is.
    artifacts : DataArray, (visit, y, x), integer
        ``artifact_mask`` of `find_artifacts`.

    Returns
    -------
    Dataset
        As ``warp``, with a new ``mask`` in skyloom's own legend: CLIPPED, EDGE and NO_DATA of the
        artifacts; its own EDGE is gone, and where there is no data all that would tell of a
        rejection.

    Raises
    ------
    KeyError
        If a visit has no artifacts.
    GeometryError
        If shapes differ.

    Examples
    --------
    >>> warp = xr.Dataset(
    ...     {"image": (("y", "x"), np.ones((1, 3)))}, coords={"visit": 7}
    ... )
    >>> planes = np.array([[[0, 512, 256]]], "int32")
    >>> found = xr.DataArray(planes, dims=("visit", "y", "x"), coords={"visit": [7]})
    >>> apply_artifacts(warp, found).mask.values.tolist()
    [[0, 512, 256]]
    """
    visits = np.atleast_1d(warp[v.VISIT].values)
    missing = sorted(set(visits.tolist()) - set(artifacts[v.VISIT].values.tolist()))
    if missing:
        raise KeyError(f"artifacts lack visits {missing}")
    image = warp["image"]
    found = artifacts.sel({v.VISIT: warp[v.VISIT]})
    found = found.drop_vars([n for n in found.coords if n not in image.coords])
    if any(found.sizes[dim] != image.sizes[dim] for dim in (v.Y, v.X)):
        raise GeometryError(f"artifacts have shape {dict(found.sizes)}, warps {dict(image.sizes)}")
    mask = warp[v.MASK] if v.MASK in warp else xr.zeros_like(image, np.int32)
    attributes = dict(mask.attrs) if v.MASK in warp else {}
    new = xr.apply_ufunc(
        lambda plane, artifact: masked(own_mask(plane, attributes), artifact.astype(np.int32)),
        mask,
        found.variable,
        dask="parallelized",
        output_dtypes=[np.int32],
        keep_attrs=False,
    )
    return warp.assign({v.MASK: new.transpose(*image.dims).assign_attrs(v.mask_attributes())})


def labels_of(warps: xr.Dataset | Sequence[xr.Dataset]) -> list[Any]:
    """Return the visits in the order the warps come in, which sequences of numbers follow."""
    if isinstance(warps, xr.Dataset):
        return list(np.atleast_1d(warps[v.VISIT].values)) if v.VISIT in warps.coords else []
    return [warp[v.VISIT].item() for warp in warps if v.VISIT in warp.coords]


def numbers_of(
    numbers: Numbers | None, warps: Warps, given: Sequence[Any], name: str
) -> NDArray[np.float64] | None:
    """Return one number for every warp, by visit if it has labels, else in the order given."""
    if numbers is None:
        return None
    if isinstance(numbers, xr.DataArray) and v.VISIT in numbers.coords:
        missing = sorted(set(warps.visits.tolist()) - set(numbers[v.VISIT].values.tolist()))
        if missing:
            raise KeyError(f"{name} lack visits {missing}")
        return np.asarray(numbers.sel({v.VISIT: warps.visits}), np.float64)
    values = np.asarray(numbers, np.float64)
    if values.shape != warps.visits.shape:
        raise GeometryError(
            f"{name} have shape {values.shape}, there are {warps.visits.size} warps"
        )
    order = [given.index(visit) for visit in warps.visits.tolist()]
    return values[order]


def scales_of(
    zero_points: Numbers | None, warps: Warps, given: Sequence[Any]
) -> tuple[NDArray[np.float64], str]:
    """Return what the warps are multiplied by, and the unit they then have."""
    magnitudes = numbers_of(zero_points, warps, given, "zero_points")
    if magnitudes is None:
        return np.ones(warps.visits.size), warps.units
    return np.array([zero_point_scale(magnitude) for magnitude in magnitudes]), v.NANOJANSKY


def weigh(
    warps: Warps,
    weights: Numbers | None,
    scales: NDArray[np.float64],
    given: Sequence[Any],
    parameters: CoaddParameters,
) -> Columns:
    """Return the columns of the table of inputs.

    Without given weights the warps are read one after the other.
    """
    size = warps.visits.size
    chosen = numbers_of(weights, warps, given, "weights")
    if chosen is not None and not (np.isfinite(chosen) & (chosen >= 0)).all():
        raise ValueError(f"weights must be finite and >= 0, got {chosen.tolist()}")
    mean, count = np.empty(size), np.empty(size, np.int64)
    dropped = rules_of(parameters).dropped
    if chosen is not None:  # measured already: the warps are read only once
        mean[:], count[:] = np.nan, 0
    for index in range(size if chosen is None else 0):
        parts = (
            (image, mask & ~dropped, variance) for image, mask, variance in warps.parts_of(index)
        )
        mean[index], count[index] = mean_variance_of_parts(parts, parameters)
    mean *= scales**2
    if chosen is None:
        status = status_of(mean, count)
        good = status == v.InputStatus.OK
        chosen = np.where(good, 1.0 / np.where(good, mean, 1.0), 0.0)
    else:
        code = v.InputStatus
        status = np.where(chosen > 0, code.OK, code.NO_WEIGHT).astype(np.uint8)
    return {
        "weight": chosen,
        "scale": scales,
        "mean_variance": mean,
        "good_count": count,
        "status": status,
    }


def forget_empty(columns: Columns) -> None:
    """Say of warps with a weight and without a good value that they have no data."""
    empty = (columns["weight"] > 0) & (columns["good_count"] == 0)
    columns["weight"][empty] = 0.0
    columns["status"][empty] = v.InputStatus.NO_DATA


def _tell(warps: Warps, columns: Columns) -> None:
    """Warn of the warps that are not used, raise if none is."""
    used = columns["weight"] > 0
    if used.all():
        return
    reasons = ", ".join(
        f"{visit}: {v.InputStatus(int(status)).name}"
        for visit, status in zip(warps.visits[~used], columns["status"][~used], strict=True)
    )
    if not used.any():
        raise NoUsableDataError(f"none of the warps can be used; visit {reasons}")
    told = columns["status"][~used] != v.InputStatus.NO_WEIGHT
    if told.any():
        warnings.warn(
            f"warps are left out of the coadd; visit {reasons}", DroppedInputWarning, stacklevel=4
        )


def _tile_by_tile(
    warps: Warps,
    weights: NDArray[np.float64],
    scales: NDArray[np.float64],
    rules: Rules,
    parameters: CoaddParameters,
    wanted: Sequence[str],
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Return the planes of the coadd that are wanted, and how many good values each warp has.

    A tile of all warps is in memory at a time.
    """
    height, width = warps.shape
    types = (np.float32, np.float32, np.int32, np.int16, np.float32)
    kinds: dict[str, Any] = dict(zip(PLANES, types, strict=True))
    if parameters.statistic == "clipped_mean":
        kinds |= dict.fromkeys(INTERVAL, np.float32)
    planes: Columns = {}
    good = np.zeros(warps.visits.size, np.int64)
    for place in warps.places():
        read = warps.read(place)
        if rules.dropped:
            read = read._replace(mask=read.mask & ~rules.dropped)
        size = read.image.shape[1]
        tile = {name: np.zeros(size, kind) for name, kind in kinds.items()}
        _coadd_tile(read, weights, scales, rules, parameters, tile, good)
        del read  # before the next is read
        if size == height * width:
            planes = tile
            continue
        where = place[v.Y], place[v.X]
        for name in wanted:
            if name not in planes:
                planes[name] = np.empty((height, width), kinds[name])
            planes[name][where] = tile[name].reshape(planes[name][where].shape)
    return planes, good


def _coadd_tile(
    read: Planes,
    weights: NDArray[np.float64],
    scales: NDArray[np.float64],
    rules: Rules,
    parameters: CoaddParameters,
    tile: dict[str, NDArray[Any]],
    good: NDArray[np.int64],
) -> None:
    size = read.image.shape[0]
    largest = limits_of(np.dtype(np.float32))
    planes = (*read, scales, weights, rules.bits, rules.watched, rules.fractions, largest)
    propagate = parameters.error == "input"
    if parameters.statistic == "mean":
        mean_pixels(*planes, propagate, *(*(tile[name] for name in PLANES), good))
        return
    noise_clip = np.inf if parameters.noise_clip is None else parameters.noise_clip
    clipped_pixels(
        *planes,
        comparisons(size),
        *rank_tables(size),
        (parameters.clip, parameters.iterations, propagate, noise_clip),
        *(*tile.values(), good),
    )
