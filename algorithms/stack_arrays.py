"""Stacks of plain arrays: what the kernels take, made from what datasets hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.pixel_arrays import floating
from skyloom.algorithms.sorting_network import comparisons
from skyloom.algorithms.stack_kernels import (
    BY_INPUT,
    BY_PIXEL,
    EQUAL_WEIGHTS,
    rank_tables,
    stack_segments,
)

__all__ = ["StackRule", "Stacked", "flat_inputs", "flat_masks", "limits_of", "stack_arrays"]


class StackRule(NamedTuple):
    """What is done with the inputs of a pixel.

    ``statistic`` a code of the kernels; ``inverse`` whether weights are inverse variances,
    ``propagate`` whether the variance comes from those of the inputs. ``ignored``, ``clipped``,
    ``one_input`` and ``no_data`` are the bits that leave a value out, and those that are set.
    ``joined`` are pairs (bits, bit): where an input has one of the bits, the bit is set.
    """

    statistic: int
    clip: float
    iterations: int
    inverse: bool
    propagate: bool
    ignored: int
    clipped: int
    one_input: int
    no_data: int
    joined: tuple[tuple[int, int], ...] = ()


class Stacked(NamedTuple):
    """The result for every pixel; ``count`` inputs used and ``rejected`` by clipping."""

    image: NDArray[Any]
    variance: NDArray[Any]
    mask: NDArray[np.int32]
    count: NDArray[np.int32]  # type: ignore[assignment]  # hides tuple.count
    rejected: NDArray[np.int32]


def flat_inputs(values: NDArray[Any] | None, like: NDArray[Any]) -> NDArray[Any]:
    """Return values as (input, pixel) in the dtype of others; without pixels if there are none."""
    if values is None:
        return np.empty((like.shape[0], 0), like.dtype)
    return np.ascontiguousarray(values, like.dtype).reshape(like.shape[0], -1)


def flat_masks(masks: NDArray[Any] | None, size: int) -> NDArray[np.int32]:
    """Return masks as (input, pixel) int32, the highest bit included."""
    if masks is None:
        return np.empty((size, 0), np.int32)
    return np.ascontiguousarray(masks.astype(np.int32, copy=False)).reshape(size, -1)


def as_bits(*bits: int) -> NDArray[np.int32]:
    """Return bits as int32, the highest included."""
    return np.array(bits, np.int64).astype(np.int32)


def limits_of(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the largest number of a dtype and infinity, in that dtype."""
    return np.array([np.finfo(dtype).max, np.inf], dtype)


def stack_arrays(
    images: NDArray[Any],
    masks: NDArray[Any] | None,
    variances: NDArray[Any] | None,
    weights: NDArray[Any] | None,
    *,
    factors: NDArray[np.float64],
    input_weights: NDArray[np.float64] | None,
    rule: StackRule,
) -> Stacked:
    """Return the statistic over the first axis of arrays (input, ...).

    Parameters
    ----------
    images : ndarray, (input, ...), any real dtype
    masks : ndarray of integers, or None
    variances, weights : ndarray of the same shape, or None
    factors : ndarray, (input), float64
        Multiply the values, and squared the variances.
    input_weights : ndarray, (input), float64, or None
    rule : StackRule

    Returns
    -------
    Stacked
        Arrays (...), float32 where that holds the images exactly, else float64.
    """
    shape = images.shape[1:]
    values = floating(images)
    values = np.ascontiguousarray(values).reshape(values.shape[0], -1)
    size, pixels = values.shape
    weighting = EQUAL_WEIGHTS if input_weights is None else BY_INPUT
    if rule.inverse or weights is not None:
        weighting = BY_PIXEL
    if input_weights is not None:
        factors = np.where(input_weights > 0, factors, np.nan)  # not used, as masked ones are not
    out = Stacked(
        np.empty(pixels, values.dtype),
        np.empty(pixels, values.dtype),
        np.zeros(pixels, np.int32),
        *np.zeros((2, pixels), np.int32),
    )
    all_planes = np.zeros(pixels, np.int32)
    ranks, fractions = rank_tables(size)
    stack_segments(
        values,
        flat_masks(masks, size),
        flat_inputs(variances, values),
        flat_inputs(weights, values),
        np.array([[0, pixels, 0]], np.int64),
        factors[None],
        np.ones(size) if input_weights is None else input_weights,
        as_bits(rule.ignored, rule.clipped, rule.one_input, rule.no_data),
        limits_of(values.dtype),
        comparisons(size),
        ranks,
        fractions,
        (rule.statistic, rule.clip, rule.iterations, weighting, rule.inverse, rule.propagate),
        out.image,
        out.variance,
        out.mask,
        all_planes,
        out.count,
        out.rejected,
    )
    for bits, bit in rule.joined:
        found = (all_planes & as_bits(bits)[0]) != 0
        out.mask[found] |= as_bits(bit)[0]
    return Stacked(*(array.reshape(shape) for array in out))
