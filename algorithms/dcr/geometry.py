"""How the atmosphere moves light over the pixels of a patch, visit by visit.

A patch is so small that one direction towards the zenith and one altitude, those at its centre,
hold for all of it. Images are already on the grid of the sky, so the rotation of the camera does
not matter.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.refraction import (
    ALTITUDES,
    Weather,
    differential_refraction,
    zenith_direction,
)
from skyloom.algorithms.tangent_plane import TangentPlane, to_tangent_plane

__all__ = ["dispersion", "displacement", "patch_jacobian"]

Floats = NDArray[np.float64]

FIELDS: Final = (
    "altitude",
    "parallactic_angle",
    "temperature",
    "pressure",
    "humidity",
    "latitude",
    "height",
)
"""Variables of the conditions that refraction needs."""


def patch_jacobian(plane: TangentPlane, box: Any) -> Floats:
    """Return the offsets on the sky per pixel at the centre of a box.

    Parameters
    ----------
    plane : TangentPlane
        Projection of the tract.
    box : (y_start, y_stop, x_start, x_stop), pixel

    Returns
    -------
    ndarray, (2, 2), arcsec/pixel
        Offsets (east, north) per pixel (x, y), for `zenith_direction`. At a pole north is along
        the meridian of the right ascension that the projection gives the centre.

    Examples
    --------
    >>> plane = TangentPlane(10.0, -20.0, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
    >>> patch_jacobian(plane, (-50, 51, -50, 51)).round(6).tolist()
    [[-0.2, 0.0], [0.0, 0.2]]
    """
    y, x = (box[0] + box[1] - 1) / 2.0, (box[2] + box[3] - 1) / 2.0
    steps = np.array([0.0, 0.5, -0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 0.5, -0.5])
    ra, dec = plane.to_sky(x + steps[0], y + steps[1])
    # in the plane at the centre: right ascensions differ by anything near a pole
    east, north = to_tangent_plane(ra, dec, ra[0], dec[0])
    return 3600.0 * np.array(
        [[east[1] - east[2], east[3] - east[4]], [north[1] - north[2], north[3] - north[4]]]
    )


def dispersion(band: Band, conditions: xr.Dataset, wavelength: Any) -> Floats:
    """Return how far light is displaced towards the zenith, relative to the reference wavelength.

    Parameters
    ----------
    band : Band
        Whose ``lambda_ref`` is not displaced.
    conditions : Dataset, (visit,)
        As of `skyloom.algorithms.visit_conditions.visit_conditions`, at the centre of the patch.
    wavelength : array, nm

    Returns
    -------
    ndarray, (visit, *wavelength), arcsec

    Raises
    ------
    ValueError
        If something that refraction needs is missing or not finite, or a visit is too low.
    """
    check_conditions(conditions)
    wavelengths = np.asarray(wavelength, float)
    shape = (-1,) + (1,) * wavelengths.ndim
    table = {
        name: np.atleast_1d(conditions[name].to_numpy()).astype(float).reshape(shape)
        for name in FIELDS
    }
    weather = Weather(table["temperature"], table["pressure"], table["humidity"])
    found = differential_refraction(
        wavelengths,
        band.lambda_ref,
        table["altitude"],
        weather,
        latitude=table["latitude"],
        height=table["height"],
    )
    return np.asarray(found, float)


def displacement(conditions: xr.Dataset, jacobian: Floats) -> Floats:
    """Return the pixels (dy, dx) of each visit that an arcsec towards the zenith is.

    Parameters
    ----------
    conditions : Dataset, (visit,)
        With ``parallactic_angle`` (degree).
    jacobian : array, (2, 2), arcsec/pixel
        As of `patch_jacobian`.

    Returns
    -------
    ndarray, (visit, 2), pixel/arcsec
    """
    angle = np.atleast_1d(conditions["parallactic_angle"].to_numpy()).astype(float)
    return np.stack(zenith_direction(jacobian, angle), axis=-1)


def check_conditions(conditions: xr.Dataset) -> None:
    """Refuse conditions that lack what refraction needs, or are of visits too low, by name."""
    missing = [name for name in FIELDS if name not in conditions]
    if missing:
        raise ValueError(f"conditions lack {', '.join(missing)}")
    known = {name: np.isfinite(conditions[name].to_numpy()) for name in FIELDS}
    wrong = [name for name, finite in known.items() if not finite.all()]
    if wrong:
        where = np.logical_and.reduce([np.atleast_1d(known[name]) for name in wrong])
        raise ValueError(
            f"conditions are not finite in {', '.join(wrong)}{_named(conditions, ~where)}"
        )
    altitude = np.atleast_1d(conditions["altitude"].to_numpy())
    low, high = ALTITUDES
    outside = ~((altitude >= low) & (altitude <= high))
    if outside.any():
        raise ValueError(
            f"altitude must be from {low:g} to {high:g} degree, got "
            f"{', '.join(f'{value:g}' for value in altitude[outside][:5])}"
            f"{_named(conditions, outside)}"
        )


def _named(conditions: xr.Dataset, which: NDArray[np.bool_]) -> str:
    """Return the words that name some visits, if they have names."""
    if v.VISIT not in conditions.coords:
        return ""
    names = np.atleast_1d(conditions[v.VISIT].to_numpy())[which]
    return f" (visits {', '.join(map(str, names[:20]))}{', …' if len(names) > 20 else ''})"
