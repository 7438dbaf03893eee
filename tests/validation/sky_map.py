"""Footprints of a real camera on a sky map, and positions of the whole sky.

The footprints are those of four visits of Hyper Suprime-Cam (103 detectors each, corners from the
visit summaries); where they lie on patches is compared with polygons that are clipped at boxes in
the pixels of astropy's WCS.
"""

from __future__ import annotations

import time

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.algorithms.skymap import (
    SkyMap,
    SkyMapParameters,
    find_tract,
    locate,
    overlapping_patches,
    rings_skymap,
    tract_header,
)
from tests.algorithms.skymap.footprints import overlaps_by_clipping
from tests.real_data.measured import SHARED
from tests.validation.rows import Row, at_most

VISITS = (1176, 17900, 17930, 17934)


def footprints() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the corners (detector, 4) of all detectors, deg, and their names."""
    ra, dec, names = [], [], []
    for visit in VISITS:
        with fits.open(SHARED / "hsc-visits-cosmos" / f"visitSummary_{visit}.fits.gz") as file:
            table = file[1].data
            ra.append(np.asarray(table["raCorners"], np.float64))
            dec.append(np.asarray(table["decCorners"], np.float64))
            names += [f"{visit} {detector}" for detector in table["id"]]
    return np.concatenate(ra), np.concatenate(dec), names


def overlap_rows(what: str, sky_map: SkyMap) -> list[Row]:
    """Return the rows of the detectors on one map."""
    ra, dec, names = footprints()
    started = time.perf_counter()
    found = overlapping_patches(sky_map, ra, dec, names=names)
    seconds = time.perf_counter() - started
    ours = set(zip(found.polygon.tolist(), found.tract.tolist(), found.patch.tolist(), strict=True))
    near = set(found.tract.tolist())
    corners = find_tract(sky_map, ra, dec)
    theirs = overlaps_by_clipping(sky_map, ra, dec, sorted(near | set(corners.ravel().tolist())))
    return [
        Row(
            f"{what}: pairs of 412 detectors and patches, beside clipped polygons",
            "the same",
            f"{len(ours)}, {len(ours ^ theirs)} differ; tracts {sorted(near)}",
            len(names) == 412 and ours == theirs and not found.unusable,
        ),
        Row(
            f"{what}: time to find them",
            "≤ 1 s",
            f"{seconds:.2f} s",
            seconds <= 1.0,
        ),
    ]


def position_rows(what: str, sky_map: SkyMap) -> list[Row]:
    """Return the row of positions all over the sky, half of them near the poles."""
    rng = np.random.default_rng(1)
    ra = rng.uniform(0, 360, 400_000)
    dec = np.rad2deg(np.arcsin(rng.uniform(-1, 1, ra.size)))
    dec[::2] = np.sign(dec[::2]) * rng.uniform(84, 90, ra.size // 2)
    try:
        locate(sky_map, ra, dec)
    except LookupError as error:
        return [Row(f"{what}: positions without a patch in their tract", "0", str(error), False)]
    return [Row(f"{what}: of 400 000 positions without a patch in their tract", "0", "0", True)]


def projection_rows() -> list[Row]:
    """Return the rows of pixels to the sky and back on tracts from pole to pole."""
    sky_map = rings_skymap(SkyMapParameters(pixel_scale=0.168))
    rng = np.random.default_rng(2)
    back, apart = 0.0, 0.0
    for index in [0, 18937, 9813, *rng.integers(0, len(sky_map), 300).tolist()]:
        tract = sky_map[index]
        x, y = rng.uniform(0, 1, (2, 2000)) * np.array(tract.shape)[::-1, None]
        ra, dec = tract.plane.to_sky(x, y)
        again = tract.plane.to_pixels(ra, dec)
        back = max(back, np.abs(again[0] - x).max(), np.abs(again[1] - y).max())
        theirs = WCS(fits.Header(tract_header(tract))).wcs_pix2world(x, y, 0)
        east = ((ra - theirs[0] + 180) % 360 - 180) * np.cos(np.deg2rad(dec))
        apart = max(apart, np.abs(east).max(), np.abs(dec - theirs[1]).max())
    return [
        at_most("tract pixels to the sky and back, 303 tracts of 36000²", back, 1e-9, "pixel"),
        at_most("beside astropy's TAN", apart, 1e-9, "deg"),
    ]


def measure() -> list[Row]:
    """Return the rows of this topic."""
    legacy = rings_skymap(SkyMapParameters(pixel_scale=0.168))
    cells = rings_skymap(SkyMapParameters(patches="cells"))
    return [
        *projection_rows(),
        *overlap_rows("0.168 arcsec, patches of 4000", legacy),
        *overlap_rows("0.2 arcsec, patches of 20 cells", cells),
        *position_rows("0.2 arcsec, patches of 4000", rings_skymap()),
        *position_rows("0.2 arcsec, patches of 20 cells", cells),
    ]
