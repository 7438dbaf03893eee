"""Coadds without differential chromatic refraction, and templates for any airmass.

The atmosphere displaces each wavelength towards the zenith by another amount, in every visit by
others. From visits at several airmasses and parallactic angles the sky is solved for in a few
sub-bands; from these, an image at any other airmass and angle is predicted. Nothing here changes
its input.
"""

from skyloom.algorithms.dcr.bands import Band, effective_wavelength, subband_edges
from skyloom.algorithms.dcr.choice import SolverParameters, solver_parameters
from skyloom.algorithms.dcr.colours import star_colours
from skyloom.algorithms.dcr.geometry import dispersion, displacement, patch_jacobian
from skyloom.algorithms.dcr.identifiability import band_vectors, identifiability
from skyloom.algorithms.dcr.iterative import IterativeParameters, solve_iterative
from skyloom.algorithms.dcr.model import (
    finalize_planes,
    init_model,
    reference_plane,
    stack_planes,
)
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import DcrSolution, jacobian_of
from skyloom.algorithms.dcr.prediction import predict_template
from skyloom.algorithms.dcr.shift_image import shift_image
from skyloom.algorithms.dcr.shifts import dcr_shifts, join_small_splits, shift_margin
from skyloom.algorithms.dcr.solving import solve_dcr

__all__ = [
    "Band",
    "DcrSolution",
    "IterativeParameters",
    "LinearParameters",
    "SolverParameters",
    "band_vectors",
    "dcr_shifts",
    "dispersion",
    "displacement",
    "effective_wavelength",
    "finalize_planes",
    "identifiability",
    "init_model",
    "jacobian_of",
    "join_small_splits",
    "patch_jacobian",
    "predict_template",
    "reference_plane",
    "shift_image",
    "shift_margin",
    "solve_dcr",
    "solve_iterative",
    "solver_parameters",
    "stack_planes",
    "star_colours",
    "subband_edges",
]
