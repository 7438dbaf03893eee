"""Photon transfer: from pairs of flats to gains, covariances, turn-offs and kernels.

`pair_exposures` matches exposures, `extract_detector` (or `extract_pair`, for one region)
measures a pair, `solve` fits a model to all pairs of a detector, `evaluate_model` predicts from
it, and `brighter_fatter_kernel` makes the kernel that undoes the effect. What goes wrong with
data is a code (`PairStatus`, `AmplifierFlag`), never an exception.
"""

from skyloom.algorithms.detrend.brighter_fatter import (
    CorrectionParameters,
    correct_brighter_fatter,
)
from skyloom.algorithms.photon_transfer.bootstrap import bootstrap
from skyloom.algorithms.photon_transfer.conversion_depth import conversion_depth
from skyloom.algorithms.photon_transfer.covariance import pair_covariance, row_mean_variance
from skyloom.algorithms.photon_transfer.electrostatic import ElectrostaticModel, boundary_shifts
from skyloom.algorithms.photon_transfer.electrostatic_fit import (
    ElectrostaticFitParameters,
    fit_electrostatic,
)
from skyloom.algorithms.photon_transfer.extraction import (
    extract_dark_pair,
    extract_detector,
    extract_pair,
)
from skyloom.algorithms.photon_transfer.kernel import KernelParameters, brighter_fatter_kernel
from skyloom.algorithms.photon_transfer.models import (
    MODELS,
    evaluate_model,
    model_covariance,
    model_jacobian,
)
from skyloom.algorithms.photon_transfer.offsets import dark_offset, read_noise_from_headers
from skyloom.algorithms.photon_transfer.pair_gain import pair_gain
from skyloom.algorithms.photon_transfer.pairing import first_shifted_exposure, pair_exposures
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters, PairParameters
from skyloom.algorithms.photon_transfer.photodiode import integrate_photodiode, pair_photo_charge
from skyloom.algorithms.photon_transfer.solve import fill_bad_amps, solve
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters

__all__ = [
    "MODELS",
    "CorrectionParameters",
    "ElectrostaticFitParameters",
    "ElectrostaticModel",
    "ExtractParameters",
    "KernelParameters",
    "PairParameters",
    "SolveParameters",
    "bootstrap",
    "boundary_shifts",
    "brighter_fatter_kernel",
    "conversion_depth",
    "correct_brighter_fatter",
    "dark_offset",
    "evaluate_model",
    "extract_dark_pair",
    "extract_detector",
    "extract_pair",
    "fill_bad_amps",
    "first_shifted_exposure",
    "fit_electrostatic",
    "integrate_photodiode",
    "model_covariance",
    "model_jacobian",
    "pair_covariance",
    "pair_exposures",
    "pair_gain",
    "pair_photo_charge",
    "read_noise_from_headers",
    "row_mean_variance",
    "solve",
]
