"""The regions of a detector, cut out and summed: each amplifier, or all of them as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, Box, amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend import DetrendedPixels, DetrendParameters, amplifier_pixels
from skyloom.algorithms.photon_transfer.measurement import PairSums, Workspace, flat_pair_sums
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.regions import (
    focal_plane_radius,
    inside_edges,
    keep_slices,
    vignetting_selection,
)
from skyloom.algorithms.pixel_arrays import native

__all__ = [
    "Measured",
    "check_lags",
    "checked_images",
    "checked_inputs",
    "measure_amplifiers",
    "measure_detector",
]

Good = NDArray[np.bool_]
Images = tuple[NDArray[Any], NDArray[Any]]


class Measured(NamedTuple):
    """What is known of one amplifier of a pair; levels are means of the two exposures, adu."""

    sums: PairSums
    size: int
    saturated_fraction: float
    overscan_median: float
    overscan_noise: float
    vignetting_percent: float


class AssembledSignal(NamedTuple):
    """The amplifiers of one exposure, each in its place in the trimmed detector."""

    parts: Sequence[DetrendedPixels]
    amplifiers: Sequence[Amplifier]
    shape: tuple[int, int]

    @property
    def borrowed(self) -> bool:
        """Return False: images are made anew."""
        return False

    def signal(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the trimmed detector; pixels that no amplifier covers are 0."""
        image = np.empty(self.shape, np.float32) if out is None else out
        image[:] = 0.0
        for part, amplifier in zip(self.parts, self.amplifiers, strict=True):
            image[amplifier.trimmed.slices] = part.signal()[amplifier.turn]
        return image


def checked_images(first: xr.Dataset, second: xr.Dataset) -> Images:
    """Return the images of two exposures, or raise ValueError where they do not go together."""
    images = []
    for exposure in (first, second):
        image = exposure["image"]
        units = image.attrs.get("units", v.ADU)
        if units != v.ADU:
            raise ValueError(f"images of flats must have units {v.ADU!r}, got {units!r}")
        if set(image.dims) != {v.Y, v.X}:
            raise ValueError(f"images of a pair must have dimensions y and x, got {image.dims}")
        images.append(image.transpose(v.Y, v.X).values)
    if images[0].shape != images[1].shape:
        raise ValueError(
            f"the images of a pair must have one shape, got {images[0].shape} and {images[1].shape}"
        )
    return images[0], images[1]


def checked_inputs(
    first: xr.Dataset, second: xr.Dataset, amplifiers: xr.Dataset
) -> tuple[list[Amplifier], Images]:
    """Return the amplifier table and the raw images, or raise ValueError."""
    rows = amplifier_rows(amplifiers)
    # once here, or every amplifier would make a copy of the whole detector of its own
    one, two = checked_images(first, second)
    images = native(one), native(two)
    shape = images[0].shape
    outside = [
        f"{row.name}: {tuple(box)}"
        for row in rows
        for box in (row.data, row.overscan, row.parallel_overscan)
        if box.size and (box.y_stop > shape[0] or box.x_stop > shape[1])
    ]
    if outside:
        raise ValueError(
            f"boxes (y_start, y_stop, x_start, x_stop) beyond the raw image of shape {shape}: "
            + "; ".join(outside)
        )
    return rows, images


def check_lags(
    shapes: Sequence[tuple[str, tuple[int, int]]], parameters: ExtractParameters
) -> None:
    """Raise ValueError if the lags exceed half a (binned) region."""
    for name, shape in shapes:
        side = min(shape) // parameters.bin_size
        if 2 * parameters.lags > side:
            raise ValueError(
                f"lags must be at most half the shorter side, {side} pixels binned by "
                f"{parameters.bin_size} in {name} of shape {shape}; got {parameters.lags}"
            )


def measure_amplifiers(
    images: Images,
    rows: Sequence[Amplifier],
    offset: NDArray[np.float64],
    parameters: ExtractParameters,
    detrend: DetrendParameters,
    focal_plane: ArrayLike | None,
    sums: Callable[..., PairSums] = flat_pair_sums,
) -> list[Measured]:
    """Return what is measured on each amplifier, one after the other."""
    work = Workspace()
    height, width = trimmed_shape(list(rows))
    detector = Box(0, height, 0, width)
    found = []
    for row, level in zip(rows, offset.tolist(), strict=True):
        first, second = (
            amplifier_pixels(image, row, parameters=detrend, offset=level) for image in images
        )
        good = np.ones(first.shape, np.bool_)
        saturated = first.restrict(good) + second.restrict(good)
        percent = _keep_chosen(good[row.turn], row.trimmed, detector, parameters, focal_plane)
        found.append(
            Measured(
                sums(first, second, good, parameters=parameters, work=work),
                good.size,
                saturated / (2.0 * good.size),
                0.5 * (first.overscan_median + second.overscan_median),
                0.5 * (first.overscan_noise + second.overscan_noise),
                percent,
            )
        )
    return found


def measure_detector(
    images: Images,
    rows: Sequence[Amplifier],
    offset: NDArray[np.float64],
    parameters: ExtractParameters,
    detrend: DetrendParameters,
    focal_plane: ArrayLike | None,
) -> list[Measured]:
    """Return what is measured on the whole trimmed detector, once for each amplifier."""
    height, width = trimmed_shape(list(rows))
    detector = Box(0, height, 0, width)
    parts = [
        [
            amplifier_pixels(image, row, parameters=detrend, offset=level)
            for row, level in zip(rows, offset.tolist(), strict=True)
        ]
        for image in images
    ]
    good = np.zeros(detector.shape, np.bool_)
    saturated, size = 0, 0
    for row, first, second in zip(rows, *parts, strict=True):
        part = np.ones(first.shape, np.bool_)
        saturated += first.restrict(part) + second.restrict(part)
        size += part.size
        if parameters.edge_level == "AMP":
            keep_slices(part[row.turn], inside_edges(row.trimmed, parameters.edge, row.trimmed))
        good[row.trimmed.slices] = part[row.turn]
    percent = _keep_chosen(good, detector, detector, parameters, focal_plane)
    first_signal, second_signal = (AssembledSignal(part, rows, detector.shape) for part in parts)
    sums = flat_pair_sums(first_signal, second_signal, good, parameters=parameters)
    return [
        Measured(
            sums,
            size,
            saturated / (2.0 * size),
            0.5 * (first.overscan_median + second.overscan_median),
            0.5 * (first.overscan_noise + second.overscan_noise),
            percent,
        )
        for first, second in zip(*parts, strict=True)
    ]


def _keep_chosen(
    good: Good,
    box: Box,
    detector: Box,
    parameters: ExtractParameters,
    focal_plane: ArrayLike | None,
) -> float:
    """Clear edges and vignetted pixels in place; return the vignetting tolerated, percent."""
    around = box if parameters.edge_level == "AMP" else detector
    keep_slices(good, inside_edges(box, parameters.edge, around))
    if not parameters.vignetting or focal_plane is None:
        return parameters.vignetting_percent
    selection = vignetting_selection(
        focal_plane_radius(box, focal_plane).values,
        parameters.vignetting,
        percent=parameters.vignetting_percent,
        min_pixels=min(parameters.vignetting_min_pixels, good.size),
    )
    good &= selection.good
    return selection.percent
