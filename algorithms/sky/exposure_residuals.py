"""From the binned backgrounds of one exposure to what they say about the sky frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.sky.focal_basis import FocalBox, chebyshev_values, scaled_to_box
from skyloom.algorithms.sky.focal_plane_background import focal_plane_background
from skyloom.algorithms.sky.focal_plane_cells import points_of_bins
from skyloom.algorithms.sky.frame_parameters import SmoothSkyParameters
from skyloom.algorithms.sky.frames import sky_frame_residual
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.visit_fit import common_detectors, fit_visit_background

__all__ = ["ExposureResiduals", "exposure_residuals"]

Floats = NDArray[np.float64]


class ExposureResiduals(NamedTuple):
    """What one exposure says about the sky frame.

    ``residuals`` of each detector, see `sky_frame_residual`; ``model`` the smooth sky, see
    `fit_visit_background` or `focal_plane_background`; ``scale`` and ``scale_sigma`` the sky level
    over measured bins [image units]; ``status`` whether it is good for a sky frame.
    """

    residuals: dict[Any, xr.Dataset]
    model: xr.Dataset
    scale: float
    scale_sigma: float
    status: v.SkyLevelStatus


def exposure_residuals(
    backgrounds: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    parameters: SmoothSkyParameters | None = None,
    detector_types: Mapping[Any, str] | None = None,
    focal_box: Sequence[float] | None = None,
    grid: xr.Dataset | None = None,
) -> ExposureResiduals:
    """Take the smooth sky off the backgrounds of one exposure, and its level out of the rest.

    Parameters
    ----------
    backgrounds : mapping from detector to Dataset, (bin_y, bin_x)
        Of `measure_background`, all in one unit.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    parameters : SmoothSkyParameters, optional
        By default a plane over the focal plane.
    detector_types : mapping from detector to type, optional
        Needed for steps between types.
    focal_box : (x_start, x_stop, y_start, y_stop), mm, optional
        Where polynomials are defined; give all exposures the same.
    grid : Dataset, optional
        Cells, see `focal_plane_grid`; give all exposures the same.

    Returns
    -------
    ExposureResiduals

    Raises
    ------
    ConfigurationError
        If there is no detector, or types are missing.
    NoUsableDataError
        If nothing was measured.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> x = np.arange(8.0)
    >>> background = xr.Dataset(
    ...     {
    ...         "level": (dims, np.broadcast_to(100 + 2 * x, (8, 8)), {"units": "electron"}),
    ...         "variance": (dims, np.full((8, 8), 0.01)),
    ...         "count": (dims, np.full((8, 8), 100)),
    ...     },
    ...     attrs={"box": [0, 80, 0, 80]},
    ... )
    >>> identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> found = exposure_residuals({1: background}, {1: identity})
    >>> round(found.scale, 6), float(abs(found.residuals[1]["level"]).max()) < 1e-6
    (107.0, True)
    """
    parameters = SmoothSkyParameters() if parameters is None else parameters
    detectors = common_detectors([backgrounds, transforms])
    backgrounds = {name: backgrounds[name] for name in detectors}
    transforms = {name: np.asarray(transforms[name], np.float64) for name in detectors}
    if parameters.cells is not None:
        model = focal_plane_background(
            backgrounds,
            transforms,
            parameters=parameters.cells,
            grid=grid,
            detector_types=detector_types,
        )
        scale, sigma = float(model["scale"]), float(model["scale_sigma"])
        groups = {name: name for name in detectors}
    else:
        model = fit_visit_background(
            backgrounds,
            transforms,
            detector_types=detector_types,
            focal_box=focal_box,
            minimum_fraction=parameters.minimum_fraction,
            parameters=SolveScaleParameters(order=parameters.order, steps=parameters.steps),
        )
        if int(model["used_count"]) == 0:
            raise NoUsableDataError(
                f"nothing was measured in any bin of {', '.join(map(str, detectors))}: there is no "
                "sky to take off"
            )
        scale, sigma = _mean_of_polynomials(model, backgrounds, transforms)
        types = detector_types if parameters.steps == "type" else None
        groups = {name: name if types is None else types[name] for name in detectors}
    residuals = {
        name: sky_frame_residual(
            backgrounds[name],
            model,
            transforms[name],
            scale=scale,
            scale_sigma=sigma,
            detector=groups[name],
        )
        for name in detectors
    }
    status = v.SkyLevelStatus(int(residuals[detectors[0]]["sky_status"]))
    return ExposureResiduals(residuals, model, scale, sigma, status)


def _mean_of_polynomials(
    model: xr.Dataset, backgrounds: Mapping[Any, xr.Dataset], transforms: Mapping[Any, Floats]
) -> tuple[float, float]:
    """Return the mean of polynomials over the pixels measured, and its standard error."""
    box = FocalBox(*(float(edge) for edge in model.attrs["focal_box"]))
    terms = list(
        zip(model["degree_x"].values.tolist(), model["degree_y"].values.tolist(), strict=True)
    )
    total, weight = np.zeros(len(terms)), 0.0
    for name, background in backgrounds.items():
        points = points_of_bins(background, transforms[name])
        values = chebyshev_values(*scaled_to_box(points.x, points.y, box), terms)
        total += points.weight @ values
        weight += float(points.weight.sum())
    mean = total / weight if weight > 0 else np.full(len(terms), np.nan)
    covariance = np.asarray(model["coefficient_covariance"].values)
    return (
        float(mean @ np.asarray(model["coefficients"].values)),
        float(np.sqrt(max(float(mean @ covariance @ mean), 0.0))),
    )
