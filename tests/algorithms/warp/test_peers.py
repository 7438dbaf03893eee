"""Warps beside those of an independent package."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.algorithms.warp import warp_exposure
from tests.algorithms.warp.headers import distorted, keys_of
from tests.algorithms.warp.scenes import exposure_of, plane, stars

reproject = pytest.importorskip("reproject")

SHAPE = (220, 200)
BOX = (20, 200, 10, 190)


def field(kind):
    """Return an exposure of stars with a WCS of a kind, its WCS, a target, and their positions."""
    source = WCS(distorted(kind, plane(12, center=(100.0, 110.0))))
    target = plane(-20, 0.21, center=(100.0, 110.0))
    y, x = (60.0 + grid.ravel() for grid in np.mgrid[:100:30, :80:30])
    rng = np.random.default_rng(1)
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    image = stars(SHAPE, *source.world_to_pixel_values(*target.to_sky(x, y)), 4.0)
    return exposure_of(image), source, target, (x, y)


def fluxes(image, places):
    return np.array(
        [
            image[round(y) - 14 : round(y) + 15, round(x) - 14 : round(x) + 15].sum()
            for x, y in zip(*places, strict=True)
        ]
    )


@pytest.mark.parametrize("kind", ["TAN", "SIP", "TPV"])
@pytest.mark.parametrize("method", ["interpolation", "adaptive"])
def test_stars_are_those_of_reproject(kind, method):
    exposure, source, target, places = field(kind)
    header = WCS(keys_of(target))
    given = exposure["image"].values.astype(float), source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == "adaptive":
            # a Gaussian kernel this narrow widens stars least
            theirs, _ = reproject.reproject_adaptive(
                given, header, shape_out=SHAPE, conserve_flux=True
            )
        else:
            theirs, _ = reproject.reproject_interp(
                given, header, shape_out=SHAPE, order="bicubic", roundtrip_coords=False
            )
    ours = np.full(SHAPE, np.nan)
    warp = warp_exposure(exposure, source, target, (0, SHAPE[0], 0, SHAPE[1]))
    ours[:] = warp["image"].values
    if method == "interpolation":
        # it keeps surface brightness, not flux
        theirs = theirs * abs(np.linalg.det(warp.attrs["matrix"]))
    part = slice(*BOX[:2]), slice(*BOX[2:])
    difference = np.abs(ours[part] - theirs[part])
    if method == "interpolation":
        assert np.nanmax(difference) < 0.01 * np.nanmax(ours)
    np.testing.assert_allclose(fluxes(ours, places), fluxes(theirs, places), rtol=1e-3)
    np.testing.assert_allclose(fluxes(ours, places), 1e4, rtol=1e-3)
