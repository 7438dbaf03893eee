"""Where pixels lie on the sky: tangent planes that are linear in pixels.

The focal plane seen on the sky has east to the left of north (north up, x to the west) when the
rotator angle is 0; the angle is that of the focal plane's y axis, from north through east. Pixel
centres are integers from 0; angles are degrees. Positions behind the tangent point's horizon are
NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.focal_plane import to_pixels

__all__ = [
    "TangentPlane",
    "from_tangent_plane",
    "plane_of_header",
    "tangent_plane",
    "to_tangent_plane",
]

Floats = NDArray[np.float64]


class TangentPlane(NamedTuple):
    """A gnomonic projection whose plane is linear in the pixels of one detector.

    ``right_ascension`` and ``declination`` (degree) are those of the tangent point, which lies at
    pixel ``x``, ``y``; ``matrix`` (degree/pixel) takes pixel offsets (x, y) to offsets (east,
    north) in the tangent plane.
    """

    right_ascension: float
    declination: float
    x: float
    y: float
    matrix: Floats

    def header(self) -> dict[str, Any]:
        """Return the FITS keys of the projection; pixels count from 1 there.

        Examples
        --------
        >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
        >>> [plane.header()[key] for key in ("CTYPE1", "CRPIX1", "CRVAL2")]
        ['RA---TAN', 5.0, -20.0]
        """
        # the standard's default of LONPOLE is another one at the north pole
        keys: dict[str, Any] = {"RADESYS": "ICRS", "LONPOLE": 180.0}
        for axis, (kind, value, pixel) in enumerate(
            (("RA---TAN", self.right_ascension, self.x), ("DEC--TAN", self.declination, self.y)), 1
        ):
            keys |= {
                f"CTYPE{axis}": kind,
                f"CUNIT{axis}": "deg",
                f"CRVAL{axis}": float(value),
                f"CRPIX{axis}": float(pixel) + 1.0,
                f"CD{axis}_1": float(self.matrix[axis - 1, 0]),
                f"CD{axis}_2": float(self.matrix[axis - 1, 1]),
            }
        return keys

    def to_pixels(
        self, right_ascension: ArrayLike, declination: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Return the pixels (x, y) of positions on the sky (degree).

        Examples
        --------
        >>> plane = TangentPlane(10.0, 0.0, 4.0, 5.0, np.eye(2) / 3600)
        >>> x, y = plane.to_pixels(10.0, 1 / 3600)
        >>> float(x), round(float(y), 6)
        (4.0, 6.0)
        """
        east, north = to_tangent_plane(
            right_ascension, declination, self.right_ascension, self.declination
        )
        inverse = np.linalg.inv(self.matrix)
        return (
            np.asarray(self.x + inverse[0, 0] * east + inverse[0, 1] * north),
            np.asarray(self.y + inverse[1, 0] * east + inverse[1, 1] * north),
        )

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Return right ascension and declination (degree) of pixels.

        Examples
        --------
        >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
        >>> [round(float(angle), 6) for angle in plane.to_sky(4, 5)]
        [10.0, -20.0]
        """
        dx = np.asarray(x, dtype=np.float64) - self.x
        dy = np.asarray(y, dtype=np.float64) - self.y
        east = self.matrix[0, 0] * dx + self.matrix[0, 1] * dy
        north = self.matrix[1, 0] * dx + self.matrix[1, 1] * dy
        return from_tangent_plane(east, north, self.right_ascension, self.declination)


def tangent_plane(
    transform: Floats,
    *,
    right_ascension: float,
    declination: float,
    rotator_angle: float = 0.0,
    plate_scale: float,
) -> TangentPlane:
    """Return the projection of a detector for one pointing.

    Parameters
    ----------
    transform : ndarray, (2, 3), mm
        From trimmed pixels to the focal plane, see `skyloom.algorithms.focal_plane`.
    right_ascension, declination : float, degree
        Where the centre of the focal plane, (0, 0) mm, points.
    rotator_angle : float, degree
        Position angle of the focal plane's y axis, from north through east.
    plate_scale : float, arcsec/mm
        Scale of the focal plane; > 0.

    Returns
    -------
    TangentPlane

    Raises
    ------
    ValueError
        If the plate scale is not positive or the declination is beyond a pole.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> transform = detector_transform((101, 101), pixel_size=0.01)
    >>> plane = tangent_plane(transform, right_ascension=30, declination=5, plate_scale=20)
    >>> plane.x, plane.y, (plane.matrix * 3600).round(3).tolist()
    (50.0, 50.0, [[-0.2, 0.0], [0.0, 0.2]])
    """
    if not plate_scale > 0:
        raise ValueError(f"plate_scale must be > 0 arcsec/mm, got {plate_scale}")
    if not abs(declination) <= 90:
        raise ValueError(f"declination must be -90 to 90 degrees, got {declination}")
    turn = np.deg2rad(rotator_angle)
    sky = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    x, y = to_pixels(transform, 0.0, 0.0)
    matrix = plate_scale / 3600.0 * sky @ transform[:, :2] + 0.0
    return TangentPlane(float(right_ascension), float(declination), float(x), float(y), matrix)


def plane_of_header(header: Mapping[str, Any]) -> TangentPlane:
    """Return the projection that FITS keys describe, those of `TangentPlane.header`.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If the projection is not a tangent plane in degrees.

    Examples
    --------
    >>> plane = TangentPlane(10.0, -20.0, 4.0, 5.0, np.eye(2) / 3600)
    >>> again = plane_of_header(plane.header())
    >>> again.x, again.declination, bool((again.matrix == plane.matrix).all())
    (4.0, -20.0, True)
    """
    for key, kind in (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN")):
        if header[key] != kind:
            raise ValueError(f"{key} must be {kind}, got {header[key]!r}")
    for key in ("CUNIT1", "CUNIT2"):
        if header.get(key, "deg") != "deg":
            raise ValueError(f"{key} must be deg, got {header[key]!r}")
    matrix = np.array([[float(header[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)])
    return TangentPlane(
        float(header["CRVAL1"]),
        float(header["CRVAL2"]),
        float(header["CRPIX1"]) - 1.0,
        float(header["CRPIX2"]) - 1.0,
        matrix,
    )


def to_tangent_plane(
    right_ascension: ArrayLike, declination: ArrayLike, tangent_ra: float, tangent_dec: float
) -> tuple[Floats, Floats]:
    """Return offsets (east, north), degree, of sky positions in the plane at a tangent point.

    Examples
    --------
    >>> east, north = to_tangent_plane(10.5, 0.0, 10.0, 0.0)
    >>> round(float(east), 6), float(north)
    (0.500013, 0.0)
    """
    ra = np.asarray(right_ascension, dtype=np.float64) - tangent_ra
    ra = np.deg2rad(ra - 360.0 * np.round(ra / 360.0))
    dec = np.asarray(declination, dtype=np.float64)
    above = np.deg2rad(dec - tangent_dec)
    dec, dec_0 = np.deg2rad(dec), np.deg2rad(tangent_dec)
    # differences of angles and half angles, so that nothing cancels near the tangent point
    turned = 2.0 * np.sin(0.5 * ra) ** 2 * np.cos(dec)
    depth = np.cos(above) - turned * np.cos(dec_0)
    depth = np.where(depth > 0, depth, np.nan)
    east = np.cos(dec) * np.sin(ra) / depth
    north = (np.sin(above) + turned * np.sin(dec_0)) / depth
    return np.rad2deg(east), np.rad2deg(north)


def from_tangent_plane(
    east: ArrayLike, north: ArrayLike, tangent_ra: float, tangent_dec: float
) -> tuple[Floats, Floats]:
    """Return right ascension (0 to 360) and declination, degree, of offsets in a tangent plane.

    Examples
    --------
    >>> [round(float(angle), 6) for angle in from_tangent_plane(0.500013, 0.0, 10.0, 0.0)]
    [10.5, 0.0]
    """
    xi, eta = np.deg2rad(east), np.deg2rad(north)
    dec_0 = np.deg2rad(tangent_dec)
    depth = np.cos(dec_0) - eta * np.sin(dec_0)
    ra = np.rad2deg(np.arctan2(xi, depth)) + tangent_ra
    # hypot(xi, depth) - depth without cancelling, of which the parallel curves away from the plane
    across = np.hypot(xi, depth)
    with np.errstate(invalid="ignore", divide="ignore"):
        curved = np.where(depth > 0, xi**2 / (across + depth), across - depth)
    above = np.arctan2(eta - np.sin(dec_0) * curved, 1.0 + np.cos(dec_0) * curved)
    dec = np.clip(tangent_dec + np.rad2deg(above), -90.0, 90.0)
    return np.asarray(np.mod(ra, 360.0)), np.asarray(dec)
