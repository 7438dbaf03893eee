"""Sky frames: measured, combined, scaled to exposures and subtracted."""

from skyloom.algorithms.sky.correction import (
    SkyCorrection,
    SkyCorrectionParameters,
    corrected_exposure,
    sky_correction,
)
from skyloom.algorithms.sky.layers import Layer, render_layer, scaled_layer, subtract_layers
from skyloom.algorithms.sky.mosaic import focal_plane_mosaic
from skyloom.algorithms.sky.quality import boundary_steps, sky_quality
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.subtraction import subtract_fit, subtract_sky_frame
from skyloom.algorithms.sky.transfer import lsb_transfer
from skyloom.algorithms.sky.visit_fit import fit_visit_background

__all__ = [
    "Layer",
    "MeasureScaleParameters",
    "SkyCorrection",
    "SkyCorrectionParameters",
    "SolveScaleParameters",
    "boundary_steps",
    "corrected_exposure",
    "fit_visit_background",
    "focal_plane_mosaic",
    "lsb_transfer",
    "measure_scale",
    "render_layer",
    "scaled_layer",
    "sky_correction",
    "sky_quality",
    "solve_scales",
    "subtract_fit",
    "subtract_layers",
    "subtract_sky_frame",
]
