"""Flats: their levels, and what belongs to the exposure and what to the detector."""

from skyloom.algorithms.flats.measure import measure_flat, reference_keys
from skyloom.algorithms.flats.parameters import FlatScaleParameters, FlatStatisticsParameters
from skyloom.algorithms.flats.polygon import inside_polygon, mask_vignetted
from skyloom.algorithms.flats.scales import measure_scales, solve_flat_scales

__all__ = [
    "FlatScaleParameters",
    "FlatStatisticsParameters",
    "inside_polygon",
    "mask_vignetted",
    "measure_flat",
    "measure_scales",
    "reference_keys",
    "solve_flat_scales",
]
