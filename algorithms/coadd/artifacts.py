"""Artifacts: what only few visits show, decided over all of them and masked in each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.artifact_parameters import ArtifactParameters
from skyloom.algorithms.coadd.candidates import REGION, find_candidates, static_sky
from skyloom.algorithms.coadd.coadding import Numbers
from skyloom.algorithms.coadd.inputs import Warps, own_mask, planes_of, warps_of
from skyloom.algorithms.coadd.protection import protect_sources
from skyloom.algorithms.detrend.cosmic_rays import find_cosmic_rays
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.psf.models import SIGMA_TO_FWHM

__all__ = ["artifact_mask", "count_epochs", "decide_artifacts", "few_epochs", "find_artifacts"]

LEAST_VISITS = 3
"""With fewer, nothing tells which one of them shows too much."""
ROUNDING = 1e-9


def few_epochs(
    epochs: NDArray[Any] | float, *, parameters: ArtifactParameters | None = None
) -> NDArray[np.int64]:
    r"""Return in how many of some epochs an artifact may show.

    .. math:: E = \lfloor \min(0.4 n, 2 + 0.03 n) \rfloor

    Parameters
    ----------
    epochs : number or ndarray
        Mean number n of the epochs with data.
    parameters : ArtifactParameters, optional
        The three numbers of the rule.

    Examples
    --------
    >>> few_epochs([1, 2, 3, 4, 5, 10, 33, 34, 50, 67, 100, 200]).tolist()
    [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 8]
    """
    p = parameters or ArtifactParameters()
    n = np.asarray(epochs, np.float64)
    few = np.minimum(p.few_fraction * n, p.few_offset + p.few_slope * n)
    return np.asarray(np.floor(few + ROUNDING), np.int64)


def count_epochs(candidates: Iterable[xr.Dataset], shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return in how many visits each pixel (y, x) is a candidate.

    Examples
    --------
    >>> one = xr.Dataset({"y_index": ("pixel", [0]), "x_index": ("pixel", [1])})
    >>> count_epochs([one, one], (1, 2)).tolist()
    [[0, 2]]
    """
    count = np.zeros(shape, np.int16)
    for each in candidates:
        count[each["y_index"].values, each["x_index"].values] += np.int16(1)
    return count


def decide_artifacts(
    candidates: xr.Dataset,
    epoch_count: NDArray[np.int16],
    epochs: NDArray[np.int16],
    *,
    protected: NDArray[np.int32] | None = None,
    parameters: ArtifactParameters | None = None,
) -> xr.Dataset:
    """Decide which candidates of a visit are artifacts.

    A candidate is one if more than half of its pixels are candidates in few visits, see
    `few_epochs`, and it does not lie inside one protected object.

    Parameters
    ----------
    candidates : Dataset, (pixel)
        Of one visit, from `find_candidates`.
    epoch_count : ndarray, (y, x)
        In how many visits a pixel is a candidate, from `count_epochs` over all of them.
    epochs : ndarray, (y, x)
        In how many visits it has data, ``n_image`` of the static sky.
    protected : ndarray, (y, x), optional
        Numbers of protected objects from 1, from `protect_sources`.
    parameters : ArtifactParameters, optional

    Returns
    -------
    Dataset, (region)
        ``is_artifact``; ``few_fraction``, the fraction of the pixels that few visits show; ``few``
        visits; ``size`` (pixel); ``is_protected``.

    Raises
    ------
    GeometryError
        If a candidate lies outside the arrays or these differ in shape.

    Examples
    --------
    See `find_artifacts`.
    """
    parameters = parameters or ArtifactParameters()
    if epoch_count.shape != epochs.shape:
        raise GeometryError(f"epoch_count has shape {epoch_count.shape}, epochs {epochs.shape}")
    y, x = candidates["y_index"].values, candidates["x_index"].values
    region = candidates["region"].values
    inside = (y >= 0) & (x >= 0) & (y < epochs.shape[0]) & (x < epochs.shape[1])
    if not inside.all():
        raise GeometryError(f"{int((~inside).sum())} pixels of candidates lie outside the arrays")
    number = int(region.max()) + 1 if region.size else 0
    size = np.bincount(region, minlength=number)
    mean = np.bincount(region, epochs[y, x], minlength=number) / np.maximum(size, 1)
    few = few_epochs(mean, parameters=parameters)
    k = epoch_count[y, x]
    seldom = np.bincount(region, (k > 0) & (k <= few[region]), minlength=number)
    fraction = seldom / np.maximum(size, 1)
    sheltered = np.zeros(number, bool)
    if protected is not None:
        lowest = np.full(number, np.iinfo(np.int32).max)
        highest = np.zeros(number, np.int64)
        np.minimum.at(lowest, region, protected[y, x])
        np.maximum.at(highest, region, protected[y, x])
        sheltered = (lowest == highest) & (lowest > 0)
    return xr.Dataset(
        {
            "is_artifact": (REGION, (fraction > parameters.few_pixels) & ~sheltered),
            "few_fraction": (REGION, fraction, {"units": v.DIMENSIONLESS}),
            "few": (REGION, few),
            "size": (REGION, size, {"units": v.PIXEL}),
            "is_protected": (REGION, sheltered),
        },
        coords={v.VISIT: candidates[v.VISIT].item()} if v.VISIT in candidates.coords else {},
    )


def artifact_mask(
    matched: xr.Dataset, candidates: xr.Dataset, decision: xr.Dataset
) -> xr.DataArray:
    """Return the planes that a visit gets: CLIPPED, NO_DATA and EDGE.

    Parameters
    ----------
    matched : Dataset, (y, x)
        Its warp with the common PSF.
    candidates, decision : Dataset
        Its candidates and what became of them.

    Returns
    -------
    DataArray, (y, x), int32
        CLIPPED on artifacts, EDGE where the warp has it, NO_DATA and nothing else where the warp
        has no value.

    Examples
    --------
    See `find_artifacts`.
    """
    image = matched["image"].transpose(v.Y, v.X)
    planes = np.zeros(image.shape, np.int32)
    if v.MASK in matched:
        own = own_mask(matched[v.MASK].transpose(v.Y, v.X).values, dict(matched[v.MASK].attrs))
        planes |= own & np.int32(v.plane_bits(["EDGE", "NO_DATA"]))
    chosen = decision["is_artifact"].values[candidates["region"].values]
    y, x = (candidates[name].values[chosen] for name in ("y_index", "x_index"))
    planes[y, x] |= np.int32(v.MASK_PLANES["CLIPPED"])
    without = np.isnan(image.values) | ((planes & v.MASK_PLANES["NO_DATA"]) != 0)
    planes[without] = v.MASK_PLANES["NO_DATA"]
    return xr.DataArray(
        planes, dims=(v.Y, v.X), coords=image.coords, name=v.MASK, attrs=v.mask_attributes()
    )


def find_artifacts(
    matched: xr.Dataset | Sequence[xr.Dataset],
    *,
    warps: xr.Dataset | Sequence[xr.Dataset] | None = None,
    weights: Numbers | None = None,
    match: xr.Dataset | None = None,
    psf_sigma: float | None = None,
    parameters: ArtifactParameters | None = None,
) -> xr.Dataset:
    """Find satellites, cosmic rays and all else that few visits of a patch show.

    Each warp is compared with the static sky of the others. Where it differs there is a candidate;
    candidates at places where few visits have one are artifacts. What varies in more visits
    stays.

    Parameters
    ----------
    matched : Dataset (visit, y, x), or sequence of Dataset (y, x)
        Warps with one point-spread function, as for `coadd`. Read one after the other; lazy ones
        are computed that way.
    warps : Dataset or sequence of Dataset, optional
        The warps as they were before. Visits without a matched warp are reported, and masked
        completely. With one or two visits cosmic rays are searched in these, for there is nothing
        to compare with.
    weights : DataArray or sequence over ``visit``, optional
        Of the matched warps in the static sky, as for `coadd`.
    match : Dataset, optional
        From `skyloom.algorithms.matching.match_backgrounds`: its offsets are added to the matched
        warps as they are read, so that levels of visits don't count as differences.
    psf_sigma : float, pixel, optional
        Width of the common PSF; without it ``target_fwhm`` of the matched warps counts.
    parameters : ArtifactParameters, optional

    Returns
    -------
    Dataset
        ``artifact_mask`` (visit, y, x; CLIPPED, NO_DATA and EDGE), which `apply_artifacts` and
        `coadd` take; ``epoch_count`` and ``epochs`` (y, x), in how many visits there is a
        candidate and data; over ``visit``: ``candidate_count``, ``artifact_count``,
        ``artifact_pixels``, ``variance_factor`` and ``input_status``.

    Raises
    ------
    NoUsableDataError, ValueError, GeometryError, KeyError
        As `coadd`; also if the width of the PSF is not known.

    Examples
    --------
    >>> from skyloom.algorithms.coadd import coadd
    >>> from skyloom.algorithms.simulate import VisitParameters, simulate_visits
    >>> rng = np.random.default_rng(2)
    >>> made = simulate_visits(rng, parameters=VisitParameters(satellite=30.0, height=150))
    >>> found = find_artifacts(made.matched)
    >>> found["artifact_count"].values.tolist()
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    >>> clean = coadd(made.warps, artifacts=found["artifact_mask"])
    """
    parameters = parameters or ArtifactParameters()
    first = matched if isinstance(matched, xr.Dataset) else next(iter(matched), None)
    if psf_sigma is None:
        if first is None or "target_fwhm" not in first:
            raise ValueError(
                "psf_sigma must be given, pixel: the matched warps have no target_fwhm"
            )
        psf_sigma = float(np.max(first["target_fwhm"].values)) / SIGMA_TO_FWHM
    ordered = warps_of(matched).with_match(match)
    direct = ordered if warps is None else warps_of(warps)
    _check_visits(ordered, direct)
    if ordered.visits.size < LEAST_VISITS:
        return _of_single_warps(ordered, direct, parameters, warps is not None)
    sky = static_sky(matched, weights=weights, match=match, parameters=parameters)
    candidates = [
        find_candidates(ordered.whole(i), sky, psf_sigma=psf_sigma, parameters=parameters)
        for i in range(ordered.visits.size)
    ]
    count = count_epochs(candidates, ordered.shape)
    epochs = sky["n_image"].values
    protected = protect_sources(sky, psf_sigma=psf_sigma, parameters=parameters)
    masks, columns = _blank(direct, ordered.shape)
    for i, visit in enumerate(ordered.visits):
        decision = decide_artifacts(
            candidates[i], count, epochs, protected=protected, parameters=parameters
        )
        place = int(np.flatnonzero(direct.visits == visit)[0])
        masks[place] = artifact_mask(ordered.one(i), candidates[i], decision).values
        columns["candidate_count"][place] = decision.sizes[REGION]
        columns["artifact_count"][place] = int(decision["is_artifact"].sum())
        columns["variance_factor"][place] = float(candidates[i]["variance_factor"])
        columns["input_status"][place] = sky["input_status"].values[i]
    return _result(direct, masks, columns, count, epochs)


def _check_visits(matched: Warps, direct: Warps) -> None:
    unknown = sorted(set(matched.visits.tolist()) - set(direct.visits.tolist()))
    if unknown:
        raise KeyError(f"warps lack visits {unknown} of the matched warps")
    if matched.shape != direct.shape:
        raise GeometryError(f"matched warps have shape {matched.shape}, warps {direct.shape}")


def _blank(direct: Warps, shape: tuple[int, int]) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Return masks without data and empty columns for all visits."""
    size = direct.visits.size
    masks = np.full((size, *shape), v.MASK_PLANES["NO_DATA"], np.int32)
    return masks, {
        "candidate_count": np.zeros(size, np.int32),
        "artifact_count": np.zeros(size, np.int32),
        "variance_factor": np.full(size, np.nan),
        "input_status": np.full(size, v.InputStatus.NO_MATCHED_WARP, np.uint8),
    }


def _of_single_warps(
    matched: Warps, direct: Warps, parameters: ArtifactParameters, search: bool
) -> xr.Dataset:
    """Return cosmic rays of one or two visits, each searched by itself."""
    masks, columns = _blank(direct, matched.shape)
    epochs = np.zeros(matched.shape, np.int16)
    nothing = xr.Dataset({n: ("pixel", np.zeros(0, np.int32)) for n in _PIXEL_COLUMNS})
    for i, visit in enumerate(matched.visits):
        place = int(np.flatnonzero(direct.visits == visit)[0])
        decision = xr.Dataset({"is_artifact": (REGION, np.zeros(0, bool))})
        masks[place] = artifact_mask(matched.one(i), nothing, decision).values
        empty = (masks[place] & v.MASK_PLANES["NO_DATA"]) != 0
        epochs += (~empty).astype(np.int16)
        if search:
            planes = planes_of(direct.one(place))
            image, variance = (
                plane.reshape(matched.shape) for plane in (planes.image, planes.variance)
            )
            mask = planes.mask.reshape(matched.shape) if planes.mask.size else masks[place] * 0
            rays = find_cosmic_rays(image, variance, mask, parameters.cosmic_rays)
            masks[place][rays & ~empty] |= np.int32(v.MASK_PLANES["CLIPPED"])
        columns["input_status"][place] = v.InputStatus.OK
        columns["variance_factor"][place] = 1.0
    return _result(direct, masks, columns, np.zeros(matched.shape, np.int16), epochs)


_PIXEL_COLUMNS = ("y_index", "x_index", "region")


def _result(
    direct: Warps,
    masks: NDArray[np.int32],
    columns: dict[str, Any],
    count: NDArray[np.int16],
    epochs: NDArray[np.int16],
) -> xr.Dataset:
    attrs: dict[str, dict[str, Any]] = {name: {"units": v.DIMENSIONLESS} for name in columns}
    attrs["input_status"] = v.flag_attributes(v.InputStatus)
    clipped = v.MASK_PLANES["CLIPPED"]
    pixels = np.array([int(((mask & clipped) != 0).sum()) for mask in masks])
    plane = (v.Y, v.X)
    coords = {**direct.about.coords, **direct.coords}
    return xr.Dataset(
        {
            "artifact_mask": ((v.VISIT, *plane), masks, v.mask_attributes()),
            "epoch_count": (plane, count, {"units": v.DIMENSIONLESS}),
            "epochs": (plane, epochs, {"units": v.DIMENSIONLESS}),
            **{name: (v.VISIT, values, attrs[name]) for name, values in columns.items()},
            "artifact_pixels": (v.VISIT, pixels, {"units": v.PIXEL}),
        },
        coords=coords,
        attrs=direct.attrs,
    )
