"""Which visits cover which part of a patch: pixels in groups of like weights.

Dithers and gaps between detectors leave visits with parts of a patch. What the noise is there
follows from the weights of the visits around a pixel, over about the width of the PSF: so weights
count in blocks of `BLOCK` pixels, where single bad pixels are no matter.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__ = ["BLOCK", "GROUPS", "BlockWeights", "Coverage", "coverage_of"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

BLOCK: Final = 8
"""Sides of blocks, pixel."""
GROUPS: Final = 8
"""Groups of pixels, at most."""
LEAST: Final = 0.01
"""Part of a patch that a set of visits has to cover for a group of its own."""
ALIKE: Final = 0.05
"""Sum of the differences between the shares of visits in all weights below which groups are one."""


class Coverage(NamedTuple):
    """The group of each pixel, (y, x), from 0, and the mean ``weights`` (group, visit) of visits
    over the pixels of each of the `GROUPS`; 0 of those that are not needed."""

    group: NDArray[np.uint8]
    weights: Floats


class BlockWeights:
    """Sums of the weights of visits in blocks of pixels, and whether visits cover these.

    Parameters
    ----------
    visits : int
    shape : (y, x)
        Of the pixels.
    """

    def __init__(self, visits: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        heights, widths = (np.diff([*range(0, side, BLOCK), side]) for side in shape)
        self.pixels = np.outer(heights, widths)
        self.sums = np.zeros((visits, *self.pixels.shape), np.float32)
        self.covered = np.zeros(self.sums.shape, bool)

    def clear(self) -> None:
        """Forget all visits."""
        self.sums[:] = 0.0
        self.covered[:] = False

    def put(self, visit: int, weights: Images) -> None:
        """Take note of the weights (y, x) of a visit; it covers blocks half of whose pixels count.

        Examples
        --------
        >>> blocks = BlockWeights(1, (8, 20))
        >>> weights = np.zeros((8, 20), np.float32)
        >>> weights[:, :11] = 2.0
        >>> blocks.put(0, weights)
        >>> blocks.sums.tolist(), blocks.covered.tolist()
        ([[[128.0, 48.0, 0.0]]], [[[True, False, False]]])
        """
        sums, counts = np.zeros(self.pixels.shape), np.zeros(self.pixels.shape, np.int64)
        _add_blocks(weights, sums, counts)
        self.sums[visit] = sums
        self.covered[visit] = 2 * counts >= self.pixels


@compiled
def _add_blocks(weights: Images, sums: Floats, counts: NDArray[np.int64]) -> None:
    rows, columns = weights.shape
    for iy in range(rows):
        for ix in range(columns):
            weight = weights[iy, ix]
            sums[iy // BLOCK, ix // BLOCK] += weight
            counts[iy // BLOCK, ix // BLOCK] += weight > 0


def coverage_of(blocks: BlockWeights) -> Coverage:
    """Return groups of pixels whose visits have like shares in the weights.

    The commonest sets of visits that cover a block make groups; each other block is of the group
    whose shares are nearest to its own.

    Parameters
    ----------
    blocks : BlockWeights

    Examples
    --------
    One of two visits lacks a third of a patch:

    >>> blocks, weights = BlockWeights(2, (8, 24)), np.ones((8, 24), np.float32)
    >>> blocks.put(0, weights)
    >>> weights[:, 16:] = 0.0
    >>> blocks.put(1, weights)
    >>> found = coverage_of(blocks)
    >>> found.group[0, ::8].tolist(), found.weights[:2].tolist()
    ([0, 0, 1], [[1.0, 1.0], [1.0, 0.0]])
    """
    visits = len(blocks.sums)
    sums, pixels = blocks.sums.reshape(visits, -1), blocks.pixels.ravel()
    total = sums.sum(axis=0)
    shares = sums / np.where(total > 0, total, np.float32(1.0))
    seeds = _seeds(sums, blocks.covered.reshape(visits, -1))
    far = [np.abs(shares - seed[:, None]).sum(axis=0) for seed in seeds]
    nearest = np.argmin(far, axis=0) if seeds else np.zeros(len(pixels), np.int64)
    weights = np.zeros((GROUPS, visits))
    for number, mean in enumerate(weights):
        own = (nearest == number) & (total > 0)
        if own.any():
            mean[:] = sums[:, own].sum(axis=1, dtype=np.float64) / pixels[own].sum()
    group = nearest.astype(np.uint8).reshape(blocks.pixels.shape)
    whole = group.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return Coverage(whole[: blocks.shape[0], : blocks.shape[1]].copy(), weights)


def _seeds(sums: Images, covered: NDArray[np.bool_]) -> list[Images]:
    """Return the shares (visit,) of visits in the weights of the commonest sets, unlike each other.

    Parameters
    ----------
    sums, covered : array, (visit, block)
    """
    sets = np.packbits(covered, axis=0).T
    _, of_block, counts = np.unique(sets, axis=0, return_inverse=True, return_counts=True)
    seeds: list[Images] = []
    for number in np.argsort(-counts, kind="stable"):
        if counts[number] < LEAST * len(sets) or len(seeds) == GROUPS:
            break
        weights = sums[:, of_block.ravel() == number].sum(axis=1, dtype=np.float64)
        if not weights.any():
            continue
        share = (weights / weights.sum()).astype(np.float32)
        if all(np.abs(share - other).sum() > ALIKE for other in seeds):
            seeds.append(share)
    return seeds
