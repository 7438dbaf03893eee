"""A tract that many visits of a wide camera saw, without a pixel: what plans need is in records.

Detectors of 2048 x 4096 pixels lie in columns of nine; each visit is dithered and turned. The
products that a flow reads are prepared and their records written as a compacted run leaves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.skymap import SkyMapParameters, make_skymap
from skyloom.flows.flow import Flow
from skyloom.storage import records as book
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.frame_schemas import DETRENDED
from skyloom.storage.projections import SKY_CORNERS
from skyloom.storage.records import Label, Record
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store, create_store

__all__ = ["Survey", "mark_done", "placement", "pretend", "survey_store"]

Floats = NDArray[np.float64]

HEIGHT, WIDTH, GAP = 4096, 2048, 150
COLUMN = 9
"""Detectors of a column of the camera."""


@dataclass(frozen=True)
class Survey:
    """How large a tract is, and how often and with how many detectors it was seen."""

    patches: int = 10
    visits: int = 200
    detectors: int = 189
    inner: int = 4000

    @property
    def sky_map(self) -> dict[str, Any]:
        """Return the parameters of a map of one tract, whose outer patches reach 100 px out."""
        scale = 0.2
        radius = 0.5 * self.patches * self.inner * scale / 3600.0 - 2e-3
        return {
            "kind": "discrete",
            "tracts": [{"right_ascension": 150.0, "declination": 2.0, "radius": radius}],
            "pixel_scale": scale,
            "tract_overlap": 0.0,
            "patch_shape": [self.inner, self.inner],
            "sizing": "four_points",
        }


def survey_camera(path: Path, survey: Survey) -> Path:
    """Write a camera of equal detectors of one amplifier."""
    lines = [
        "name: wide",
        "pixel_type: uint16",
        "layout: {file: exposure, hdu: detector}",
        "header:",
        "  exposure: {key: EXPID, required: true}",
        "  observation_type: {key: OBSTYPE, required: true, values: {science: science}}",
        "  exposure_time: {key: EXPTIME, required: true}",
        "templates:",
        "  detectors:",
        "    ccd:",
        f"      shape: [{HEIGHT}, {WIDTH}]",
        "      amplifiers:",
        f"      - {{name: A, data: {{y: [0, {HEIGHT}], x: [0, {WIDTH}]}}}}",
        "detectors:",
    ]
    lines += [
        f"- {{name: D{index:03d}, id: {index}, hdu: D{index:03d}, template: ccd}}"
        for index in range(survey.detectors)
    ]
    path.write_text("\n".join(lines))
    return path


def placement(survey: Survey) -> tuple[Floats, Floats, Floats]:
    """Return by which angle each visit is turned and where its middle (x, y) lies in the tract.

    With it the centre (x, y) of each detector in the camera; angles in radian, all else in pixels.
    """
    index = np.arange(survey.detectors)
    rows, columns = index % COLUMN, index // COLUMN
    centers = np.column_stack(
        [
            (columns - columns.max() / 2.0) * (WIDTH + GAP),
            (rows - rows.max() / 2.0) * (HEIGHT + GAP),
        ]
    )
    rng = np.random.default_rng(1)
    side = survey.patches * survey.inner
    angle = rng.uniform(0, 2 * np.pi, survey.visits)
    return angle, side * rng.uniform(0.3, 0.7, (survey.visits, 2)), centers


def corners_of(survey: Survey) -> Floats:
    """Return right ascension and declination, (visit, detector, corner, 2), of all detectors."""
    tract = make_skymap(SkyMapParameters.model_validate(survey.sky_map))[0]
    angle, middle, centers = placement(survey)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * [WIDTH, HEIGHT]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    at = np.einsum("ijv,dcj->vdci", turn, centers[:, None] + corners) + middle[:, None, None]
    return np.stack(tract.plane.to_sky(at[..., 0], at[..., 1]), axis=-1)


def survey_store(folder: Path, survey: Survey) -> Store:
    """Return a store whose records say that everything was ingested and detrended."""
    camera = survey_camera(folder / "wide.yaml", survey)
    store = create_store(folder / "store", camera)
    labels = {
        "exposure": list(range(1, survey.visits + 1)),
        "detector": store.camera.detector_names(),
    }
    sizes = {"y": HEIGHT, "x": WIDTH}
    corners = corners_of(survey).round(9)
    headers = {
        (visit, name): {
            "exposure": visit,
            "observation_type": "science",
            "physical_filter": "r",
            "exposure_time": 30.0,
            "zero_point": 28.0,
            SKY_CORNERS: corners[i, j].tolist(),
        }
        for i, visit in enumerate(labels["exposure"])
        for j, name in enumerate(labels["detector"])
    }
    store.prepare(raw_schema("uint16"), labels, sizes=sizes)
    store.prepare(DETRENDED, labels, sizes=sizes)
    dims = ("exposure", "detector")
    mark_done(store, "ingest", dims, headers, headers)
    mark_done(store, DETRENDED.name, dims, headers)
    return store


def mark_done(
    store: Store,
    step: str,
    dims: tuple[str, ...],
    blocks: Iterable[tuple[Label, ...]],
    headers: Mapping[tuple[Label, ...], Mapping[str, Any]] | None = None,
) -> None:
    """Write the table of records that says that blocks of a step are done."""
    lines = []
    for number, labels in enumerate(blocks):
        record = Record(step, dict(zip(dims, labels, strict=True)), "done")
        found = {} if headers is None else headers[labels]
        done = replace(record, headers=found, fingerprint=f"{number:032x}", stamp=1)
        lines.append(book._encode(done))
    tables = Path(store.url.removeprefix("file://")) / "records" / step / "tables"
    tables.mkdir(parents=True)
    (tables / f"{1:020d}-00000000.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def pretend(flow: Flow) -> None:
    """Prepare the products of a flow and say that all their blocks are done."""
    for step in flow.steps:
        schema: ProductSchema = step.schema
        flow.store.prepare(schema, step.labels, sizes=step.sizes, attrs=step.attrs)
        mark_done(flow.store, step.name, step.dims, step.blocks())
