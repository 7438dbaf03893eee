"""Whether visits show light dispersed the way that their geometry says.

A wrong projection, parallactic angle or sign leaves a chi2 per pixel that is hardly above 1 where
the signal to noise is moderate, as colours make up for much of it. All visits together tell very
well which way light is dispersed: sub-bands of the brightest objects are solved for anew with all
displacements turned or mirrored, and what describes the visits best is compared with what was
given.

In a small image the sub-bands have a solution of their own at each frequency, so that what it
leaves is known without it,

.. math:: \\chi^2 = \\sum_k \\left[ \\sum_e w_e |z_e|^2 - b^H K^{-1} b \\right],\\qquad
    b = \\sum_e w_e \\bar a_e z_e,\\qquad K = \\sum_e w_e \\bar a_e a_e^T + W P(k)

with the visits less what they would show of a sky of flat spectra, z.

Turning or mirroring all displacements leaves the noise that sub-bands take up the same: only
objects tell. Stretching them does not, and a wrong seeing looks like it: it is not tried.
"""

from __future__ import annotations

import math
import warnings
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.object_waves import bright_objects, misfits, object_waves
from skyloom.algorithms.dcr.operator import Light, light_of
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.shifts import subband_photons
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.errors import NotConvergedWarning

__all__ = ["GeometryCheck", "check_geometry", "geometry_figures", "warn_of_geometry"]

Floats = NDArray[np.float64]

SUBBANDS: Final = 3
"""Sub-bands that objects are solved for, however many are asked for: one has no colours."""
DOUBT: Final = 9.0
"""Chi2 of an object from which it counts less and less: an artifact in one must not decide."""
SURE: Final = 25.0
"""Chi2 from which a difference between geometries is believed."""
LEAST: Final = 10.0
"""Degrees by which a geometry is wrong, at least: a visit that lies elsewhere can turn it a bit."""
TURNS: Final = 12
"""Angles that are tried."""
FAR: Final = 80.0
"""Degrees between geometries that have nothing in common."""
STEPS: Final = (10.0, 4.0, 1.0)
"""Degrees by which angles are turned to find the best one."""
FIGURES: Final = ("angle", "angle_error", "mirrored", "gain", "contrast")


class GeometryCheck(NamedTuple):
    """The displacements that describe visits best, relative to those that are given.

    These are to be ``mirrored`` along x, and turned by ``angle`` (degree, from x to y), known to
    ``angle_error`` as far as noise goes. ``gain``: by how much chi2 falls so, over all ``objects``
    but the one that says so most. ``contrast``: how much higher it is, in the same way, for the
    best of all geometries that are turned by about a quarter or more from this one, or mirrored.
    Large differences of an object count by their logarithm only.
    """

    angle: float
    angle_error: float
    mirrored: bool
    gain: float
    contrast: float
    objects: int

    @property
    def told(self) -> bool:
        """Return whether objects tell which way light is dispersed."""
        return self.contrast > SURE

    @property
    def wrong(self) -> bool:
        """Return whether they tell of another geometry than is given."""
        turned = abs(self.angle) > max(LEAST, 5.0 * self.angle_error)
        return self.told and self.gain > SURE and (self.mirrored or turned)


UNKNOWN: Final = GeometryCheck(np.nan, np.inf, False, 0.0, 0.0, 0)


def geometry_figures(
    warps: xr.Dataset,
    template: xr.Dataset,
    band: Band,
    conditions: xr.Dataset,
    jacobian: Floats,
    spreads: PointSpreads,
    parameters: LinearParameters,
    adherence: float,
    agree: NDArray[np.bool_],
) -> dict[str, float]:
    """Return what the diagnostics of a solution say of its geometry.

    Parameters
    ----------
    warps, template, band, conditions, jacobian, parameters
        As of `solve_dcr`.
    spreads : PointSpreads
        Of the visits.
    adherence : float
        Prior on the difference to the coadd.
    agree : array, (visit,)
        Visits that agree with the solution. All are asked if these are less than half of them.
    """
    light = light_of(band, conditions, jacobian, SUBBANDS, parameters.in_band)
    photons = subband_photons(band, SUBBANDS)
    asked = agree if 2 * agree.sum() >= len(agree) else np.ones(len(agree), bool)
    found = check_geometry(warps, template, light, photons, spreads, parameters, adherence, asked)
    return {f"geometry_{name}": float(getattr(found, name)) for name in FIGURES}


def warn_of_geometry(diagnostics: xr.Dataset) -> None:
    """Call a solution a bad fit, and warn, if visits tell of another geometry.

    Parameters
    ----------
    diagnostics : Dataset
        With `geometry_figures`, if they are known; its ``status`` is changed.

    Examples
    --------
    >>> figures = {"angle": 0.3, "angle_error": 0.2, "mirrored": 0.0, "gain": 1.0, "contrast": 80.0}
    >>> table = {f"geometry_{name}": value for name, value in figures.items()}
    >>> warn_of_geometry(xr.Dataset(table))
    """
    if f"geometry_{FIGURES[0]}" not in diagnostics:
        return
    angle, error, mirrored, gain, contrast = (
        float(diagnostics[f"geometry_{name}"]) for name in FIGURES
    )
    if not GeometryCheck(angle, error, bool(mirrored), gain, contrast, 0).wrong:
        return
    status = diagnostics["status"]
    solved = (status == v.DcrStatus.CONVERGED) | (status == v.DcrStatus.NOT_CONVERGED)
    diagnostics["status"] = status.where(~solved, np.uint8(v.DcrStatus.BAD_FIT))
    change = f"turned by {angle:.1f} ± {error:.1f} degree"
    if mirrored:
        change = f"mirrored along x and {change}"
    warnings.warn(
        f"visits show light dispersed another way than their geometry says: {change} (from x to "
        f"y) it describes the objects better by a chi2 of {gain:.0f}: are projection, parallactic "
        "angles and reference wavelength right?",
        NotConvergedWarning,
        stacklevel=4,
    )


def check_geometry(
    warps: xr.Dataset,
    template: xr.Dataset,
    light: Light,
    photons: Floats,
    spreads: PointSpreads,
    parameters: LinearParameters,
    adherence: float,
    used: NDArray[np.bool_],
) -> GeometryCheck:
    """Return which way visits show that their light is dispersed.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance``, ``mask``; ``noise_covariance`` if the noise of pixels is alike.
    template : Dataset, (y, x)
        Their coadd, with ``image``, ``variance``, ``mask`` (DETECTED).
    light : Light
        What each of some sub-bands adds to light, and how that is displaced in each visit.
    photons : array, (subfilter,)
        Those of a flat spectrum in each sub-band, over those of all.
    spreads : PointSpreads
    parameters : LinearParameters
        The priors.
    adherence : float
        That on the difference to the coadd.
    used : array, (visit,)
        Visits that are asked.

    Returns
    -------
    GeometryCheck
        Of infinite errors, and without objects, where fewer than two can be asked.
    """
    reach = 2.0 * float(np.abs(light.moved).max())
    side = 2 * math.ceil((6.0 * spreads.model_fwhm + reach) / 2.0)
    places = bright_objects(template, side)
    if len(places) < 2 or used.sum() < 2:
        return UNKNOWN
    waves = object_waves(
        warps, template, places, side, spreads, parameters, adherence, photons, used
    )
    if len(waves.weights) < 2:
        return UNKNOWN

    def chi2(angle: float, mirrored: bool) -> Floats:
        return misfits(waves, light, photons, _change(angle, mirrored))

    angles = 360.0 / TURNS * np.arange(TURNS)
    tried = np.stack([[chi2(angle, flip) for angle in angles] for flip in (False, True)])
    lowest = tried.min(axis=(0, 1))
    flip, turn = np.unravel_index(int(_cost(tried, lowest).argmin()), tried.shape[:2])
    mirrored, angle, best = bool(flip), float(angles[turn]), tried[flip, turn]
    curvature = 0.0
    for step in STEPS:
        beside = [chi2(angle - step, mirrored), chi2(angle + step, mirrored)]
        lowest = np.minimum(lowest, np.minimum(*beside))
        down, at, up = (float(_cost(one, lowest)) for one in (beside[0], best, beside[1]))
        trust = 1.0 / (1.0 + (best - lowest) / DOUBT)
        bent = float(trust @ (beside[0] + beside[1] - 2.0 * best)) / step**2
        curvature = bent if bent > 0 else curvature
        bend = down + up - 2.0 * at
        change = 0.5 * step * (down - up) / bend if bend > 0 else step * np.sign(down - up)
        change = float(np.clip(change, -step, step))
        moved = chi2(angle + change, mirrored)
        lowest = np.minimum(lowest, moved)
        if _cost(moved, lowest) <= _cost(best, lowest):
            angle, best = angle + change, moved
    apart = np.abs((angles - angle + 180.0) % 360.0 - 180.0) >= FAR
    others = [*tried[flip][apart], *tried[1 - flip]]
    return GeometryCheck(
        (angle + 180.0) % 360.0 - 180.0,
        math.sqrt(2.0 / curvature) if curvature > 0 else np.inf,
        mirrored,
        max(_agreed(tried[0, 0], best, lowest), 0.0),
        min(_agreed(one, best, lowest) for one in others),
        len(waves.weights),
    )


def _change(angle: float, mirrored: bool) -> Floats:
    """Return the matrix that mirrors displacements (dx, dy) and turns them (degree)."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    return turn @ np.diag([-1.0, 1.0]) if mirrored else turn


def _cost(chi2: Floats, lowest: Floats) -> Floats:
    """Return the sum over objects (the last axis), of which a large chi2 counts little."""
    return np.asarray(_doubted(chi2 - lowest).sum(axis=-1))


def _doubted(excess: Floats) -> Floats:
    return np.asarray(DOUBT * np.log1p(np.maximum(excess, 0.0) / DOUBT))


def _agreed(chi2: Floats, best: Floats, lowest: Floats) -> float:
    """Return how much higher chi2 is than the best, but for the object that says so most."""
    of_objects = _doubted(chi2 - lowest) - _doubted(best - lowest)
    return float(of_objects.sum() - max(of_objects.max(), 0.0))
