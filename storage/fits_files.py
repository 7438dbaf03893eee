"""FITS files as they come: found, unpacked, and checked to be whole before they are read."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from astropy.io import fits

from skyloom.algorithms.errors import IngestError

__all__ = ["Places", "find_files", "open_fits", "reading"]

Places: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_BLOCK: Final = 2880
_SUFFIXES: Final = (".fits", ".fit", ".fts", ".fz")
_PACKED: Final = (".gz", ".bz2")


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
