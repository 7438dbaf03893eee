"""The steps of detrending that act on each pixel alone, each a function of its own.

An exposure is a dataset in trimmed orientation: ``image`` (..., y, x), and perhaps ``variance`` and
``mask``. Each step returns a new one in float64 steps rounded to the dtype of the image, carries
the variance along, and joins the masks. `detrend` does the same in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows
from skyloom.algorithms.dark_times import dark_overhead, dark_times
from skyloom.algorithms.detrend.calibrations import (
    CALIBRATION_PLANES,
    check_calibrations,
    own_planes,
    told,
)
from skyloom.algorithms.detrend.channels import Gains, amplifier_values, given_gains
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.detrend.planes import frame_planes

__all__ = [
    "add_variance",
    "apply_gain",
    "divide_flat",
    "frame_dark_time",
    "mask_defects",
    "subtract_bias",
    "subtract_dark",
    "subtract_fringe",
]


def _combined(
    exposure: xr.Dataset,
    image: xr.DataArray,
    variance: xr.DataArray | None,
    masks: Sequence[xr.DataArray | None] = (),
) -> xr.Dataset:
    """Return an exposure with new planes; pixels left without a number are BAD and NaN."""
    planes = frame_planes(exposure)
    mask = planes[v.MASK]
    bits = np.int32(v.plane_bits(CALIBRATION_PLANES))
    for other in masks:
        if other is not None:
            mask = mask | (_bare(other) & bits)
    bad, lost = (np.int32(v.MASK_PLANES[name]) for name in ("BAD", "NO_DATA"))
    known = np.isfinite(image)
    mask = mask.where(known | ((mask & lost) != 0), mask | bad).astype(np.int32)
    dims = exposure["image"].dims
    dtype = exposure["image"].dtype
    changed = {
        "image": image.where(known).astype(dtype).transpose(*dims),
        v.MASK: mask.transpose(*dims).assign_attrs(v.mask_attributes()),
    }
    changed["image"].attrs = dict(exposure["image"].attrs)
    if variance is not None:
        attributes = exposure["variance"].attrs if "variance" in exposure else {}
        changed["variance"] = variance.where(known).astype(dtype).transpose(*dims)
        changed["variance"].attrs = dict(attributes)
    return exposure.assign(changed)


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Return an array without coordinates, so that it is matched by shape."""
    return array.drop_vars([*array.coords])


def _wide(data: xr.Dataset | None, name: str) -> xr.DataArray | None:
    """Return a plane as float64 without coordinates, if it is there."""
    if data is None or name not in data:
        return None
    return _bare(data[name]).astype(np.float64)


def _plane(rows: Sequence[Amplifier], values: Sequence[float], like: xr.DataArray) -> xr.DataArray:
    """Return an image that holds the number of each amplifier; NaN where there is none."""
    plane = np.full((like.sizes[v.Y], like.sizes[v.X]), np.nan)
    for row, value in zip(rows, values, strict=True):
        plane[row.trimmed.slices] = value
    return xr.DataArray(plane, dims=(v.Y, v.X))


def subtract_bias(exposure: xr.Dataset, bias: xr.Dataset) -> xr.Dataset:
    """Subtract a bias frame.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, adu, overscan subtracted.
    bias : Dataset, (y, x)
        ``image``, adu, and perhaps ``variance`` (adu2), which is added, and ``mask``.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ValueError
        If the bias is of another detector, camera, shape or unit.

    Examples
    --------
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"), attrs={"units": "adu"})
    >>> bias = xr.Dataset({"image": image - image + 2.0})
    >>> subtract_bias(xr.Dataset({"image": image}), bias).image.values.tolist()
    [[3.0, 5.0]]
    """
    image = frame_planes(exposure, units=(v.ADU,))["image"]
    check_calibrations(exposure, {"bias": bias}, (image.sizes[v.Y], image.sizes[v.X]))
    return _subtracted(exposure, bias, xr.DataArray(1.0))


def _subtracted(exposure: xr.Dataset, calibration: xr.Dataset, scale: xr.DataArray) -> xr.Dataset:
    variance, more = _wide(exposure, "variance"), _wide(calibration, "variance")
    if variance is not None and more is not None:
        variance = variance + scale**2 * more
    image = exposure["image"].astype(np.float64)
    image = image - scale * _bare(calibration["image"]).astype(np.float64)
    return _combined(exposure, image, variance, [own_planes(calibration.get(v.MASK))])


def subtract_dark(
    exposure: xr.Dataset, dark: xr.Dataset, *, dark_time: xr.DataArray | float | None = None
) -> xr.Dataset:
    """Subtract a dark frame times the dark time.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, adu or electron.
    dark : Dataset, (y, x)
        ``image`` in the unit of the exposure per second, and perhaps ``variance``, which is
        added, and ``mask``.
    dark_time : float or DataArray, s, optional
        Without it the coordinate ``dark_time`` of the exposure, or else its ``exposure_time`` and
        the ``dark_overhead`` of the dark.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ValueError
        If the dark is of another detector, camera, shape or unit, or no time is known.

    Examples
    --------
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"), attrs={"units": "electron"})
    >>> dark = xr.Dataset({"image": (("y", "x"), [[0.1, 0.2]], {"units": "electron/s"})})
    >>> subtract_dark(xr.Dataset({"image": image}), dark, dark_time=10.0).image.values.tolist()
    [[4.0, 5.0]]
    """
    image = frame_planes(exposure, units=(v.ELECTRON, v.ADU))["image"]
    rate = {v.ADU: v.ADU_PER_SECOND, v.ELECTRON: v.ELECTRON_PER_SECOND}
    check_calibrations(
        exposure,
        {"dark": dark},
        (image.sizes[v.Y], image.sizes[v.X]),
        dark_units=(rate[image.attrs.get("units", v.ELECTRON)],),
    )
    time = frame_dark_time(exposure, dark) if dark_time is None else xr.DataArray(dark_time)
    return _subtracted(exposure, dark, time)


def frame_dark_time(
    raw: xr.Dataset, dark: xr.Dataset, overhead: float | None = None
) -> xr.DataArray:
    """Return the dark time of each frame, s, all of which must be known; see `dark_times`."""
    if any(name in raw.coords or name in raw for name in ("dark_time", "exposure_time")):
        times = dark_times(raw, dark_overhead(dark, overhead))
        if (times >= 0).all():
            return times
    raise ValueError("raw has no finite dark_time or exposure_time (s), which a dark needs")


def apply_gain(
    exposure: xr.Dataset, amplifiers: xr.Dataset, *, gain: Gains | None = None
) -> xr.Dataset:
    """Turn adu into electrons.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, adu.
    amplifiers : Dataset, (amp)
        Amplifier table, with the gains that hold without others.
    gain : float, DataArray or Dataset, electron/adu, optional
        As for `detrend`.

    Returns
    -------
    Dataset, (..., y, x)
        In electron; amplifiers whose gain was not measured are BAD.

    Raises
    ------
    ValueError
        If a gain is missing or of another detector, or the image is not in adu.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"), attrs={"units": "adu"})
    >>> table = amplifier_grid("R0", (1, 2), (1, 1))
    >>> apply_gain(xr.Dataset({"image": image}), table, gain=2.0).image.values.tolist()
    [[10.0, 14.0]]
    """
    rows = amplifier_rows(amplifiers)
    image = frame_planes(exposure, units=(v.ADU,), rows=rows)["image"]
    detector = told(exposure, v.DETECTOR) or told(amplifiers, v.DETECTOR)
    gains, _, unmeasured, _ = given_gains(gain, rows, detector)
    scale = _plane(rows, list(gains), image)
    bad = _plane(rows, [float(none) for none in unmeasured], image) > 0
    variance = _wide(exposure, "variance")
    changed = _combined(
        exposure,
        exposure["image"].astype(np.float64) * scale,
        None if variance is None else variance * scale**2,
        [bad.astype(np.int32) * np.int32(v.MASK_PLANES["BAD"])],
    )
    changed["image"].attrs["units"] = v.ELECTRON
    if variance is not None:
        changed["variance"].attrs["units"] = v.ELECTRON2
    return changed


def add_variance(
    exposure: xr.Dataset, amplifiers: xr.Dataset, *, read_noise: float | xr.DataArray | None = None
) -> xr.Dataset:
    """Give an exposure the variance of its photons and its read noise.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, electron, with all charge that was collected.
    amplifiers : Dataset, (amp)
        Amplifier table, with the read noises (electron) that hold without others.
    read_noise : float or DataArray over ``amp``, electron, optional
        Standard deviation without light.

    Returns
    -------
    Dataset, (..., y, x)
        With ``variance`` max(image, 0) + read_noise^2, electron2.

    Raises
    ------
    ValueError
        If an amplifier has no read noise, or the image is not in electron.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> image = xr.DataArray([[50.0, -7.0]], dims=("y", "x"), attrs={"units": "electron"})
    >>> table = amplifier_grid("R0", (1, 2), (1, 1), read_noise=5.0)
    >>> add_variance(xr.Dataset({"image": image}), table).variance.values.tolist()
    [[75.0, 25.0]]
    """
    rows = amplifier_rows(amplifiers)
    image = frame_planes(exposure, units=(v.ELECTRON,), rows=rows)["image"]
    nominal = xr.DataArray([row.read_noise for row in rows], dims=v.AMP)
    noise = amplifier_values(nominal if read_noise is None else read_noise, rows, "read_noise")
    unknown = [row.name for row, one in zip(rows, noise, strict=True) if not 0 <= one < np.inf]
    if unknown:
        raise ValueError(f"no read noise is known of the amplifiers {', '.join(unknown)}")
    photons = exposure["image"].astype(np.float64)
    variance = photons.where(~(photons < 0), 0.0) + _plane(rows, list(noise**2), image)
    changed = _combined(exposure, photons, variance)
    changed["variance"].attrs = {"units": v.ELECTRON2}
    return changed


def divide_flat(exposure: xr.Dataset, flat: xr.Dataset, *, minimum: float = 0.0) -> xr.Dataset:
    """Divide by a flat.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, any unit.
    flat : Dataset, (y, x)
        ``image``, dimensionless, and perhaps ``variance``, which is carried along, and ``mask``.
    minimum : float
        Pixels whose flat is not above are BAD and NaN.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ValueError
        If the flat is of another detector, camera, filter, shape or unit.

    Examples
    --------
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"))
    >>> flat = xr.Dataset({"image": (("y", "x"), [[0.5, 0.0]], {"units": ""})})
    >>> found = divide_flat(xr.Dataset({"image": image}), flat)
    >>> found.image.values.tolist(), found.mask.values.tolist()
    ([[10.0, nan]], [[0, 1]])
    """
    image = frame_planes(exposure)["image"]
    check_calibrations(exposure, {"flat": flat}, (image.sizes[v.Y], image.sizes[v.X]))
    response = _bare(flat["image"]).astype(np.float64)
    response = response.where(response > minimum)
    quotient = exposure["image"].astype(np.float64) / response
    variance, more = _wide(exposure, "variance"), _wide(flat, "variance")
    if variance is not None:
        if more is not None:
            variance = variance + quotient**2 * more
        variance = variance / response**2
    return _combined(exposure, quotient, variance, [own_planes(flat.get(v.MASK))])


def subtract_fringe(
    exposure: xr.Dataset, fringe: xr.Dataset, *, scale: float | xr.DataArray = 1.0
) -> xr.Dataset:
    """Subtract a fringe frame, or any pattern of the sky, times a given scale.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, any unit, divided by the flat.
    fringe : Dataset, (y, x)
        ``image``, dimensionless or in the unit of the exposure; its ``variance``, times the
        square of the scale, is added.
    scale : float or DataArray over leading dimensions
        What the frame is multiplied by, in the unit of the exposure where the fringe has none.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ValueError
        If the fringe is of another detector, camera, filter, shape or unit, or a scale is not
        finite.

    Examples
    --------
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"))
    >>> fringe = xr.Dataset({"image": (("y", "x"), [[0.5, -0.5]])})
    >>> subtract_fringe(xr.Dataset({"image": image}), fringe, scale=2.0).image.values.tolist()
    [[4.0, 8.0]]
    """
    image = frame_planes(exposure)["image"]
    units = (v.DIMENSIONLESS, str(image.attrs.get("units", "")))
    shape = image.sizes[v.Y], image.sizes[v.X]
    check_calibrations(exposure, {"fringe": fringe}, shape, fringe_units=units)
    factor = xr.DataArray(scale)
    if not np.isfinite(factor).all():
        raise ValueError(f"scale of the fringe must be finite, got {scale}")
    return _subtracted(exposure, fringe, _bare(factor))


def mask_defects(exposure: xr.Dataset, defects: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Set the mask planes of known defects.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float, any unit.
    defects : Dataset or DataArray
        A mask or boxes, as for `defect_planes`.

    Returns
    -------
    Dataset, (..., y, x)

    Raises
    ------
    ValueError
        If the defects are of another detector or shape.

    Examples
    --------
    >>> image = xr.DataArray([[5.0, 7.0]], dims=("y", "x"))
    >>> hot = xr.DataArray([[False, True]], dims=("y", "x"))
    >>> mask_defects(xr.Dataset({"image": image}), hot).mask.values.tolist()
    [[0, 1]]
    """
    image = frame_planes(exposure)["image"]
    planes = defect_planes(
        defects, (image.sizes[v.Y], image.sizes[v.X]), told(exposure, v.DETECTOR)
    )
    return _combined(exposure, exposure["image"], exposure.get("variance"), [planes])
