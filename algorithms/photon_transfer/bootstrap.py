"""Errors of a solved photon transfer curve without trusting its covariance matrix."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.fit import CovarianceFit, Start, fit_covariances
from skyloom.algorithms.photon_transfer.models import MODELS_OF_VARIANCE
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.photon_transfer.weights import relative_sigma
from skyloom.algorithms.vocabulary import (
    AMP,
    ELECTRON2,
    ELECTRON_PER_ADU,
    LAG_X,
    LAG_Y,
    PER_ELECTRON,
)

__all__ = ["BOOTSTRAP_SUMMARIES", "bootstrap"]

Floats = NDArray[np.float64]

BOOTSTRAP_SUMMARIES: Final = ("mean", "stdev", "p16", "p84")
SUMMARY: Final = "summary"
METHODS: Final = ("parametric", "resample")


def bootstrap(
    ptc: xr.Dataset,
    *,
    generator: np.random.Generator,
    parameters: SolveParameters | None = None,
    method: Literal["parametric", "resample"] = "parametric",
    replicas: int = 100,
) -> xr.Dataset:
    """Repeat the fit of every amplifier on replicas of its data.

    Parameters
    ----------
    ptc : Dataset, (pair, amp, lag_y, lag_x)
        What `solve` returns; the pairs it used stay the same.
    generator : numpy.random.Generator
        Source of all randomness; every amplifier draws from a stream of its own.
    parameters : SolveParameters, optional
        The parameters of that solve.
    method : {"parametric", "resample"}
        ``parametric``: the model plus Gaussian noise of the known errors; ``resample``: pairs
        drawn with replacement.
    replicas : int
        Number of replicas.

    Returns
    -------
    Dataset, (summary, amp[, lag_y, lag_x])
        ``gain`` (electron/adu), ``n_00`` (electron2), ``a`` (1/electron): mean, standard
        deviation, and the 16 and 84 percentiles over the replicas that converged, whose number
        is ``replicas`` (amp). The estimate itself stays what the solve found; amplifiers without
        a solution are NaN.

    Raises
    ------
    ValueError
        If the method is unknown, there are fewer than two replicas or the model of the
        parameters is not the one that was solved.

    Examples
    --------
    >>> from skyloom.algorithms.photon_transfer.models import model_covariance
    >>> from skyloom.algorithms.photon_transfer.solve import solve
    >>> mean = np.linspace(1e3, 5e4, 30)
    >>> variance = model_covariance([[-3e-6]], 1.5, 25.0, mean)[:, :, 0]
    >>> pairs = xr.Dataset(
    ...     {
    ...         "mean": (("pair", "amp"), mean[:, None]),
    ...         "variance": (("pair", "amp"), variance),
    ...         "count": (("pair", "amp"), np.full((30, 1), 1_000_000)),
    ...     },
    ...     coords={"amp": ["C00"]},
    ... )
    >>> parameters = SolveParameters(model="exp00")
    >>> ptc = solve(pairs, parameters=parameters)
    >>> found = bootstrap(ptc, generator=np.random.default_rng(1), parameters=parameters)
    >>> bool(abs(found["gain"].sel(summary="stdev").item() / ptc["gain_sigma"].item() - 1) < 0.3)
    True
    """
    parameters = parameters or SolveParameters()
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    if replicas < 2:
        raise ValueError(f"replicas is {replicas}; at least 2 are needed")
    if ptc.attrs.get("model") != parameters.model:
        raise ValueError(
            f"ptc holds model {ptc.attrs.get('model')!r}, the parameters say {parameters.model!r}"
        )
    relative = relative_sigma(ptc, parameters)
    count, amplifiers = len(BOOTSTRAP_SUMMARIES), ptc.sizes[AMP]
    lags = ptc["a"].shape[1:]
    gain, noise = (np.full((count, amplifiers), np.nan) for _ in range(2))
    a = np.full((count, amplifiers, *lags), np.nan)
    converged = np.zeros(amplifiers, dtype=np.int64)
    for index, stream in enumerate(generator.spawn(amplifiers)):
        fits = _replicas(ptc, index, relative, stream, parameters, method, replicas)
        converged[index] = len(fits)
        if len(fits) < 2:
            continue
        fitted = len(fits[0].a)
        gain[:, index] = _summary(np.array([fit.gain for fit in fits]))
        noise[:, index] = _summary(np.array([fit.noise[0, 0] for fit in fits]))
        a[:, index, :fitted, :fitted] = _summary(np.stack([fit.a for fit in fits]))
    return xr.Dataset(
        {
            "gain": ((SUMMARY, AMP), gain, {"units": ELECTRON_PER_ADU}),
            "n_00": ((SUMMARY, AMP), noise, {"units": ELECTRON2}),
            "a": ((SUMMARY, AMP, LAG_Y, LAG_X), a, {"units": PER_ELECTRON}),
            "replicas": (AMP, converged),
        },
        coords={SUMMARY: list(BOOTSTRAP_SUMMARIES), AMP: ptc[AMP]},
    )


def _summary(values: Floats) -> Floats:
    return np.stack(
        [values.mean(axis=0), values.std(axis=0, ddof=1), *np.percentile(values, [16, 84], axis=0)]
    )


def _replicas(
    ptc: xr.Dataset,
    index: int,
    relative: Floats,
    generator: np.random.Generator,
    parameters: SolveParameters,
    method: str,
    replicas: int,
) -> list[CovarianceFit]:
    """Return the fits of one amplifier that converged."""
    used = ptc["used"].to_numpy()[:, index]
    if not used.any():
        return []
    model = ptc["covariance_model"].to_numpy()[used, index]
    fitted = int(np.isfinite(ptc["a"].to_numpy()[index, 0]).sum())
    inside = (slice(None), slice(fitted), slice(fitted))
    model, relative = model[inside], relative[used, index][inside]
    if parameters.model in MODELS_OF_VARIANCE:
        data = ptc["variance"].to_numpy()[used, index][:, None, None]
    else:
        data = ptc["covariance"].to_numpy()[used, index][inside]
    mean = ptc["mean"].to_numpy()[used, index]
    c = ptc["c"].to_numpy()[index, :fitted, :fitted]
    start = Start(
        float(ptc["gain"][index]),
        ptc["a"].to_numpy()[index, :fitted, :fitted],
        c if np.all(np.isfinite(c)) else None,
    )
    scale = 1.0
    if parameters.weights == "relative":
        scale = float(np.sqrt(ptc["chi2"][index] / max(int(ptc["dof"][index]), 1)))
    sigma = scale * relative * model[:, :1, :1]
    fits = []
    for _ in range(replicas):
        if method == "parametric":
            chosen = np.arange(len(mean))
            values = model + sigma * generator.standard_normal(model.shape)
        else:
            chosen = generator.integers(0, len(mean), len(mean))
            values = data[chosen]
        fit = fit_covariances(
            mean[chosen],
            values,
            relative[chosen],
            start,
            model=parameters.model,
            variance_start=model[chosen, 0, 0],
            reweightings=1,
            iterations=parameters.iterations,
        )
        if fit.converged:
            fits.append(fit)
    return fits
