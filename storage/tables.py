"""Products as tables: a row per amplifier, or per pair and amplifier; matrices as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from astropy.table import Column, Table
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.storage.dataset_schema import Variable

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["product_tables"]

_MATRIX: Final = (
    v.LAG_Y,
    v.LAG_X,
    v.KERNEL_Y,
    v.KERNEL_X,
    v.PARAMETER,
    "parameter_2",
    v.COEFFICIENT,
)


def product_tables(store: Store, product: str) -> dict[str, Table]:
    """Return a product as tables.

    Parameters
    ----------
    store : Store
        Where it lies.
    product : str
        Its name.

    Returns
    -------
    dict of str to Table
        ``""`` is the main table; ``"pairs"`` has the values per pair of a product that also
        has values per amplifier alone. Labels come first, then the variables with units and
        descriptions; what has lags or kernel pixels is a column of matrices. Rows of blocks
        that are not done, and of amplifiers a detector does not have, are left out.
    """
    dataset = store[product]
    schema = store.schema(product)
    groups: dict[tuple[str, ...], list[Variable]] = {}
    for variable in schema.variables:
        dims = tuple(
            dim
            for dim in schema.dims
            if dim not in _MATRIX and (dim in variable.dims or dim == v.AMP)
        )
        groups.setdefault(dims, []).append(variable)
    keep = _kept(store, dataset)
    tables = {}
    for dims, variables in sorted(groups.items(), key=lambda item: len(item[0])):
        name = "pairs" if v.PAIR in dims and len(groups) > 1 else ""
        tables[name] = _table(dataset, dims, variables, keep)
    return tables


def _kept(store: Store, dataset: xr.Dataset) -> xr.DataArray:
    """Return which rows of the largest table are real: done, and of amplifiers that exist."""
    keep: xr.DataArray = dataset["done"].reset_coords(drop=True)
    if v.AMP in dataset.dims and v.DETECTOR in dataset.dims:
        camera = store.camera
        known = set(camera.detector_names())
        has = np.array(
            [
                [
                    name not in known or str(amp) in camera.amplifier_names(name)
                    for amp in dataset[v.AMP].values
                ]
                for name in map(str, dataset[v.DETECTOR].values)
            ]
        )
        keep = keep & xr.DataArray(has, dims=(v.DETECTOR, v.AMP))
    return keep


def _table(
    dataset: xr.Dataset, dims: tuple[str, ...], variables: list[Variable], keep: xr.DataArray
) -> Table:
    shape = tuple(dataset.sizes[dim] for dim in dims)
    wanted = keep.expand_dims({dim: dataset.sizes[dim] for dim in dims if dim not in keep.dims})
    rows = np.flatnonzero(wanted.transpose(*dims).values.ravel())
    table = Table()
    for axis, dim in enumerate(dims):
        labels = dataset[dim].values if dim in dataset.coords else np.arange(shape[axis])
        index = np.unravel_index(rows, shape)[axis] if shape else rows
        table[dim] = Column(labels[index], description=f"{dim} label")
    for variable in variables:
        values = _spread(dataset, dims, variable)[rows]
        table[variable.name] = Column(
            values, unit=variable.unit or None, description=variable.description
        )
    return table


def _spread(dataset: xr.Dataset, dims: tuple[str, ...], variable: Variable) -> NDArray[Any]:
    """Return a variable with the rows flattened into one leading axis, matrices behind it."""
    array = dataset[variable.name].compute()
    missing = {dim: dataset.sizes[dim] for dim in dims if dim not in array.dims}
    array = array.expand_dims(missing) if missing else array
    inner = [dim for dim in variable.dims if dim not in dims]
    values: NDArray[Any] = array.transpose(*dims, *inner).values
    return values.reshape(-1, *values.shape[len(dims) :])
