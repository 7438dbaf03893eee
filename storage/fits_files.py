"""FITS files as they come: checked for completeness, their HDUs found, their pixels assembled.

Nothing in a header is trusted beyond its meaning: sizes are held against the camera before any
pixel is read, and no path is ever taken from one.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.algorithms.errors import IngestError
from skyloom.storage.camera import Camera
from skyloom.storage.camera_file import suggestion
from skyloom.storage.camera_model import Amplifier, Detector, HduName
from skyloom.storage.schemas import raw_schema

__all__ = [
    "Places",
    "cast_pixels",
    "find_files",
    "find_hdu",
    "hdu_name",
    "hdu_names",
    "missing_hdu",
    "open_fits",
    "pixel_type",
    "read_detector",
    "reading",
]

Places: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_BLOCK: Final = 2880
_SUFFIXES: Final = (".fits", ".fit", ".fts", ".fz")
_PACKED: Final = (".gz", ".bz2")
_EXACT_FLOAT32: Final = 2**24


def find_files(places: Places) -> list[Path]:
    """Return the FITS files among files and directories, sorted, each once.

    Parameters
    ----------
    places : path or sequence of path
        Files are taken whatever their name; directories are searched to any depth for names
        like ``*.fits``, ``*.fit``, ``*.fts``, ``*.fz`` and these with ``.gz`` or ``.bz2``.

    Returns
    -------
    list of Path
        Absolute. A file that does not exist is kept, to be rejected by name.

    Examples
    --------
    >>> [path.name for path in find_files("missing.fits")]
    ['missing.fits']
    """
    listed = [places] if isinstance(places, str | os.PathLike) else places
    found: set[Path] = set()
    for place in listed:
        path = Path(place).expanduser().absolute()
        if path.is_dir():
            for folder, _, names in os.walk(path):
                found.update(Path(folder, name) for name in names if _is_fits_name(name))
        else:
            found.add(path)
    return sorted(found)


def _is_fits_name(name: str) -> bool:
    stem = name.lower()
    for suffix in _PACKED:
        stem = stem.removesuffix(suffix)
    return stem.endswith(_SUFFIXES) and not name.startswith(".")


@contextlib.contextmanager
def open_fits(path: Path, *, verify: bool = False) -> Iterator[fits.HDUList]:
    """Open a FITS file after making sure it is whole.

    Parameters
    ----------
    path : Path
        Plain, gzip or bzip2 file.
    verify : bool
        Compare the data of every HDU that has a DATASUM key with it.

    Raises
    ------
    IngestError
        If the file is not there, not FITS, truncated or altered, or its headers cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> with open_fits(Path("missing.fits")):
    ...     pass
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.IngestError: missing.fits: there is no such file; check the path
    """
    with contextlib.ExitStack() as stack:
        with reading(path):
            stream = stack.enter_context(_plain_bytes(path))
            _check_whole(stream, path, verify)
            stream.seek(0)
            hdus = stack.enter_context(fits.open(stream, mode="readonly", memmap=False))
            len(hdus)  # read all headers now, where errors are understood
        yield hdus


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading a bad file raises into an `IngestError` with a remedy."""
    try:
        yield
    except IngestError:
        raise
    except FileNotFoundError as error:
        raise IngestError(f"{path}: there is no such file; check the path") from error
    except PermissionError as error:
        raise IngestError(f"{path}: permission is denied; make it readable") from error
    except EOFError as error:
        raise IngestError(f"{path}: the compressed file is truncated; fetch it again") from error
    except Exception as error:  # damaged files make readers fail in every possible way
        raise IngestError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); fetch it again"
        ) from error


@contextlib.contextmanager
def _plain_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file; a packed one is unpacked in memory, so that it is unpacked once only."""
    with open(path, "rb") as stream:
        magic = stream.read(3)
        stream.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield io.BytesIO(gzip.decompress(stream.read()))
        elif magic == b"BZh":
            yield io.BytesIO(bz2.decompress(stream.read()))
        else:
            yield stream


def _check_whole(stream: BinaryIO, path: Path, verify: bool) -> None:
    """Walk over the HDUs; raise `IngestError` if the file ends inside one or was altered."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    position = 0
    while position < size:
        start = stream.read(10)
        if not start.startswith((b"SIMPLE  =", b"XTENSION=")):
            if position == 0:
                raise IngestError(f"{path}: not a FITS file; check what it is")
            return  # special records after the last HDU are allowed
        stream.seek(position)
        try:
            header = fits.Header.fromfile(stream, endcard=True, padding=True)
        except OSError as error:
            raise IngestError(
                f"{path}: the header at byte {position} has no end: the file is truncated or "
                "damaged; fetch it again"
            ) from error
        span = -(-_data_bytes(header) // _BLOCK) * _BLOCK
        position = stream.tell() + span
        if position > size:
            raise IngestError(
                f"{path}: truncated: it ends {position - size} bytes before "
                f"{_hdu_label(header)} does; fetch it again"
            )
        expected = str(header.get("DATASUM", "")).strip()
        if verify and expected.isdigit() and _datasum(stream, span) != int(expected):
            raise IngestError(
                f"{path}: the data of {_hdu_label(header)} do not match its DATASUM: they were "
                "altered or damaged; fetch the file again, or remove the key if they are right"
            )
        stream.seek(position)
    if size == 0:
        raise IngestError(f"{path}: the file is empty; fetch it again")


def _datasum(stream: BinaryIO, span: int) -> int:
    """Return the ones' complement sum of 32-bit words that the FITS standard defines."""
    total = 0
    while span > 0:
        block = stream.read(min(span, 4096 * _BLOCK))
        span -= len(block)
        total += int(np.frombuffer(block, ">u4").sum(dtype=np.uint64))
        while total >> 32:
            total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _data_bytes(header: fits.Header) -> int:
    axes = [int(header[f"NAXIS{i + 1}"]) for i in range(int(header["NAXIS"]))]
    if header.get("GROUPS") and axes and axes[0] == 0:
        axes = axes[1:]  # random groups mark themselves with an empty first axis
    pixels = math.prod(axes) if axes else 0
    groups, extra = int(header.get("GCOUNT", 1)), int(header.get("PCOUNT", 0))
    return abs(int(header["BITPIX"])) // 8 * groups * (extra + pixels)


def _hdu_label(header: fits.Header) -> str:
    name = header.get("EXTNAME")
    return f"HDU {name}" if name else "an HDU without a name"


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
