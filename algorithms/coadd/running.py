"""Coadds of one warp after the other: sums that can be kept, merged and finished.

`accumulate` adds warps up, `merge_accumulated` joins two sums, in any order and grouping, and
`finish_coadd` makes a coadd of them. None changes what it is given. For the mean only: clipping
needs all values at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd.coadd_kernels import add_warp, finish_pixels
from skyloom.algorithms.coadd.coadding import Numbers, forget_empty, scales_of, weigh
from skyloom.algorithms.coadd.inputs import FRAME, Warps, split_columns, warps_of
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.coadd.products import Rules, coadd_dataset, inputs_table, rules_of
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.stack_arrays import limits_of

__all__ = ["accumulate", "finish_coadd", "merge_accumulated"]

SUM, PLANE = "sum", "plane"
PARAMETERS = "parameters"
"""Attribute of the sums: two can only be merged if they were made alike."""
MADE_ALIKE = (PARAMETERS, "units", *FRAME)
PIXELS = ("sums", "count", "used_planes", "all_planes", "rejected")


def accumulate(
    warps: Iterable[xr.Dataset],
    *,
    weights: Numbers | None = None,
    zero_points: Numbers | None = None,
    parameters: CoaddParameters | None = None,
) -> xr.Dataset:
    """Return the sums of a mean over warps, which are read one after the other.

    Parameters
    ----------
    warps : iterable of Dataset (y, x)
        As for `coadd`, with its reasons to leave a warp out. A generator is asked for one at a
        time, so no more than one warp and the sums are in memory.
    weights, zero_points : DataArray over ``visit``, or sequence in the order of the warps, optional
        As for `coadd`.
    parameters : CoaddParameters, optional

    Returns
    -------
    Dataset
        ``sums`` (sum, y, x; float64: of weights, weights x values, squared weights x variances
        and, for errors from scatter, of squared weights and weights x squared values), ``count``,
        ``used_planes`` and ``all_planes`` (y, x), ``rejected`` (plane, y, x; weight left out that
        has a plane), and the table of inputs over ``visit``.

    Raises
    ------
    NoUsableDataError
        If there are no warps. Warps that cannot be used are an error when finished only.
    ValueError, GeometryError, KeyError
        As `coadd`; also if the parameters ask for clipping.

    Examples
    --------
    >>> def warp(visit, value):
    ...     pixels = np.full((1, 1), value, "float32")
    ...     planes = {"image": (("y", "x"), pixels), "variance": (("y", "x"), 0 * pixels + 1)}
    ...     return xr.Dataset(planes, coords={"visit": visit})
    >>> both = merge_accumulated(accumulate([warp(1, 4.0)]), accumulate([warp(2, 6.0)]))
    >>> float(finish_coadd(both).image[0, 0])
    5.0
    """
    parameters = parameters or CoaddParameters()
    if parameters.statistic != "mean":
        raise ValueError(
            f"only a mean can be accumulated, not a {parameters.statistic}: use coadd, which sees "
            "all values of a pixel at once"
        )
    rules = rules_of(parameters)
    total: xr.Dataset | None = None
    tables: list[xr.Dataset] = []
    for index, warp in enumerate(warps):
        ordered = warps_of([warp])
        label = ordered.visits.tolist()
        scales, units = scales_of(_of_one(zero_points, index), ordered, label)
        columns = weigh(ordered, _of_one(weights, index), scales, label, parameters)
        attrs = ordered.attrs | {"units": units, PARAMETERS: parameters.model_dump_json()}
        if total is None:
            total = _blank(ordered.shape, rules, parameters.error == "scatter")
            total = total.assign_attrs(attrs).assign_coords(_axes(ordered))
        _check_alike(total.attrs, attrs, dict(total.sizes), ordered.shape)
        if columns["weight"][0] > 0:
            columns["good_count"][:] = _add(
                total, ordered, float(columns["weight"][0]), float(scales[0]), rules
            )
            forget_empty(columns)
        table = inputs_table(ordered, columns, units)
        scalars = {n: (v.VISIT, [c.item()]) for n, c in ordered.coords.items() if c.ndim == 0}
        tables.append(table.assign_coords(scalars))
    if total is None:
        raise NoUsableDataError("no inputs: there are no warps to coadd")
    return _with_table(total, tables)


def _of_one(numbers: Numbers | None, index: int) -> Numbers | None:
    if numbers is None or (isinstance(numbers, xr.DataArray) and v.VISIT in numbers.coords):
        return numbers
    return [float(np.asarray(numbers)[index])]


def _axes(warps: Warps) -> dict[Any, xr.DataArray]:
    return {name: coord for name, coord in warps.coords.items() if coord.ndim}


def _blank(shape: tuple[int, int], rules: Rules, scatter: bool) -> xr.Dataset:
    """Return sums of nothing."""
    plane = (v.Y, v.X)
    return xr.Dataset(
        {
            "sums": ((SUM, *plane), np.zeros((5 if scatter else 3, *shape))),
            "count": (plane, np.zeros(shape, np.int16)),
            "used_planes": (plane, np.zeros(shape, np.int32)),
            "all_planes": (plane, np.zeros(shape, np.int32)),
            "rejected": ((PLANE, *plane), np.zeros((rules.watched.size, *shape))),
        }
    )


def _add(total: xr.Dataset, warps: Warps, weight: float, scale: float, rules: Rules) -> int:
    """Add a warp to sums that nobody else has seen yet, and return its good pixels."""
    image, mask, variance = warps.read_one(0)
    sums, count, used, all_, rejected = (_flat(total[name].values) for name in PIXELS)
    return int(
        add_warp(
            image[0],
            mask[0] & ~rules.dropped,
            variance[0],
            weight,
            scale,
            rules.bits,
            rules.watched,
            limits_of(np.dtype(np.float32)),
            sums,
            count,
            used,
            all_,
            rejected,
        )
    )


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """Return a view whose last axis is that of pixels."""
    return values.reshape(*values.shape[:-2], -1)


def _with_table(total: xr.Dataset, tables: list[xr.Dataset]) -> xr.Dataset:
    """Return sums with the rows of all tables of inputs, in the order of the visits."""
    names = [n for n in tables[0].variables if all(n in table.variables for table in tables)]
    alike = [table.drop_vars([n for n in table.variables if n not in names]) for table in tables]
    joined = xr.concat(alike, dim=v.VISIT)
    order = np.argsort(joined[v.VISIT].values, kind="stable")
    joined = joined.isel({v.VISIT: order})
    split_columns(joined.drop_vars(list(joined.data_vars)))
    return total.assign(dict(joined.data_vars)).assign_coords(joined.coords)


def _table_of(accumulated: xr.Dataset) -> xr.Dataset:
    return accumulated.drop_dims([v.Y, v.X, SUM, PLANE], errors="ignore")


def _check_alike(
    one: dict[Any, Any], other: dict[Any, Any], sizes: dict[Any, int], shape: tuple[int, int]
) -> None:
    if (sizes[v.Y], sizes[v.X]) != shape:
        raise GeometryError(f"warps must have one shape, got {(sizes[v.Y], sizes[v.X])}, {shape}")
    for key in MADE_ALIKE:
        values = [
            json.dumps(each.get(key), default=_listed, sort_keys=True) for each in (one, other)
        ]
        if values[0] != values[1]:
            wrong = GeometryError if key in FRAME else ValueError
            raise wrong(f"warps must have one {key}, got {values[0]} and {values[1]}")


def _listed(value: Any) -> Any:
    return np.asarray(value).tolist()


def merge_accumulated(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return the sums over the warps of both.

    Parameters
    ----------
    one, other : Dataset
        From `accumulate` or `merge_accumulated`, with the same parameters.

    Raises
    ------
    ValueError
        If a visit is in both, or parameters, units or bands differ.
    GeometryError
        If shapes, boxes or projections differ.

    Examples
    --------
    See `accumulate`.
    """
    _check_alike(one.attrs, other.attrs, dict(one.sizes), (other.sizes[v.Y], other.sizes[v.X]))
    total = _with_table(one.drop_dims(v.VISIT), [_table_of(one), _table_of(other)])
    joined: dict[str, NDArray[Any]] = {
        name: one[name].values | other[name].values
        if one[name].dtype == np.int32
        else one[name].values + other[name].values
        for name in PIXELS
    }
    return total.assign({name: (one[name].dims, values) for name, values in joined.items()})


def finish_coadd(accumulated: xr.Dataset) -> xr.Dataset:
    """Return the coadd of the warps that were added up.

    Parameters
    ----------
    accumulated : Dataset
        From `accumulate` or `merge_accumulated`; can be finished any number of times.

    Returns
    -------
    Dataset, (y, x)
        As `coadd` returns.

    Raises
    ------
    NoUsableDataError
        If none of the warps could be used.

    Examples
    --------
    See `accumulate`.
    """
    table = _table_of(accumulated)
    if not (table["input_weight"] > 0).any():
        reasons = ", ".join(
            f"{visit}: {v.InputStatus(int(status)).name}"
            for visit, status in zip(
                table[v.VISIT].values, table["input_status"].values, strict=True
            )
        )
        raise NoUsableDataError(f"none of the warps can be used; visit {reasons}")
    rules = rules_of(CoaddParameters.model_validate_json(accumulated.attrs[PARAMETERS]))
    shape = (accumulated.sizes[v.Y], accumulated.sizes[v.X])
    size = shape[0] * shape[1]
    planes: dict[str, NDArray[Any]] = {
        "image": np.empty(size, np.float32),
        "variance": np.empty(size, np.float32),
        v.MASK: np.zeros(size, np.int32),
        "weight_sum": np.empty(size, np.float32),
    }
    sums, count, used, all_, rejected = (_flat(accumulated[name].values) for name in PIXELS)
    finish_pixels(
        sums,
        count,
        used,
        all_,
        rejected,
        rules.bits,
        rules.watched,
        rules.fractions,
        *planes.values(),
    )
    about, coords = split_columns(table.drop_vars(list(table.data_vars)))
    axes = {name: accumulated[name] for name in (v.Y, v.X) if name in accumulated.coords}
    columns = {name: (v.VISIT, c.values, c.attrs) for name, c in table.data_vars.items()}
    return coadd_dataset(
        planes | {"n_image": accumulated["count"].values.copy()},
        shape,
        xr.Dataset(columns, coords=about.coords),
        str(accumulated.attrs["units"]),
        coords | axes,
        {key: accumulated.attrs[key] for key in FRAME if key in accumulated.attrs},
    )
