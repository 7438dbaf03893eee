"""Raw exposures written as FITS files that `ingest` reads back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.recorded_conditions import PRESSURE_UNITS
from skyloom.storage.camera import Camera
from skyloom.storage.camera_model import Box, Detector, HeaderKey
from skyloom.storage.fits_images import hdu_name
from skyloom.storage.projections import detector_move, moved

__all__ = ["write_raw_fits"]

_SCALARS = (
    "exposure_time",
    "dark_time",
    "mjd_start",
    "physical_filter",
    "observation_reason",
    "observation_program",
    "right_ascension",
    "declination",
    "rotator_angle",
    "airmass",
    "altitude",
    "hour_angle",
    "temperature",
    "pressure",
    "humidity",
    "longitude",
    "latitude",
    "height",
    "seeing",
    "zero_point",
    "flux",
    "photodiode_charge",
)


def write_raw_fits(
    path: str | os.PathLike[str],
    camera: Camera,
    raws: Mapping[str, xr.Dataset],
    headers: Mapping[str, Any] | None = None,
    *,
    compress: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one exposure as a FITS file in the layout of its camera.

    Values whose header key the camera looks for in the detector's HDU (``hdu: detector``) are
    written there, and so is its projection (the coordinate ``wcs``); all others go into the
    primary header.

    Parameters
    ----------
    path : path
        The file; a name that ends in ``.gz`` is compressed as a whole.
    camera : Camera
        Says which HDU holds what and which key means what.
    raws : mapping of str to Dataset
        ``image (y, x)`` in adu and the scalar coordinates of a raw dataset, by detector.
    headers : mapping, optional
        Further keys of the primary header, which win over those from coordinates; None leaves
        a key out.
    compress : bool
        Compress tile by tile (``.fz``), without loss.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a raw array has not the camera's shape, or the layout is one file per detector and
        there are several.
    OSError
        If the file exists and is not to be replaced, or cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr
    >>> from skyloom.storage.camera import load_camera
    >>> camera = load_camera("simulated-mosaic")
    >>> coords = {"exposure": 7, "exposure_time": 1.5, "observation_type": "flat"}
    >>> raw = xr.Dataset({"image": (("y", "x"), np.ones((512, 576), "uint16"))}, coords=coords)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_raw_fits(f"{folder}/7.fits", camera, {"S00": raw})
    ...     with fits.open(written) as hdus:
    ...         [hdu.name for hdu in hdus], hdus[0].header["EXPTIME"]
    (['PRIMARY', 'S00'], 1.5)
    """
    if not raws:
        raise ValueError("raws holds no detector")
    if camera.layout.file == "detector" and len(raws) > 1:
        raise ValueError(f"camera {camera.name} keeps one detector a file, not {sorted(raws)}")
    primary = fits.PrimaryHDU()
    first = next(iter(raws.values()))
    shared: dict[str, Any] = {**_mapped_keys(camera, first, own=False), **(headers or {})}
    if camera.layout.file == "detector":
        shared.setdefault(camera.layout.detector[0], next(iter(raws)))
    for key, value in shared.items():
        if value is not None:
            primary.header[key] = value
    images = []
    for name, raw in raws.items():
        parts = _images(camera, camera.detector(name), raw.image.transpose("y", "x").values)
        for _, header, _ in parts:
            own = _mapped_keys(camera, raw, own=True)
            header.update({key: value for key, value in own.items() if value is not None})
        if v.WCS in raw.coords and camera.header.wcs != "none":
            keys = json.loads(str(raw[v.WCS].values))
            parts[0][1].update(moved(keys, detector_move(camera, camera.detector(name)).reversed()))
        images += parts
    hdus = _arranged(primary, images, compress)
    target = Path(path)
    hdus.writeto(target, overwrite=overwrite, checksum=True)
    return target


def _mapped_keys(camera: Camera, raw: xr.Dataset, *, own: bool) -> dict[str, Any]:
    """Return header keys from scalar coordinates, by the camera's map read backwards.

    ``own`` chooses between the keys of the detector's HDU and all others.
    """
    header = camera.header
    keys: dict[str, Any] = {}
    if "exposure" in raw.coords and own == _is_own(header.exposure):
        keys[header.exposure.key[0]] = int(raw.exposure)
    if "observation_type" in raw.coords and own == _is_own(header.observation_type):
        meaning = str(raw.observation_type.values)
        table = header.observation_type.values
        given = next((given for given, each in table.items() if each == meaning), meaning)
        keys[header.observation_type.key[0]] = given
    mapped: dict[str, HeaderKey | None] = {name: getattr(header, name) for name in _SCALARS}
    for name, key in {**mapped, **header.auxiliary}.items():
        if key is None or name not in raw.coords or own != _is_own(key):
            continue
        value: Any = raw.coords[name].values[()]
        if isinstance(value, str):
            keys[key.key[0]] = value or None
        elif np.isfinite(value):
            offset = 2400000.5 if key.format == "jd" else 0.0
            unit = PRESSURE_UNITS[key.unit or v.PASCAL] if name == "pressure" else 1.0
            keys[key.key[0]] = float(value) / (key.scale * unit) + offset
    return keys


def _is_own(key: HeaderKey) -> bool:
    return key.hdu == "detector"


def _images(
    camera: Camera, detector: Detector, image: NDArray[Any]
) -> list[tuple[str, fits.Header, NDArray[Any]]]:
    """Return name, header and pixels of the HDUs of a detector."""
    if image.shape != detector.shape:
        raise ValueError(
            f"detector {detector.name} has the shape {detector.shape}, its image {image.shape}"
        )
    if camera.layout.hdu == "detector":
        header = fits.Header()
        for amp in detector.amplifiers:
            if len(amp.name) == 1:
                header[f"DATASEC{amp.name}"] = _section(amp.data)
                if amp.overscan.size:
                    header[f"BIASSEC{amp.name}"] = _section(amp.overscan)
        name = hdu_name(detector.hdu, detector) if isinstance(detector.hdu, str) else detector.name
        return [(name, header, image)]
    parts = []
    for amp in detector.amplifiers:
        box = amp.segment
        assert box is not None  # the camera's check guarantees it
        header = fits.Header()
        back = (-box.y[0], -box.x[0])
        header["DATASEC"] = _section(amp.data.shifted(back))
        if amp.overscan.size:
            header["BIASSEC"] = _section(amp.overscan.shifted(back))
        name = f"{detector.name}{amp.name}"
        if isinstance(amp.hdu, str):
            name = hdu_name(amp.hdu, detector, amp)
        parts.append((name, header, image[slice(*box.y), slice(*box.x)]))
    return parts


def _section(box: Box) -> str:
    """Return a box as FITS writes it: x first, from 1, ends included."""
    return f"[{box.x[0] + 1}:{box.x[1]},{box.y[0] + 1}:{box.y[1]}]"


def _arranged(
    primary: fits.PrimaryHDU,
    images: list[tuple[str, fits.Header, NDArray[Any]]],
    compress: bool,
) -> fits.HDUList:
    hdus: list[Any] = [primary]
    for name, header, pixels in images:
        if compress:
            # Rice is for whole numbers; floats are kept bit by bit only without quantisation.
            kind = "GZIP_2" if pixels.dtype.kind == "f" else "RICE_1"
            hdus.append(
                fits.CompImageHDU(
                    pixels, header, name=name, compression_type=kind, quantize_level=0
                )
            )
        else:
            hdus.append(fits.ImageHDU(pixels, header, name=name))
    return fits.HDUList(hdus)
