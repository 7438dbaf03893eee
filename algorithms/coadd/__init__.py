"""Coadds: the warps of a patch averaged, without what only some of them show."""

from skyloom.algorithms.coadd.artifact_parameters import ArtifactParameters
from skyloom.algorithms.coadd.artifacts import (
    artifact_mask,
    count_epochs,
    decide_artifacts,
    few_epochs,
    find_artifacts,
)
from skyloom.algorithms.coadd.bright_objects import mask_bright_objects
from skyloom.algorithms.coadd.candidates import find_candidates, static_sky
from skyloom.algorithms.coadd.coadding import apply_artifacts, coadd, zero_point_scale
from skyloom.algorithms.coadd.filling import fill_no_data
from skyloom.algorithms.coadd.optimal import optimal_coadd
from skyloom.algorithms.coadd.parameters import CoaddParameters
from skyloom.algorithms.coadd.protection import protect_sources
from skyloom.algorithms.coadd.running import accumulate, finish_coadd, merge_accumulated
from skyloom.algorithms.coadd.weights import warp_weight

__all__ = [
    "ArtifactParameters",
    "CoaddParameters",
    "accumulate",
    "apply_artifacts",
    "artifact_mask",
    "coadd",
    "count_epochs",
    "decide_artifacts",
    "few_epochs",
    "fill_no_data",
    "find_artifacts",
    "find_candidates",
    "finish_coadd",
    "mask_bright_objects",
    "merge_accumulated",
    "optimal_coadd",
    "protect_sources",
    "static_sky",
    "warp_weight",
    "zero_point_scale",
]
