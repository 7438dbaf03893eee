"""Stores of warps and coadds of black bodies, as if the flows before chromatic coadds made them.

Stars are evaluated wavelength by wavelength at places between pixels; nothing is interpolated.
Visits differ in their hour angles only, so that their conditions are those of a night.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import ObservingConditions, observing_conditions
from skyloom.algorithms.skymap import Patch, SkyMapParameters, Tract, make_skymap
from skyloom.algorithms.visit_conditions import visit_conditions
from skyloom.flows.dcr_blocks import patch_centre
from skyloom.flows.patches import patch_label, patch_sizes
from skyloom.storage.camera import load_camera
from skyloom.storage.records import Record
from skyloom.storage.schemas import raw_schema
from skyloom.storage.store import Store, create_store
from skyloom.storage.warp_schemas import coadd_schema, warps_schema
from tests.algorithms.dcr.analytic import G, scene

Floats = NDArray[np.float64]
FILTER: Final = "g"
BAND: Final = G.model_dump()
SITE: Final = {"longitude": -70.749417, "latitude": -30.244639, "height": 2663.0}
WEATHER: Final = {"temperature": 8.0, "pressure": 73892.0, "humidity": 30.0}
RIGHT_ASCENSION: Final = 150.0
SIDEREAL: Final = 360.98564736629
"""Degrees that the earth turns in a day."""
NOISE: Final = 5.0

Change = Callable[[int, NDArray[np.float32], NDArray[np.int32]], None]


class DcrScene:
    """Stars over a tract, seen at hour angles (degree; one for each visit, from 1 on).

    Parameters
    ----------
    hour_angles : sequence of float
    declination : float, degree
        Of the middle of the tract.
    side, patch : int, pixel
        Of the tract and of its patches.
    stars, seed : int
    fwhm : float, or one for each visit, pixel
        Seeing; headers tell it if visits differ.
    beta : float, optional
        Exponent of Moffat profiles; Gaussians if not given.
    flags : int
        Of the conditions that were recorded.
    """

    def __init__(
        self,
        hour_angles: Sequence[float],
        *,
        declination: float = -12.0,
        side: int = 96,
        patch: int = 96,
        stars: int = 14,
        seed: int = 1,
        fwhm: ArrayLike = 4.0,
        beta: float | None = None,
        flags: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.sky_map: dict[str, Any] = {
            "kind": "discrete",
            "tracts": [
                {
                    "right_ascension": RIGHT_ASCENSION,
                    "declination": declination,
                    "radius": 0.5 * (side - 2) * 0.2 / 3600.0,
                }
            ],
            "pixel_scale": 0.2,
            "tract_overlap": 0.0,
            "patch_shape": [patch, patch],
            "patch_border": 12,
        }
        self.tract: Tract = make_skymap(SkyMapParameters.model_validate(self.sky_map))[0]
        self.stars = scene(rng, max(self.tract.shape), stars)
        self.fwhm, self.beta, self.seed = np.asarray(fwhm, float), beta, seed
        self.flags = flags
        first = observing_conditions(60000.0, RIGHT_ASCENSION, declination, **SITE)
        days = [(angle - first.hour_angle) / SIDEREAL for angle in hour_angles]
        self.records: dict[int, ObservingConditions] = {
            visit: observing_conditions(
                60000.0 + day, RIGHT_ASCENSION, declination, **SITE, **WEATHER
            )
            for visit, day in enumerate(days, 1)
        }

    @property
    def visits(self) -> list[int]:
        """Return the numbers of the visits."""
        return list(self.records)

    def patches(self) -> list[Patch]:
        """Return the patches of the tract."""
        rows, columns = self.tract.grid
        return [self.tract.patch(index) for index in range(rows * columns)]

    def conditions(self) -> xr.Dataset:
        """Return the conditions of all visits in the middle of the tract."""
        return visit_conditions(self.records, patch_centre(self.tract, self.patches()[0]))

    def truth(self) -> Floats:
        """Return what visits show of the whole tract without noise, (visit, y, x)."""
        more = {} if self.beta is None else {"beta": self.beta}
        return self.stars.render(self.conditions(), self.fwhm, **more)

    def make(
        self, place: Path, change: Change | None = None, held_out: Sequence[int] = ()
    ) -> Store:
        """Return a store with warps and coadds, which do not have the visits held out.

        ``change(visit, image, mask)`` may change a warp of the whole tract.
        """
        rng = np.random.default_rng(self.seed + 1)
        shape = self.tract.shape
        truth = self.truth()[:, : shape[0], : shape[1]]
        images = (truth + rng.normal(0.0, NOISE, truth.shape)).astype(np.float32)
        masks = np.zeros(truth.shape, np.int32)
        for index, visit in enumerate(self.visits):
            if change is not None:
                change(visit, images[index], masks[index])
        store = create_store(place, load_camera("generic"))
        self._ingest(store)
        names = tuple(patch_label(0, patch.index) for patch in self.patches())
        sizes = patch_sizes(SkyMapParameters.model_validate(self.sky_map), names)
        attrs = {"sky_map": SkyMapParameters.model_validate(self.sky_map).model_dump(mode="json")}
        visits, patches = {v.VISIT: self.visits}, {v.PATCH: list(names)}
        store.prepare(warps_schema(v.NANOJANSKY), visits | patches, sizes=sizes, attrs=attrs)
        store.prepare(
            coadd_schema(v.NANOJANSKY), {v.FILTER: [FILTER]} | patches | visits,
            sizes=sizes, attrs=attrs,
        )  # fmt: skip
        for patch, name in zip(self.patches(), names, strict=True):
            box = patch.outer
            cut = (slice(None), slice(box.y_start, box.y_stop), slice(box.x_start, box.x_stop))
            self._write(store, name, images[cut], masks[cut], held_out)
        return store

    def _ingest(self, store: Store) -> None:
        labels: dict[str, Any] = {v.EXPOSURE: self.visits, v.DETECTOR: ["ccd"]}
        store.prepare(raw_schema("uint16"), labels, sizes={v.Y: 8, v.X: 8})
        for visit in self.visits:
            block = {v.EXPOSURE: visit, v.DETECTOR: "ccd"}
            headers = {"observation_type": v.SCIENCE, **self._headers(visit)}
            store.write_record(
                Record("ingest", block, "done", headers=headers, fingerprint=f"raw-{visit}")
            )

    def _headers(self, visit: int) -> dict[str, Any]:
        record = self.records[visit]
        return {
            "exposure_time": 30.0,
            "mjd_start": record.time,
            "mjd_middle": record.time,
            "right_ascension": record.right_ascension,
            "declination": record.declination,
            "condition_flags": record.flags | self.flags,
            v.FILTER: FILTER,
            **WEATHER,
            **({"seeing": 0.2 * float(self.fwhm[visit - 1])} if self.fwhm.ndim else {}),
            **{f"site_{name}": value for name, value in SITE.items()},
        }

    def _write(
        self, store: Store, name: str, images: NDArray[np.float32], masks: NDArray[np.int32],
        held_out: Sequence[int],
    ) -> None:  # fmt: skip
        dims = (v.Y, v.X)
        variance = np.full(images.shape[1:], NOISE**2, np.float32)
        for index, visit in enumerate(self.visits):
            good = (masks[index] & v.MASK_PLANES["NO_DATA"]) == 0
            data = xr.Dataset(
                {
                    "image": (dims, np.where(good, images[index], np.nan), {"units": "nJy"}),
                    "variance": (dims, np.where(good, variance, np.inf), {"units": "nJy2"}),
                    v.MASK: (dims, masks[index], v.mask_attributes()),
                    "masked_fraction": (dims, np.zeros_like(variance)),
                    "status": ((), np.uint8(0)),
                    "good_count": ((), np.int64(good.sum()), {"units": v.PIXEL}),
                },
                coords={key: ((), value) for key, value in self._headers(visit).items()},
            )
            block = {v.VISIT: visit, v.PATCH: name}
            store.write_block("warps", block, data)
            store.write_record(
                Record("warps", block, "done", fingerprint=f"warp-{visit}-{name}-{images.sum()}")
            )
        good = (masks & (v.MASK_PLANES["NO_DATA"] | v.MASK_PLANES["BAD"])) == 0
        good[np.isin(self.visits, held_out)] = False
        depth = good.sum(axis=0)
        some = depth > 0
        mean = np.where(
            some, np.where(good, images, 0.0).sum(axis=0) / np.maximum(depth, 1), np.nan
        )
        number = len(self.visits)
        units = {"units": "nJy2"}
        coadd = xr.Dataset(
            {
                "image": (dims, mean.astype(np.float32), {"units": "nJy"}),
                "variance": (dims, np.where(some, variance / np.maximum(depth, 1), np.inf), units),
                v.MASK: (dims, np.where(some, 0, v.MASK_PLANES["NO_DATA"]).astype(np.int32),
                         v.mask_attributes()),
                "n_image": (dims, depth.astype(np.int16)),
                "weight_sum": (dims, depth / variance, {"units": "nJy-2"}),
                "input_weight": (
                    v.VISIT,
                    np.where(np.isin(self.visits, held_out), 0.0, NOISE**-2),
                    {"units": "nJy-2"},
                ),
                "input_mean_variance": (v.VISIT, np.full(number, NOISE**2), units),
                "input_good_count": (v.VISIT, good.sum(axis=(1, 2)), {"units": v.PIXEL}),
                "input_status": (v.VISIT, np.zeros(number, np.uint8)),
                "artifact_count": (v.VISIT, np.zeros(number, np.int32)),
                "artifact_pixels": (v.VISIT, np.zeros(number, np.int64), {"units": v.PIXEL}),
            },
            coords={v.VISIT: self.visits},
        )  # fmt: skip
        for variable in coadd_schema(v.NANOJANSKY).variables:
            coadd[variable.name].attrs["units"] = variable.unit
            coadd[variable.name] = coadd[variable.name].astype(variable.dtype)
        block = {v.FILTER: FILTER, v.PATCH: name}
        store.write_block("coadd", block, coadd)
        store.write_record(
            Record("coadd", block, "done", fingerprint=f"coadd-{name}-{images.sum()}")
        )


SPREAD: Final = tuple(np.linspace(-58.0, 58.0, 9).tolist())
"""Hour angles of visits that tell colours well."""
