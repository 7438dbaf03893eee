"""Which detector, filter and camera sky frames and exposures say that they are of.

They say it as scalar coordinates or attributes. Two that contradict each other are refused; what
one of them does not say is not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.detrend.calibrations import told
from skyloom.algorithms.errors import ConfigurationError

__all__ = ["ORIGIN", "check_common_origin", "check_distinct_exposures", "check_origin"]

ORIGIN: Final = (v.DETECTOR, v.FILTER, "camera")
"""What frame and exposure must agree on."""


def check_origin(
    exposure: xr.Dataset | xr.DataArray,
    sky_frame: xr.Dataset,
    *,
    detector: Any = None,
    what: str = "exposure",
) -> None:
    """Raise ConfigurationError if a sky frame is of another detector, filter or camera.

    Parameters
    ----------
    exposure : Dataset or DataArray
        What the frame is compared with.
    sky_frame : Dataset
        The frame.
    detector : label, optional
        Detector of the exposure, where that does not say.
    what : str
        What the message calls the exposure.

    Examples
    --------
    >>> one = xr.Dataset(coords={"detector": "S0", "physical_filter": "r"})
    >>> check_origin(one, one.drop_vars("physical_filter"))
    >>> check_origin(one, one.assign_coords(detector="S1"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: the sky frame is of detector 'S1', the exposure \
of 'S0'
    """
    problems = []
    for name in ORIGIN:
        wanted, found = told(exposure, name), told(sky_frame, name)
        if name == v.DETECTOR and not wanted and detector is not None:
            wanted = str(detector)
        if wanted and found and wanted != found:
            problems.append(f"the sky frame is of {name} {found!r}, the {what} of {wanted!r}")
    if problems:
        raise ConfigurationError("; ".join(problems))


def check_common_origin(items: Sequence[xr.Dataset]) -> dict[str, Any]:
    """Return what residuals say of their origin by name, checked that they agree.

    Raises
    ------
    ConfigurationError
        If they are of several detectors, filters or cameras; the message names them.
    """
    found = {}
    for name in ORIGIN:
        told_by = [told(item, name) for item in items]
        values = sorted(set(told_by) - {""})
        if len(values) > 1:
            odd = next(i for i, value in enumerate(told_by) if value not in ("", values[0]))
            raise ConfigurationError(
                f"residuals are of several {_PLURAL[name]}: {', '.join(map(repr, values))}; "
                f"residual {odd} is of {told_by[odd]!r}. Average those of each alone"
            )
        if values:
            one = items[told_by.index(values[0])]
            found[name] = one[name].item() if name in one.coords else one.attrs[name]
    return found


_PLURAL: Final = {v.DETECTOR: "detectors", v.FILTER: "filters", "camera": "cameras"}


def check_distinct_exposures(labels: Sequence[Any]) -> None:
    """Raise ConfigurationError if an exposure is there more than once.

    Examples
    --------
    >>> check_distinct_exposures([7, 8, 7])
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: exposures are given more than once: 7 (2 times)
    """
    many = {label: number for label, number in Counter(labels).items() if number > 1}
    if many:
        named = ", ".join(f"{label} ({number} times)" for label, number in many.items())
        raise ConfigurationError(f"exposures are given more than once: {named}")
