"""The sky of one exposure over the whole focal plane, fitted to the bins of its detectors.

All bins of all detectors are fitted at once: the sky frame times one scale, smooth functions of
the focal plane and, if asked for, steps between detectors or their types. The pixels are not
needed again.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.errors import (
    ConfigurationError,
    DroppedInputWarning,
    NoUsableDataError,
)
from skyloom.algorithms.sky.frame_bins import samples_of_bins
from skyloom.algorithms.sky.frame_origin import check_origin
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales

__all__ = [
    "VISIT_PARAMETERS",
    "fit_visit_background",
]

Floats = NDArray[np.float64]

VISIT_PARAMETERS = SolveScaleParameters(order=6)
"""Parameters of the fit of a visit unless told otherwise."""


def fit_visit_background(
    backgrounds: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    sky_frames: Mapping[Any, xr.Dataset] | None = None,
    detector_types: Mapping[Any, str] | None = None,
    focal_box: Sequence[float] | None = None,
    level: float | None = None,
    minimum_fraction: float = 0.25,
    interpolation: Style = "natural_spline",
    parameters: SolveScaleParameters | None = None,
) -> xr.Dataset:
    """Fit sky frame and smooth sky to the binned backgrounds of all detectors of one exposure.

    Parameters
    ----------
    backgrounds : mapping from detector to Dataset, (bin_y, bin_x)
        ``level`` and ``variance`` (a true variance), ``count``; attribute ``box``. Detectors may
        have different bins.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    sky_frames : mapping from detector to Dataset, (bin_y, bin_x) or (template, ...), optional
        Without it the smooth sky alone is fitted. Of several templates, see `sky_templates`, each
        has a scale of its own; that of the first, the mean sky, is what is called the scale.
    detector_types, focal_box, level
        As in `solve_scales`.
    minimum_fraction : float
        Bins with fewer valid pixels than this part of the largest bin of the detector are left
        out.
    interpolation : str
        Interpolation between the bins of the sky frame.
    parameters : SolveScaleParameters, optional
        By default those of `solve_scales` with order 6.

    Returns
    -------
    Dataset
        As that of `solve_scales`. `subtract_fit` takes it off the exposures.

    Raises
    ------
    ConfigurationError
        If there are no backgrounds, a sky frame says that it is of another detector, filter or
        camera than the background, or detectors have different numbers of templates.
    NoUsableDataError
        If no detector has a background, a transform and, if asked for, a sky frame.

    Notes
    -----
    Where backgrounds were taken off before, measure the bins on the image as it was, or add them
    again: a sequence of fits loses what one takes of the other.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> x = np.arange(8.0)
    >>> background = xr.Dataset(
    ...     {
    ...         "level": (dims, np.broadcast_to(50 + 2 * x, (8, 8)), {"units": "electron"}),
    ...         "variance": (dims, np.full((8, 8), 0.01)),
    ...         "count": (dims, np.full((8, 8), 100)),
    ...     },
    ...     attrs={"box": [0, 80, 0, 80]},
    ... )
    >>> identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = SolveScaleParameters(order=1)
    >>> fit = fit_visit_background({1: background}, {1: identity}, parameters=parameters)
    >>> fit["coefficients"].values.round(6)
    array([57.,  8.,  0.])
    """
    if not backgrounds:
        raise ConfigurationError("backgrounds is empty: a fit needs the bins of a detector")
    given: list[Mapping[Any, Any]] = [backgrounds, transforms]
    given += [] if sky_frames is None else [sky_frames]
    detectors = common_detectors(given)
    if sky_frames is not None:
        for name in detectors:
            check_origin(backgrounds[name], sky_frames[name], detector=name, what="background")
        numbers = {name: sky_frames[name].sizes.get("template", 1) for name in detectors}
        if len(set(numbers.values())) > 1:
            raise ConfigurationError(f"sky_frames have different numbers of templates: {numbers}")
    samples = [
        samples_of_bins(
            backgrounds[name],
            transform=transforms[name],
            sky_frame=None if sky_frames is None else sky_frames[name],
            minimum_fraction=minimum_fraction,
            interpolation=interpolation,
        ).assign_coords({v.DETECTOR: name})
        for name in detectors
    ]
    return solve_scales(
        samples,
        level=level,
        detector_types=detector_types,
        focal_box=focal_box,
        parameters=VISIT_PARAMETERS if parameters is None else parameters,
    )


def common_detectors(given: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Return the detectors that all mappings have, sorted; warn of the others.

    Raises
    ------
    NoUsableDataError
        If they have none in common.

    Examples
    --------
    >>> common_detectors([{2: "a", 1: "b"}, {1: "c", 2: "d"}])
    [1, 2]
    """
    union = set[Hashable]().union(*given)
    common = union.intersection(*given)
    if not common:
        raise NoUsableDataError(f"no detector has all inputs; some were given for {_named(union)}")
    if union - common:
        warnings.warn(
            f"some inputs are missing for the detectors {_named(union - common)}: left out",
            DroppedInputWarning,
            stacklevel=3,
        )
    return _sorted(common)


def _sorted(names: Iterable[Any]) -> list[Any]:
    return sorted(names, key=lambda name: (isinstance(name, str), name))


def _named(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in _sorted(names))
