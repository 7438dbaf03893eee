"""Calibration frames from many exposures: `combine_bias`, `combine_dark`, `combine_flats`."""

from skyloom.algorithms.combine.common_bias import (
    add_bias_variance,
    add_calibration_variance,
)
from skyloom.algorithms.combine.frames import combine_bias, combine_dark, combine_flats
from skyloom.algorithms.combine.parameters import COMBINE_IGNORED_PLANES, CombineParameters
from skyloom.algorithms.combine.two_flats import combine_two_flats

__all__ = [
    "COMBINE_IGNORED_PLANES",
    "CombineParameters",
    "add_bias_variance",
    "add_calibration_variance",
    "combine_bias",
    "combine_dark",
    "combine_flats",
    "combine_two_flats",
]
