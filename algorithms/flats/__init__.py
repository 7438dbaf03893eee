"""Flats: their levels, and what belongs to the exposure and what to the detector."""

from skyloom.algorithms.flats.measure import measure_flat, reference_keys
from skyloom.algorithms.flats.normalize import (
    collect_statistics,
    normalize_flats,
    select_exposures,
)
from skyloom.algorithms.flats.parameters import FlatScaleParameters, FlatStatisticsParameters
from skyloom.algorithms.flats.polygon import inside_polygon, mask_vignetted
from skyloom.algorithms.flats.product import normalize_product
from skyloom.algorithms.flats.scales import measure_scales, solve_flat_scales

__all__ = [
    "FlatScaleParameters",
    "FlatStatisticsParameters",
    "collect_statistics",
    "inside_polygon",
    "mask_vignetted",
    "measure_flat",
    "measure_scales",
    "normalize_flats",
    "normalize_product",
    "reference_keys",
    "select_exposures",
    "solve_flat_scales",
]
