"""Which detectors and exposures hang together through common cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NONE", "connected_components", "describe_components"]

NONE = -1  # the component of what has no usable cell
LISTED = 12  # members of a component that a message names

Labels = NDArray[np.int64]


def connected_components(usable: NDArray[np.bool_]) -> tuple[Labels, Labels]:
    """Return the component of each channel and of each exposure.

    A usable cell joins its channel and its exposure.

    Parameters
    ----------
    usable : array, (channel, exposure), bool

    Returns
    -------
    array, (channel), int64, and array, (exposure), int64
        Numbered from 0 in the order of the channels; -1 without any usable cell.

    Examples
    --------
    >>> connected_components(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], bool))
    (array([ 0,  1, -1]), array([0, 0, 1]))
    """
    if usable.all():
        return np.zeros(usable.shape[0], np.int64), np.zeros(usable.shape[1], np.int64)
    channels = np.full(usable.shape[0], NONE)
    exposures = np.full(usable.shape[1], NONE)
    number = 0
    open_channels = usable.any(axis=1)
    while open_channels.any():
        reached = np.zeros(usable.shape[1], np.bool_)
        member = np.zeros(usable.shape[0], np.bool_)
        front = np.array([int(np.argmax(open_channels))])
        while front.size:
            member[front] = True
            reached |= usable[front].any(axis=0)
            joined = usable[:, reached].any(axis=1)
            front = np.flatnonzero(joined & ~member)
        channels[member], exposures[reached] = number, number
        open_channels &= ~member
        number += 1
    return channels, exposures


def describe_components(
    channels: Labels, exposures: Labels, channel_names: Sequence[Any], exposure_names: Sequence[Any]
) -> str:
    """Return the members of each component, the small ones in full.

    Examples
    --------
    >>> describe_components(np.array([0, 1]), np.array([0, 1]), ["S0", "S1"], [7, 8])
    'component 0: detectors S0 in exposures 7; component 1: detectors S1 in exposures 8'
    """
    parts = []
    for number in range(int(channels.max(initial=NONE)) + 1):
        inside = [_listed(channel_names, channels == number)]
        inside += [_listed(exposure_names, exposures == number)]
        parts.append(f"component {number}: detectors {inside[0]} in exposures {inside[1]}")
    return "; ".join(parts)


def _listed(names: Sequence[Any], chosen: NDArray[np.bool_]) -> str:
    members = [str(names[index]) for index in np.flatnonzero(chosen).tolist()]
    more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
    return ", ".join(members[:LISTED]) + more
