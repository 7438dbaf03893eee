"""Which exposures and detectors of a store a run is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.flows.configuration import configuration_from
from skyloom.flows.step import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from skyloom.storage.store import Store

__all__ = [
    "SelectionParameters",
    "configured",
    "exposures_by_filter",
    "of_types",
    "selected_detectors",
    "selected_exposures",
]

Model = TypeVar("Model", bound=Parameters)


class SelectionParameters(Parameters):
    """Which part of a store a run is about."""

    detectors: tuple[str, ...] = Field((), description="names of detectors; all if empty")
    exposures: tuple[int, ...] = Field((), description="ids of exposures; all if empty")
    exclude_exposures: tuple[int, ...] = Field((), description="ids of exposures not to use")


def configured(model: type[Model], configuration: Model | Mapping[str, Any] | None) -> Model:
    """Return a configuration, made from what differs from its defaults if need be.

    Raises
    ------
    ConfigurationError
        Listing every problem with its dotted path.

    Examples
    --------
    >>> configured(SelectionParameters, {"detectors": ["S00"]}).detectors
    ('S00',)
    """
    if isinstance(configuration, model):
        return configuration
    given: Mapping[str, Any] = {}
    if configuration is not None:
        given = (
            configuration.model_dump() if isinstance(configuration, Parameters) else configuration
        )
    return configuration_from(model, given)


def selected_detectors(store: Store, selection: SelectionParameters) -> Labels:
    """Return the chosen detectors of a store.

    Raises
    ------
    ConfigurationError
        If one is chosen that the store does not have.
    """
    known = store.labels("raw")[v.DETECTOR]
    unknown = [name for name in selection.detectors if name not in known]
    if unknown:
        raise ConfigurationError(
            f"selection.detectors: {', '.join(unknown)} not in {store.url}; it has "
            f"{', '.join(map(str, known))}"
        )
    return tuple(selection.detectors or known)


def selected_exposures(
    store: Store, selection: SelectionParameters, *, what: str = "exposures"
) -> xr.Dataset:
    """Return the table of the chosen exposures of a store.

    Parameters
    ----------
    store : Store
        With ingested exposures.
    selection : SelectionParameters
        The choice.
    what : str
        What to ingest if the store has nothing.

    Raises
    ------
    StoreError
        If nothing was ingested.
    """
    if "raw" not in store:
        raise StoreError(f"{store.url} holds no exposures: ingest {what} first (skyloom ingest)")
    table = store.exposures()
    ids = table[v.EXPOSURE].values
    keep = ~np.isin(ids, selection.exclude_exposures)
    if selection.exposures:
        keep &= np.isin(ids, selection.exposures)
    return table.isel({v.EXPOSURE: keep})


def of_types(table: xr.Dataset, types: Iterable[str]) -> Labels:
    """Return the ids of the exposures of some observation types.

    Examples
    --------
    >>> table = xr.Dataset(coords={"exposure": [4, 5], "observation_type": ("exposure",
    ...                            ["bias", "dark"])})
    >>> of_types(table, ["dark"])
    (5,)
    """
    chosen = np.isin(table["observation_type"].values, list(types))
    return tuple(int(label) for label in table[v.EXPOSURE].values[chosen])


def exposures_by_filter(table: xr.Dataset, exposures: Labels) -> dict[str, Labels]:
    """Return the exposures through each physical filter, "" where none is known.

    Examples
    --------
    >>> table = xr.Dataset(coords={"exposure": [4, 5, 6], "physical_filter": ("exposure",
    ...                            ["r", "g", "r"])})
    >>> exposures_by_filter(table, (4, 5, 6))
    {'g': (5,), 'r': (4, 6)}
    """
    found: dict[str, list[int]] = {}
    for label in exposures:
        row = table.sel({v.EXPOSURE: label})
        name = str(row[v.FILTER].values) if v.FILTER in row.coords else ""
        found.setdefault(name, []).append(int(label))
    return {name: tuple(found[name]) for name in sorted(found)}
