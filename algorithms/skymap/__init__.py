"""Maps of the sky: tracts, each a tangent-plane grid of pixels, divided into patches.

A sky map is an immutable value and cheap: a map of 18938 tracts holds one line per ring. A tract
is a grid of constant pixel scale with north up and east to the left unless it is rotated; its
pixel (0, 0) is its lower left, pixel centres are integers. All patches of a tract share that grid,
so a patch is a pair of boxes: the inner boxes tile the tract, the outer ones overlap.
"""

from skyloom.algorithms.skymap.lookup import find_patch, find_tract, locate
from skyloom.algorithms.skymap.maps import discrete_skymap, make_skymap, rings_skymap
from skyloom.algorithms.skymap.overlaps import PatchOverlaps, overlapping_patches, sky_polygon
from skyloom.algorithms.skymap.parameters import DiscreteTract, SkyMapParameters
from skyloom.algorithms.skymap.tracts import (
    Patch,
    SkyMap,
    Tract,
    TractRow,
    patch_boxes,
    tract_header,
    tract_wcs,
)

__all__ = [
    "DiscreteTract",
    "Patch",
    "PatchOverlaps",
    "SkyMap",
    "SkyMapParameters",
    "Tract",
    "TractRow",
    "discrete_skymap",
    "find_patch",
    "find_tract",
    "locate",
    "make_skymap",
    "overlapping_patches",
    "patch_boxes",
    "rings_skymap",
    "sky_polygon",
    "tract_header",
    "tract_wcs",
]
