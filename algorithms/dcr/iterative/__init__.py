"""The iterative solution for sub-bands, for comparison with the linear one."""

from skyloom.algorithms.dcr.iterative.clamps import (
    apply_taper,
    average_models,
    clamp_frequency,
    clamp_groups,
    clamp_iteration,
    model_taper,
    noise_cutoff,
)
from skyloom.algorithms.dcr.iterative.convergence import (
    convergence_metric,
    next_gain,
    visit_convergence,
)
from skyloom.algorithms.dcr.iterative.forward import (
    Geometry,
    backshift_residual,
    count_and_weight_planes,
    update_model,
)
from skyloom.algorithms.dcr.iterative.iteration import IterativeTile, iterate_tile
from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters
from skyloom.algorithms.dcr.iterative.psf_choice import select_psf_visits
from skyloom.algorithms.dcr.iterative.solving import solve_iterative

__all__ = [
    "Geometry",
    "IterativeParameters",
    "IterativeTile",
    "apply_taper",
    "average_models",
    "backshift_residual",
    "clamp_frequency",
    "clamp_groups",
    "clamp_iteration",
    "convergence_metric",
    "count_and_weight_planes",
    "iterate_tile",
    "model_taper",
    "next_gain",
    "noise_cutoff",
    "select_psf_visits",
    "solve_iterative",
    "update_model",
    "visit_convergence",
]
