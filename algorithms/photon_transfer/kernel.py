"""The scalar brighter-fatter kernel, from the covariances of flats.

Covariances of one flat in electron2, without Poisson and read noise, are taken as
C = -mu^2 lap K: the charge that has arrived repels the charge that follows, through a potential K
that is convolved with the image (Coulton et al. 2018, Broughton et al. 2024). The *pre-kernel*
lap K = -C / mu^2 comes from the data or from the fitted model; the kernel is its solution on a
square of 2 r + 1 pixels with K = 0 outside. Arrays are ``(lag_y, lag_x)`` for pre-kernels, lags
>= 0, and ``(kernel_y, kernel_x)`` for kernels, -r ... r; both are in 1/electron.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.prekernel import (
    REQUIRED_VARIABLES,
    KernelParameters,
    prekernel,
)
from skyloom.algorithms.vocabulary import (
    AMP,
    DIMENSIONLESS,
    KERNEL_X,
    KERNEL_Y,
    LAG_X,
    LAG_Y,
    PER_ELECTRON,
    AmplifierFlag,
)

__all__ = ["KernelParameters", "brighter_fatter_kernel", "full_prekernel", "solve_kernel"]

Floats = NDArray[np.float64]

FRAME: Final = 3
"""Width of the frame whose scatter judges the edge of a kernel, pixels."""


def full_prekernel(
    quadrant: Floats,
    *,
    zero_sum: bool = True,
    tail_radius: float = np.inf,
    tail_slope: float = 1.35,
) -> Floats:
    """Reflect a pre-kernel into all quadrants and conserve charge.

    Parameters
    ----------
    quadrant : ndarray, (lag_y, lag_x), float64, 1/electron
        Pre-kernel at lags 0 ... r-1.
    zero_sum : bool
        Subtract the sum from the centre, so that the sum vanishes.
    tail_radius : float, pixel
        Beyond it the sum counts the power law -A r^(-2 slope), with A fitted to the lags inside;
        a radius beyond the data leaves the tail out.
    tail_slope : float
        Half the exponent of the power law, > 1.

    Returns
    -------
    ndarray, (kernel_y, kernel_x), float64, 1/electron
        ``2 r + 1`` on a side, with a ring of zeros.

    Notes
    -----
    The tail adds -A 2 pi R^(2 - 2 s) / (2 s - 2).

    Examples
    --------
    >>> full = full_prekernel(np.array([[5.0, -1.0], [-1.0, 0.0]]))
    >>> full.shape, float(full[2, 2]), float(full.sum())
    ((5, 5), 4.0, 0.0)
    """
    lags = len(quadrant)
    index = np.abs(np.arange(-lags, lags + 1))
    padded = np.pad(quadrant, (0, 1))
    full: Floats = padded[np.ix_(index, index)]
    if zero_sum:
        total = full.sum()
        if tail_radius < lags - 1:
            radius = np.hypot(index[:, None], index)
            inside = (radius >= 1) & (radius <= tail_radius)
            shape = radius[inside] ** (-2 * tail_slope)
            amplitude = -(full[inside] @ shape) / (shape @ shape)
            excess = 2 * tail_slope - 2
            tail = -amplitude * 2 * np.pi * tail_radius**-excess / excess
            total = full[radius <= tail_radius].sum() + tail
        full[lags, lags] -= total
    return full


def solve_kernel(prekernel: Floats) -> Floats:
    """Solve lap K = pre-kernel exactly, with K = 0 one pixel outside.

    Parameters
    ----------
    prekernel : ndarray, (kernel_y, kernel_x), float64, 1/electron
        Source, as `full_prekernel` gives it.

    Returns
    -------
    ndarray, (kernel_y, kernel_x), float64, 1/electron
        The kernel.

    Notes
    -----
    The discrete sine transform of type I diagonalises the 5-point Laplacian with these edges; a
    converged over-relaxation gives the same numbers to rounding.

    Examples
    --------
    >>> source = np.zeros((5, 5))
    >>> source[2, 2] = 1.0
    >>> kernel = solve_kernel(source)
    >>> neighbours = kernel[1, 2] + kernel[3, 2] + kernel[2, 1] + kernel[2, 3]
    >>> round(float(neighbours - 4 * kernel[2, 2]), 12)
    1.0
    """
    modes = scipy.fft.dstn(prekernel, type=1, norm="ortho", workers=1)
    along_y, along_x = (
        2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1)) - 2 for size in prekernel.shape
    )
    modes /= along_y[:, None] + along_x
    return np.asarray(scipy.fft.idstn(modes, type=1, norm="ortho", workers=1))


def _is_valid(kernel: Floats, parameters: KernelParameters) -> bool:
    """Judge a kernel: edge consistent with 0, deepest in the centre, hardly positive."""
    center = len(kernel) // 2
    depth = kernel[center, center]
    inner = np.zeros(kernel.shape, dtype=bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = True
    edge = np.ones(kernel.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    sigma = kernel[~inner].std()
    return bool(
        depth < 0
        and np.all(np.abs(kernel[edge]) <= parameters.edge_clip * sigma)
        and kernel.min() == depth
        and kernel.max() <= parameters.positive_fraction * abs(depth)
    )


def brighter_fatter_kernel(
    ptc: xr.Dataset, *, parameters: KernelParameters | None = None
) -> xr.Dataset:
    """Return the brighter-fatter kernel of each amplifier and of the detector.

    Parameters
    ----------
    ptc : Dataset, (pair, amp, lag_y, lag_x)
        Solved photon transfer of one detector: ``gain`` (electron/adu) and, by source, ``a``
        (1/electron), ``mean`` (adu) with ``covariance`` or ``covariance_model`` (adu2). Of the
        pairs the ``used`` ones count; ``noise_matrix`` (electron2) or else ``noise`` (electron)
        is taken out; amplifiers flagged BAD give no kernel.
    parameters : KernelParameters, optional
        Source of the pre-kernel, conservation of charge, validity.

    Returns
    -------
    Dataset, (amp, kernel_y, kernel_x)
        ``kernel`` (1/electron), zero where there is none, ``kernel_valid`` and
        ``detector_kernel``, the mean over the valid amplifiers, zero if there are none.

    Raises
    ------
    KeyError
        If the photon transfer lacks a variable.
    ValueError
        If there are fewer than two lags, or not as many along y as along x.

    Notes
    -----
    Coulton et al. 2018 (arXiv:1711.06273), Broughton et al. 2024 (arXiv:2312.03115). The
    averages of the reference leave read noise in the variance and never reject by imbalance,
    because its limit of 2 cannot be passed.

    Examples
    --------
    >>> a = np.array([[[-3.0, 0.4], [0.5, 0.3]]]) * 1e-6
    >>> ptc = xr.Dataset(
    ...     {"gain": ("amp", [1.5]), "a": (("amp", "lag_y", "lag_x"), a)}, coords={"amp": ["C00"]}
    ... )
    >>> found = brighter_fatter_kernel(ptc)
    >>> dict(found.sizes), bool(found.kernel.isel(amp=0, kernel_y=2, kernel_x=2) < 0)
    ({'amp': 1, 'kernel_y': 5, 'kernel_x': 5}, True)
    """
    parameters = parameters or KernelParameters()
    missing = [name for name in REQUIRED_VARIABLES[parameters.source] if name not in ptc]
    if missing:
        raise KeyError(f"ptc lacks {', '.join(missing)}, which source {parameters.source!r} needs")
    lags = ptc.sizes[LAG_Y]
    if lags < 2 or lags != ptc.sizes[LAG_X]:
        raise ValueError(f"ptc has {lags} x {ptc.sizes[LAG_X]} lags; need a square of 2 or more")
    side = 2 * lags + 1
    kernels = np.zeros((ptc.sizes[AMP], side, side))
    valid = np.zeros(ptc.sizes[AMP], dtype=bool)
    for index in range(ptc.sizes[AMP]):
        flag = int(ptc["amp_flag"].to_numpy()[index]) if "amp_flag" in ptc else 0
        quadrant = prekernel(ptc.isel({AMP: index}), parameters=parameters)
        if quadrant is None or flag & AmplifierFlag.BAD:
            continue
        full = full_prekernel(
            quadrant,
            zero_sum=parameters.zero_sum,
            tail_radius=parameters.tail_radius,
            tail_slope=parameters.tail_slope,
        )
        kernels[index] = solve_kernel(full)
        valid[index] = _is_valid(kernels[index], parameters)
    mean = kernels[valid].mean(axis=0) if valid.any() else np.zeros((side, side))
    place = np.arange(-lags, lags + 1)
    names = [AMP] if AMP in ptc.coords else []
    return xr.Dataset(
        {
            "kernel": ((AMP, KERNEL_Y, KERNEL_X), kernels, {"units": PER_ELECTRON}),
            "kernel_valid": (AMP, valid, {"units": DIMENSIONLESS}),
            "detector_kernel": ((KERNEL_Y, KERNEL_X), mean, {"units": PER_ELECTRON}),
        },
        coords={KERNEL_Y: place, KERNEL_X: place} | {name: ptc[name] for name in names},
        attrs={"source": parameters.source},
    )
