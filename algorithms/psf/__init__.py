"""Point-spread functions: models, sets of them over an image, and bringing images to another.

An image of a point-spread function has dimensions (psf_y, psf_x), odd sides, float64, sums to 1
and is centred on its centre pixel. A set of them is a Dataset over ``point`` with coordinates
``x``, ``y``. A field of convolution kernels is a few images times polynomials of position. No
function changes its input.
"""

from skyloom.algorithms.psf.alard_lupton import AlardLuptonParameters, alard_lupton_basis
from skyloom.algorithms.psf.coadded import (
    PsfInput,
    average_position,
    coadd_psf,
    coadd_psf_grid,
    inside,
)
from skyloom.algorithms.psf.convolution import ConvolutionParameters, convolve
from skyloom.algorithms.psf.fields import KernelField, evaluate_kernel
from skyloom.algorithms.psf.kernels import MatchingParameters, matching_kernel
from skyloom.algorithms.psf.matching import match_psf
from skyloom.algorithms.psf.measured import PsfMeasurementParameters, measure_psf
from skyloom.algorithms.psf.models import double_gaussian_psf, gaussian_psf, moffat_psf
from skyloom.algorithms.psf.points import evaluate_psf, psf_at_points
from skyloom.algorithms.psf.shapes import psf_fwhm, psf_moments
from skyloom.algorithms.psf.stars import StarParameters
from skyloom.algorithms.psf.variance_scaling import VarianceScalingParameters, rescale_variance
from skyloom.algorithms.psf.visit import match_detectors
from skyloom.algorithms.psf.warped import local_map, warp_psf

__all__ = [
    "AlardLuptonParameters",
    "ConvolutionParameters",
    "KernelField",
    "MatchingParameters",
    "PsfInput",
    "PsfMeasurementParameters",
    "StarParameters",
    "VarianceScalingParameters",
    "alard_lupton_basis",
    "average_position",
    "coadd_psf",
    "coadd_psf_grid",
    "convolve",
    "double_gaussian_psf",
    "evaluate_kernel",
    "evaluate_psf",
    "gaussian_psf",
    "inside",
    "local_map",
    "match_detectors",
    "match_psf",
    "matching_kernel",
    "measure_psf",
    "moffat_psf",
    "psf_at_points",
    "psf_fwhm",
    "psf_moments",
    "rescale_variance",
    "warp_psf",
]
