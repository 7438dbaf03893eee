"""Sky frames: measured, combined, scaled to exposures and subtracted."""

from skyloom.algorithms.sky.correction import (
    SkyCorrection,
    SkyCorrectionParameters,
    corrected_exposure,
    sky_correction,
)
from skyloom.algorithms.sky.exposure_residuals import ExposureResiduals, exposure_residuals
from skyloom.algorithms.sky.focal_plane_background import (
    focal_plane_background,
    focal_plane_on_detector,
    focal_plane_sums_of_pixels,
)
from skyloom.algorithms.sky.focal_plane_cells import (
    focal_plane_grid,
    focal_plane_sums,
    merge_focal_plane_sums,
)
from skyloom.algorithms.sky.focal_plane_level import focal_plane_level
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters
from skyloom.algorithms.sky.frame_parameters import (
    AverageParameters,
    FrameSketchParameters,
    SmoothSkyParameters,
)
from skyloom.algorithms.sky.frame_sketch import (
    merge_sky_frame_sketches,
    remove_from_sky_frame_sketch,
    sky_frame_from_sketch,
    sky_frame_sketch,
)
from skyloom.algorithms.sky.frames import average_backgrounds, sky_frame_residual, sky_level_status
from skyloom.algorithms.sky.layers import Layer, render_layer, scaled_layer, subtract_layers
from skyloom.algorithms.sky.mask_parameters import ImputeObjectsParameters, MaskObjectsParameters
from skyloom.algorithms.sky.masking import impute_objects, mask_objects
from skyloom.algorithms.sky.mosaic import focal_plane_mosaic
from skyloom.algorithms.sky.quality import boundary_steps, sky_quality
from skyloom.algorithms.sky.refinement import (
    RefinedFrames,
    RefinementParameters,
    refine_sky_frames,
)
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.second_masks import mask_objects_beside_sky
from skyloom.algorithms.sky.subtraction import subtract_fit, subtract_sky_frame
from skyloom.algorithms.sky.templates import (
    SkyTemplates,
    TemplateParameters,
    sky_templates,
    template_frame,
)
from skyloom.algorithms.sky.transfer import lsb_transfer
from skyloom.algorithms.sky.visit_fit import fit_visit_background

__all__ = [
    "AverageParameters",
    "ExposureResiduals",
    "FocalPlaneParameters",
    "FrameSketchParameters",
    "ImputeObjectsParameters",
    "Layer",
    "MaskObjectsParameters",
    "MeasureScaleParameters",
    "RefinedFrames",
    "RefinementParameters",
    "SkyCorrection",
    "SkyCorrectionParameters",
    "SkyTemplates",
    "SmoothSkyParameters",
    "SolveScaleParameters",
    "TemplateParameters",
    "average_backgrounds",
    "boundary_steps",
    "corrected_exposure",
    "exposure_residuals",
    "fit_visit_background",
    "focal_plane_background",
    "focal_plane_grid",
    "focal_plane_level",
    "focal_plane_mosaic",
    "focal_plane_on_detector",
    "focal_plane_sums",
    "focal_plane_sums_of_pixels",
    "impute_objects",
    "lsb_transfer",
    "mask_objects",
    "mask_objects_beside_sky",
    "measure_scale",
    "merge_focal_plane_sums",
    "merge_sky_frame_sketches",
    "refine_sky_frames",
    "remove_from_sky_frame_sketch",
    "render_layer",
    "scaled_layer",
    "sky_correction",
    "sky_frame_from_sketch",
    "sky_frame_residual",
    "sky_frame_sketch",
    "sky_level_status",
    "sky_quality",
    "sky_templates",
    "solve_scales",
    "subtract_fit",
    "subtract_layers",
    "subtract_sky_frame",
    "template_frame",
]
