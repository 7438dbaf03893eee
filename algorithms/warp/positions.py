"""Positions on the sky of pixels, and the reverse, for any description of that relation.

Pixels are (x, y) with centres at integers from 0; sky positions are ICRS, degree. What no
projection reaches is NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, NoConvergence
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.tangent_plane import TangentPlane

__all__ = ["PixelsOnSky", "SkyPixels", "header_of", "sky_pixels"]

Floats = NDArray[np.float64]
ROUND_TRIP = 1e-3  # pixels


@runtime_checkable
class PixelsOnSky(Protocol):
    """What a description of the sky must offer, as `astropy.wcs.WCS` does; degrees."""

    def pixel_to_world_values(self, *pixels: Any) -> Any:
        """Return right ascension and declination of pixels x, y."""
        ...

    def world_to_pixel_values(self, *world: Any) -> Any:
        """Return the pixels x, y of right ascension and declination."""
        ...


class SkyPixels(Protocol):
    """Pixels to ICRS and back, arrays in, arrays out."""

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degree."""
        ...

    def to_pixels(
        self, right_ascension: ArrayLike, declination: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Return x and y."""
        ...


class _Described:
    """Any object with the two methods of `PixelsOnSky`, taken as ICRS."""

    def __init__(self, given: PixelsOnSky) -> None:
        self.given = given

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degree."""
        return _pair(self.given.pixel_to_world_values(np.array(x, float), np.array(y, float)))

    def to_pixels(
        self, right_ascension: ArrayLike, declination: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Return x and y."""
        return _pair(
            self.given.world_to_pixel_values(
                np.array(right_ascension, float), np.array(declination, float)
            )
        )


class _Fits:
    """A celestial WCS of FITS, with whatever distortion and frame it has.

    A copy of the given one, since its C part may not be used by two threads at a time.
    """

    def __init__(self, given: WCS) -> None:
        self.wcs = given.deepcopy()
        self.order = (given.wcs.lng, given.wcs.lat)
        self.frame = _frame(given)

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degree."""
        world = _pair(self.wcs.all_pix2world(np.array(x, float), np.array(y, float), 0))
        longitude, latitude = (world[axis] for axis in self.order)
        if self.frame is None:
            return longitude, latitude
        return _turned(longitude, latitude, self.frame, "icrs")

    def to_pixels(
        self, right_ascension: ArrayLike, declination: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Return x and y."""
        sky = _pair((right_ascension, declination))
        if self.frame is not None:
            sky = _turned(*sky, "icrs", self.frame)
        world = [sky[self.order.index(axis)] for axis in (0, 1)]
        if not self.wcs.has_distortion:
            return _pair(self.wcs.wcs_world2pix(*world, 0))
        try:
            # the default tolerance of the inversion, 1e-4 pixel, is not enough
            return _pair(self.wcs.all_world2pix(*world, 0, tolerance=1e-7, maxiter=40))
        except NoConvergence as failure:
            x, y = np.array(failure.best_solution, float).T
            for kind in (failure.divergent, failure.slow_conv):
                if kind is not None:
                    x.ravel()[kind] = y.ravel()[kind] = np.nan
            return x.reshape(np.shape(sky[0])), y.reshape(np.shape(sky[0]))


def _pair(values: Any) -> tuple[Floats, Floats]:
    first, second = (np.asarray(value, np.float64) for value in values)
    return first, second


def _frame(wcs: WCS) -> Any:
    """Return the frame of a WCS; None if it is ICRS."""
    kinds = {name[:4] for name in wcs.wcs.ctype}
    if wcs.wcs.radesys.strip() == "ICRS" and kinds == {"RA--", "DEC-"}:
        return None
    # takes a second to import, and most images are in ICRS
    from astropy.wcs.utils import wcs_to_celestial_frame

    return wcs_to_celestial_frame(wcs)


def _turned(longitude: Floats, latitude: Floats, given: Any, wanted: Any) -> tuple[Floats, Floats]:
    """Return positions of one frame in another; NaN stays NaN."""
    from astropy.coordinates import SkyCoord

    known = np.isfinite(longitude) & np.isfinite(latitude)
    found = np.full((2, *np.shape(longitude)), np.nan)
    place = SkyCoord(longitude[known], latitude[known], frame=given, unit="deg")
    turned = place.transform_to(wanted).spherical
    found[0][known], found[1][known] = turned.lon.deg, turned.lat.deg
    return found[0], found[1]


def sky_pixels(wcs: Any, *, name: str = "wcs", shape: tuple[int, int] | None = None) -> SkyPixels:
    """Return the relation between pixels and ICRS that an object describes, checked.

    Parameters
    ----------
    wcs : TangentPlane, astropy.wcs.WCS, mapping of FITS keys, their JSON text, or object
        Any celestial WCS that astropy reads. Other objects need ``pixel_to_world_values`` and
        ``world_to_pixel_values``, in degrees of ICRS.
    name : str
        What errors call it.
    shape : (int, int), optional
        Rows and columns of the image; the relation is then tried at its centre.

    Raises
    ------
    GeometryError
        If there is none, it is not a relation between two axes of pixels and the sky, its
        matrix is singular, or the way to the sky and back does not end where it began.

    Examples
    --------
    >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
    >>> ra, dec = sky_pixels(plane.header()).to_sky(4.0, 5.0)
    >>> round(float(ra), 9), round(float(dec), 9)
    (10.0, -20.0)
    """
    if wcs is None:
        raise GeometryError(f"{name} is missing: the image cannot be placed on the sky")
    if isinstance(wcs, str):
        wcs = _parsed(wcs, name)
    if isinstance(wcs, Mapping):
        wcs = _read(wcs, name)
    if isinstance(wcs, TangentPlane):
        found: SkyPixels = wcs
    elif isinstance(wcs, WCS):
        found = _checked_fits(wcs, name)
    elif isinstance(wcs, PixelsOnSky):
        found = _Described(wcs)
    else:
        raise GeometryError(
            f"{name} must be a TangentPlane, an astropy WCS, FITS keys as mapping or JSON, or have "
            f"pixel_to_world_values and world_to_pixel_values, got {type(wcs).__name__}"
        )
    if shape is not None:
        _try_centre(found, shape, name)
    return found


def header_of(wcs: Any) -> dict[str, Any]:
    """Return the FITS keys of a WCS as a dictionary that JSON can hold; empty if it has none.

    Examples
    --------
    >>> header_of(TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600))["CRPIX1"]
    5.0
    """
    if isinstance(wcs, str):
        return dict(_parsed(wcs, "wcs"))
    if isinstance(wcs, Mapping):
        return dict(wcs)
    if isinstance(wcs, TangentPlane):
        return wcs.header()
    if isinstance(wcs, WCS):
        return {str(key): value for key, value in wcs.to_header(relax=True).items() if key}
    return {}


def _parsed(text: str, name: str) -> Mapping[str, Any]:
    try:
        keys = json.loads(text)
    except json.JSONDecodeError as failure:
        raise GeometryError(f"{name} is no JSON text of FITS keys: {failure}") from failure
    if not isinstance(keys, dict) or not keys:
        raise GeometryError(f"{name} is no JSON text of FITS keys: {text[:80]!r}")
    return keys


def _read(keys: Mapping[str, Any], name: str) -> WCS:
    header = keys if isinstance(keys, fits.Header) else fits.Header(dict(keys))
    try:
        # mended in the second step, which unlike the first does not warn of each date and unit
        wcs = WCS(header, fix=False)
        wcs.wcs.fix()
        return wcs
    except Exception as failure:
        raise GeometryError(f"{name} cannot be read from its FITS keys: {failure}") from failure


def _checked_fits(wcs: WCS, name: str) -> _Fits:
    kinds = ", ".join(repr(str(kind)) for kind in wcs.wcs.ctype)
    if wcs.naxis != 2:
        raise GeometryError(f"{name} has {wcs.naxis} axes (CTYPE {kinds}), needs 2")
    if not wcs.has_celestial:
        raise GeometryError(f"{name} has no celestial axes: CTYPE are {kinds}")
    try:
        return _Fits(wcs)
    except Exception as failure:
        raise GeometryError(f"{name} cannot be used (CTYPE {kinds}): {failure}") from failure


def _try_centre(pixels: SkyPixels, shape: tuple[int, int], name: str) -> None:
    x, y = np.array([(shape[1] - 1) / 2]), np.array([(shape[0] - 1) / 2])
    try:
        ra, dec = pixels.to_sky(x, y)
        back = pixels.to_pixels(ra, dec)
    except Exception as failure:
        raise GeometryError(f"{name} cannot be used: {failure}") from failure
    if not np.isfinite((*ra, *dec)).all():
        raise GeometryError(f"{name} gives no sky position of the centre of the image")
    error = float(np.hypot(back[0] - x, back[1] - y)[0])
    if not error <= ROUND_TRIP:
        raise GeometryError(
            f"{name} contradicts itself: from pixel ({x[0]}, {y[0]}) to the sky and back ends "
            f"{error:.3g} pixels away"
        )
