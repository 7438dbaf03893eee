"""What is said about a solution of scales: sets that do not hang together, what is left out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DegenerateFitError
from skyloom.algorithms.flats.cells import Cells
from skyloom.algorithms.flats.components import describe_components
from skyloom.algorithms.flats.parameters import FlatScaleParameters
from skyloom.algorithms.flats.robust_separation import Fit

__all__ = ["LISTED", "channel_and_exposure_names", "check_connected", "warn_of_scales"]

LISTED = 12  # names in a message

Labels = NDArray[np.int64]


def channel_and_exposure_names(level: xr.DataArray) -> tuple[list[Any], list[Any]]:
    """Return the names of channels and exposures of a table of levels.

    Examples
    --------
    >>> level = xr.DataArray(
    ...     np.ones((1, 2, 1)),
    ...     dims=("detector", "amp", "exposure"),
    ...     coords={"detector": ["S0"], "amp": ["A", "B"], "exposure": [7]},
    ... )
    >>> channel_and_exposure_names(level)
    (['S0 A', 'S0 B'], [7])
    """
    dims = [name for name in level.dims if name != v.EXPOSURE]
    if set(dims) == {v.DETECTOR, v.AMP}:
        dims = [v.DETECTOR, v.AMP]
    labels = [level[name].values.tolist() for name in dims]
    names: list[Any] = labels[0]
    for more in labels[1:]:
        names = [f"{name} {other}" for name in names for other in more]
    return names, level[v.EXPOSURE].values.tolist()


def check_connected(
    components: tuple[Labels, Labels],
    level: xr.DataArray,
    parameters: FlatScaleParameters,
    when: str,
) -> None:
    """Raise if there are several components and the parameters do not allow it.

    Raises
    ------
    DegenerateFitError
        Names the members of each.
    """
    number = int(components[0].max()) + 1
    if number > 1 and parameters.on_disconnected == "raise":
        raise DegenerateFitError(
            f"{number} sets of detectors have no common exposure{when}, so their scales are not "
            f"relative to each other (on_disconnected='per_component' solves each alone): "
            f"{describe_components(*components, *channel_and_exposure_names(level))}"
        )


def warn_of_scales(
    cells: Cells, fit: Fit, level: xr.DataArray, parameters: FlatScaleParameters
) -> None:
    """Say in one warning what the user should know of the solution."""
    dark = np.flatnonzero(~cells.usable.any(axis=1) & cells.exists)
    empty = np.flatnonzero(~cells.usable.any(axis=0))
    dropped = np.flatnonzero(fit.dropped)
    texts = []
    for kind, side, chosen, what in (
        ("detectors", 0, dark, "have no usable level: their scale is NaN"),
        ("exposures", 1, empty, "have no usable level: their scale is NaN"),
        ("exposures", 1, dropped, "contradict the others in many detectors and are left out"),
    ):
        if chosen.size:
            members = [channel_and_exposure_names(level)[side][index] for index in chosen.tolist()]
            more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
            texts.append(f"{kind} {', '.join(map(str, members[:LISTED]))}{more} {what}")
    number = int(fit.channels.max()) + 1
    if number > 1:
        sets = describe_components(fit.channels, fit.exposures, *channel_and_exposure_names(level))
        texts.append(f"scales are relative within each of {number} sets only: {sets}")
    if fit.link_strength < parameters.smallest_link_strength:
        texts.append(
            f"sets of detectors are linked weakly (link strength {fit.link_strength:.3g}): their "
            "relative scale rests on few levels"
        )
    if fit.change > parameters.tolerance:
        texts.append(
            f"alternating means did not converge in {parameters.iterations} iterations (last "
            f"change {fit.change:.2g}, tolerance {parameters.tolerance:g})"
        )
    if texts:
        warnings.warn("; ".join(texts), UserWarning, stacklevel=3)
