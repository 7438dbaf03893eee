"""Everything between a raw frame and a frame fit for science.

`detrend` does it all, fused into one pass over the pixels. `detrend_amplifier` does as little as
flats of photon transfer want: overscan, offset, trim and saturation, in adu.
"""

from skyloom.algorithms.detrend.amplifier import (
    DetrendedPixels,
    DetrendParameters,
    amplifier_pixels,
    detrend_amplifier,
)
from skyloom.algorithms.detrend.frame import detrend
from skyloom.algorithms.detrend.parameters import (
    DarkParameters,
    FlatParameters,
    OverscanParameters,
    SaturationParameters,
    ScienceDetrendParameters,
    VarianceParameters,
)
from skyloom.algorithms.detrend.saturation import saturation_level

__all__ = [
    "DarkParameters",
    "DetrendParameters",
    "DetrendedPixels",
    "FlatParameters",
    "OverscanParameters",
    "SaturationParameters",
    "ScienceDetrendParameters",
    "VarianceParameters",
    "amplifier_pixels",
    "detrend",
    "detrend_amplifier",
    "saturation_level",
]
