"""What is known of each amplifier when a frame is detrended: gain, read noise, saturation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier

__all__ = ["Gains", "amplifier_values", "given_gains"]

Floats = NDArray[np.float64]
Gains = float | xr.DataArray | xr.Dataset
"""One gain, gains over ``amp``, or a solved photon transfer with ``gain`` and ``noise``."""


def amplifier_values(values: float | xr.DataArray, rows: Sequence[Amplifier], what: str) -> Floats:
    """Return one number for each amplifier, found by name.

    Parameters
    ----------
    values : float or DataArray, (amp)
        One number for all, or one for each name.
    rows : sequence of Amplifier
        The amplifiers, in order.
    what : str
        What the numbers are, for messages.

    Raises
    ------
    ValueError
        If an amplifier is missing.

    Examples
    --------
    >>> from skyloom.algorithms.amplifiers import Box
    >>> box = Box(0, 4, 6, 12)
    >>> row = Amplifier("B", box, box, box, box, False, False, 1.0, 5.0, 6e4)
    >>> values = xr.DataArray([2.0, 3.0], dims="amp", coords={"amp": ["A", "B"]})
    >>> amplifier_values(values, [row], "gain")
    array([3.])
    """
    if not isinstance(values, xr.DataArray) or values.ndim == 0:
        return np.full(len(rows), float(values))
    if values.dims != (v.AMP,):
        raise ValueError(f"{what} has dimensions {values.dims}, needs ('amp',)")
    if v.AMP not in values.coords:
        if values.size != len(rows):
            raise ValueError(
                f"{what} has {values.size} values without names for {len(rows)} amplifiers"
            )
        return values.to_numpy().astype(np.float64)
    known = dict(
        zip((str(name) for name in values[v.AMP].to_numpy()), values.to_numpy(), strict=True)
    )
    missing = [row.name for row in rows if row.name not in known]
    if missing:
        raise ValueError(
            f"{what} lacks the amplifiers {', '.join(missing)}; it has {', '.join(known)}"
        )
    return np.array([known[row.name] for row in rows], np.float64)


def given_gains(
    gain: Gains | None, rows: Sequence[Amplifier], detector: str
) -> tuple[Floats, Floats, NDArray[np.bool_], str]:
    """Return gains, read noises that came with them, which amplifiers had none, and the source.

    An amplifier whose gain was not measured (NaN, not positive, or flagged BAD) gets that of the
    camera.

    Parameters
    ----------
    gain : float, DataArray, Dataset or None
        See `Gains`; the camera's without it.
    rows : sequence of Amplifier
        The amplifiers, in order.
    detector : str
        Name of the detector, or ''.

    Returns
    -------
    gains : ndarray, (amp), electron/adu
    noises : ndarray, (amp), electron
        NaN where none was given.
    unmeasured : ndarray, (amp), bool
        Whether a gain was given that is none.
    source : str
        Where the gains come from.

    Raises
    ------
    ValueError
        If the gains are of another detector or lack an amplifier, or neither they nor the camera
        have a positive number.
    """
    nominal = np.array([row.gain for row in rows])
    noises = np.full(len(rows), np.nan)
    unmeasured = np.zeros(len(rows), np.bool_)
    if gain is None:
        gains, source = nominal, "camera"
    elif isinstance(gain, xr.Dataset):
        found = str(gain.coords[v.DETECTOR].values if v.DETECTOR in gain.coords else "")
        found = found or str(gain.attrs.get(v.DETECTOR, ""))
        if found and detector and found != detector:
            raise ValueError(f"gain is of detector {found!r}, the frame of {detector!r}")
        if "gain" not in gain:
            raise ValueError(f"gain has no variable 'gain'; it has {', '.join(map(str, gain))}")
        gains = amplifier_values(gain["gain"], rows, "gain")
        if "noise" in gain:
            noises = amplifier_values(gain["noise"], rows, "noise")
        if "amp_flag" in gain:
            flags = amplifier_values(gain["amp_flag"], rows, "amp_flag").astype(np.int64)
            unmeasured = (flags & int(v.AmplifierFlag.BAD)) != 0
        source = str(gain.attrs.get("id", "photon transfer without id"))
    else:
        gains, source = amplifier_values(gain, rows, "gain"), "given"
    if gain is not None:
        unmeasured |= ~(np.isfinite(gains) & (gains > 0))
        gains = np.where(unmeasured, nominal, gains)
        if unmeasured.any():
            lost = ", ".join(row.name for row, none in zip(rows, unmeasured, strict=True) if none)
            warnings.warn(
                f"gain {source}: no gain was measured of {lost}; these amplifiers are BAD and have "
                "the gain of the camera",
                stacklevel=3,
            )
    wrong = [row.name for row, g in zip(rows, gains, strict=True) if not (0 < g < np.inf)]
    if wrong:
        raise ValueError(f"no positive gain is known of the amplifiers {', '.join(wrong)}")
    noises = np.where(np.isfinite(noises) & (noises >= 0), noises, np.nan)
    return gains, noises, unmeasured, source
