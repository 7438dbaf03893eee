"""Stores of frames of a simulated tract: one detector, one filter, exposures from the plane up.

Frames are written as if ingest and detrending had made them; everything after is that of the
flows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.simulate.stamps import add_stars
from skyloom.algorithms.skymap import SkyMapParameters, Tract, make_skymap
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.storage.camera import load_camera, parse_camera
from skyloom.storage.frame_schemas import DETRENDED
from skyloom.storage.projections import projection_text, sky_corners
from skyloom.storage.records import Record
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store, create_store

__all__ = ["SECONDS", "frame_plane", "make_store", "moffat_stars", "sky_map", "tract_of"]

RIGHT_ASCENSION, DECLINATION = 150.0, 2.0
SECONDS = 30.0
DETECTOR, FILTER = "ccd", "r"
Floats = NDArray[np.float64]


def sky_map(pixels: int, patch: int, scale: float, border: int = 20) -> dict[str, Any]:
    """Return a sky map of one tract of at least so many pixels, in square patches."""
    return {
        "kind": "discrete",
        "tracts": [
            {
                "right_ascension": RIGHT_ASCENSION,
                "declination": DECLINATION,
                "radius": 0.5 * (pixels - 2) * scale / 3600.0,
            }
        ],
        "pixel_scale": scale,
        "tract_overlap": 0.0,
        "patch_shape": [patch, patch],
        "patch_border": border,
    }


def tract_of(parameters: dict[str, Any]) -> Tract:
    """Return the tract of a sky map."""
    return make_skymap(SkyMapParameters.model_validate(parameters))[0]


def frame_plane(
    tract: Tract, shape: tuple[int, int], middle: tuple[float, float], turn: float
) -> TangentPlane:
    """Return the projection of a frame whose middle lies at a pixel (y, x) of a tract.

    Its pixels are as large as those of the tract, turned by some degrees.
    """
    ra, dec = tract.plane.to_sky(middle[1], middle[0])
    angle, scale = np.deg2rad(turn), tract.pixel_scale / 3600.0
    matrix = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return TangentPlane(float(ra), float(dec), (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0, matrix)


def moffat_stars(
    shape: tuple[int, int], x: Floats, y: Floats, flux: Floats, fwhm: float, beta: float
) -> Floats:
    """Return an image of Moffat stars at pixels of it."""
    image = np.zeros(shape)
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    inside = (x > -60) & (x < shape[1] + 60) & (y > -60) & (y < shape[0] + 60)
    reach = np.full(int(inside.sum()), 12.0 * fwhm)
    add_stars(image, x[inside], y[inside], flux[inside], reach, alpha, beta)
    return image


def make_store(
    place: Path,
    planes: dict[int, TangentPlane],
    shape: tuple[int, int],
    frame: Callable[[int, TangentPlane], tuple[Floats, Floats]],
) -> Store:
    """Return a store with frames, ``frame(visit, plane) -> image, variance`` in electron."""
    text = load_camera("generic").text
    text = text.replace("shape: [1024, 1056]", f"shape: [{shape[0]}, {shape[1] + 32}]")
    text = text.replace(
        "data: {y: [0, 1024], x: [0, 1024]}", f"data: {{y: [0, {shape[0]}], x: [0, {shape[1]}]}}"
    )
    text = text.replace(
        "overscan: {y: [0, 1024], x: [1024, 1056]}",
        f"overscan: {{y: [0, {shape[0]}], x: [{shape[1]}, {shape[1] + 32}]}}",
    )
    store = create_store(place, parse_camera(text, "the camera of the tract"))
    labels: dict[str, Any] = {v.EXPOSURE: sorted(planes), v.DETECTOR: [DETECTOR]}
    sizes = {v.Y: shape[0], v.X: shape[1] + 32}
    store.prepare(raw_schema("uint16"), labels, sizes=sizes)
    store.prepare(DETRENDED, {**labels, v.AMP: ["A"]}, sizes=dict(zip("yx", shape, strict=True)))
    for visit, plane in planes.items():
        keys = plane.header()
        headers = {
            "exposure_time": SECONDS,
            "observation_type": v.SCIENCE,
            "mjd_start": 60000.0 + visit / 100.0,
            v.FILTER: FILTER,
        }
        block = {v.EXPOSURE: visit, v.DETECTOR: DETECTOR}
        corners = sky_corners(keys, shape).tolist()
        store.write_record(
            Record("ingest", block, "done", headers={**headers, "sky_corners": corners},
                   fingerprint=f"raw-{visit}")
        )  # fmt: skip
        image, variance = frame(visit, plane)
        plane_dims = (v.Y, v.X)
        data = xr.Dataset(
            {
                "image": (plane_dims, image.astype(np.float32), {"units": v.ELECTRON}),
                "variance": (plane_dims, variance.astype(np.float32), {"units": v.ELECTRON2}),
                v.MASK: (plane_dims, np.zeros(shape, np.int32), v.mask_attributes()),
            },
            coords={**{name: ((), value) for name, value in headers.items()},
                    v.WCS: ((), projection_text(keys))},
        )  # fmt: skip
        store.write_block("detrended", block, data)
        store.write_record(Record("detrended", block, "done", fingerprint=f"frame-{visit}"))
    return store
