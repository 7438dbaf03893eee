"""Everything between a raw frame and a frame fit for science.

`detrend` does it all, fused into one pass over the pixels. Each of its steps is a function of its
own as well: `subtract_overscan`, `assemble`, `flag_saturation`, `correct_crosstalk`,
`subtract_bias`, `correct_linearity`, `apply_gain`, `add_variance`, `correct_brighter_fatter`,
`subtract_dark`, `divide_flat`, `mask_defects`, `reject_cosmic_rays`, `interpolate_pixels`,
`subtract_fringe`. `detrend_amplifier` does as little as flats of photon transfer want: overscan,
offset, trim and saturation, in adu.
"""

from skyloom.algorithms.detrend.amplifier import (
    DetrendedPixels,
    DetrendParameters,
    amplifier_pixels,
    detrend_amplifier,
)
from skyloom.algorithms.detrend.assembly import assemble, flag_saturation, subtract_overscan
from skyloom.algorithms.detrend.brighter_fatter import (
    CorrectionParameters,
    correct_brighter_fatter,
)
from skyloom.algorithms.detrend.cosmic_rays import reject_cosmic_rays
from skyloom.algorithms.detrend.crosstalk import correct_crosstalk
from skyloom.algorithms.detrend.frame import detrend
from skyloom.algorithms.detrend.interpolation import interpolate_pixels
from skyloom.algorithms.detrend.linearity import correct_linearity
from skyloom.algorithms.detrend.parameters import (
    BrighterFatterParameters,
    CosmicRayParameters,
    CrosstalkParameters,
    DarkParameters,
    FlatParameters,
    InterpolationParameters,
    OverscanParameters,
    SaturationParameters,
    ScienceDetrendParameters,
    VarianceParameters,
)
from skyloom.algorithms.detrend.saturation import saturation_level
from skyloom.algorithms.detrend.steps import (
    add_variance,
    apply_gain,
    divide_flat,
    mask_defects,
    subtract_bias,
    subtract_dark,
    subtract_fringe,
)

__all__ = [
    "BrighterFatterParameters",
    "CorrectionParameters",
    "CosmicRayParameters",
    "CrosstalkParameters",
    "DarkParameters",
    "DetrendParameters",
    "DetrendedPixels",
    "FlatParameters",
    "InterpolationParameters",
    "OverscanParameters",
    "SaturationParameters",
    "ScienceDetrendParameters",
    "VarianceParameters",
    "add_variance",
    "amplifier_pixels",
    "apply_gain",
    "assemble",
    "correct_brighter_fatter",
    "correct_crosstalk",
    "correct_linearity",
    "detrend",
    "detrend_amplifier",
    "divide_flat",
    "flag_saturation",
    "interpolate_pixels",
    "mask_defects",
    "reject_cosmic_rays",
    "saturation_level",
    "subtract_bias",
    "subtract_dark",
    "subtract_fringe",
    "subtract_overscan",
]
