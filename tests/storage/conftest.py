"""Small cameras, raw exposures and products that the tests of the store share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.storage.camera import Camera, parse_camera
from skyloom.storage.dataset_schema import ProductSchema, Variable
from skyloom.storage.store import Store, create_store

TINY = """
name: tiny
pixel_type: {pixel_type}
layout: {{file: {file}, hdu: {hdu}, detector: [CCDNAME]}}
header:
  exposure: {{key: EXPID, required: true}}
  observation_type: {{key: OBSTYPE, required: true, values: {{flat field: flat, zero: bias}}}}
  exposure_time: {{key: EXPTIME, required: true}}
  mjd_start: [MJD-OBS, DATE-OBS]
  physical_filter: FILTER
  flux: FLUX
  read_noise: "RN{{amplifier}}"
  auxiliary: {{temperature: CCDTEMP, operator: OBSERVER}}
templates:
  amplifiers:
    half:
      segment: {{y: [0, 6], x: [0, 10]}}
      data: {{y: [0, 6], x: [0, 8]}}
      overscan: {{y: [0, 6], x: [8, 10]}}
      hdu: "{{detector}}-{{amplifier}}"
  detectors:
    ccd:
      shape: [6, 20]
      hdu: "{{detector}}"
      amplifiers:
        - {{name: A, template: half}}
        - {{name: B, template: half, origin: [0, 10]}}
detectors:
  - {{name: left, id: 11, template: ccd}}
  - {{name: right, id: 12, template: ccd}}
"""


def tiny_camera(
    *, pixel_type: str = "auto", file: str = "exposure", hdu: str = "detector"
) -> Camera:
    return parse_camera(TINY.format(pixel_type=pixel_type, file=file, hdu=hdu), "tiny.yaml")


@pytest.fixture
def make_camera() -> Callable[..., Camera]:
    return tiny_camera


@pytest.fixture
def camera() -> Camera:
    return tiny_camera()


@pytest.fixture
def store(tmp_path: Path, camera: Camera) -> Store:
    return create_store(tmp_path / "store", camera)


@pytest.fixture
def make_raws() -> Callable[..., dict[str, xr.Dataset]]:
    """Raw exposures of the tiny camera that differ from exposure to exposure."""

    def make(
        exposure: int, detectors: Sequence[str] = ("left", "right"), dtype: str = "uint16"
    ) -> dict[str, xr.Dataset]:
        rng = np.random.default_rng(exposure)
        coords = {
            "exposure": exposure,
            "exposure_time": 1.5 * exposure,
            "observation_type": "flat",
            "mjd_start": 60000.25 + exposure,
        }
        return {
            name: xr.Dataset(
                {"image": (("y", "x"), rng.integers(0, 60000, (6, 20)).astype(dtype))},
                coords=coords,
            )
            for name in detectors
        }

    return make


@pytest.fixture
def curve_schema() -> ProductSchema:
    """Grows in pairs like a photon transfer curve, and fans out over detectors."""
    block = ("detector",)
    return ProductSchema(
        "curve",
        ("detector", "pair", "amp", "lag_y"),
        block,
        (
            Variable("mean", ("detector", "pair", "amp"), unit="adu"),
            Variable("status", ("detector", "pair"), "uint8", fill=255),
            Variable("matrix", ("detector", "amp", "lag_y"), unit="1/electron"),
            Variable("remark", ("detector",), "int64", fill=-1, optional=True),
        ),
        growable=("pair",),
        step="solve",
    )


@pytest.fixture
def make_curve() -> Callable[..., xr.Dataset]:
    def make(
        pairs: Sequence[str], amps: Sequence[str] = ("A", "B"), seed: int = 0, **extra: Any
    ) -> xr.Dataset:
        rng = np.random.default_rng(seed)
        variables = {
            "mean": (("pair", "amp"), rng.normal(size=(len(pairs), len(amps))), {"units": "adu"}),
            "status": (("pair",), rng.integers(0, 9, len(pairs)).astype("uint8")),
            "matrix": (("amp", "lag_y"), rng.normal(size=(len(amps), 3)), {"units": "1/electron"}),
            **extra,
        }
        return xr.Dataset(variables, coords={"pair": list(pairs), "amp": list(amps)})

    return make
