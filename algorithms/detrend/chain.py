"""The chain on plain arrays: what is the same for all frames of a call, and one frame."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.detrend.brighter_fatter import corrected_image
from skyloom.algorithms.detrend.calibrations import CALIBRATION_PLANES
from skyloom.algorithms.detrend.chain_kernels import detrend_detector, respond_detector
from skyloom.algorithms.detrend.cosmic_rays import find_cosmic_rays
from skyloom.algorithms.detrend.crosstalk import Crosstalk
from skyloom.algorithms.detrend.interpolation import fill_small_gaps
from skyloom.algorithms.detrend.levels import Levels, amplifier_levels
from skyloom.algorithms.detrend.parameters import SaturationParameters, ScienceDetrendParameters
from skyloom.algorithms.detrend.row_kernels import Channel, Frames, no_frames
from skyloom.algorithms.detrend.saturation import grow_saturation, saturation_level
from skyloom.algorithms.pixel_arrays import native

__all__ = ["FLOATING", "PER_AMPLIFIER", "Plan", "detrend_frames", "few_types", "never_read"]

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Planes = NDArray[np.int32]

PER_AMPLIFIER: Final = ("overscan_level", "overscan_noise", "gain", "read_noise", "saturation")
"""What is known of each amplifier of a frame."""
FLOATING: Final = ("bias", "dark", "flat", "fringe")
"""Calibrations with an image and perhaps a variance, in this order; masks follow."""


class Calibrations(NamedTuple):
    """Calibration frames of a call as kernels take them.

    ``fringe`` is image and variance, each None if there is none; ``masks`` are those of `FLOATING`
    and of the defects.
    """

    frames: Frames
    fringe: tuple[Pixels | None, Pixels | None]
    masks: tuple[Planes, ...]


class Plan(NamedTuple):
    """What is the same for all frames of a call.

    ``gains`` (electron/adu), ``noises`` (electron, NaN where none was given) and ``unmeasured``
    over amplifiers; ``dark_units`` of the dark frame; ``lowest`` raw value up to which pixels were
    never read; ``knots`` and ``pieces`` of linearity; ``kernels`` (1/electron) of the
    brighter-fatter effect, one for the detector or one for each amplifier, or none.
    """

    rows: tuple[Amplifier, ...]
    shape: tuple[int, int]
    parameters: ScienceDetrendParameters
    gains: Floats
    noises: Floats
    unmeasured: NDArray[np.bool_]
    dark_units: str
    lowest: float
    crosstalk: Crosstalk
    knots: Floats
    pieces: Floats
    kernels: Floats


def never_read(dtype: np.dtype[Any]) -> float:
    """Return the value up to which pixels hold no number: that of unwritten signed integers."""
    return float(np.iinfo(dtype).min) if dtype.kind == "i" else -np.inf


def few_types(raw: NDArray[Any]) -> NDArray[Any]:
    """Return raw pixels, native, in one of the four types that kernels are compiled for.

    Raises
    ------
    TypeError
        If they are no real numbers.
    """
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


def detrend_frames(
    raw: NDArray[Any],
    dark_time: NDArray[Any],
    fringe_scale: NDArray[Any],
    *calibrations: NDArray[Any],
    plan: Plan,
    present: tuple[bool, ...],
) -> tuple[NDArray[Any], ...]:
    """Detrend all frames (..., y, x) of a block.

    Parameters
    ----------
    raw : ndarray, (..., y, x), adu
        Raw frames.
    dark_time : ndarray, (...), s
        Dark time of each.
    fringe_scale : ndarray, (...)
        What the fringe is multiplied by.
    *calibrations : ndarray, (y, x)
        Image and variance of each of `FLOATING`, then their masks and that of the defects; only
        those that are present.
    plan : Plan
        Everything else.
    present : tuple of bool
        Which calibrations are present.

    Returns
    -------
    image, variance : ndarray, (..., y, x), float32
    mask : ndarray, (..., y, x), int32
    *numbers : ndarray, (..., amp), float64
        `PER_AMPLIFIER`.
    """
    leading = raw.shape[:-2]
    times, scales = (
        np.broadcast_to(np.asarray(a, np.float64), leading) for a in (dark_time, fringe_scale)
    )
    image, variance = (np.empty((*leading, *plan.shape), np.float32) for _ in range(2))
    mask = np.empty((*leading, *plan.shape), np.int32)
    numbers = np.empty((len(PER_AMPLIFIER), *leading, len(plan.rows)))
    passed = iter(calibrations)
    filled = _calibrations([native(next(passed)) if here else None for here in present], plan)
    for index in np.ndindex(*leading):
        numbers[(slice(None), *index)] = detrend_frame(
            few_types(raw[index]),
            plan,
            (float(times[index]), float(scales[index])),
            filled,
            (image[index], variance[index], mask[index]),
        )
    return (image, variance, mask, *numbers)


def _calibrations(given: list[NDArray[Any] | None], plan: Plan) -> Calibrations:
    """Return calibrations, with such as change nothing in place of those that are not there."""
    number, width = 2 * len(FLOATING), plan.shape[1]
    images, masks = given[:number], given[number:]
    if not plan.parameters.variance.calibrations:
        images[1::2] = [None] * len(FLOATING)
    named = zip(Frames._fields, images[:6], strict=False)
    known: dict[str, Any] = {name: frame for name, frame in named if frame is not None}
    if "flat" in known:
        known["flat_minimum"] = plan.parameters.flat.minimum
        known["flat_varies"] = "flat_variance" in known
    none = np.zeros((1, width), np.int32)
    return Calibrations(
        no_frames(width)._replace(**known),
        (images[6], images[7]),
        tuple(none if mask is None else mask for mask in masks),
    )


def detrend_frame(
    raw: NDArray[Any],
    plan: Plan,
    factors: tuple[float, float],
    calibrations: Calibrations,
    out: tuple[Pixels, Pixels, Planes],
) -> Floats:
    """Detrend one frame into given arrays; return `PER_AMPLIFIER`.

    ``factors`` are dark time and fringe scale.
    """
    image, variance, mask = out
    parameters = plan.parameters
    if sum(row.trimmed.size for row in plan.rows) < image.size:
        image[:], variance[:], mask[:] = np.nan, np.nan, v.MASK_PLANES["NO_DATA"]
    frames, (fringe, fringe_variance), masks = calibrations
    boxes, rows, columns, channels, numbers = _amplifiers(raw, plan, factors[0])
    waits = plan.kernels.size > 0
    at_first = frames
    if waits:
        at_first = no_frames(plan.shape[1])._replace(
            bias=frames.bias, bias_variance=frames.bias_variance
        )
    detrend_detector(
        raw,
        boxes,
        rows,
        columns,
        channels,
        plan.crosstalk.shares,
        plan.crosstalk.talks,
        parameters.crosstalk.threshold,
        plan.knots,
        plan.pieces,
        at_first,
        masks,
        v.plane_bits(CALIBRATION_PLANES),
        image,
        variance,
        mask,
    )
    if waits:
        _unbrighten(image, plan)
        respond_detector(boxes, channels, frames, image, variance, mask)
    grow_saturation(mask, parameters.saturation)
    if parameters.cosmic_rays.reject:
        gain = None if parameters.units == v.ELECTRON else _gain_plane(plan)
        rays = find_cosmic_rays(
            image if gain is None else image * gain,
            variance if gain is None else variance * gain**2,
            mask,
            parameters.cosmic_rays,
        )
        mask[rays] |= np.int32(v.MASK_PLANES["COSMIC_RAY"])
    if parameters.interpolation.planes:
        fill_small_gaps(image, variance, mask, parameters.interpolation)
    if fringe is not None:
        image -= (factors[1] * fringe.astype(np.float64)).astype(np.float32)
        if fringe_variance is not None:
            variance += np.float32(factors[1] ** 2) * fringe_variance
        lost = ~np.isfinite(image) & ((mask & np.int32(v.MASK_PLANES["NO_DATA"])) == 0)
        mask[lost] |= np.int32(v.MASK_PLANES["BAD"])
    return numbers


def _amplifiers(
    raw: NDArray[Any], plan: Plan, dark_time: float
) -> tuple[NDArray[np.int64], Floats, Floats, Floats, Floats]:
    """Return boxes, levels of rows and columns, channels, and `PER_AMPLIFIER`."""
    count = len(plan.rows)
    levels = [amplifier_levels(raw, row, plan.parameters.overscan) for row in plan.rows]
    rows = np.zeros((count, max(row.data.shape[0] for row in plan.rows)))
    width = max(each.columns.size for each in levels)
    columns = np.zeros((count, max(row.data.shape[1] for row in plan.rows) if width else 0))
    channels, numbers = (
        np.empty((count, len(Channel._fields))),
        np.empty((len(PER_AMPLIFIER), count)),
    )
    boxes = np.empty((count, 10), np.int64)
    flips = plan.crosstalk.flips if plan.crosstalk.shares.size else np.zeros((count, 2), np.bool_)
    for index, (row, found) in enumerate(zip(plan.rows, levels, strict=True)):
        rows[index, : found.rows.size] = found.rows
        columns[index, : found.columns.size] = found.columns
        noise = _read_noise(plan, index, found)
        saturation = _saturation(raw, row, plan.parameters.saturation)
        channels[index] = _channel(plan, index, dark_time, noise, saturation, found.variance)
        boxes[index] = (
            row.data.y_start,
            row.data.x_start,
            *row.data.shape,
            row.trimmed.y_start,
            row.trimmed.x_start,
            row.flip_y,
            row.flip_x,
            *flips[index],
        )
        numbers[:, index] = found.median, found.noise, plan.gains[index], noise, saturation
    return boxes, rows, columns, channels, numbers


def _read_noise(plan: Plan, index: int, levels: Levels) -> float:
    """Return the read noise of an amplifier in electron, from the best source allowed."""
    gain, camera = plan.gains[index], plan.rows[index].read_noise
    measured = levels.noise * gain
    chosen = {
        "given": (plan.noises[index], measured, camera),
        "overscan": (measured, camera),
        "camera": (camera,),
    }[plan.parameters.variance.read_noise]
    return next((float(noise) for noise in chosen if np.isfinite(noise)), 0.0)


def _saturation(raw: NDArray[Any], row: Amplifier, parameters: SaturationParameters) -> float:
    """Return the raw level that an amplifier saturates at, adu; infinity if none is known."""
    if np.isfinite(row.saturation):
        return row.saturation
    return saturation_level(raw, row.data) if parameters.pile_up else np.inf


def _channel(
    plan: Plan, index: int, dark_time: float, noise: float, saturation: float, variance: float
) -> Channel:
    gain = float(plan.gains[index])
    fraction = plan.parameters.saturation.suspect_fraction
    electron = plan.parameters.units == v.ELECTRON
    scale = gain if electron else 1.0
    dark_gain = scale if plan.dark_units == v.ADU_PER_SECOND else scale / gain
    return Channel(
        lowest=plan.lowest,
        suspect=np.inf if fraction is None else fraction * saturation,
        saturation=saturation,
        scale=scale,
        photon=scale / gain,
        read_variance=scale**2 * ((noise / gain) ** 2 + variance),
        dark_scale=dark_time * dark_gain,
        planes=v.MASK_PLANES["BAD"] if plan.unmeasured[index] else 0,
    )


def _gain_plane(plan: Plan) -> Pixels:
    plane = np.ones(plan.shape, np.float32)
    for row, gain in zip(plan.rows, plan.gains, strict=True):
        plane[row.trimmed.slices] = gain
    return plane


def _unbrighten(image: Pixels, plan: Plan) -> None:
    """Undo the brighter-fatter effect in place; it is the charge that counts."""
    options = plan.parameters.brighter_fatter
    gain = None if plan.parameters.units == v.ELECTRON else _gain_plane(plan)
    whole = [(slice(None), slice(None))]
    boxes = whole if len(plan.kernels) == 1 else [row.trimmed.slices for row in plan.rows]
    for box, kernel in zip(boxes, plan.kernels, strict=True):
        charge = image[box] if gain is None else image[box] * gain[box]
        fixed = corrected_image(charge, kernel, options.iterations, options.threshold)[0]
        image[box] = fixed if gain is None else fixed / gain[box]
