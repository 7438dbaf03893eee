"""The statistics of many flats, brought together by label and split into scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.flats.parameters import FlatScaleParameters
from skyloom.algorithms.flats.scales import solve_flat_scales

__all__ = [
    "collect_statistics",
    "normalize_flats",
    "select_exposures",
    "usable_exposure_scales",
]

Level = Literal["DETECTOR", "AMP"]
Selection = Mapping[str, str | Sequence[str]]

STATISTICS = ("mean", "sigma", "count_used")
LISTED = 8


def normalize_flats(
    statistics: xr.Dataset | Iterable[xr.Dataset],
    *,
    level: Level = "DETECTOR",
    select: Selection | None = None,
    amplifier_names: Mapping[Any, Sequence[str]] | None = None,
    parameters: FlatScaleParameters | None = None,
) -> xr.Dataset:
    """Return the scales of exposures and detectors from statistics of flats.

    Parameters
    ----------
    statistics : Dataset over (exposure, detector, amp), or iterable of Dataset
        What `measure_flat` returned, for all exposures and detectors: either one dataset, or one
        for each exposure of each detector with scalar coordinates ``exposure`` and ``detector``.
        Detectors may have different amplifiers and exposures different detectors.
    level : {"DETECTOR", "AMP"}
        What has a scale: a detector or each of its amplifiers, matched by name.
    select : mapping from coordinate to text, optional
        Exposures to use, see `select_exposures`.
    amplifier_names : mapping from detector to names, optional
        Amplifiers each detector has; without it, those that any of its exposures has a count for.
    parameters : FlatScaleParameters, optional

    Returns
    -------
    Dataset
        See `solve_flat_scales`.

    Raises
    ------
    ValueError
        If a detector occurs twice in an exposure, amplifiers of a detector differ between
        exposures (the message names both), or the level is unknown.
    KeyError
        If a dataset has no ``exposure`` or ``detector``, or lacks a statistic.
    NoUsableDataError
        If no exposure matches the selection, or no level is usable.
    DegenerateFitError
        If sets of detectors have no common exposure.

    Examples
    --------
    >>> statistics = xr.Dataset(
    ...     {
    ...         "mean": (("detector", "exposure"), [[800.0, 1600.0], [1200.0, 2400.0]]),
    ...         "sigma": (("detector", "exposure"), [[28.0, 40.0], [35.0, 49.0]]),
    ...         "count_used": (("detector", "exposure"), [[900, 900], [900, 900]]),
    ...     },
    ...     coords={"detector": ["S0", "S1"], "exposure": [7, 8]},
    ... )
    >>> normalize_flats(statistics)["detector_scale"].values.round(6)
    array([0.8, 1.2])
    """
    if level not in ("DETECTOR", "AMP"):
        raise ValueError(f"level must be 'DETECTOR' or 'AMP', got {level!r}")
    if isinstance(statistics, xr.Dataset):
        table = statistics if select is None else select_exposures(statistics, select)
    else:
        table = collect_statistics(statistics, level=level, select=select)
    prefix = "amp_" if level == "AMP" else ""
    names = [f"{prefix}{name}" for name in STATISTICS]
    missing = [name for name in names if name not in table]
    if missing:
        raise KeyError(f"the statistics lack {', '.join(missing)}; they have {list(table)}")
    mean, sigma, count = (table[name] for name in names)
    for dim in (v.EXPOSURE, v.DETECTOR):
        if dim not in mean.dims:
            mean, sigma, count = (array.expand_dims(dim) for array in (mean, sigma, count))
    if level == "AMP":
        count = _checked_amplifiers(_of_existing_amplifiers(count, amplifier_names))
    return solve_flat_scales(mean, count, sigma, parameters=parameters)


def select_exposures(statistics: xr.Dataset, select: Selection) -> xr.Dataset:
    """Return the exposures whose header values are those asked for.

    Parameters
    ----------
    statistics : Dataset with coordinates or variables over ``exposure``
    select : mapping from name to text or texts
        Such as ``{"observation_reason": "flat"}``; compared without regard to case. Every name
        must match, one of several texts is enough.

    Raises
    ------
    KeyError
        If there is no such coordinate over ``exposure``.
    NoUsableDataError
        If nothing matches; the message lists the values there are.

    Examples
    --------
    >>> reasons = xr.Dataset(coords={"observation_reason": ("exposure", ["Flat", "ptc"])})
    >>> select_exposures(reasons, {"observation_reason": "flat"}).sizes["exposure"]
    1
    """
    keep = np.ones(statistics.sizes[v.EXPOSURE], np.bool_)
    for name, wanted in select.items():
        if name not in statistics.variables or statistics[name].dims != (v.EXPOSURE,):
            known = [str(n) for n in statistics.variables if statistics[n].dims == (v.EXPOSURE,)]
            raise KeyError(f"no {name!r} over exposures to select by; there are {known}")
        keep &= np.array([_matches(value, wanted) for value in statistics[name].values.tolist()])
    if not keep.any():
        raise NoUsableDataError(_no_match(select, lambda name: statistics[name].values.tolist()))
    return statistics.isel({v.EXPOSURE: np.flatnonzero(keep)})


def collect_statistics(
    statistics: Iterable[xr.Dataset], *, level: Level = "DETECTOR", select: Selection | None = None
) -> xr.Dataset:
    """Return the statistics of single exposures of single detectors as one table.

    Parameters
    ----------
    statistics : iterable of Dataset
        With scalar coordinates ``exposure`` and ``detector``.
    level, select
        As of `normalize_flats`; with "AMP" the statistics of amplifiers are collected too.

    Returns
    -------
    Dataset
        Over (detector, exposure) and (detector, exposure, amp), in the order they came in; NaN,
        also for counts, where an exposure or an amplifier is missing. Scalar coordinates of
        detectors and exposures that agree are kept.

    Raises
    ------
    ValueError, KeyError, NoUsableDataError
        As of `normalize_flats`.

    Examples
    --------
    >>> one = xr.Dataset({"mean": 5.0, "sigma": 1.0, "count_used": 9})
    >>> parts = [one.assign_coords(exposure=7, detector=name) for name in ("S0", "S1")]
    >>> collect_statistics(parts)["mean"].values.tolist()
    [[5.0], [5.0]]
    """
    parts = list(statistics)
    for part in parts:
        missing = [n for n in (v.EXPOSURE, v.DETECTOR) if n not in part.coords or part[n].ndim]
        if missing:
            raise KeyError(
                f"statistics of single flats need the scalar coordinates {v.EXPOSURE} and "
                f"{v.DETECTOR}; one has {list(map(str, part.coords))}"
            )
    if select is not None:
        kept = [p for p in parts if all(_has(p, name, want) for name, want in select.items())]
        if not kept:
            raise NoUsableDataError(
                _no_match(select, lambda name: [p[name].item() for p in parts if name in p.coords])
            )
        parts = kept
    if not parts:
        raise NoUsableDataError("no inputs match: there are no statistics")
    detectors = list(dict.fromkeys(part[v.DETECTOR].item() for part in parts))
    exposures = list(dict.fromkeys(part[v.EXPOSURE].item() for part in parts))
    amps: list[Any] = []
    if level == "AMP":
        amps = list(dict.fromkeys(name for p in parts if v.AMP in p for name in p[v.AMP].values))
    names = [n for n in STATISTICS if all(n in part for part in parts)]
    amp_names = [f"amp_{n}" for n in STATISTICS] if level == "AMP" else []
    lacking = [name for name in amp_names if any(name not in part for part in parts)]
    if lacking or (level == "DETECTOR" and len(names) < len(STATISTICS)):
        wanted = lacking or [n for n in STATISTICS if n not in names]
        raise KeyError(f"some statistics lack {', '.join(wanted)}")
    shape = (len(detectors), len(exposures))
    tables = {name: np.full(shape, np.nan) for name in names}
    tables |= {name: np.full((*shape, len(amps)), np.nan) for name in amp_names}
    seen: set[tuple[Any, Any]] = set()
    own: dict[Any, tuple[frozenset[Any], Any]] = {}
    rows = {name: index for index, name in enumerate(detectors)}
    columns = {name: index for index, name in enumerate(exposures)}
    places = {name: index for index, name in enumerate(amps)}
    for part in parts:
        detector, exposure = part[v.DETECTOR].item(), part[v.EXPOSURE].item()
        if (detector, exposure) in seen:
            raise ValueError(f"detector {detector} of exposure {exposure} occurs more than once")
        seen.add((detector, exposure))
        cell = rows[detector], columns[exposure]
        for name in names:
            tables[name][cell] = part[name].item()
        if level == "AMP":
            labels = frozenset(part[v.AMP].values.tolist())
            first, other = own.setdefault(detector, (labels, exposure))
            if labels != first:
                raise ValueError(
                    f"detector {detector} has amplifiers {sorted(labels)} in exposure {exposure} "
                    f"and {sorted(first)} in exposure {other}"
                )
            place = [places[name] for name in part[v.AMP].values]
            for name in amp_names:
                tables[name][cell][place] = part[name].values
    two = (v.DETECTOR, v.EXPOSURE)
    variables = {
        name: (two if values.ndim == 2 else (*two, v.AMP), values, parts[0][name].attrs)
        for name, values in tables.items()
    }
    coords: dict[str, Any] = {v.DETECTOR: detectors, v.EXPOSURE: exposures}
    if level == "AMP":
        coords[v.AMP] = amps
    for dim, labels_of in ((v.EXPOSURE, exposures), (v.DETECTOR, detectors)):
        coords = _shared_coordinates(parts, dim, labels_of) | coords
    return xr.Dataset(variables, coords)


def usable_exposure_scales(scales: xr.Dataset) -> xr.DataArray:
    """Return the scales to combine flats with: those of exposures that agree with the others.

    Parameters
    ----------
    scales : Dataset
        What `normalize_flats` or `solve_flat_scales` returned.

    Returns
    -------
    DataArray over ``exposure``
        Without the exposures whose status is not OK, which have no scale or one of no use.

    Raises
    ------
    NoUsableDataError
        If none is left.

    Examples
    --------
    >>> values = {"exposure_scale": [5.0, 7.0], "exposure_status": [0, 4]}
    >>> scales = xr.Dataset({name: ("exposure", value) for name, value in values.items()})
    >>> usable_exposure_scales(scales).values
    array([5.])
    """
    good = np.flatnonzero(scales["exposure_status"].values == v.CellStatus.OK)
    if good.size == 0:
        raise NoUsableDataError("no exposure has a scale that agrees with the others")
    return scales["exposure_scale"].isel({v.EXPOSURE: good})


def _shared_coordinates(
    parts: list[xr.Dataset], dim: str, labels: list[Any]
) -> dict[str, tuple[str, list[Any]]]:
    """Return the scalar coordinates whose value follows from the label along a dimension."""
    found: dict[str, tuple[str, list[Any]]] = {}
    scalars = [str(n) for n, c in parts[0].coords.items() if c.ndim == 0]
    for name in scalars:
        if name in (v.EXPOSURE, v.DETECTOR):
            continue
        values: dict[Any, Any] = {}
        for part in parts:
            label = part[dim].item()
            value = part[name].item() if name in part.coords else None
            if value is None or values.setdefault(label, value) != value:
                break
        else:
            found[name] = (dim, [values[label] for label in labels])
    return found


def _of_existing_amplifiers(
    count: xr.DataArray, amplifier_names: Mapping[Any, Sequence[str]] | None
) -> xr.DataArray:
    """Return counts that are NaN for amplifiers a detector does not have."""
    if amplifier_names is None:
        return count
    amps = count[v.AMP].values.tolist()
    unknown = [name for name in count[v.DETECTOR].values.tolist() if name not in amplifier_names]
    if unknown:
        raise KeyError(f"amplifier_names lacks the detectors {unknown[:LISTED]}")
    has = xr.DataArray(
        [[a in set(amplifier_names[d]) for a in amps] for d in count[v.DETECTOR].values.tolist()],
        dims=(v.DETECTOR, v.AMP),
        coords={v.DETECTOR: count[v.DETECTOR].values, v.AMP: amps},
    )
    return count.where(has)


def _checked_amplifiers(count: xr.DataArray) -> xr.DataArray:
    """Return counts, in which an exposure of a detector has all of its amplifiers or none."""
    known = count.notnull().transpose(v.DETECTOR, v.EXPOSURE, v.AMP)
    ever = known.any(v.EXPOSURE)
    wrong = (known.any(v.AMP) & (ever & ~known).any(v.AMP)).values
    if wrong.any():
        d, e = (int(index[0]) for index in np.nonzero(wrong))
        lost = count[v.AMP].values[(ever.values[d] & ~known.values[d, e])].tolist()
        raise ValueError(
            f"detector {count[v.DETECTOR].values[d]} lacks the amplifiers {lost[:LISTED]} in "
            f"exposure {count[v.EXPOSURE].values[e]}, which other exposures have"
        )
    return count


def _matches(value: Any, wanted: str | Sequence[str]) -> bool:
    texts = [wanted] if isinstance(wanted, str) else list(wanted)
    return str(value).strip().casefold() in {str(text).strip().casefold() for text in texts}


def _has(part: xr.Dataset, name: str, wanted: str | Sequence[str]) -> bool:
    if name not in part.coords:
        raise KeyError(f"no {name!r} to select by; there are {list(map(str, part.coords))}")
    return _matches(part[name].item(), wanted)


def _no_match(select: Selection, values_of: Any) -> str:
    there = "; ".join(
        f"{name}: {', '.join(list(dict.fromkeys(map(str, values_of(name))))[:LISTED])}"
        for name in select
    )
    return f"no inputs match {dict(select)}; there are {there or 'none'}"
