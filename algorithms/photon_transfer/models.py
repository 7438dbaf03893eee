"""Models of the covariances of a flat against its mean signal, and their derivatives.

Pixel boundaries move in proportion to the stored charge, so with M = g mu electrons per pixel
each Fourier mode of the covariance obeys dC/dM = 2 (a + c M) C + 1, where ``a`` and ``c`` are the
modes of the symmetrised coefficients (c = a b, element by element in lags). The models are

======================  =========================================================================
``exact``               c = 0: C = M phi(2 a M), phi(x) = expm1(x) / x
``exact_b``             C = M int_0^1 exp[2 a M (1 - t) + c M^2 (1 - t^2)] dt
``series4``             the first four powers of M: equation 20 of Astier et al. 2019
``series4_no_b``        the same with c = 0
``exp00``               the variance alone, only a_00: equation 16 of Astier et al. 2019
``linear``              the variance alone, a = 0: the classical curve, as in EMVA 1288
======================  =========================================================================

All arrays are ``(..., lag_y, lag_x)``. Covariances are those of ONE flat in adu2,
C_adu = C_electron / g^2 + n / g^2; ``a`` is in 1/electron, ``c`` in 1/electron2, the noise
covariance ``n`` in electron2, the gain ``g`` in electron/adu and the mean ``mu`` in adu.

References: Astier et al. 2019 (arXiv:1905.08677).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms.photon_transfer.lattice import convolution_matrices, from_modes, to_modes
from skyloom.algorithms.photon_transfer.modes import mode_covariance, mode_derivatives
from skyloom.algorithms.vocabulary import ADU, ADU2, AMP, LAG_X, LAG_Y

__all__ = [
    "MODELS",
    "MODELS_OF_VARIANCE",
    "MODELS_WITH_B",
    "ModelJacobian",
    "evaluate_model",
    "model_covariance",
    "model_jacobian",
]

Floats = NDArray[np.float64]

MODELS: Final = ("exact", "exact_b", "series4", "series4_no_b", "exp00", "linear")
MODELS_OF_VARIANCE: Final = ("exp00", "linear")
MODELS_WITH_B: Final = ("exact_b", "series4")


class ModelJacobian(NamedTuple):
    """A model and its derivatives at each mean, lags flattened as ``lag_y * r + lag_x``.

    ``value`` and ``by_gain`` are (lag, mean); ``by_a`` and ``by_c`` (None for models without b)
    are (lag, mean, coefficient); ``by_noise``, a number, is the derivative of a lag by its own n.
    """

    value: Floats
    by_gain: Floats
    by_a: Floats
    by_c: Floats | None
    by_noise: float


def _checked(
    a: ArrayLike, gain: float, c: ArrayLike | None, mean: ArrayLike, model: str
) -> tuple[Floats, Floats | None, Floats]:
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; known are {', '.join(MODELS)}")
    if c is not None and model not in MODELS_WITH_B:
        raise ValueError(f"model {model!r} has no c; models with c are {', '.join(MODELS_WITH_B)}")
    a = np.atleast_2d(np.asarray(a, dtype=np.float64))
    if model in MODELS_OF_VARIANCE:
        a = a[:1, :1] if model == "exp00" else np.zeros((1, 1))
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"a has shape {a.shape}; it must be square, (lag_y, lag_x)")
    if c is not None:
        c = np.atleast_2d(np.asarray(c, dtype=np.float64))
        if c.shape != a.shape:
            raise ValueError(f"c has shape {c.shape}, a has {a.shape}; they must agree")
    return a, c, np.atleast_1d(np.asarray(mean, dtype=np.float64))


def model_covariance(
    a: ArrayLike,
    gain: float,
    noise: ArrayLike,
    mean: ArrayLike,
    *,
    c: ArrayLike | None = None,
    model: str = "exact",
) -> Floats:
    """Return the covariances of one flat that a model predicts.

    Parameters
    ----------
    a : array_like, (lag_y, lag_x), 1/electron
        Fractional change of pixel area per electron stored at each lag.
    gain : float, electron/adu
        Gain.
    noise : array_like, (lag_y, lag_x) or number, electron2
        Noise covariance.
    mean : array_like, (mean), adu
        Mean signals.
    c : array_like, (lag_y, lag_x), 1/electron2, optional
        First-order drift a b of the coefficients, for ``exact_b`` and ``series4``.
    model : {"exact", "exact_b", "series4", "series4_no_b", "exp00", "linear"}
        The model; ``exp00`` and ``linear`` use and return lag (0, 0) alone.

    Returns
    -------
    array, (mean, lag_y, lag_x), float64, adu2

    Raises
    ------
    ValueError
        If the model is unknown or the shapes do not fit.

    Notes
    -----
    Equations 16 and 20 of Astier et al. 2019 and their closed form, see the module.

    Examples
    --------
    >>> a = np.array([[-3e-6, 4e-7], [2e-7, 1e-7]])
    >>> model_covariance(a, 1.0, 25.0 * np.eye(1, 4).reshape(2, 2), [0.0, 5e4]).round(1).tolist()
    [[[25.0, 0.0], [0.0, 0.0]], [[43251.6, 826.7], [421.5, 216.2]]]
    """
    a, c, mean = _checked(a, gain, c, mean, model)
    signal = gain * mean[:, None, None]
    modes = mode_covariance(model, to_modes(a), None if c is None else to_modes(c), signal)
    noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), np.shape(noise) or a.shape)
    return np.asarray((from_modes(modes, len(a)) + noise[: len(a), : len(a)]) / gain**2)


def model_jacobian(
    a: ArrayLike,
    gain: float,
    noise: ArrayLike,
    mean: ArrayLike,
    *,
    c: ArrayLike | None = None,
    model: str = "exact",
) -> ModelJacobian:
    """Return a model and its analytic derivatives by gain, a, c and noise.

    The derivative by a coefficient is a convolution with the derivative of the mode: no finite
    differences, no extra evaluations of the model.

    Parameters
    ----------
    a, gain, noise, mean, c, model
        As in `model_covariance`.

    Returns
    -------
    ModelJacobian

    Raises
    ------
    ValueError
        If the model is unknown or the shapes do not fit.

    Examples
    --------
    >>> jacobian = model_jacobian([[-3e-6]], 1.0, 25.0, [5e4])
    >>> step = 1e-10
    >>> above, below = (model_covariance([[-3e-6 + s]], 1.0, 25.0, [5e4]) for s in (step, -step))
    >>> round(float(jacobian.by_a[0, 0, 0] / ((above - below)[0, 0, 0] / (2 * step))), 6)
    1.0
    """
    a, c, mean = _checked(a, gain, c, mean, model)
    lags, signal = len(a), gain * mean[:, None, None]
    if model in MODELS_WITH_B and c is None:
        c = np.zeros_like(a)
    modes = mode_derivatives(model, to_modes(a), None if c is None else to_modes(c), signal)
    noise = np.broadcast_to(np.asarray(noise, dtype=np.float64), np.shape(noise) or a.shape)
    total = from_modes(modes.value, lags) + noise[:lags, :lags]
    by_gain = (
        from_modes(modes.by_signal, lags) * mean[:, None, None] / gain**2 - 2 * total / gain**3
    )
    by_a = modes.by_a / gain**2 if model != "linear" else 0.0 * modes.by_a
    has_c = model in MODELS_WITH_B and modes.by_c is not None
    return ModelJacobian(
        (total / gain**2).reshape(len(mean), -1).T,
        by_gain.reshape(len(mean), -1).T,
        convolution_matrices(from_modes(by_a, 2 * lags - 1), lags),
        convolution_matrices(from_modes(modes.by_c / gain**2, 2 * lags - 1), lags)
        if has_c and modes.by_c is not None
        else None,
        1 / gain**2,
    )


def evaluate_model(ptc: xr.Dataset, mean: ArrayLike) -> xr.DataArray:
    """Evaluate the fitted model of each amplifier at any signal.

    Parameters
    ----------
    ptc : Dataset, (amp, lag_y, lag_x)
        What `solve` returns; ``gain``, ``a``, ``c`` and ``noise_matrix`` are used, and the
        attribute ``model``.
    mean : array_like, (mean), adu
        Mean signals.

    Returns
    -------
    DataArray, (mean, amp, lag_y, lag_x), float64, adu2
        Covariances of one flat; NaN for amplifiers and lags that were not fitted.

    Raises
    ------
    KeyError
        If a variable or the attribute ``model`` is missing.

    Examples
    --------
    >>> lags = {"dims": ("amp", "lag_y", "lag_x")}
    >>> ptc = xr.Dataset(
    ...     {
    ...         "gain": ("amp", [1.5]),
    ...         "a": (lags["dims"], np.full((1, 1, 1), -3e-6)),
    ...         "c": (lags["dims"], np.full((1, 1, 1), np.nan)),
    ...         "noise_matrix": (lags["dims"], np.full((1, 1, 1), 25.0)),
    ...     },
    ...     coords={"amp": ["C00"]},
    ...     attrs={"model": "exp00"},
    ... )
    >>> evaluate_model(ptc, [1e4]).dims
    ('mean', 'amp', 'lag_y', 'lag_x')
    """
    missing = [name for name in ("gain", "a", "c", "noise_matrix") if name not in ptc]
    if missing or "model" not in ptc.attrs:
        raise KeyError(f"ptc lacks {', '.join(missing) or 'the attribute model'}")
    model = str(ptc.attrs["model"])
    mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    a, c, noise = (
        ptc[name].transpose(AMP, LAG_Y, LAG_X).to_numpy() for name in ("a", "c", "noise_matrix")
    )
    values = np.full((len(mean), *a.shape), np.nan)
    for index, gain in enumerate(ptc["gain"].to_numpy()):
        fitted = int(np.isfinite(a[index, 0]).sum())
        if not np.isfinite(gain) or not fitted:
            continue
        inside = (index, slice(fitted), slice(fitted))
        values[:, *inside] = model_covariance(
            a[inside],
            float(gain),
            noise[inside],
            mean,
            c=c[inside] if model in MODELS_WITH_B else None,
            model=model,
        )
    coords = {name: ptc[name] for name in (AMP, LAG_Y, LAG_X) if name in ptc.coords}
    return xr.DataArray(
        values,
        dims=("mean", AMP, LAG_Y, LAG_X),
        coords={"mean": ("mean", mean, {"units": ADU}), **coords},
        name="covariance_model",
        attrs={"units": ADU2},
    )
