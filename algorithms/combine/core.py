"""From exposures and scales to a combined frame: tiles, planes, holes, what it is made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier
from skyloom.algorithms.combine.holes import fill_holes, percentiles
from skyloom.algorithms.combine.inputs import Exposures, Planes
from skyloom.algorithms.combine.model_kernels import SCATTER_BINS, combine_segments
from skyloom.algorithms.combine.noise import (
    Noise,
    check_noise,
    noise_of,
    tell_mismatch,
    typical_chi2,
)
from skyloom.algorithms.combine.parameters import CombineParameters
from skyloom.algorithms.combine.planes import own_planes
from skyloom.algorithms.errors import FilledPixelsWarning, GeometryError, NoUsableDataError
from skyloom.algorithms.pixel_arrays import floating
from skyloom.algorithms.sorting_network import comparisons
from skyloom.algorithms.stack_arrays import as_bits, flat_inputs, flat_masks, limits_of
from skyloom.algorithms.stack_kernels import (
    CLIPPED_MEAN,
    EQUAL_WEIGHTS,
    rank_tables,
    stack_segments,
)

__all__ = ["Frame", "combined_frame"]

HALF = np.array([50.0])  # percent
ROWS = 16  # of which one is looked at
BAD, NO_DATA, VIGNETTED = (v.MASK_PLANES[name] for name in ("BAD", "NO_DATA", "VIGNETTED"))


class Frame(NamedTuple):
    """A combined frame as plain arrays (y, x)."""

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]
    count: NDArray[np.int32]  # type: ignore[assignment]  # hides tuple.count
    rejected: NDArray[np.int32]


def combined_frame(
    exposures: Exposures,
    scales: NDArray[np.float64],
    amplifiers: Sequence[Amplifier],
    parameters: CombineParameters,
    vignetting: NDArray[np.int32] | None = None,
) -> Frame:
    """Return the exposures, each divided by its scale, combined pixel by pixel.

    Parameters
    ----------
    exposures : Exposures
    scales : ndarray, (exposure, amplifier or 1)
        Positive numbers; NaN leaves the exposure out for an amplifier.
    amplifiers : sequence of Amplifier
        Pixels outside of them are BAD; an empty one takes the detector for one amplifier.
    parameters : CombineParameters
    vignetting : ndarray, (y, x), int32, optional
        Planes VIGNETTED, whose pixels become 0 and NO_DATA, and PARTLY_VIGNETTED.

    Returns
    -------
    Frame

    Raises
    ------
    GeometryError
        If an amplifier reaches beyond the images.
    ValueError
        If the noise is not known.
    NoUsableDataError
        If pixels are NO_DATA in every exposure and that is to be an error.
    """
    shape = exposures.shape
    boxes = [row.trimmed for row in amplifiers]
    beyond = [
        row.name
        for row in amplifiers
        if row.trimmed.y_stop > shape[0] or row.trimmed.x_stop > shape[1] or min(row.trimmed) < 0
    ]
    if beyond:
        raise GeometryError(f"amplifiers {', '.join(beyond)} reach beyond images of shape {shape}")
    regions = max(len(boxes), 1)
    factors = np.ascontiguousarray(np.broadcast_to(1.0 / scales.T, (regions, scales.shape[0])))
    modelled = parameters.method == "clip_model"
    noise = noise_of(exposures, amplifiers, factors) if modelled else None
    if noise is not None:
        check_noise(exposures, amplifiers, noise)
    histograms = np.zeros((regions, SCATTER_BINS), np.int64)
    frame = _empty(shape)
    bits = _ignored_bits(parameters, exposures.legend)
    lacking = np.zeros(shape, np.bool_)
    for tile in exposures.read():
        part = (tile.y, tile.x)
        segments = _segments(boxes, tile)
        found = _empty((tile.image[0].size,))
        _combine_tile(tile, segments, factors, noise, bits, parameters, found, histograms)
        empty = np.flatnonzero(found.count == 0)
        lacking[part] = _lacking(tile, empty, exposures.legend)
        for plane, values in zip(frame, found, strict=True):
            plane[part] = values.reshape(plane[part].shape)
        del tile  # before the next one is read
    if modelled:
        _tell_mismatch(frame, exposures, amplifiers, parameters, histograms)
    mask = own_planes(frame.mask, exposures.legend)
    if parameters.censor:
        mask &= BAD
    frame = frame._replace(mask=mask)
    dark = np.zeros(shape, np.bool_)
    if vignetting is not None:
        mask |= vignetting
        dark |= (vignetting & VIGNETTED) != 0
    _finish(frame, lacking & ~dark, dark, amplifiers, parameters)
    return frame


def _empty(shape: tuple[int, ...]) -> Frame:
    """Return a frame without any value."""
    return Frame(
        np.full(shape, np.nan, np.float32),
        np.full(shape, np.nan, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
    )


def _tell_mismatch(
    frame: Frame,
    exposures: Exposures,
    amplifiers: Sequence[Amplifier],
    parameters: CombineParameters,
    histograms: NDArray[np.int64],
) -> None:
    """Warn of amplifiers that scatter far more or less than their noise."""
    areas = [row.trimmed.slices for row in amplifiers] or [(slice(None), slice(None))]
    lost, patterns = [], []
    for area in areas:
        rejected, used = (int(plane[area].sum()) for plane in (frame.rejected, frame.count))
        lost.append(rejected / max(rejected + used, 1))
        # some rows tell well enough how much is allowed for the pattern
        level, variance = (percentiles(plane[area][::ROWS], HALF)[0] for plane in frame[:2])
        each = variance * max(used, 1) / frame.count[area].size
        patterns.append((parameters.pattern * level) ** 2 / each if each > 0 else 0.0)
    tell_mismatch(exposures, amplifiers, histograms, lost, patterns)


def _ignored_bits(parameters: CombineParameters, legend: Mapping[str, Any]) -> int:
    """Return the bits that leave a value out; of the default planes those that the mask knows."""
    planes: Sequence[str] = parameters.ignored_planes
    if "ignored_planes" not in parameters.model_fields_set:
        known = str(legend["flag_meanings"]).split()
        planes = [plane for plane in planes if plane in known]
    return v.plane_bits(planes, legend)


def _segments(boxes: Sequence[Any], tile: Planes) -> NDArray[np.int64]:
    """Return the rows (start, stop, amplifier) of a tile's pixels, whole where they join."""
    height, width = tile.image.shape[1:]
    found: list[tuple[int, int, int]] = []
    for index, box in enumerate(boxes):
        top, bottom = max(box.y_start - tile.y.start, 0), min(box.y_stop - tile.y.start, height)
        left, right = max(box.x_start - tile.x.start, 0), min(box.x_stop - tile.x.start, width)
        if top >= bottom or left >= right:
            continue
        if left == 0 and right == width:
            found.append((top * width, bottom * width, index))
        else:
            found += [(y * width + left, y * width + right, index) for y in range(top, bottom)]
    if not boxes:
        found = [(0, height * width, 0)]
    return np.array(found, np.int64).reshape(-1, 3)


def _combine_tile(
    tile: Planes,
    segments: NDArray[np.int64],
    factors: NDArray[np.float64],
    noise: Noise | None,
    ignored: int,
    parameters: CombineParameters,
    out: Frame,
    histograms: NDArray[np.int64],
) -> None:
    """Fill the flat planes of one tile."""
    values = floating(tile.image)
    values = np.ascontiguousarray(values).reshape(values.shape[0], -1)
    size = values.shape[0]
    masks, variances = flat_masks(tile.mask, size), flat_inputs(tile.variance, values)
    ranks, fractions = rank_tables(size)
    tables = (limits_of(values.dtype), comparisons(size), ranks, fractions)
    if noise is not None:
        options = (
            parameters.model_clip**2,
            parameters.pattern**2,
            1.0 if parameters.weights == "equal" else 0.0,
        )
        combine_segments(
            values,
            masks,
            variances,
            segments,
            factors,
            *noise,
            as_bits(ignored),
            *tables,
            typical_chi2(size),
            options,
            out.image,
            out.variance,
            out.mask,
            out.count,
            out.rejected,
            histograms,
        )
        return
    propagate = size < parameters.scatter_inputs
    if propagate and tile.variance is None:
        raise ValueError(
            f"clip_reference of {size} exposures takes the variance from theirs, which have none"
        )
    rule = (
        CLIPPED_MEAN,
        parameters.reference_clip,
        parameters.iterations,
        EQUAL_WEIGHTS,
        False,
        propagate,
    )
    stack_segments(
        values,
        masks,
        variances,
        flat_inputs(None, values),
        segments,
        factors,
        np.ones(size),
        as_bits(ignored, 0, 0, 0),
        *tables,
        rule,
        out.image,
        out.variance,
        out.mask,
        np.zeros_like(out.mask),
        out.count,
        out.rejected,
    )


def _lacking(tile: Planes, empty: NDArray[np.intp], legend: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which pixels of a tile are NO_DATA in every exposure, (y, x)."""
    shape = tile.image.shape[1:]
    lacking = np.zeros(shape, np.bool_)
    if tile.mask is not None and "NO_DATA" in str(legend["flag_meanings"]).split():
        bit = v.plane_bits(["NO_DATA"], legend)
        planes = tile.mask.reshape(tile.mask.shape[0], -1)[:, empty]
        lacking.reshape(-1)[empty] = ((planes & np.array(bit).astype(planes.dtype)) != 0).all(
            axis=0
        )
    return lacking


def _finish(
    frame: Frame,
    lacking: NDArray[np.bool_],
    dark: NDArray[np.bool_],
    amplifiers: Sequence[Amplifier],
    parameters: CombineParameters,
) -> None:
    """Set BAD and NO_DATA, and fill the holes of every amplifier; ``dark`` is vignetted."""
    inside = np.zeros(frame.mask.shape, np.bool_)
    areas = [row.trimmed.slices for row in amplifiers] or [(slice(None), slice(None))]
    for area in areas:
        inside[area] = True
    lacking &= inside
    if lacking.any() and parameters.no_data == "raise":
        raise NoUsableDataError(
            f"{int(lacking.sum())} pixels are NO_DATA in every exposure; no_data='keep' keeps them"
        )
    holes = ~np.isfinite(frame.image) | ~np.isfinite(frame.variance)
    holes &= inside & ~lacking & ~dark
    for plane in (frame.image, frame.variance):
        plane[lacking | ~inside | dark] = np.nan
    frame.mask[holes] |= BAD
    frame.mask[~inside] |= BAD
    frame.mask[lacking | dark] |= NO_DATA
    _fill(frame, holes, areas, [row.name for row in amplifiers], parameters.fill_reach)
    for plane in (frame.image, frame.variance):
        plane[dark] = 0.0


def _fill(
    frame: Frame,
    holes: NDArray[np.bool_],
    areas: Sequence[tuple[slice, slice]],
    names: Sequence[str],
    reach: int,
) -> None:
    """Fill the holes of every amplifier, with one warning."""
    if not holes.any():
        return
    lost = [
        name
        for name, area in zip(names or ["the detector"], areas, strict=True)
        if holes[area].any()
        and not fill_holes(frame.image[area], frame.variance[area], holes[area], reach)
    ]
    text = f"{int(holes.sum())} pixels have no usable value in any exposure; they are BAD"
    if lost:
        text += f", and NaN where nothing is left to fill them from: {', '.join(lost)}"
    warnings.warn(text, FilledPixelsWarning, stacklevel=5)
