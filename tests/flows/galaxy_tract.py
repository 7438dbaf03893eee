"""A tract with a galaxy that has a wide, faint halo, in visits with skies of their own.

Visits cover parts of the tract, turned and shifted. Each sky has a level, a gradient and a
curvature; together these change it by about two per cent of the level. Everything scales with the
side of the tract, but for the noise and the pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tract_scene as scene
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background, render_background
from skyloom.algorithms.matching import (
    TRACT_REJECTED_PLANES,
    MatchParameters,
    PolynomialBasis,
    TractBackgroundParameters,
    TractModelParameters,
    basis_at_bins,
    match_backgrounds,
    match_basis,
    measure_tract_background,
    tract_background,
)
from skyloom.algorithms.sky import mask_objects
from skyloom.algorithms.skymap import SkyMapParameters, Tract
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.flows.match_blocks import grid_of
from skyloom.storage.store import Store

__all__ = ["ORDER", "GalaxyTract"]

Floats = NDArray[np.float64]
VISITS, ORDER = 20, 2
STARS = 60
SKY, CHANGE = 1000.0, 0.02  # electron, and its relative change over a frame
DISK, HALO = 150.0, 20.0  # electron, at the middle
DISK_LENGTH, HALO_SIGMA = 1 / 60, 1 / 14  # of the side of the tract
ANNULUS = (0.07, 0.16)  # of the side, in which the halo is measured
FRAME = 0.76  # side of a frame, of that of the tract
STAR_RADIUS = 12.0  # pixel, within which stars are left out of the halo
AWAY = 0.25  # beyond which there is sky only, of the side
PIXEL_SCALE = 3600.0  # arcsec, over the side in pixels: the tract is a degree wide


class Sky(NamedTuple):
    """The sky of a visit: coefficients of 1, u, w, u^2, u w, w^2 of offsets from its middle."""

    terms: Floats
    seed: int


class GalaxyTract:
    """The scene, and what is measured of it.

    Parameters
    ----------
    side : int
        Of the tract, pixel.
    patch, bin_size : int
        Sides of patches and bins, pixel.
    seed : int
        Decides everything.
    """

    def __init__(self, side: int, patch: int, bin_size: int, *, seed: int = 4) -> None:
        rng = np.random.default_rng(seed)
        self.side, self.bin_size = side, bin_size
        self.sky_map = scene.sky_map(side, patch, PIXEL_SCALE / side)
        self.tract: Tract = scene.tract_of(self.sky_map)
        frame = int(FRAME * side)
        self.shape = (frame, frame)
        middles = side / 2 + side * rng.uniform(-0.24, 0.24, (VISITS, 2))
        turns = rng.uniform(-15, 15, VISITS)
        self.planes = {
            visit: scene.frame_plane(
                self.tract, self.shape, (middles[visit - 1][0], middles[visit - 1][1]),
                turns[visit - 1],
            )
            for visit in range(1, VISITS + 1)
        }  # fmt: skip
        self.skies = {}
        for visit in self.planes:
            level = SKY * (1 + 0.2 * rng.uniform(-1, 1))
            bends = 0.5 * CHANGE * level * rng.uniform(-1, 1, 5)
            self.skies[visit] = Sky(np.array([level, *bends]), 1000 * seed + visit)
        self.star_x, self.star_y = rng.uniform(0, side, (2, STARS))
        self.star_flux = 10 ** rng.uniform(2.5, 4.5, STARS)

    @property
    def middle(self) -> float:
        """Middle of the galaxy along both axes, pixel."""
        return (self.side - 1) / 2.0

    def galaxy(self, x: Floats, y: Floats) -> Floats:
        """Return the light of the galaxy at pixels of the tract, electron."""
        radius = np.hypot(x - self.middle, y - self.middle) / self.side
        halo = HALO * np.exp(-0.5 * (radius / HALO_SIGMA) ** 2)
        return np.asarray(DISK * np.exp(-radius / DISK_LENGTH) + halo)

    def background(self, visit: int, x: Floats, y: Floats) -> Floats:
        """Return the sky of a visit at pixels of its frame, electron."""
        u = 2.0 * x / (self.shape[1] - 1) - 1.0
        w = 2.0 * y / (self.shape[0] - 1) - 1.0
        terms = (np.ones_like(u), u, w, u**2, u * w, w**2)
        return np.asarray(
            sum(c * term for c, term in zip(self.skies[visit].terms, terms, strict=True))
        )

    def frame(self, visit: int, plane: TangentPlane) -> tuple[Floats, Floats]:
        """Return image and variance of a visit."""
        y, x = np.indices(self.shape, dtype=np.float64)
        at_x, at_y = self.tract.plane.to_pixels(*plane.to_sky(x, y))
        light = self.background(visit, x, y) + self.galaxy(at_x, at_y)
        sky = self.tract.plane.to_sky(self.star_x, self.star_y)
        star_x, star_y = plane.to_pixels(*sky)
        light += scene.moffat_stars(self.shape, star_x, star_y, self.star_flux, 3.0, 3.0)
        noise = np.random.default_rng(self.skies[visit].seed).standard_normal(self.shape)
        return light + np.sqrt(light) * noise, light

    def subtracted(self, visit: int, plane: TangentPlane, mesh: int) -> tuple[Floats, Floats]:
        """Return a visit less a background of its own, measured in a mesh."""
        image, variance = self.frame(visit, plane)
        dims = (v.Y, v.X)
        exposure = xr.Dataset(
            {
                "image": (dims, image.astype(np.float32), {"units": v.ELECTRON}),
                "variance": (dims, variance.astype(np.float32), {"units": v.ELECTRON2}),
                v.MASK: (dims, np.zeros(self.shape, np.int32), v.mask_attributes()),
            }
        )
        exposure[v.MASK] = mask_objects(exposure)
        found = measure_background(exposure, bin_size=(mesh, mesh))
        return image - render_background(found, self.shape).values.astype(np.float64), variance

    def make(self, place: Path, *, mesh: int | None = None) -> Store:
        """Return a store with the frames, less backgrounds of their own if there is a mesh."""

        def frame(visit: int, plane: TangentPlane) -> tuple[Floats, Floats]:
            if mesh is None:
                return self.frame(visit, plane)
            return self.subtracted(visit, plane, mesh)

        return scene.make_store(place, self.planes, self.shape, frame)

    # What is measured ---------------------------------------------------------------------

    def levels(self, store: Store) -> xr.Dataset:
        """Return the levels of the visits as matching takes them."""
        grid = self.grid()
        levels = store["tract_levels"].isel({v.TRACT: 0}).load().reset_coords(drop=True)
        levels = levels.isel({v.TRACT_Y: slice(0, grid.bins[0]), v.TRACT_X: slice(0, grid.bins[1])})
        return levels.assign_attrs(tract_shape=list(grid.shape), bin_size=list(grid.bin_size))

    def grid(self) -> Any:
        """Return the bins of the tract."""
        return grid_of(SkyMapParameters.model_validate(self.sky_map), 0, self.bin_size)

    def true_fields(self, visits: list[int]) -> Floats:
        """Return the skies of visits in the bins of the tract, electron/s."""
        y, x = (np.asarray(part) for part in self.grid().centers)
        at_x, at_y = np.meshgrid(x, y)
        sky = self.tract.plane.to_sky(at_x, at_y)
        found = [self.background(visit, *self.planes[visit].to_pixels(*sky)) for visit in visits]
        return np.stack(found) / scene.SECONDS

    def field_error(self, match: xr.Dataset, levels: xr.Dataset) -> float:
        """Return the rms error of the fields of visits, but for the field that all share.

        In the bins of each visit, relative to the noise of a bin.
        """
        functions = basis_at_bins(match_basis(match), self.grid())
        match = match.isel({v.VISIT: np.isfinite(match["coefficients"].values).all(axis=1)})
        visits = [int(visit) for visit in match[v.VISIT].values]
        fields = np.einsum("yxk,vk->vyx", functions, match["coefficients"].values)
        own = levels.sel({v.VISIT: visits})
        seen = (own["flags"].values & UNUSABLE) == 0
        error = np.where(seen, fields - self.true_fields(visits), np.nan)
        basis = PolynomialBasis(self.grid().shape, ORDER)
        design = np.broadcast_to(basis_at_bins(basis, self.grid()), (*error.shape, 6))
        known = np.isfinite(error)
        common = np.linalg.lstsq(design[known], error[known], rcond=None)[0]
        rest = error[known] - design[known] @ common
        noise = np.sqrt(np.nanmedian(np.where(seen, own["variance"].values, np.nan)))
        return float(np.sqrt(np.mean(rest**2)) / noise)

    def halo(self, store: Store) -> float:
        """Return the flux of the halo in the coadd over the truth.

        One background is taken from the coadd, a polynomial fitted away from the galaxy.
        """
        grid, done = self.grid(), store["coadd"].isel({v.FILTER: 0})
        pieces = []
        for label in done[v.PATCH].values:
            patch = self.tract.patch(int(str(label).split("-")[1]))
            coadd = store.read_block("coadd", {v.FILTER: scene.FILTER, v.PATCH: str(label)})
            height, width = patch.outer.shape
            part = coadd[["image", "variance", v.MASK]].isel(
                {v.Y: slice(0, height), v.X: slice(0, width)}
            )
            stars = self._near_stars(patch.outer)
            part[v.MASK] = part[v.MASK] | np.where(stars, v.MASK_PLANES["DETECTED"], 0)
            part[v.MASK].attrs = v.mask_attributes()
            part = part.drop_vars(v.PATCH).assign_coords({v.VISIT: 0, v.PATCH: patch.index})
            pieces.append(part.assign_attrs(box=list(patch.outer)))
        reject = (*TRACT_REJECTED_PLANES, "DETECTED")
        levels = tract_background(
            pieces, grid, parameters=TractBackgroundParameters(reject=reject, statistic="mean")
        ).isel({v.VISIT: 0})
        y, x = (np.asarray(part) for part in grid.centers)
        radius = np.hypot(y[:, None] - self.middle, x[None, :] - self.middle) / self.side
        near = xr.DataArray(radius < AWAY, dims=(v.TRACT_Y, v.TRACT_X))
        model = measure_tract_background(
            levels, objects=near, parameters=TractModelParameters(order=ORDER, grow=0.0)
        )
        rest = (levels["level"] - model["level"]).values
        true = self._light_in_bins()
        inside = (radius > ANNULUS[0]) & (radius < ANNULUS[1]) & np.isfinite(rest)
        return float(rest[inside].sum() / true[inside].sum())

    def _near_stars(self, box: Any) -> NDArray[np.bool_]:
        """Return which pixels of a box are near a star."""
        y, x = np.mgrid[box.y_start : box.y_stop, box.x_start : box.x_stop]
        near = np.zeros(y.shape, bool)
        for star_x, star_y in zip(self.star_x, self.star_y, strict=True):
            near |= np.hypot(y - star_y, x - star_x) < STAR_RADIUS
        return near

    def _light_in_bins(self) -> Floats:
        """Return the mean light of the galaxy in bins, electron/s."""
        rows, columns = self.grid().bins
        y, x = np.indices((rows * self.bin_size, columns * self.bin_size), dtype=np.float64)
        light = self.galaxy(x, y).reshape(rows, self.bin_size, columns, self.bin_size)
        return np.asarray(light.mean(axis=(1, 3)) / scene.SECONDS)

    def coverage(self, levels: xr.Dataset) -> dict[int, float]:
        """Return the fraction of the tract that each visit covers."""
        seen = ((levels["flags"].values & UNUSABLE) == 0).mean(axis=(1, 2))
        return dict(zip(levels[v.VISIT].values.tolist(), seen.tolist(), strict=True))

    def reference_error(self, levels: xr.Dataset, visit: int) -> float:
        """Return the error of the fields that match all visits to one."""
        parameters = MatchParameters(mode="reference", order=ORDER, reference_visit=visit)
        return self.field_error(match_backgrounds(levels, parameters=parameters), levels)

    def joint_error(self, store: Store, levels: xr.Dataset) -> float:
        """Return the error of the fields that the flow found."""
        match = store["background_match"].isel({v.FILTER: 0, v.TRACT: 0}).load()
        match = match.assign_attrs(
            store.attrs("background_match"), tract_shape=list(self.grid().shape)
        )
        return self.field_error(match, levels)


UNUSABLE = int(v.BinFlag.EMPTY | v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE)
