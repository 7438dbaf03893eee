"""Coadds: the warps of a patch averaged, without what only some of them show."""

from skyloom.algorithms.coadd.coadding import coadd, zero_point_scale
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.coadd.running import accumulate, finish_coadd, merge_accumulated
from skyloom.algorithms.coadd.weights import warp_weight

__all__ = [
    "CoaddParameters",
    "accumulate",
    "coadd",
    "finish_coadd",
    "merge_accumulated",
    "warp_weight",
    "zero_point_scale",
]
