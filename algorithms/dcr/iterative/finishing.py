"""What the tiles of an iteration give together: a model and what is to be known of it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import FIELDS
from skyloom.algorithms.dcr.identifiability import band_vectors, identifiability
from skyloom.algorithms.dcr.iterative.forward import Geometry, predict_visit, prepared_planes
from skyloom.algorithms.dcr.iterative.iteration import Iterated, IterativeTile
from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters
from skyloom.algorithms.dcr.iterative.psf_choice import choose_psf
from skyloom.algorithms.dcr.model import stack_planes
from skyloom.algorithms.dcr.patch import DcrSolution
from skyloom.algorithms.dcr.tiles import Tile
from skyloom.algorithms.dcr.transfer import PointSpreads, point_spreads

__all__ = ["Gathered", "Loaded", "Setting", "TileFound", "finished", "found_in"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]


class Loaded(NamedTuple):
    """The data of a tile in its buffer, and the inverse variances (visit, y, x) without it, 0
    where a pixel is bad."""

    tile: IterativeTile
    inverse: Images


class Setting(NamedTuple):
    """What the whole patch is solved with."""

    warps: xr.Dataset
    template: xr.Dataset
    table: xr.Dataset
    band: Band
    matrix: Floats
    geometry: Geometry
    parameters: IterativeParameters


class TileFound(NamedTuple):
    """What a tile gives: its iteration without the buffer; of the pixels that are its own alone
    ``weight_sum`` and ``visit_count`` (y, x), and of each visit the sum of ``weights``, chi2 at
    sources and the ``pixels`` of it."""

    found: Iterated
    weight_sum: Floats
    visit_count: NDArray[np.int64]
    weights: Floats
    chi2: Floats
    pixels: NDArray[np.int64]


class Gathered:
    """What the tiles gave, added up."""

    def __init__(self, visits: int, subfilters: int, shape: tuple[int, ...]) -> None:
        self.planes = np.zeros((subfilters, *shape), np.float32)
        self.counts = np.zeros_like(self.planes)
        self.visit_count = np.zeros(shape, np.int16)
        self.weight_sum = np.zeros(shape, np.float32)
        self.chi2, self.pixels = np.zeros(visits), np.zeros(visits, np.int64)
        self.weights, self.area = np.zeros(visits), 0
        self.tiles: list[Iterated] = []

    def add(self, tile: Tile, one: TileFound) -> None:
        """Add what a tile gave."""
        weight, at = tile.weight(), (tile.rows, tile.columns)
        self.planes[:, *at] += weight * one.found.planes
        self.counts[:, *at] += weight * one.found.counts
        self.weight_sum[tile.own] = one.weight_sum
        self.visit_count[tile.own] = one.visit_count
        self.weights += one.weights
        self.area += one.weight_sum.size
        self.tiles.append(one.found)
        self.chi2 += one.chi2
        self.pixels += one.pixels


def found_in(
    loaded: Loaded, iterated: Iterated, tile: Tile, geometry: Geometry, reach: int
) -> TileFound:
    """Return what an iteration gives, without the buffer of its tile."""
    inside = (slice(None), slice(reach, -reach), slice(reach, -reach))
    prepared = prepared_planes(iterated.planes, 1.0, geometry.order)
    own = loaded.inverse[:, *tile.inner]
    counted = np.zeros(loaded.inverse.shape[1:], bool)
    counted[tile.inner] = loaded.tile.detected[inside[1:]][tile.inner]
    visits = len(loaded.inverse)
    chi2, pixels = np.zeros(visits), np.zeros(visits, np.int64)
    for visit, inverse in enumerate(loaded.inverse):
        good = counted & (inverse > 0)
        if good.any():
            lacking = loaded.tile.images[visit] - predict_visit(prepared, geometry, visit)
            squares = np.square(lacking[inside[1:]][good], dtype=np.float64) * inverse[good]
            chi2[visit], pixels[visit] = squares.sum(), good.sum()
    return TileFound(
        iterated._replace(
            planes=iterated.planes[inside].copy(), counts=iterated.counts[inside].copy()
        ),
        own.sum(axis=0, dtype=np.float64),
        (own > 0).sum(axis=0),
        own.sum(axis=(1, 2), dtype=np.float64),
        chi2,
        pixels,
    )


def finished(setting: Setting, model: xr.Dataset, found: Gathered, taper: Images) -> DcrSolution:
    """Return model and diagnostics."""
    p, template = setting.parameters, setting.template
    names = setting.warps[v.VISIT].to_numpy()
    spreads: PointSpreads = point_spreads(setting.warps, False)
    weights = found.weights / max(found.area, 1)
    pixels, planes = (v.Y, v.X), (v.SUBFILTER, v.Y, v.X)
    units = model["model"].attrs
    known = np.isfinite(template["image"].to_numpy())
    done = model.assign(
        {
            "model": (planes, np.where(known, found.planes, np.float32(0.0)), units),
            "n_image": (planes, np.rint(found.counts).astype(np.int16)),
            "visit_count": (pixels, found.visit_count),
            "weight_sum": (pixels, found.weight_sum),
            "model_weight": (pixels, taper),
        }
    )
    whole = stack_planes(done) if p.measure_psf else None
    psf = choose_psf(spreads, weights, template, whole)
    visits = {
        name: (v.VISIT, setting.table[name].to_numpy(), setting.table[name].attrs)
        for name in FIELDS
    }
    done = done.assign(
        {
            "covariance": ((v.SUBFILTER, f"{v.SUBFILTER}_2"), _covariance(done["variance"])),
            "psf": psf.image,
            "psf_fwhm": (v.VISIT, spreads.fwhm, {"units": v.PIXEL}),
            "mean_weight": (v.VISIT, weights),
            **visits,
        }
    ).assign_coords({v.VISIT: names})
    done.attrs |= {
        "band_definition": setting.band.model_dump_json(),
        "jacobian": json.dumps(setting.matrix.tolist()),
        "parameters": p.model_dump_json(),
        "model_fwhm": psf.fwhm,
        "psf_source": psf.source,
        "solver": "iterative",
    }
    return DcrSolution(done, _diagnostics(setting, found, weights, psf.fwhm))


def _covariance(variance: xr.DataArray) -> Floats:
    """Return the covariance of planes in a pixel: they are treated as independent."""
    values = variance.to_numpy().reshape(variance.sizes[v.SUBFILTER], -1)
    known = np.isfinite(values).all(axis=0)
    if not known.any():
        return np.diag(np.full(len(values), np.inf))
    return np.diag(np.median(values[:, known], axis=1).astype(np.float64))


def _diagnostics(setting: Setting, found: Gathered, weights: Floats, fwhm: float) -> xr.Dataset:
    names = setting.warps[v.VISIT].to_numpy()
    vectors = band_vectors(setting.band, setting.table, setting.matrix)
    able = identifiability(vectors, weights, fwhm)
    per_pixel = np.full(names.size, np.nan)
    np.divide(found.chi2, found.pixels, out=per_pixel, where=found.pixels > 0)
    total = found.pixels.sum()
    statuses = np.array([one.status for one in found.tiles], np.uint8)
    ends = [one.convergence or [np.nan] for one in found.tiles]
    diagnostics = xr.Dataset(
        {
            "chi2": (v.VISIT, per_pixel),
            "pixel_count": (v.VISIT, found.pixels),
            "rejected": (v.VISIT, np.zeros(names.size, np.int64)),
            "rejected_fraction": (v.VISIT, np.zeros(names.size)),
            "varying": (v.VISIT, np.zeros(names.size, np.int64)),
            "flux_scale": (v.VISIT, np.ones(names.size)),
            "used": (v.VISIT, weights > 0),
            "offset_y": (v.VISIT, np.zeros(names.size), {"units": v.PIXEL}),
            "offset_x": (v.VISIT, np.zeros(names.size), {"units": v.PIXEL}),
            "mean_weight": (v.VISIT, weights),
            "status": ("tile", statuses, v.flag_attributes(v.DcrStatus)),
            "iterations": ("tile", [len(one.gains) for one in found.tiles]),
            "convergence_first": ("tile", [end[0] for end in ends]),
            "convergence_last": ("tile", [end[-1] for end in ends]),
            "gain_last": ("tile", [one.gains[-1] if one.gains else np.nan for one in found.tiles]),
            "dispersion_y": (v.VISIT, vectors[:, 0], {"units": v.PIXEL}),
            "dispersion_x": (v.VISIT, vectors[:, 1], {"units": v.PIXEL}),
            "chi2_total": found.chi2.sum() / total if total else np.nan,
            "dispersion_trace": able.trace,
            "dispersion_eigenvalues": ("axis", able.eigenvalues),
            "moment_sigma": able.moment_sigma,
        },
        {v.VISIT: names},
    )
    values: dict[str, Any] = {
        name: setting.table[name] for name in ("altitude", "parallactic_angle")
    }
    return diagnostics.assign(values)
