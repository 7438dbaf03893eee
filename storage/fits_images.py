"""HDUs and pixels of FITS files: found by the camera's description, assembled, cast.

Nothing in a header is trusted beyond its meaning: sizes are held against the camera before any
pixel is read, and no path is ever taken from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.storage.camera import Camera
from skyloom.storage.camera_file import suggestion
from skyloom.storage.camera_model import Amplifier, Detector, HduName
from skyloom.storage.schemas import raw_schema

__all__ = [
    "cast_pixels",
    "find_hdu",
    "hdu_name",
    "hdu_names",
    "missing_hdu",
    "pixel_type",
    "read_detector",
]

_EXACT_FLOAT32: Final = 2**24


def hdu_names(hdus: fits.HDUList) -> str:
    """Return index and name of the image HDUs, for messages."""
    images = [(index, hdu) for index, hdu in enumerate(hdus) if _is_image(hdu)]
    return ", ".join(f"{index} {hdu.name}".strip() for index, hdu in images) or "none"


def _is_image(hdu: Any) -> bool:
    return bool(hdu.is_image) and len(hdu.shape) == 2


def find_hdu(
    hdus: fits.HDUList,
    camera: Camera,
    name: HduName | None,
    detector: Detector,
    amplifier: Amplifier | None = None,
) -> int | None:
    """Return the index of an image HDU, None if the file does not have it.

    Parameters
    ----------
    hdus : HDUList
        The file.
    camera : Camera
        Says by which header key HDUs are identified.
    name : int or str
        Index, or value of that key; ``{detector}`` and ``{amplifier}`` stand for names.
    detector : Detector
        Whose HDU it is.
    amplifier : Amplifier, optional
        Whose HDU it is, where each amplifier has its own.
    """
    if isinstance(name, int):
        # A compressed image cannot be primary: it has moved to the next HDU.
        if name == 0 and len(hdus) > 1 and not hdus[0].shape:
            name = 1 if isinstance(hdus[1], fits.CompImageHDU) else name
        return name if name < len(hdus) and _is_image(hdus[name]) else None
    if name is None:
        return None
    wanted = hdu_name(name, detector, amplifier)
    for index, hdu in enumerate(hdus):
        value = hdu.header.get(camera.layout.identify)
        if value is not None and str(value).strip().upper() == wanted.upper() and _is_image(hdu):
            return index
    return None


def hdu_name(name: str, detector: Detector, amplifier: Amplifier | None = None) -> str:
    """Return the name of an HDU with the names of its detector and amplifier filled in."""
    filled = name.replace("{detector}", detector.name)
    return filled.replace("{amplifier}", amplifier.name) if amplifier else filled


def pixel_type(header: fits.Header) -> str:
    """Return the pixel type that holds an HDU's values without loss.

    Parameters
    ----------
    header : Header
        Header of an image HDU.

    Returns
    -------
    {"uint16", "int32", "float32"}

    Examples
    --------
    >>> from astropy.io import fits
    >>> pixel_type(fits.Header({"BITPIX": 16, "BZERO": 32768}))
    'uint16'
    >>> pixel_type(fits.Header({"BITPIX": 16}))
    'int32'
    """
    bits, zero = int(header["BITPIX"]), float(header.get("BZERO", 0.0))
    if bits < 0 or float(header.get("BSCALE", 1.0)) != 1.0 or "BLANK" in header:
        return "float32"
    if (bits, zero) in ((16, 32768.0), (8, 0.0)):
        return "uint16"
    unsigned = {8: -128.0, 32: 2.0**31, 64: 2.0**63}.get(bits)
    return "int32" if zero in (0.0, unsigned) else "float32"


def cast_pixels(pixels: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return pixels in another type, if that loses nothing.

    Parameters
    ----------
    pixels : array
        Of any number type. 64-bit floats are rounded to 32 bits, all else is exact.
    dtype : {"uint16", "int32", "float32"}
        The wanted type.

    Raises
    ------
    ValueError
        If some value cannot be held; the message says which type could.

    Examples
    --------
    >>> import numpy as np
    >>> cast_pixels(np.array([[1.0, 2.0]]), "uint16").dtype
    dtype('uint16')
    >>> cast_pixels(np.array([[-1, 2]]), "uint16")
    Traceback (most recent call last):
        ...
    ValueError: pixels from -1 to 2 do not fit uint16; set pixel_type: int32 in the camera
    """
    want = np.dtype(dtype)
    pixels = np.ascontiguousarray(pixels)
    if pixels.dtype == want or not pixels.size:
        return pixels.astype(want, copy=False)
    if pixels.dtype.kind == "f" and want.kind == "f":
        return pixels.astype(want)
    low, high = pixels.min(), pixels.max()
    if want.kind == "f":
        exact = max(abs(int(low)), abs(int(high))) <= _EXACT_FLOAT32
        better = "int32"
    else:
        limits = np.iinfo(want)
        better = "int32" if want == np.uint16 and pixels.dtype.kind in "iu" else "float32"
        exact = bool(low >= limits.min and high <= limits.max)  # False for NaN
        if exact and pixels.dtype.kind == "f":
            exact = bool(np.array_equal(pixels, np.rint(pixels)))
    if not exact:
        raise ValueError(
            f"pixels from {low} to {high} do not fit {dtype}; set pixel_type: {better} in the "
            "camera"
        )
    return pixels.astype(want)


def read_detector(
    hdus: fits.HDUList, detector: Detector, where: Sequence[int], dtype: str
) -> NDArray[Any]:
    """Return the raw array of a detector, put together from its HDUs.

    Parameters
    ----------
    hdus : HDUList
        The file.
    detector : Detector
        Says where the HDU of each amplifier goes, if there are several.
    where : sequence of int
        Index of the detector's HDU, or of those of its amplifiers in order.
    dtype : {"uint16", "int32", "float32"}
        Pixel type of the result.

    Returns
    -------
    array, (y, x)

    Raises
    ------
    ValueError
        If pixels cannot be read, do not fit the type, or none of them is finite.
    """
    if len(where) == 1 and hdus[where[0]].shape == detector.shape:
        raw = cast_pixels(_pixels(hdus[where[0]]), dtype)
    else:
        fill = raw_schema(dtype).variable("image").fill
        raw = np.full(detector.shape, fill, dtype)
        for amp, index in zip(detector.amplifiers, where, strict=True):
            box = amp.segment
            assert box is not None  # the camera's check guarantees it
            raw[slice(*box.y), slice(*box.x)] = cast_pixels(_pixels(hdus[index]), dtype)
    if raw.dtype.kind == "f" and not np.isfinite(raw).any():
        raise ValueError("no pixel is finite; there is nothing to use in this image")
    return raw


def _pixels(hdu: Any) -> NDArray[Any]:
    try:
        pixels: NDArray[Any] = hdu.data
    except Exception as error:  # damaged pixels make readers fail in every possible way
        raise ValueError(
            f"pixels cannot be read ({type(error).__name__}: {error}); fetch the file again"
        ) from error
    return pixels


def missing_hdu(
    hdus: fits.HDUList,
    name: HduName | None,
    detector: Detector,
    amplifier: Amplifier | None = None,
) -> str:
    """Return a message about an HDU that is not there, with what is and what may be meant."""
    wanted = hdu_name(name, detector, amplifier) if isinstance(name, str) else str(name)
    whose = f"detector {detector.name}" + (f", amplifier {amplifier.name}" if amplifier else "")
    hint = suggestion(wanted.upper(), [hdu.name for hdu in hdus if hdu.name])
    return (
        f"HDU {wanted} ({whose}) is missing or not an image; the images are {hdu_names(hdus)}{hint}"
    )
