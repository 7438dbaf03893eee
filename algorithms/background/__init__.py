"""Binned models of the background of an image: measured, rendered, fitted, filled, added.

A background is a Dataset over ``bin_y``, ``bin_x`` with ``level`` [unit of the image],
``variance`` [of the level, unit squared], ``count``, ``count_used`` and ``flags``; its attribute
``box`` is the half-open box ``[y_start, y_stop, x_start, x_stop]`` of parent pixels that the bins
tile. NaN levels are bins without a valid pixel. No function changes its input.
"""

from skyloom.algorithms.background.binning import BinStatistics, bin_image
from skyloom.algorithms.background.chebyshev import (
    ChebyshevFit,
    chebyshev_design,
    chebyshev_image,
    chebyshev_terms,
    fit_background,
    fit_chebyshev,
)
from skyloom.algorithms.background.evaluation import evaluate_background, subtract_from_bins
from skyloom.algorithms.background.filling import fill_bad, harmonic_fill, smooth_ignoring_bad
from skyloom.algorithms.background.geometry import (
    Box,
    bin_centers,
    bin_count,
    bin_edges,
    box_of_background,
    box_of_image,
)
from skyloom.algorithms.background.interpolation import interpolate, interpolation_matrix
from skyloom.algorithms.background.layers import (
    BackgroundLayer,
    join_layers,
    render_layers,
    scale_background,
    split_layers,
    sum_layers,
)
from skyloom.algorithms.background.measurement import (
    REJECTED_PLANES,
    BackgroundParameters,
    measure_background,
)
from skyloom.algorithms.background.propagation import render_variance
from skyloom.algorithms.background.rendering import render_background, render_grid
from skyloom.algorithms.background.repair import fill_background, smooth_background
from skyloom.algorithms.background.sketch import (
    common_cells,
    merge_sketches,
    remove_from_sketch,
    sketch_exposure,
    sketch_statistics,
)

__all__ = [
    "REJECTED_PLANES",
    "BackgroundLayer",
    "BackgroundParameters",
    "BinStatistics",
    "Box",
    "ChebyshevFit",
    "bin_centers",
    "bin_count",
    "bin_edges",
    "bin_image",
    "box_of_background",
    "box_of_image",
    "chebyshev_design",
    "chebyshev_image",
    "chebyshev_terms",
    "common_cells",
    "evaluate_background",
    "fill_background",
    "fill_bad",
    "fit_background",
    "fit_chebyshev",
    "harmonic_fill",
    "interpolate",
    "interpolation_matrix",
    "join_layers",
    "measure_background",
    "merge_sketches",
    "remove_from_sketch",
    "render_background",
    "render_grid",
    "render_layers",
    "render_variance",
    "scale_background",
    "sketch_exposure",
    "sketch_statistics",
    "smooth_background",
    "smooth_ignoring_bad",
    "split_layers",
    "subtract_from_bins",
    "sum_layers",
]
