"""From the pairs of a detector to the photon transfer curve of each of its amplifiers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.amplifier import Curve, solve_amplifier
from skyloom.algorithms.photon_transfer.assembly import assemble_pairs
from skyloom.algorithms.photon_transfer.curves import attach_solutions
from skyloom.algorithms.photon_transfer.long_range import subtract_long_range
from skyloom.algorithms.photon_transfer.models import MODELS_OF_VARIANCE
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.photon_transfer.weights import relative_sigma
from skyloom.algorithms.vocabulary import (
    ADU2,
    AMP,
    COEFFICIENT,
    LAG_X,
    LAG_Y,
    PAIR,
    PairStatus,
)

__all__ = ["fill_bad_amps", "solve"]

Floats = NDArray[np.float64]


def solve(
    pairs: xr.Dataset | Sequence[xr.Dataset], *, parameters: SolveParameters | None = None
) -> xr.Dataset:
    """Solve the photon transfer curves of all amplifiers of one detector.

    Parameters
    ----------
    pairs : Dataset or sequence of Dataset, (pair, amp[, lag_y, lag_x])
        What extraction measured: ``mean`` (adu), ``variance`` (adu2) and, for every model but
        ``exp00`` and ``linear``, ``covariance`` (adu2) of one flat; ``variance_sigma`` or
        ``count``, ``covariance_sigma`` or ``covariance_count`` unless the weights are relative.
        Other variables are carried through. Without ``pair_status`` all finite pairs are OK.
    parameters : SolveParameters, optional
        Model, ranges, thresholds.

    Returns
    -------
    Dataset, (pair, amp, lag_y, lag_x)
        The pairs, assembled (`assemble_pairs`), with ``pair_status`` brought up to date, and

        * ``used`` (pair, amp), ``chi2_pair`` (pair, amp), ``covariance_model`` (adu2);
        * per amplifier ``gain`` (electron/adu), ``noise`` (electron, NaN if n_00 <= 0),
          ``turnoff``, ``turnoff_sampling_error``, ``rolloff``, ``rolloff_start``,
          ``rolloff_scale`` (adu), ``chi2``, ``dof``, ``sum_a`` (1/electron), medians of read
          noise and overscan (adu), ``amp_flag``, errors as ``..._sigma``;
        * matrices ``a`` (1/electron), ``b`` (1/electron), ``c`` (1/electron2), ``noise_matrix``
          (electron2), their errors, ``chi2_lag``; lags that were not fitted are NaN;
        * ``parameter_value`` and ``parameter_covariance`` of gain, n_00, a_00, a_01, a_10, a_11,
          where a_01 is the neighbour in y (lag_x 0, lag_y 1).

        Errors are those of (J^T W J)^-1; times sqrt(max(1, chi2 / dof)) they allow for a model
        that does not fit. With relative weights chi2 is the sum of squared
        relative residuals and errors are already scaled to it.

        An amplifier that cannot be solved has NaN and the flag BAD; one warning names all.

    Raises
    ------
    ValueError
        If variables, dimensions, units or weights are missing or more lags are asked for than
        were measured.

    Notes
    -----
    Models: Astier et al. 2019 (arXiv:1905.08677), see `model_covariance`.

    Examples
    --------
    >>> from skyloom.algorithms.photon_transfer.models import model_covariance
    >>> mean = np.linspace(1e3, 5e4, 30)
    >>> variance = model_covariance([[-3e-6]], 1.5, 25.0, mean)[:, :, 0]
    >>> pairs = xr.Dataset(
    ...     {
    ...         "mean": (("pair", "amp"), mean[:, None], {"units": "adu"}),
    ...         "variance": (("pair", "amp"), variance, {"units": "adu2"}),
    ...         "count": (("pair", "amp"), np.full((30, 1), 1_000_000)),
    ...     },
    ...     coords={"amp": ["C00"]},
    ... )
    >>> ptc = solve(pairs, parameters=SolveParameters(model="exp00"))
    >>> ptc["gain"].round(6).item(), ptc["noise"].round(4).item(), ptc["turnoff"].item()
    (1.5, 5.0, 50000.0)
    """
    parameters = parameters or SolveParameters()
    loaded = pairs.compute() if isinstance(pairs, xr.Dataset) else [p.compute() for p in pairs]
    assembled = assemble_pairs(loaded, parameters=parameters)
    assembled, fitted = _with_lags(assembled, parameters)
    relative = relative_sigma(assembled, parameters)
    if parameters.long_range.enabled:
        assembled = _without_long_range(assembled, relative, parameters)
    curves = _curves(assembled, relative, fitted, parameters)
    solutions = [solve_amplifier(curve, parameters) for curve in curves]
    ptc = attach_solutions(assembled, curves, solutions, fitted=fitted, model=parameters.model)
    bad = [
        f"{name}: {solution.problem}"
        for name, solution in zip(ptc[AMP].to_numpy(), solutions, strict=True)
        if solution.problem
    ]
    if bad:
        warnings.warn(
            f"{len(bad)} of {len(solutions)} amplifiers cannot be solved (AMP_BAD): "
            f"{'; '.join(bad)}",
            stacklevel=2,
        )
    return ptc


def _with_lags(pairs: xr.Dataset, parameters: SolveParameters) -> tuple[xr.Dataset, int]:
    """Return the pairs with dimensions of lag, and how many lags are to be fitted."""
    if "covariance" not in pairs:
        if parameters.model not in MODELS_OF_VARIANCE:
            raise ValueError(
                f"pairs has no covariance, which model {parameters.model!r} needs; "
                f"{' and '.join(MODELS_OF_VARIANCE)} fit the variance alone"
            )
        measured = 1
    else:
        measured = pairs.sizes[LAG_X]
        if pairs.sizes[LAG_Y] != measured:
            raise ValueError(
                f"covariance has {pairs.sizes[LAG_Y]} x {measured} lags; they must be as many in y"
            )
    fitted = 1 if parameters.model in MODELS_OF_VARIANCE else parameters.lags or measured
    if fitted > measured:
        raise ValueError(f"lags is {fitted}, but only {measured} were measured")
    missing = {name: np.arange(measured) for name in (LAG_Y, LAG_X) if name not in pairs.coords}
    return pairs.assign_coords(missing), fitted


def _without_long_range(
    pairs: xr.Dataset, relative: Floats, parameters: SolveParameters
) -> xr.Dataset:
    """Return the pairs without long-range covariances, which are kept as coefficients."""
    if "covariance" not in pairs or parameters.model in MODELS_OF_VARIANCE:
        raise ValueError("long-range covariances need a model of covariances")
    covariance = pairs["covariance"].to_numpy().astype(np.float64)
    variance = pairs["variance"].to_numpy().astype(np.float64)
    flat = (-1, *covariance.shape[2:])
    subtracted, coefficient = subtract_long_range(
        covariance.reshape(flat),
        (relative * variance[:, :, None, None]).reshape(flat),
        start=parameters.long_range.start,
        degree=parameters.long_range.degree,
    )
    subtracted = subtracted.reshape(covariance.shape)
    background = covariance[:, :, 0, 0] - subtracted[:, :, 0, 0]
    return pairs.assign(
        covariance=pairs["covariance"].copy(data=subtracted),
        variance=pairs["variance"].copy(data=variance - background),
        covariance_background=(
            (PAIR, AMP, COEFFICIENT),
            coefficient.reshape(*covariance.shape[:2], -1),
            {"units": ADU2},
        ),
    )


def _curves(
    pairs: xr.Dataset, relative: Floats, fitted: int, parameters: SolveParameters
) -> list[Curve]:
    mean, variance = (pairs[name].to_numpy().astype(np.float64) for name in ("mean", "variance"))
    if parameters.model in MODELS_OF_VARIANCE:
        covariance = variance[:, :, None, None]
    else:
        covariance = pairs["covariance"].to_numpy().astype(np.float64)
    light = None
    against = parameters.linearity.against
    if against != "none":
        if against not in pairs:
            raise ValueError(f"pairs has no {against}, which the linearity check needs")
        light = pairs[against].broadcast_like(pairs["mean"]).transpose(PAIR, AMP).to_numpy()
    status = pairs["pair_status"].to_numpy()
    noise = pairs["read_noise"].to_numpy() if "read_noise" in pairs else np.full_like(mean, np.nan)
    return [
        Curve(
            mean[:, index],
            variance[:, index],
            covariance[:, index, :fitted, :fitted],
            relative[:, index, :fitted, :fitted],
            status[:, index],
            None if light is None else light[:, index],
            _median(noise[status[:, index] == PairStatus.OK, index]),
        )
        for index in range(mean.shape[1])
    ]


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def fill_bad_amps(
    ptc: xr.Dataset, *, gain: float = 1.0, noise: float = 1.0, turnoff: float = 2e19
) -> xr.Dataset:
    """Give amplifiers without a solution stated values, on request only.

    Parameters
    ----------
    ptc : Dataset, (amp, ...)
        What `solve` returns.
    gain : float, electron/adu
        Gain where it is not finite and positive.
    noise : float, electron
        Noise where it is not finite.
    turnoff : float, adu
        Turn-off where it is not finite.

    Returns
    -------
    Dataset
        A copy; the flags still say which amplifiers are bad.

    Examples
    --------
    >>> from skyloom.algorithms.vocabulary import AmplifierFlag
    >>> ptc = xr.Dataset(
    ...     {name: ("amp", [np.nan]) for name in ("gain", "noise", "turnoff")}
    ...     | {"amp_flag": ("amp", [int(AmplifierFlag.BAD)])}
    ... )
    >>> fill_bad_amps(ptc, gain=1.4)["gain"].item()
    1.4
    """
    filled = {
        "gain": ptc["gain"].where(ptc["gain"] > 0, gain),
        "noise": ptc["noise"].where(np.isfinite(ptc["noise"]), noise),
        "turnoff": ptc["turnoff"].where(np.isfinite(ptc["turnoff"]), turnoff),
    }
    return ptc.assign({name: value.assign_attrs(ptc[name].attrs) for name, value in filled.items()})
