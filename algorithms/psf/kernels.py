"""Kernels that bring an image to another point-spread function, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf.alard_lupton import AlardLuptonParameters, alard_lupton_field
from skyloom.algorithms.psf.cells import cells_of, samples_of
from skyloom.algorithms.psf.convolution import ConvolutionParameters
from skyloom.algorithms.psf.fields import KernelField
from skyloom.algorithms.psf.fourier_kernels import fourier_field, kernel_residuals
from skyloom.algorithms.psf.models import gaussian_psf
from skyloom.algorithms.psf.points import Between
from skyloom.algorithms.psf.shapes import psf_fwhm
from skyloom.algorithms.psf.stamps import odd_size, stamp_values

__all__ = ["MatchingParameters", "matching_kernel", "target_image"]

Floats = NDArray[np.float64]
STAMP_IN_FWHM: Final = 12.0  # side of the images that are divided, in widths of the target
SUM_TOLERANCE: Final = 1e-4
WIDTH_ERROR: Final = 2e-3  # relative, of measured widths


class MatchingParameters(Parameters):
    """How the kernels are made that bring an image to another point-spread function."""

    method: Literal["fourier", "alard_lupton"] = Field(
        "fourier",
        description="regularised division in Fourier space, or a sum of Gaussians as in the "
        "LSST Science Pipelines",
    )
    cell: int = Field(
        128,
        ge=1,
        description="side of the cells with one kernel each, pixel; smaller where there would be "
        "too few for the order",
    )
    between: Between = Field(
        "quadratic",
        description="point-spread function of a cell: that of the nearest point, or a linear or "
        "quadratic polynomial through all points",
    )
    order: int = Field(
        2, ge=0, le=4, description="total order of the polynomials in which kernels change"
    )
    components: int = Field(
        6, ge=1, le=15, description="largest number of principal components of the kernels"
    )
    regularization: float = Field(
        1e-3, gt=0, lt=1, description="amplitude below which frequencies are not amplified"
    )
    kernel_tolerance: float = Field(
        1e-3, gt=0, lt=1, description="largest absolute sum of what is cut off the kernels"
    )
    min_ratio: float = Field(
        1.1, ge=1, description="smallest width of the target over that of the image"
    )
    max_residual: float = Field(
        0.01, gt=0, description="relative rms residual above which a match is POOR_KERNEL"
    )
    alard_lupton: AlardLuptonParameters = Field(
        AlardLuptonParameters(), description="for method alard_lupton, which has its own cells"
    )
    convolution: ConvolutionParameters = Field(
        ConvolutionParameters(), description="what becomes of missing pixels and mask bits"
    )


def target_image(target: xr.DataArray | float) -> xr.DataArray:
    """Return the image of a target, normalised to 1: a Gaussian if it is a width (FWHM, pixel).

    Examples
    --------
    >>> target_image(7.7).shape
    (93, 93)
    """
    if not isinstance(target, xr.DataArray):
        width = float(target)
        return gaussian_psf(width, size=odd_size(STAMP_IN_FWHM * width) if width > 0 else None)
    values = stamp_values(target, name="target")
    if values.ndim != 2 or not np.isfinite(values).all() or not values.sum() > 0:
        raise ValueError("target must be one finite image with a positive sum")
    return xr.DataArray(
        values / values.sum(), dims=(v.PSF_Y, v.PSF_X), attrs={"units": v.DIMENSIONLESS}
    )


def matching_kernel(
    psf: xr.Dataset,
    target: xr.DataArray | float,
    box: Sequence[int],
    *,
    parameters: MatchingParameters | None = None,
) -> xr.Dataset:
    """Return the field of kernels that bring an image to a target point-spread function.

    Parameters
    ----------
    psf : Dataset, (point, psf_y, psf_x)
        Point-spread functions of the image, see `psf_at_points`. NaN points are left out.
    target : DataArray, (psf_y, psf_x), or float
        Image of the target, or the FWHM [pixel] of a Gaussian.
    box : sequence of 4 int
        Half-open ``[y_start, y_stop, x_start, x_stop]`` of the image, in the pixels of the points.
    parameters : MatchingParameters, optional

    Returns
    -------
    Dataset
        ``kernel`` (component, kernel_y, kernel_x) and ``coefficients`` (component, coefficient)
        with the attributes ``box`` and ``order``, as `convolve` takes them: sum 1 everywhere
        (``kernel_sum`` of Alard-Lupton parameters). At the points of ``psf`` in the box, or at
        the centres of cells if there are none, ``residual`` (point), the relative rms of matched
        less target, and ``fwhm`` (point) [pixel] of the image, with coordinates ``x``, ``y``;
        ``sum_deviation``, the largest deviation of kernels from their sum before it was
        set; ``target_fwhm``; ``status`` (`MatchStatus`): NO_PSF if there is none,
        TARGET_TOO_NARROW if the target is less than ``min_ratio`` times as wide as the image
        somewhere; there is no ``kernel`` then. POOR_KERNEL if a residual exceeds
        ``max_residual`` or a kernel's sum was off by more than 1e-4.

    Raises
    ------
    ValueError
        If the target is no image, the box is empty, or the parameters of Alard-Lupton don't fit.

    Notes
    -----
    ``K = T S* / (|S|^2 + r^2)`` in each cell, on images 12 target widths wide; polynomials of
    position are fitted to the kernels, whose principal components are kept. Kernels are as small
    as ``kernel_tolerance`` allows.

    Examples
    --------
    >>> from skyloom.algorithms.psf import moffat_psf, psf_at_points
    >>> psf = psf_at_points(moffat_psf(4.0, size=93), 0.0, 0.0)
    >>> kernel = matching_kernel(psf, 7.7, (0, 256, 0, 256))
    >>> int(kernel["status"]), bool(kernel["residual"].max() < 1e-3), kernel.sizes["kernel_y"]
    (0, True, 67)
    """
    parameters = parameters or MatchingParameters()
    wanted = target_image(target)
    width = float(psf_fwhm(wanted))
    if not width > 0:
        raise ValueError("target must have a width at half maximum inside its image")
    status = v.MatchStatus.OK
    edges = [int(edge) for edge in box]
    result = xr.Dataset(
        {"target_fwhm": ((), width, {"units": v.PIXEL})},
        attrs={"method": parameters.method},
    )

    def with_status(status: v.MatchStatus) -> xr.Dataset:
        code = ((), np.uint8(status), v.flag_attributes(v.MatchStatus))
        return result.assign({"status": code})

    try:
        least = 2 * parameters.order + 1
        cells = cells_of(psf, edges, parameters.cell, parameters.between, least)
    except NoUsableDataError:
        return with_status(v.MatchStatus.NO_PSF)
    samples = samples_of(psf, edges, cells)
    images = xr.DataArray(samples.images, dims=("image", v.PSF_Y, v.PSF_X))
    widths = psf_fwhm(images).values[samples.image]
    result = result.assign_coords(
        x=(v.POINT, samples.x, {"units": v.PIXEL}), y=(v.POINT, samples.y, {"units": v.PIXEL})
    ).assign(fwhm=(v.POINT, widths, {"units": v.PIXEL}))
    # NaN counts as too wide
    if not np.all((1.0 + WIDTH_ERROR) * width >= parameters.min_ratio * widths):
        return with_status(v.MatchStatus.TARGET_TOO_NARROW)
    size = odd_size(max(STAMP_IN_FWHM * width, *cells.images.shape[1:], *wanted.shape))
    if parameters.method == "fourier":
        field, sums = fourier_field(
            cells,
            wanted.values,
            (edges[0], edges[1], edges[2], edges[3]),
            order=parameters.order,
            regularization=parameters.regularization,
            size=size,
            tolerance=parameters.kernel_tolerance,
            components=parameters.components,
        )
        deviation = float(np.abs(sums - 1.0).max())
        goal = wanted.values
    else:
        chosen = parameters.alard_lupton
        field, _, fitted_sum = alard_lupton_field(
            psf, wanted, edges, between=parameters.between, parameters=chosen
        )
        deviation = abs(fitted_sum - 1.0)
        goal = wanted.values * chosen.kernel_sum
    residuals = kernel_residuals(field, samples, goal, size)
    if residuals.max() > parameters.max_residual or deviation > SUM_TOLERANCE:
        status = v.MatchStatus.POOR_KERNEL
    result = with_status(status).assign(
        residual=(v.POINT, residuals, {"units": v.DIMENSIONLESS}),
        sum_deviation=((), deviation, {"units": v.DIMENSIONLESS}),
    )
    return _joined(result, field)


def _joined(result: xr.Dataset, field: KernelField) -> xr.Dataset:
    """Return a record with its field."""
    kernels = field.dataset()
    return result.assign(dict(kernels.data_vars)).assign_attrs(kernels.attrs)
