"""Backgrounds of visits on a tract, matched to each other.

Visits on one tract share its pixels and its bins. Levels of bins are Datasets over
``(visit, tract_y, tract_x)``; fields of offsets are given on the pixels of the tract, so that they
have no seams where patches meet.
"""

from skyloom.algorithms.matching.fields import (
    FieldBasis,
    PolynomialBasis,
    SplineBasis,
    basis_at_bins,
    field_image,
    field_values,
    tract_image,
)
from skyloom.algorithms.matching.match import match_backgrounds
from skyloom.algorithms.matching.match_parameters import MatchParameters, SelectionParameters
from skyloom.algorithms.matching.match_result import match_basis
from skyloom.algorithms.matching.match_update import remove_visit, update_match
from skyloom.algorithms.matching.match_use import (
    apply_offset,
    extrapolated_bins,
    offset_errors,
    offset_image,
)
from skyloom.algorithms.matching.reference_visit import choose_reference_visit
from skyloom.algorithms.matching.tract_background import fill_tract_background, tract_background
from skyloom.algorithms.matching.tract_grid import TractGrid, tract_grid
from skyloom.algorithms.matching.tract_model import (
    TractModelParameters,
    measure_tract_background,
    subtract_tract_background,
)
from skyloom.algorithms.matching.tract_parameters import (
    TRACT_REJECTED_PLANES,
    TractBackgroundParameters,
)
from skyloom.algorithms.matching.tract_sums import merge_tract_sums, tract_levels, tract_sums

__all__ = [
    "TRACT_REJECTED_PLANES",
    "FieldBasis",
    "MatchParameters",
    "PolynomialBasis",
    "SelectionParameters",
    "SplineBasis",
    "TractBackgroundParameters",
    "TractGrid",
    "TractModelParameters",
    "apply_offset",
    "basis_at_bins",
    "choose_reference_visit",
    "extrapolated_bins",
    "field_image",
    "field_values",
    "fill_tract_background",
    "match_backgrounds",
    "match_basis",
    "measure_tract_background",
    "merge_tract_sums",
    "offset_errors",
    "offset_image",
    "remove_visit",
    "subtract_tract_background",
    "tract_background",
    "tract_grid",
    "tract_image",
    "tract_levels",
    "tract_sums",
    "update_match",
]
