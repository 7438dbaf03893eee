"""Sky frames and the skies of exposures solved jointly, by turns.

A smooth sky that is fitted without a frame takes for itself what the frame resembles, and another
part of it in every exposure where other detectors or bins are missing. Fitted beside the frame it
does not, and the frame made of what is left is better: a few sweeps settle both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky.exposure_residuals import exposure_residuals
from skyloom.algorithms.sky.focal_basis import (
    FocalBox,
    chebyshev_terms,
    chebyshev_values,
    scaled_to_box,
)
from skyloom.algorithms.sky.focal_plane_cells import bin_positions
from skyloom.algorithms.sky.frame_parameters import AverageParameters, SmoothSkyParameters
from skyloom.algorithms.sky.frames import average_backgrounds, sky_frame_residual
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.visit_fit import fit_visit_background

__all__ = ["RefinedFrames", "RefinementParameters", "refine_sky_frames"]

Floats = NDArray[np.float64]
Bins = Mapping[Any, Mapping[Any, xr.Dataset]]


class RefinementParameters(Parameters):
    """How frames and exposures are solved by turns, `refine_sky_frames`."""

    order: int = Field(1, ge=0, le=6, description="order of the smooth sky of an exposure")
    sweeps: int = Field(5, ge=0, description="most sweeps over exposures and frames")
    tolerance: float = Field(
        1e-6, ge=0, description="rms change of the frames at which sweeps end, of the sky"
    )
    average: AverageParameters = Field(
        AverageParameters(), description="how exposures are averaged to a frame"
    )


class RefinedFrames(NamedTuple):
    """Frames and skies that belong together.

    ``frames``: of each detector, see `average_backgrounds`; attribute ``gauge_basis`` states the
    smooth functions that frames have no part of. ``fits``: of each exposure, see
    `fit_visit_background`, beside the last frames but one. ``changes``: rms change of the frames
    in each sweep [1].
    """

    frames: dict[Any, xr.Dataset]
    fits: dict[Any, xr.Dataset]
    changes: tuple[float, ...]


def refine_sky_frames(
    backgrounds: Bins,
    transforms: Mapping[Any, Floats],
    *,
    focal_box: Sequence[float],
    parameters: RefinementParameters | None = None,
) -> RefinedFrames:
    """Return sky frames, and the skies of exposures fitted beside them.

    With D the bins, L the levels of the sky and P the frame, sweeps alternate between

    * each exposure k: scale and smooth sky b_k fitted to D_k with P given, and
    * each bin: P = sum w L_k (D_k - b_k) / sum w L_k^2 with w = 1 / var D_k, clipped,

    after which P loses its projection on the smooth functions: exposures cannot show it.

    Parameters
    ----------
    backgrounds : mapping from exposure to mapping from detector to Dataset, (bin_y, bin_x)
        ``level`` [any unit], ``variance``, ``count`` of `measure_background`. Detectors may be
        missing in some exposures.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    focal_box : (x_start, x_stop, y_start, y_stop), mm
        Where polynomials are defined, the same for all exposures.
    parameters : RefinementParameters, optional

    Returns
    -------
    RefinedFrames

    Raises
    ------
    ConfigurationError
        If there is no exposure.
    GeometryError
        If the bins of a detector differ between exposures.
    NoUsableDataError
        If an exposure has no detector with a transform, or nothing was measured.

    Examples
    --------
    >>> bins = np.sin(np.arange(64.0)).reshape(8, 8)
    >>> identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> def sky(level):
    ...     dims = ("bin_y", "bin_x")
    ...     return xr.Dataset(
    ...         {
    ...             "level": (dims, level * (1.0 + 0.01 * bins), {"units": "electron"}),
    ...             "variance": (dims, np.full((8, 8), 0.01)),
    ...             "count": (dims, np.full((8, 8), 100)),
    ...         },
    ...         attrs={"box": [0, 80, 0, 80]},
    ...     )
    >>> found = refine_sky_frames(
    ...     {1: {"A": sky(900.0)}, 2: {"A": sky(1100.0)}}, {"A": identity},
    ...     focal_box=(0.0, 80.0, 0.0, 80.0),
    ... )
    >>> round(float(np.corrcoef(found.frames["A"]["level"].values.ravel(), bins.ravel())[0, 1]), 2)
    1.0
    """
    if not backgrounds:
        raise ConfigurationError("backgrounds is empty: frames need the bins of an exposure")
    chosen = RefinementParameters() if parameters is None else parameters
    solve = SolveScaleParameters(order=chosen.order)
    first = {
        exposure: exposure_residuals(
            bins,
            {name: transforms[name] for name in bins},
            parameters=SmoothSkyParameters(order=chosen.order),
            focal_box=focal_box,
        )
        for exposure, bins in backgrounds.items()
    }
    gauge = _Gauge(FocalBox(*map(float, focal_box)), chosen.order, transforms)
    fits = {exposure: one.model for exposure, one in first.items()}
    frames = gauge.fixed(_averaged({e: one.residuals for e, one in first.items()}, chosen.average))
    changes: list[float] = []
    for _ in range(chosen.sweeps):
        residuals = {}
        for exposure, bins in backgrounds.items():
            level, sigma = first[exposure].scale, first[exposure].scale_sigma
            fits[exposure] = fit_visit_background(
                bins,
                {name: transforms[name] for name in bins},
                sky_frames={name: frames[name] for name in bins},
                focal_box=focal_box,
                level=level,
                parameters=solve,
            )
            residuals[exposure] = {
                name: sky_frame_residual(
                    background,
                    fits[exposure],
                    transforms[name],
                    scale=level,
                    scale_sigma=sigma,
                    detector=name,
                )
                for name, background in bins.items()
            }
        found = gauge.fixed(_averaged(residuals, chosen.average))
        changes.append(_rms_difference(found, frames))
        frames = found
        if changes[-1] <= chosen.tolerance:
            break
    return RefinedFrames(frames, fits, tuple(changes))


def _averaged(residuals: Bins, parameters: AverageParameters) -> dict[Any, xr.Dataset]:
    """Return the frame of each detector that any exposure has."""
    parts: dict[Any, list[xr.Dataset]] = {}
    for exposure, each in residuals.items():
        for name, residual in each.items():
            parts.setdefault(name, []).append(residual.assign_coords({v.EXPOSURE: exposure}))
    return {
        name: average_backgrounds(found, parameters=parameters) for name, found in parts.items()
    }


def _rms_difference(new: dict[Any, xr.Dataset], old: dict[Any, xr.Dataset]) -> float:
    parts = [(new[name]["level"] - old[name]["level"]).values.ravel() for name in new]
    return float(np.sqrt(np.nanmean(np.square(np.concatenate(parts), dtype=np.float64))))


class _Gauge(NamedTuple):
    """The smooth functions of the focal plane that frames have no part of."""

    box: FocalBox
    order: int
    transforms: Mapping[Any, Floats]

    def values(self, name: Any, frame: xr.Dataset) -> Floats:
        """Return the functions in the bins of a detector, (bin, term)."""
        y, x = bin_positions(frame, np.asarray(self.transforms[name], np.float64))
        scaled = scaled_to_box(x.ravel(), y.ravel(), self.box)
        return chebyshev_values(*scaled, chebyshev_terms(self.order))

    def fixed(self, frames: dict[Any, xr.Dataset]) -> dict[Any, xr.Dataset]:
        """Return frames less their projection on the functions, over the bins measured."""
        terms = len(chebyshev_terms(self.order))
        matrix, vector = np.zeros((terms, terms)), np.zeros(terms)
        for name, frame in frames.items():
            seen = (frame["exposure_count"].values > 0).ravel()
            values = self.values(name, frame)[seen]
            level = frame["level"].values.astype(np.float64).ravel()[seen]
            # Not by a library of linear algebra, whose sums depend on the machine.
            matrix += np.einsum("ij,ik->jk", values, values)
            vector += np.einsum("ij,i->j", values, level)
        coefficients = np.linalg.lstsq(matrix, vector)[0]
        basis = {"functions": "chebyshev", "order": self.order, "focal_box": list(self.box)}
        found = {}
        for name, frame in frames.items():
            smooth = np.einsum("ij,j->i", self.values(name, frame), coefficients)
            level = frame["level"].values - smooth.reshape(frame["level"].shape)
            found[name] = frame.assign(level=frame["level"].copy(data=level.astype(np.float32)))
            found[name].attrs["gauge_basis"] = basis
        return found
