"""Sky frames as FITS files: the bins as an exposure, as other software keeps backgrounds.

A file holds the levels of the bins in the image HDU IMAGE, mask planes in MASK (``MP_`` cards give
the bit number of each plane) and variances in VARIANCE, and in the primary header the box of
pixels that the bins tile, inclusive (``BOX MINX`` to ``BOX MAXY``), and the interpolation between
them (``ALGORITHM``). This is the layout in which the LSST Science Pipelines keep sky frames; frames
that they wrote are read too. Whatever else a frame of skyloom holds is in further HDUs, so that it
comes back as it was, bit for bit.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.storage.objects import medium_errors

__all__ = ["read_sky_frame", "sky_frame_hdus", "write_sky_frame"]

BINS: Final = (v.BIN_Y, v.BIN_X)
STYLES: Final = {
    "natural_spline": "NATURAL_SPLINE",
    "akima": "AKIMA_SPLINE",
    "linear": "LINEAR",
    "constant": "CONSTANT",
}
"""Names of interpolations here and in the header."""

PLANES: Final = {"BAD": 0, "INTRP": 2, "EDGE": 4, "NO_DATA": 8}
"""Bit numbers of the mask planes that are written."""

MEANING: Final = {
    "NO_DATA": v.BinFlag.EMPTY,
    "INTRP": v.BinFlag.FILLED | v.BinFlag.EXTRAPOLATED,
    "BAD": v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE,
}
"""Flags of bins that a mask plane stands for."""

NAMES: Final = {"level": "IMAGE", "variance": "VARIANCE"}
REST: Final = "SKYLOOM"


def write_sky_frame(
    path: str | os.PathLike[str],
    frame: xr.Dataset,
    *,
    interpolation: str = "natural_spline",
    header: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the sky frame of one detector as a FITS file.

    Parameters
    ----------
    path : path
        The file. It appears whole or not at all.
    frame : Dataset, (bin_y, bin_x)
        ``level``, ``variance``, ``flags`` and more; attribute ``box``. A background does as well.
    interpolation : str
        How readers are to interpolate: natural_spline, akima, linear or constant.
    header : mapping from name to text or number, optional
        Cards for the primary header, such as filter, detector and exposures.
    overwrite : bool
        Replace a file that exists.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    SchemaError
        If the frame has more dimensions than bins, or no level or box.
    ValueError
        If the interpolation is unknown.
    StoreError
        If the file exists and is not to be replaced, or the medium refuses.

    Examples
    --------
    >>> import tempfile
    >>> level = xr.DataArray(np.array([[0.01, np.nan]], "float32"), dims=("bin_y", "bin_x"))
    >>> frame = xr.Dataset({"level": level}, attrs={"box": [0, 2, 0, 4]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_sky_frame(Path(folder) / "sky.fits", frame)
    ...     read_sky_frame(path).identical(frame)
    True
    """
    target = Path(path).expanduser()
    hdus = sky_frame_hdus(frame, interpolation=interpolation, header=header)
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists: choose another name, or allow overwriting")
    with medium_errors(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(6)}.{target.name}")
        try:
            hdus.writeto(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def sky_frame_hdus(
    frame: xr.Dataset,
    *,
    interpolation: str = "natural_spline",
    header: Mapping[str, Any] | None = None,
) -> fits.HDUList:
    """Return the HDUs of a sky frame; see `write_sky_frame`.

    Examples
    --------
    >>> level = xr.DataArray(np.zeros((1, 2), "float32"), dims=("bin_y", "bin_x"))
    >>> hdus = sky_frame_hdus(xr.Dataset({"level": level}, attrs={"box": [0, 2, 0, 4]}))
    >>> [hdu.name for hdu in hdus]
    ['PRIMARY', 'IMAGE', 'MASK', 'VARIANCE', 'SKYLOOM']
    >>> hdus[0].header["BOX MAXX"], hdus[0].header["ALGORITHM"]
    (3, 'NATURAL_SPLINE')
    """
    if interpolation not in STYLES:
        raise ValueError(f"interpolation must be one of {', '.join(STYLES)}, got {interpolation!r}")
    _check(frame)
    y_start, y_stop, x_start, x_stop = (int(edge) for edge in frame.attrs["box"])
    primary = fits.PrimaryHDU()
    cards = {"MINX": x_start, "MINY": y_start, "MAXX": x_stop - 1, "MAXY": y_stop - 1}
    for name, value in cards.items():
        primary.header[f"HIERARCH BOX {name}"] = (value, "pixel, inclusive")
    primary.header["HIERARCH ALGORITHM"] = (STYLES[interpolation], "interpolation")
    primary.header["OBSTYPE"] = "SKY"
    for name, value in (header or {}).items():
        text = value if isinstance(value, str | int | float | bool) else json.dumps(value)
        text = text.encode("ascii", "replace").decode() if isinstance(text, str) else text
        primary.header[name if len(name) <= 8 else f"HIERARCH {name}"] = text
    level = frame["level"].transpose(*BINS).values
    empty = np.full(level.shape, np.nan, np.float32)
    planes = {
        "IMAGE": level,
        "MASK": _mask(frame),
        "VARIANCE": frame["variance"].transpose(*BINS).values if "variance" in frame else empty,
    }
    images = [_image(name, plane) for name, plane in planes.items()]
    for name, bit in PLANES.items():
        images[1].header[f"HIERARCH MP_{name}"] = bit
    further = [
        _image(name, array.transpose(*BINS).values)
        for name, array in frame.data_vars.items()
        if array.dims and name not in NAMES
    ]
    return fits.HDUList([primary, *images, *further, _rest(frame)])


def read_sky_frame(path: str | os.PathLike[str]) -> xr.Dataset:
    """Return the sky frame in a FITS file.

    Parameters
    ----------
    path : path
        Written by `write_sky_frame`, or by the LSST Science Pipelines as an exposure.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        The frame as it was written. Of other software's frames: ``level``, ``variance`` and
        ``flags`` from the image, variance and mask planes NO_DATA, INTRP and BAD; attributes
        ``box``, ``interpolation``.

    Raises
    ------
    StoreError
        If the file cannot be read or does not hold a sky frame; the message names what is missing.
    """
    source = Path(path).expanduser()
    with medium_errors(f"read {source}"), fits.open(source, memmap=False) as hdus:
        header = hdus[0].header
        names = {hdu.name: hdu for hdu in hdus}
        for hdu in hdus:
            header = header if "BOX MINX" in header else hdu.header
        missing = [
            name for name in ("BOX MINX", "BOX MINY", "BOX MAXX", "BOX MAXY") if name not in header
        ]
        if missing or "IMAGE" not in names:
            what = [*missing, *([] if "IMAGE" in names else ["HDU IMAGE"])]
            raise StoreError(f"{source} is no sky frame: it has no {', '.join(what)}")
        if REST in names:
            return _restored(names)
        return _foreign(names, header)


def _check(frame: xr.Dataset) -> None:
    if "level" not in frame or "box" not in frame.attrs:
        raise SchemaError("a sky frame needs a variable level and the attribute box")
    for name, array in frame.data_vars.items():
        if array.dims and set(array.dims) != set(BINS):
            raise SchemaError(
                f"{name} has dimensions {array.dims}: a file holds one detector, with {BINS} alone"
            )


def _image(name: Any, values: NDArray[Any]) -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.ascontiguousarray(values), name=str(name).upper())
    hdu.header["INHERIT"] = True
    if name in ("IMAGE", "MASK", "VARIANCE"):
        hdu.header["EXTTYPE"] = name
    return hdu


def _mask(frame: xr.Dataset) -> NDArray[np.int32]:
    """Return mask planes for readers that know no flags of bins."""
    level = frame["level"].transpose(*BINS).values
    mask = np.where(np.isfinite(level), 0, 1 << PLANES["BAD"]).astype(np.int32)
    if "flags" in frame:
        flags = frame["flags"].transpose(*BINS).values
        for name, meaning in MEANING.items():
            mask[(flags & np.uint8(meaning)) != 0] |= 1 << PLANES[name]
    return mask


def _rest(frame: xr.Dataset) -> fits.BinTableHDU:
    """Return a table of all that is not an image: what, its name and its value as JSON."""
    rows: list[tuple[str, str, str]] = []
    for name, array in frame.variables.items():
        kind = "coordinate" if name in frame.coords else "variable"
        described = {"dims": list(array.dims), "dtype": str(array.dtype), "attrs": array.attrs}
        if kind == "coordinate" or not array.dims:
            described["values"] = array.values
        rows.append((kind, str(name), _json(described)))
    rows += [("attribute", str(name), _json(value)) for name, value in frame.attrs.items()]
    columns = [
        fits.Column(name, f"{max(len(text) for text in texts)}A", array=np.array(texts))
        for name, texts in zip(("kind", "name", "value"), zip(*rows, strict=True), strict=True)
    ]
    return fits.BinTableHDU.from_columns(columns, name=REST)


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _restored(names: Mapping[str, Any]) -> xr.Dataset:
    """Return a frame that skyloom wrote."""
    frame = xr.Dataset()
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for kind, name, text in names[REST].data:
        content = json.loads(text)
        if kind == "attribute":
            frame.attrs[str(name)] = content
            continue
        if "values" in content:
            values = np.array(content["values"], dtype=content["dtype"])
        else:
            values = _native(names[NAMES.get(name, str(name).upper())].data, content["dtype"])
            values = values if tuple(content["dims"]) == BINS else values.T
        chosen = coordinates if kind == "coordinate" else variables
        chosen[str(name)] = (tuple(content["dims"]), values, content["attrs"])
    return frame.assign(variables).assign_coords(coordinates)


def _foreign(names: Mapping[str, Any], header: fits.Header) -> xr.Dataset:
    """Return a frame that other software wrote."""
    level = _native(names["IMAGE"].data, "float32")
    variance = np.full(level.shape, np.nan, np.float32)
    if "VARIANCE" in names:
        variance = _native(names["VARIANCE"].data, "float32")
    flags = np.zeros(level.shape, np.uint8)
    if "MASK" in names:
        mask, cards = names["MASK"].data, names["MASK"].header
        for name, meaning in MEANING.items():
            if f"MP_{name}" in cards:
                found = (mask & (1 << int(cards[f"MP_{name}"]))) != 0
                # of several flags that a plane may stand for, the first
                first = next(flag for flag in v.BinFlag if flag and flag & meaning)
                flags[found] |= np.uint8(first)
    flags[~np.isfinite(level)] |= np.uint8(v.BinFlag.EMPTY)
    low = [int(header["BOX MINY"]), int(header["BOX MINX"])]
    high = [int(header["BOX MAXY"]) + 1, int(header["BOX MAXX"]) + 1]
    styles = {written: style for style, written in STYLES.items()}
    return xr.Dataset(
        {
            "level": (BINS, level, {"units": v.DIMENSIONLESS}),
            "variance": (BINS, variance, {"units": v.DIMENSIONLESS}),
            "flags": (BINS, flags, v.flag_attributes(v.BinFlag)),
        },
        attrs={
            "box": [low[0], high[0], low[1], high[1]],
            "interpolation": styles.get(str(header.get("ALGORITHM", "")).strip(), "natural_spline"),
        },
    )


def _native(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.array(values, dtype=dtype)
