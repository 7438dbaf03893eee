"""Templates as FITS files: image, variance, mask and point-spread function, with their projection.

The primary header says what the template is of: store, band, tract, patch, altitude, parallactic
angle and weather. ``MP_`` cards of the mask give the bit number of each plane.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from astropy.io import fits

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.storage.objects import medium_errors

__all__ = ["template_hdus", "write_template"]

_PLANES: Final = ("image", "variance", v.MASK)
_PIXELS: Final = (v.Y, v.X)


def write_template(
    path: str | os.PathLike[str],
    template: xr.Dataset,
    *,
    header: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a template as a FITS file.

    Parameters
    ----------
    path : path
        The file. It appears whole or not at all.
    template : Dataset, (y, x)
        ``image``, ``variance``, ``mask``, and ``psf`` (psf_y, psf_x) if it has one; attributes
        ``wcs`` (FITS keys of the tract) and ``box`` (y_start, y_stop, x_start, x_stop).
    header : mapping from name to text or number, optional
        Cards for the primary header; (value, comment) pairs may be given.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    SchemaError
        If planes or attributes are missing.
    StoreError
        If the file exists and is not to be replaced, or the medium refuses.
    """
    target = Path(path).expanduser()
    hdus = template_hdus(template, header=header)
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists: choose another name, or allow overwriting")
    with medium_errors(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(6)}.{target.name}")
        try:
            hdus.writeto(partial, checksum=True)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def template_hdus(template: xr.Dataset, *, header: Mapping[str, Any] | None = None) -> fits.HDUList:
    """Return the HDUs of a template; see `write_template`.

    Examples
    --------
    >>> plane = xr.DataArray(np.zeros((2, 3), "float32"), dims=("y", "x"), attrs={"units": "nJy"})
    >>> wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 101.0, "CRPIX2": 51.0}
    >>> template = xr.Dataset({"image": plane, "variance": plane, "mask": plane.astype("int32")},
    ...                       attrs={"wcs": wcs, "box": [10, 12, 20, 23]})
    >>> hdus = template_hdus(template, header={"BAND": "g"})
    >>> [hdu.name for hdu in hdus], hdus["IMAGE"].header["CRPIX1"], hdus["IMAGE"].header["BUNIT"]
    (['PRIMARY', 'IMAGE', 'VARIANCE', 'MASK'], 81.0, 'nJy')
    """
    missing = [name for name in _PLANES if name not in template]
    missing += [name for name in ("wcs", "box") if name not in template.attrs]
    if missing:
        raise SchemaError(f"a template needs {', '.join(missing)}")
    y_start, _, x_start, _ = (int(edge) for edge in template.attrs["box"])
    keys = dict(template.attrs["wcs"])
    keys["CRPIX1"] = float(keys["CRPIX1"]) - x_start
    keys["CRPIX2"] = float(keys["CRPIX2"]) - y_start
    primary = fits.PrimaryHDU()
    for name, value in (header or {}).items():
        primary.header[name] = value
    hdus: list[Any] = [primary]
    for name in _PLANES:
        values = template[name].transpose(*_PIXELS).values
        image = fits.ImageHDU(np.ascontiguousarray(values), name=name.upper())
        image.header.update(keys)
        if name != v.MASK:
            image.header["BUNIT"] = str(template[name].attrs.get("units", ""))
        hdus.append(image)
    legend = template[v.MASK].attrs
    names = str(legend.get("flag_meanings", "")).split()
    for plane, bit in zip(names, np.atleast_1d(legend.get("flag_masks", [])), strict=True):
        hdus[-1].header[f"HIERARCH MP_{plane}"] = int(bit).bit_length() - 1
    if "psf" in template:
        stamp = template["psf"].transpose(v.PSF_Y, v.PSF_X).values
        hdus.append(fits.ImageHDU(np.ascontiguousarray(stamp), name="PSF"))
    return fits.HDUList(hdus)
