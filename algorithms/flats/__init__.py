"""Flats: their levels, and what belongs to the exposure and what to the detector."""

from skyloom.algorithms.combine import combine_flats, combine_two_flats
from skyloom.algorithms.flats.gradient_apply import apply_flat_gradients
from skyloom.algorithms.flats.gradient_fit import fit_flat_gradients
from skyloom.algorithms.flats.gradient_parameters import (
    FlatGradientParameters,
    FlatSampleParameters,
)
from skyloom.algorithms.flats.gradient_samples import sample_flat
from skyloom.algorithms.flats.measure import measure_flat, reference_keys
from skyloom.algorithms.flats.normalize import (
    collect_statistics,
    normalize_flats,
    select_exposures,
    usable_exposure_scales,
)
from skyloom.algorithms.flats.parameters import FlatScaleParameters, FlatStatisticsParameters
from skyloom.algorithms.flats.polygon import inside_polygon, mask_vignetted
from skyloom.algorithms.flats.product import normalize_product
from skyloom.algorithms.flats.response import UnresponsiveWarning, flag_unresponsive
from skyloom.algorithms.flats.scales import measure_scales, solve_flat_scales

__all__ = [
    "FlatGradientParameters",
    "FlatSampleParameters",
    "FlatScaleParameters",
    "FlatStatisticsParameters",
    "UnresponsiveWarning",
    "apply_flat_gradients",
    "collect_statistics",
    "combine_flats",
    "combine_two_flats",
    "fit_flat_gradients",
    "flag_unresponsive",
    "inside_polygon",
    "mask_vignetted",
    "measure_flat",
    "measure_scales",
    "normalize_flats",
    "normalize_product",
    "reference_keys",
    "sample_flat",
    "select_exposures",
    "solve_flat_scales",
    "usable_exposure_scales",
]
