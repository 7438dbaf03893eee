"""The world coordinate systems of detectors: read from headers, moved to trimmed pixels.

A projection is a mapping of FITS keys, kept as JSON text beside the pixels of a detector. It
counts the pixels of the trimmed detector, so that every product made of them shares it.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from skyloom.storage.camera import Camera
from skyloom.storage.camera_geometry import trimmed_boxes
from skyloom.storage.camera_model import Amplifier, Box, Detector

__all__ = [
    "SKY_CORNERS",
    "PixelMove",
    "detector_move",
    "moved",
    "projection_keys",
    "projection_text",
    "sky_corners",
]

_TEXTS: Final = ("CTYPE1", "CTYPE2", "RADESYS")
_NUMBERS: Final = ("CRVAL1", "CRVAL2", "LONPOLE", "LATPOLE", "EQUINOX")
_DISTORTION: Final = re.compile(r"(PV[12]_\d{1,2}|(A|B|AP|BP)_(\d{1,2}_\d{1,2}|ORDER|DMAX))")
_TERM: Final = re.compile(r"(A|B|AP|BP)_(\d+)_(\d+)")
_TABLES: Final = ("CPDIS1", "CPDIS2", "CQDIS1", "CQDIS2", "D2IMDIS1", "D2IMDIS2")
SKY_CORNERS: Final = "sky_corners"
"""Header value of an ingest record: right ascension and declination of four corners (degree)."""


class PixelMove(NamedTuple):
    """How pixels of one array count in another: ``sign * pixel + offset``, each (x, y)."""

    sign: tuple[int, int]
    offset: tuple[int, int]

    def reversed(self) -> PixelMove:
        """Return the way back.

        Examples
        --------
        >>> PixelMove((1, -1), (3, 9)).reversed()
        PixelMove(sign=(1, -1), offset=(-3, 9))
        """
        x, y = (-s * o for s, o in zip(self.sign, self.offset, strict=True))
        return PixelMove(self.sign, (x, y))


IDENTITY: Final = PixelMove((1, 1), (0, 0))


def projection_keys(header: fits.Header) -> dict[str, Any]:
    """Return the keys of the celestial projection of an image; empty if it has none.

    Scale and rotation come as CDi_j in degree, however the header writes them; distortion
    polynomials (SIP, TPV, ZPN and the like) are kept as they are.

    Parameters
    ----------
    header : Header
        Header of an image.

    Raises
    ------
    ValueError
        If the projection makes no sense, or has a distortion in tables.

    Examples
    --------
    >>> header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 2.0,
    ...                       "CRVAL1": 10.0, "CDELT1": -0.1, "CDELT2": 0.1})
    >>> keys = projection_keys(header)
    >>> keys["CRPIX1"], keys["CD1_1"], keys["CD2_1"]
    (2.0, -0.1, 0.0)
    """
    if "CTYPE1" not in header:
        return {}
    tables = [key for key in _TABLES if key in header]
    if tables:
        raise ValueError(f"its distortion is in tables ({', '.join(tables)})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            projection = WCS(header, naxis=2)
            matrix = projection.pixel_scale_matrix
    except Exception as error:  # wcslib has many ways to refuse a header
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(reason.strip()) from error
    if not projection.has_celestial:
        raise ValueError(f"{header['CTYPE1']}, {header.get('CTYPE2')} are no sky coordinates")
    if not (np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0):
        raise ValueError("its matrix has no inverse")
    keys: dict[str, Any] = {name: str(header[name]) for name in _TEXTS if name in header}
    keys |= {name: float(header[name]) for name in _NUMBERS if name in header}
    for axis in (1, 2):
        keys[f"CUNIT{axis}"] = "deg"
        keys[f"CRVAL{axis}"] = float(projection.wcs.crval[axis - 1])
        keys[f"CRPIX{axis}"] = float(projection.wcs.crpix[axis - 1])
        keys |= {f"CD{axis}_{other}": float(matrix[axis - 1, other - 1]) for other in (1, 2)}
    # The text of a number in a header may be a string; distortions of it are not.
    distortion = {str(k): header[k] for k in header if _DISTORTION.fullmatch(str(k))}
    keys |= {k: int(n) if k.endswith("ORDER") else float(n) for k, n in distortion.items()}
    return keys


def moved(keys: Mapping[str, Any], move: PixelMove) -> dict[str, Any]:
    """Return a projection that counts the pixels of another array.

    Parameters
    ----------
    keys : mapping
        As `projection_keys` returns them.
    move : PixelMove
        How the pixels of the projection count in the other array.

    Examples
    --------
    >>> keys = {"CRPIX1": 2.0, "CRPIX2": 5.0, "CD1_1": 1.0, "CD1_2": 2.0, "CD2_1": 3.0,
    ...         "CD2_2": 4.0, "A_2_0": 1e-5}
    >>> found = moved(keys, PixelMove((-1, 1), (9, 0)))
    >>> found["CRPIX1"], found["CD1_1"], found["CD1_2"], found["A_2_0"]
    (9.0, -1.0, 2.0, -1e-05)
    """
    result = dict(keys)
    for axis, (sign, offset) in enumerate(zip(move.sign, move.offset, strict=True), 1):
        # FITS counts from 1, skyloom from 0.
        result[f"CRPIX{axis}"] = sign * (float(keys[f"CRPIX{axis}"]) - 1.0) + offset + 1.0
        for other in (1, 2):
            result[f"CD{other}_{axis}"] = sign * float(keys[f"CD{other}_{axis}"])
    for key, value in keys.items():
        if term := _TERM.fullmatch(key):
            powers = int(term[2]), int(term[3])
            own = move.sign[0] if term[1].startswith("A") else move.sign[1]
            result[key] = float(value) * own * move.sign[0] ** powers[0] * move.sign[1] ** powers[1]
    return result


def detector_move(camera: Camera, detector: Detector) -> PixelMove:
    """Return how the pixels of a detector's image HDU count in the trimmed detector.

    Where each amplifier has its own HDU, it is the first amplifier's that counts.

    Raises
    ------
    ValueError
        If the raw array is not one piece of the trimmed detector: amplifiers with overscan
        between them.

    Examples
    --------
    >>> from skyloom.storage.camera import load_camera
    >>> camera = load_camera("decam")
    >>> detector_move(camera, camera.detector("S29"))
    PixelMove(sign=(1, 1), offset=(-56, -50))
    """
    if camera.header.wcs == "trimmed":
        return IDENTITY
    boxes = trimmed_boxes(detector)
    moves = {amp.name: _amplifier_move(amp, boxes[amp.name]) for amp in detector.amplifiers}
    first = moves[detector.amplifiers[0].name]
    if camera.layout.hdu == "detector" and len({*moves.values()}) > 1:
        raise ValueError(
            "the raw array is not one piece of the trimmed detector, so that its projection is "
            "not that of the trimmed one; if it is, set header.wcs: trimmed in the camera"
        )
    return first


def _amplifier_move(amp: Amplifier, trimmed: Box) -> PixelMove:
    origin = amp.segment or Box(y=(0, 0), x=(0, 0))
    moves = []
    for axis, flip in (("x", amp.flip_x), ("y", amp.flip_y)):
        start = getattr(amp.data, axis)[0] - getattr(origin, axis)[0]
        low, high = getattr(trimmed, axis)
        moves.append((-1, high - 1 + start) if flip else (1, low - start))
    (x_sign, x), (y_sign, y) = moves
    return PixelMove((x_sign, y_sign), (x, y))


def sky_corners(keys: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return where the outer corners of an image lie.

    Parameters
    ----------
    keys : mapping
        The projection.
    shape : (int, int)
        Rows and columns of the image.

    Returns
    -------
    array, (4, 2), degree
        Right ascension and declination, once around; NaN where the projection does not reach.

    Examples
    --------
    >>> keys = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 1.0, "CRPIX2": 1.0,
    ...         "CRVAL1": 10.0, "CRVAL2": 0.0, "CD1_1": -0.1, "CD1_2": 0.0, "CD2_1": 0.0,
    ...         "CD2_2": 0.1}
    >>> sky_corners(keys, (1, 1)).round(2)[0].tolist()
    [10.05, -0.05]
    """
    height, width = shape
    x = np.array([-0.5, width - 0.5, width - 0.5, -0.5])
    y = np.array([-0.5, -0.5, height - 0.5, height - 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        projection = WCS(fits.Header(dict(keys)), naxis=2)
    return np.stack(projection.all_pix2world(x, y, 0), axis=-1)


def projection_text(keys: Mapping[str, Any]) -> str:
    """Return a projection as the text that stores keep.

    Examples
    --------
    >>> projection_text({"CRPIX1": 2.0})
    '{"CRPIX1":2.0}'
    """
    return json.dumps(dict(keys), separators=(",", ":"))
