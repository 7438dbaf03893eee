"""Simulated levels of visits in the bins of a tract: one sky, a background of each visit.

Nothing has pixels here: levels of bins have Gaussian noise, as if measured from warps.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.parameters import Parameters

__all__ = ["SimulatedTract", "TractParameters", "simulate_tract"]

Floats = NDArray[np.float64]
DIMS = (v.VISIT, v.TRACT_Y, v.TRACT_X)


class TractParameters(Parameters):
    """What simulated visits of a tract are like, `simulate_tract`. Lengths are half tracts."""

    visits: int = Field(20, ge=1, description="number of visits")
    bins: int = Field(48, ge=4, description="bins along each side")
    bin_size: int = Field(100, ge=1, description="side of a bin, pixel")
    radius: float = Field(1.1, gt=0, description="of the round footprint of a visit, half tracts")
    dither: float = Field(0.8, ge=0, description="largest offset of a visit, half tracts")
    gaps: int = Field(8, ge=0, description="stripes between detectors across the tract; 0 is none")
    dead: float = Field(0.03, ge=0, lt=1, description="fraction of bins without data")
    missing: float = Field(0.0, ge=0, lt=1, description="fraction of patches that a visit lacks")
    patches: int = Field(4, ge=1, description="patches along each side, for missing ones")
    level: float = Field(100.0, ge=0, description="standard deviation of levels, nJy")
    slope: float = Field(20.0, ge=0, description="standard deviation of slopes, nJy per half tract")
    curvature: float = Field(0.0, ge=0, description="standard deviation of quadratic terms, nJy")
    field: float = Field(0.0, ge=0, description="amplitude of a random field, nJy")
    field_length: float = Field(10.0, gt=0, description="sigma of what smooths it, bins")
    quietest: float = Field(0.7, gt=0, description="least noise of a bin, nJy")
    noisiest: float = Field(1.5, gt=0, description="largest noise of a bin, nJy")
    stars: int = Field(60, ge=0, description="number of bins with a star")
    source: float = Field(3.0, ge=0, description="peak of one faint, wide object, nJy")
    source_sigma: float = Field(0.15, gt=0, description="its width, half tracts")
    source_shape: Literal["gaussian", "halo"] = Field(
        "gaussian", description="profile of the object: gaussian, or a galaxy with a wide halo"
    )
    ghosts: float = Field(0.0, ge=0, description="peak of a ghost, noise of a bin")
    trails: float = Field(0.0, ge=0, description="brightness of a trail, noise of a bin")
    spoilt: float = Field(1 / 6, ge=0, le=1, description="fraction of visits with ghost and trail")


class SimulatedTract(NamedTuple):
    """Levels in bins, as `tract_background` gives them, and the truth.

    ``truth`` has ``field`` (visit, tract_y, tract_x), ``sky`` and ``source`` (tract_y, tract_x),
    ``noise`` (visit), ``spoilt`` (visit, tract_y, tract_x; ghosts and trails).
    """

    background: xr.Dataset
    truth: xr.Dataset


def simulate_tract(
    rng: np.random.Generator, *, parameters: TractParameters | None = None
) -> SimulatedTract:
    """Draw the levels of visits of a tract.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: its state decides everything.
    parameters : TractParameters, optional

    Returns
    -------
    SimulatedTract
        In nJy; levels float32 with their true variance.

    Examples
    --------
    >>> made = simulate_tract(np.random.default_rng(1), parameters=TractParameters(visits=3))
    >>> dict(made.background.sizes)
    {'visit': 3, 'tract_y': 48, 'tract_x': 48}
    """
    p = parameters or TractParameters()
    n = p.bins
    at = (np.arange(n) + 0.5) * 2.0 / n - 1.0
    y, x = np.meshgrid(at, at, indexing="ij")
    centers = rng.uniform(-p.dither, p.dither, (p.visits, 2))
    noise = rng.uniform(p.quietest, p.noisiest, p.visits)
    fields = _fields(rng, p, y, x)
    source = p.source * _profile(p, y, x)
    sky = source.copy()
    if p.stars:
        where = rng.integers(0, n, (p.stars, 2))
        np.add.at(sky, (where[:, 0], where[:, 1]), rng.exponential(50.0, p.stars))
    covered = np.hypot(y - centers[:, :1, None], x - centers[:, 1:, None]) < p.radius
    if p.gaps:
        # detectors move with the visit
        phase = (x - centers[:, 1:, None]) * p.gaps / 2.0
        covered &= np.abs(phase - np.round(phase)) > 0.5 * p.gaps / n
    covered &= rng.random(covered.shape) >= p.dead
    if p.missing:
        lost = rng.random((p.visits, p.patches, p.patches)) < p.missing
        patch = np.arange(n) * p.patches // n
        covered &= ~lost[:, patch[:, None], patch]
    spoilt = _spoilt(rng, p, y, x) * noise[:, None, None]
    level = sky + fields + spoilt + noise[:, None, None] * rng.standard_normal(fields.shape)
    variance = np.broadcast_to(noise[:, None, None] ** 2, level.shape)
    count = np.where(covered, p.bin_size**2, 0).astype(np.int32)
    flags = np.where(covered, 0, int(v.BinFlag.EMPTY | v.BinFlag.BAD_VARIANCE)).astype(np.uint8)
    positions = (np.arange(n) + 0.5) * p.bin_size - 0.5
    coordinates = {
        v.VISIT: np.arange(p.visits) + 1,
        v.TRACT_Y: (v.TRACT_Y, positions, {"units": v.PIXEL}),
        v.TRACT_X: (v.TRACT_X, positions, {"units": v.PIXEL}),
    }
    light = {"units": v.NANOJANSKY}
    background = xr.Dataset(
        {
            "level": (DIMS, np.where(covered, level, np.nan).astype(np.float32), light),
            "variance": (
                DIMS,
                np.where(covered, variance, np.nan).astype(np.float32),
                {"units": v.NANOJANSKY2},
            ),
            "count": (DIMS, count, {"units": ""}),
            "count_used": (DIMS, count, {"units": ""}),
            "flags": (DIMS, flags, v.flag_attributes(v.BinFlag)),
        },
        coordinates,
        {"tract_shape": [n * p.bin_size] * 2, "bin_size": [p.bin_size] * 2},
    )
    truth = xr.Dataset(
        {
            "field": (DIMS, fields, light),
            "sky": (DIMS[1:], sky, light),
            "source": (DIMS[1:], source, light),
            "noise": (v.VISIT, noise, light),
            "spoilt": (DIMS, spoilt, light),
        },
        coordinates,
    )
    return SimulatedTract(background, truth)


def _fields(rng: np.random.Generator, p: TractParameters, y: Floats, x: Floats) -> Floats:
    """Return the background of each visit."""
    level = rng.normal(0.0, p.level, p.visits)[:, None, None]
    slopes = rng.normal(0.0, p.slope, (p.visits, 2, 1, 1))
    fields = level + slopes[:, 0] * y + slopes[:, 1] * x
    if p.curvature:
        bent = rng.normal(0.0, p.curvature, (p.visits, 3, 1, 1))
        fields = fields + bent[:, 0] * y**2 + bent[:, 1] * x * y + bent[:, 2] * x**2
    if p.field:
        sigma = p.field_length
        margin = int(4 * sigma) + 1
        side = p.bins + 2 * margin
        for visit in range(p.visits):
            smooth = gaussian_filter(rng.standard_normal((side, side)), sigma)
            inner = smooth[margin:-margin, margin:-margin]
            fields[visit] += p.field * inner * (2.0 * np.sqrt(np.pi) * sigma)
    return np.asarray(fields, np.float64)


def _profile(p: TractParameters, y: Floats, x: Floats) -> Floats:
    """Return the profile of the object in the middle, 1 at its peak."""
    distance = np.hypot(y - 0.07, x + 0.04) / p.source_sigma
    if p.source_shape == "halo":
        # an exponential disk in a halo that is a tenth as bright and three times as wide
        return np.asarray((np.exp(-distance) + 0.1 * np.exp(-0.5 * (distance / 3.0) ** 2)) / 1.1)
    return np.asarray(np.exp(-0.5 * distance**2))


def _spoilt(rng: np.random.Generator, p: TractParameters, y: Floats, x: Floats) -> Floats:
    """Return ghosts and trails of some visits, in units of their noise."""
    out = np.zeros((p.visits, *y.shape))
    if not (p.ghosts or p.trails):
        return out
    for visit in np.flatnonzero(rng.random(p.visits) < p.spoilt):
        middle = rng.uniform(-0.7, 0.7, 2)
        out[visit] += p.ghosts * (np.hypot(y - middle[0], x - middle[1]) < 0.25)
        angle, offset = rng.uniform(0.0, np.pi), rng.uniform(-0.5, 0.5)
        distance = np.abs(y * np.cos(angle) - x * np.sin(angle) - offset)
        out[visit] += p.trails * (distance < 1.0 / p.bins)
    return out
