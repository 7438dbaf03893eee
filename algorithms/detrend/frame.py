"""The whole chain from a raw frame to a frame fit for science, fused into one pass over the pixels.

In order: flags of saturated, suspect and never-read pixels; overscan; trim and assembly in the
orientation of the detector; bias; gain; variance from photons and read noise; dark; flat; planes of
defects and calibrations.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend.calibrations import (
    CALIBRATION_PLANES,
    calibration_id,
    calibration_problems,
    own_planes,
    pixels,
    told,
)
from skyloom.algorithms.detrend.channels import Gains, given_gains
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.detrend.levels import Levels, amplifier_levels, check_boxes
from skyloom.algorithms.detrend.parameters import ScienceDetrendParameters
from skyloom.algorithms.detrend.row_kernels import Channel, detrend_rows
from skyloom.algorithms.detrend.saturation import saturation_level
from skyloom.algorithms.pixel_arrays import native

__all__ = ["detrend"]

Floats = NDArray[np.float64]
RAW: Final = ("raw_y", "raw_x")
ABSENT: Final = np.empty((1, 0), np.float32)
ABSENT_MASK: Final = np.empty((1, 0), np.int32)
FLOATING: Final = 6
"""Planes of calibrations before their masks: image and variance of bias, dark and flat."""
PER_AMPLIFIER: Final = ("overscan_level", "overscan_noise", "gain", "read_noise", "saturation")


class _Plan(NamedTuple):
    """What is the same for all frames of a call."""

    rows: tuple[Amplifier, ...]
    shape: tuple[int, int]
    parameters: ScienceDetrendParameters
    gains: Floats
    noises: Floats
    unmeasured: NDArray[np.bool_]
    dark_units: str
    lowest: float


def detrend(
    raw: xr.Dataset,
    amplifiers: xr.Dataset,
    *,
    parameters: ScienceDetrendParameters | None = None,
    bias: xr.Dataset | None = None,
    dark: xr.Dataset | None = None,
    flat: xr.Dataset | None = None,
    defects: xr.Dataset | xr.DataArray | None = None,
    gain: Gains | None = None,
) -> xr.Dataset:
    """Turn raw frames of one detector into frames fit for science.

    Parameters
    ----------
    raw : Dataset
        ``image`` (..., y, x), any real dtype, adu: the detector's raw array; may be lazy. The
        coordinate ``dark_time`` or else ``exposure_time`` (s) scales a dark. ``detector``,
        ``camera`` and ``physical_filter``, as scalar coordinates or attributes, are compared with
        those of the calibrations.
    amplifiers : Dataset, (amp)
        Amplifier table: see `amplifier_rows`.
    parameters : ScienceDetrendParameters, optional
        One model for each step.
    bias : Dataset, (y, x), adu, optional
        Trimmed; ``image`` and perhaps ``variance`` (adu2) and ``mask``.
    dark : Dataset, (y, x), adu/s or electron/s, optional
        Likewise, for a second of dark time.
    flat : Dataset, (y, x), dimensionless, optional
        Likewise; the image is divided by it.
    defects : Dataset or DataArray, optional
        A mask of int32 planes or bool (y, x), or boxes ``y_start`` ... ``x_stop`` over ``defect``,
        half-open in trimmed pixels.
    gain : float, DataArray or Dataset, optional
        electron/adu: one, or over ``amp``, or a solved photon transfer with ``gain`` and ``noise``
        (electron). Without it the gains of the table hold. An amplifier whose gain was not
        measured gets that of the table and the plane BAD.

    Returns
    -------
    Dataset, (..., y, x)
        Trimmed: ``image`` float32 (electron, or adu), ``variance`` float32 (its square), ``mask``
        int32; over ``amp``: ``overscan_level``, ``overscan_noise``, ``saturation`` (adu),
        ``gain`` (electron/adu), ``read_noise`` (electron). Coordinates of the exposure are kept.
        ``attrs["applied"]`` lists the steps in order, each with the id of its calibration.
        Never-read pixels have NO_DATA, pixels that the calibrations leave without a number have
        BAD; both are NaN in image and variance.

    Raises
    ------
    ValueError
        If a calibration is of another detector, camera, filter, shape or unit, a box reaches
        beyond the image, a dark time is missing, or no gain is known.
    KeyError
        If ``raw`` has no ``image``.

    Notes
    -----
    With signal s (adu), gain g and read noise r (electron) the variance is max(g s, 0) + r^2, of
    all charge, dark current among it; then that of the calibrations is added, g^2 Var(bias) +
    t^2 Var(dark), and all is divided by flat^2, with (image / flat)^2 Var(flat) added.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 2), (4, 4), overscan=4, gain=2.0, read_noise=3.0)
    >>> image = np.full((4, 16), 1000, np.uint16)
    >>> image[:, [0, 1, 2, 3, 8, 9, 10, 11]] += 50
    >>> raw = xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})
    >>> parameters = ScienceDetrendParameters.model_validate({"variance": {"read_noise": "camera"}})
    >>> frame = detrend(raw, table, parameters=parameters)
    >>> frame.image.shape, float(frame.image[0, 0]), float(frame.variance[0, 0])
    ((4, 8), 100.0, 109.0)
    >>> frame.attrs["applied"]
    ['overscan: row_mean', 'gain: camera', 'variance: camera']
    """
    parameters = parameters or ScienceDetrendParameters()
    if "image" not in raw:
        raise KeyError("raw has no variable 'image'")
    rows = amplifier_rows(amplifiers)
    shape = trimmed_shape(rows)
    detector = told(raw, v.DETECTOR)
    frames = {"bias": bias, "dark": dark, "flat": flat}
    given = {name: frame for name, frame in frames.items() if frame is not None}
    _check(raw, amplifiers, rows, given, shape)
    gains, noises, unmeasured, source = given_gains(gain, rows, detector)
    image = raw["image"].transpose(..., v.Y, v.X).rename({v.Y: RAW[0], v.X: RAW[1]})
    plan = _Plan(
        rows=tuple(rows),
        shape=shape,
        parameters=parameters,
        gains=gains,
        noises=noises,
        unmeasured=unmeasured,
        dark_units="" if dark is None else dark["image"].attrs.get("units", v.ADU_PER_SECOND),
        lowest=_never_read(image.dtype),
    )
    planes = [own_planes(None if frame is None else frame.get(v.MASK)) for frame in frames.values()]
    planes.append(defect_planes(defects, shape))
    arrays = [
        *(pixels(frame, name) for frame in frames.values() for name in ("image", "variance")),
        *planes,
    ]
    present = [array for array in arrays if array is not None]
    found: tuple[xr.DataArray, ...] = xr.apply_ufunc(
        _detrend_frames,
        _whole(image, RAW),
        _dark_time(raw, parameters) if dark is not None else xr.DataArray(np.nan),
        *(_whole(array, array.dims) for array in present),
        kwargs={"plan": plan, "present": tuple(array is not None for array in arrays)},
        input_core_dims=[list(RAW), [], *([[v.Y, v.X]] * len(present))],
        output_core_dims=[[v.Y, v.X]] * 3 + [[v.AMP]] * 5,
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int32] + [np.float64] * 5,
        dask_gufunc_kwargs={
            "output_sizes": {v.Y: shape[0], v.X: shape[1], v.AMP: len(rows)},
        },
    )
    applied = _applied(plan, given, defects, source)
    return _dataset(raw, rows, found, applied, parameters.units)


def _check(
    raw: xr.Dataset,
    amplifiers: xr.Dataset,
    rows: list[Amplifier],
    given: Mapping[str, xr.Dataset],
    shape: tuple[int, int],
) -> None:
    """Raise one ValueError that tells all that does not fit together."""
    detector, table = told(raw, v.DETECTOR), told(amplifiers, v.DETECTOR)
    problems = []
    if detector and table and detector != table:
        problems.append(f"the amplifier table is of detector {table!r}, the frame of {detector!r}")
    units = {
        "bias": (v.ADU,),
        "dark": (v.ADU_PER_SECOND, v.ELECTRON_PER_SECOND),
        "flat": (v.DIMENSIONLESS,),
    }
    for kind, calibration in given.items():
        problems += calibration_problems(
            kind,
            calibration,
            raw,
            detector=detector or table,
            shape=shape,
            units=units[kind],
        )
    if raw["image"].attrs.get("units", v.ADU) != v.ADU:
        problems.append(f"raw has units {raw['image'].attrs['units']!r}, needs 'adu'")
    if problems:
        raise ValueError("; ".join(problems))
    for row in rows:
        check_boxes(row, (raw["image"].sizes[v.Y], raw["image"].sizes[v.X]))


def _dark_time(raw: xr.Dataset, parameters: ScienceDetrendParameters) -> xr.DataArray:
    """Return the dark time of each frame, s."""
    for name, more in (("dark_time", 0.0), ("exposure_time", parameters.dark.overhead)):
        if name in raw.coords or name in raw:
            time = raw[name].drop_vars([*raw[name].coords], errors="ignore") + more
            if np.isfinite(time).all():
                return time
    raise ValueError("raw has no finite dark_time or exposure_time (s), which a dark needs")


def _whole(array: xr.DataArray, dims: Iterable[Hashable]) -> xr.DataArray:
    """Return an array without coordinates, and in one chunk along some dimensions if it is lazy."""
    bare = array.drop_vars([*array.coords])
    return bare if bare.chunks is None else bare.chunk(dict.fromkeys(dims, -1))


def _never_read(dtype: np.dtype[Any]) -> float:
    """Return the value up to which pixels hold no number: that of unwritten signed integers."""
    return float(np.iinfo(dtype).min) if dtype.kind == "i" else -np.inf


def _few_types(raw: NDArray[Any]) -> NDArray[Any]:
    """Return raw pixels in one of the four types that kernels are compiled for."""
    kind, size = raw.dtype.kind, raw.dtype.itemsize
    if kind == "f":
        return native(raw.astype(np.float32 if size < 4 else raw.dtype, copy=False))
    if kind not in "iu":
        raise TypeError(f"raw pixels must be real numbers, got dtype {raw.dtype}")
    if kind == "u" and size <= 2:
        return native(raw.astype(np.uint16, copy=False))
    if (kind == "i" and size <= 4) or size < 4:
        return native(raw.astype(np.int32, copy=False))
    return native(raw.astype(np.float64))


def _detrend_frames(
    raw: NDArray[Any],
    dark_time: NDArray[Any],
    *calibrations: NDArray[Any],
    plan: _Plan,
    present: tuple[bool, ...],
) -> tuple[NDArray[Any], ...]:
    """Detrend all frames of a block; only the calibrations that are present are passed."""
    leading = raw.shape[:-2]
    times = np.broadcast_to(np.asarray(dark_time, np.float64), leading)
    images = [np.empty((*leading, *plan.shape), dtype) for dtype in (np.float32, np.float32)]
    masks = np.empty((*leading, *plan.shape), np.int32)
    numbers = np.empty((5, *leading, len(plan.rows)))
    passed = iter(calibrations)
    absent = [ABSENT] * FLOATING + [ABSENT_MASK] * (len(present) - FLOATING)
    fixed = tuple(
        native(next(passed)) if here else empty for here, empty in zip(present, absent, strict=True)
    )
    for index in np.ndindex(*leading):
        out = images[0][index], images[1][index], masks[index]
        numbers[(slice(None), *index)] = _detrend_frame(
            _few_types(raw[index]), float(times[index]), fixed, plan, out
        )
    return (*images, masks, *numbers)


def _detrend_frame(
    raw: NDArray[Any],
    dark_time: float,
    calibrations: tuple[NDArray[Any], ...],
    plan: _Plan,
    out: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]],
) -> Floats:
    """Detrend one frame into given arrays; return `PER_AMPLIFIER`."""
    image, variance, mask = out
    if sum(row.trimmed.size for row in plan.rows) < image.size:
        image[:], variance[:], mask[:] = np.nan, np.nan, v.MASK_PLANES["NO_DATA"]
    bias, bias_variance, dark, dark_variance, flat, flat_variance, *masks = calibrations
    if not plan.parameters.variance.calibrations:
        bias_variance = dark_variance = flat_variance = ABSENT
    bits = v.plane_bits(CALIBRATION_PLANES)
    numbers = np.empty((len(PER_AMPLIFIER), len(plan.rows)))
    for index, row in enumerate(plan.rows):
        levels = amplifier_levels(raw, row, plan.parameters.overscan)
        noise = _read_noise(plan, index, levels)
        channel = _channel(raw, plan, index, dark_time, noise)
        numbers[:, index] = (
            levels.median,
            levels.noise,
            plan.gains[index],
            noise,
            channel.saturation,
        )
        detrend_rows(
            raw,
            (row.data.y_start, row.data.x_start),
            levels.rows,
            levels.columns,
            (row.flip_y, row.flip_x),
            (row.trimmed.y_start, row.trimmed.x_start),
            channel,
            bias,
            bias_variance,
            dark,
            dark_variance,
            flat,
            flat_variance,
            tuple(masks),
            bits,
            row.data.shape[1],
            image,
            variance,
            mask,
        )
    return numbers


def _read_noise(plan: _Plan, index: int, levels: Levels) -> float:
    """Return the read noise of an amplifier in electron, from the best source allowed."""
    gain, camera = plan.gains[index], plan.rows[index].read_noise
    measured = levels.noise * gain
    source = plan.parameters.variance.read_noise
    chosen = {
        "given": (plan.noises[index], measured, camera),
        "overscan": (measured, camera),
        "camera": (camera,),
    }[source]
    return next((float(noise) for noise in chosen if np.isfinite(noise)), 0.0)


def _channel(raw: NDArray[Any], plan: _Plan, index: int, dark_time: float, noise: float) -> Channel:
    row, gain = plan.rows[index], float(plan.gains[index])
    parameters = plan.parameters
    saturation = row.saturation
    if not np.isfinite(saturation):
        saturation = saturation_level(raw, row.data) if parameters.saturation.pile_up else np.inf
    fraction = parameters.saturation.suspect_fraction
    electron = parameters.units == v.ELECTRON
    dark_gain = gain if plan.dark_units == v.ADU_PER_SECOND else 1.0
    return Channel(
        lowest=plan.lowest,
        suspect=np.inf if fraction is None else fraction * saturation,
        saturation=saturation,
        scale=gain if electron else 1.0,
        photon=1.0 if electron else 1.0 / gain,
        read_variance=noise**2 if electron else (noise / gain) ** 2,
        dark_scale=dark_time * dark_gain * (1.0 if electron else 1.0 / gain),
        flat_minimum=parameters.flat.minimum,
        planes=v.MASK_PLANES["BAD"] if plan.unmeasured[index] else 0,
    )


def _applied(
    plan: _Plan,
    given: Mapping[str, xr.Dataset],
    defects: xr.Dataset | xr.DataArray | None,
    gains: str,
) -> list[str]:
    """Return what was done, in order."""
    parameters = plan.parameters
    names = {kind: calibration_id(calibration) for kind, calibration in given.items()}
    steps = [f"overscan: {parameters.overscan.serial}"]
    if parameters.overscan.parallel != "none":
        steps[0] += f", parallel {parameters.overscan.parallel}"
    if "bias" in names:
        steps.append(f"bias: {names['bias']}")
    steps.append(
        f"gain: {gains}" if parameters.units == v.ELECTRON else f"gain: {gains}, not applied"
    )
    steps.append(f"variance: {parameters.variance.read_noise}")
    steps += [f"{kind}: {names[kind]}" for kind in ("dark", "flat") if kind in names]
    if defects is not None:
        steps.append(f"defects: {calibration_id(defects)}")
    return steps


def _dataset(
    raw: xr.Dataset,
    rows: list[Amplifier],
    found: tuple[xr.DataArray, ...],
    applied: list[str],
    units: str,
) -> xr.Dataset:
    image, variance, mask, *numbers = found
    squared = v.ELECTRON2 if units == v.ELECTRON else v.ADU2
    units_of = (v.ADU, v.ADU, v.ELECTRON_PER_ADU, v.ELECTRON, v.ADU)
    kept = {
        name: coordinate
        for name, coordinate in raw.coords.items()
        if not {v.Y, v.X, v.AMP} & set(coordinate.dims) and name != v.AMP
    }
    return xr.Dataset(
        {
            "image": image.assign_attrs(units=units),
            "variance": variance.assign_attrs(units=squared),
            v.MASK: mask.assign_attrs(v.mask_attributes()),
            **{
                name: values.assign_attrs(units=unit)
                for name, values, unit in zip(PER_AMPLIFIER, numbers, units_of, strict=True)
            },
        },
        coords={**kept, v.AMP: [row.name for row in rows]},
        attrs={**raw.attrs, "applied": applied},
    )
