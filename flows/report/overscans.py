"""Overscans of the amplifiers of all exposures, read from frames that were made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["QUANTITIES", "Overscans", "overscans", "own_medians"]

Floats = NDArray[np.float64]
Channel = tuple[str, str]

QUANTITIES: Final = ("overscan_level", "overscan_noise")


class Overscans(NamedTuple):
    """``overscan_level`` and ``overscan_noise`` (adu) over (exposure, channel), NaN if unknown."""

    values: Mapping[str, Floats]
    time: Floats
    kinds: list[str]
    exposures: list[int]
    channels: list[Channel]

    def medians(self, quantity: str) -> dict[Channel, float]:
        """Return the median over exposures of every channel that has one."""
        middle = own_medians(self.values[quantity])
        return {
            channel: float(value)
            for channel, value in zip(self.channels, middle, strict=True)
            if np.isfinite(value)
        }


def overscans(store: Store, products: Sequence[str]) -> Overscans | None:
    """Return the overscans of the frames of some products, in order of exposures; None without.

    Parameters
    ----------
    store : Store
        Where the frames are.
    products : sequence of str
        Products of frames; those that are not there are passed over.
    """
    there = [name for name in products if name in store and store.done(name).any()]
    if not there:
        return None
    detectors = list(dict.fromkeys(str(n) for p in there for n in store.labels(p)[v.DETECTOR]))
    channels = [
        (name, str(amp)) for name in detectors for amp in store.camera.amplifier_names(name)
    ]
    place = {channel: i for i, channel in enumerate(channels)}
    table = store.exposures()
    rows: dict[int, dict[str, Floats]] = {}
    for product in there:
        opened = store[product]
        names = [name for name in QUANTITIES if name in opened]
        found = opened[names].isel({v.EXPOSURE: store.done(product).any(axis=1)}).load()
        if v.AMP not in found.dims:
            continue
        found = found.transpose(v.EXPOSURE, v.DETECTOR, v.AMP)
        pairs = [
            (i, j, place[str(name), str(amp)])
            for i, name in enumerate(found[v.DETECTOR].to_numpy())
            for j, amp in enumerate(found[v.AMP].to_numpy())
            if (str(name), str(amp)) in place
        ]
        i, j, columns = (np.array(index, np.int64) for index in zip(*pairs, strict=True))
        for k, exposure in enumerate(found[v.EXPOSURE].to_numpy()):
            row = {name: np.full(len(channels), np.nan) for name in QUANTITIES}
            for name in names:
                row[name][columns] = found[name].to_numpy()[k, i, j]
            rows[int(exposure)] = row
    exposures = sorted(rows)
    own = table.sel({v.EXPOSURE: exposures})
    start = own["mjd_start"].to_numpy() if "mjd_start" in own.coords else np.nan
    return Overscans(
        {name: np.array([rows[e][name] for e in exposures]) for name in QUANTITIES},
        np.broadcast_to(np.asarray(start, np.float64), len(exposures)),
        [str(kind) for kind in own["observation_type"].to_numpy()],
        exposures,
        channels,
    )


def own_medians(values: Floats) -> Floats:
    """Return the median of each column; NaN where there is none.

    Examples
    --------
    >>> own_medians(np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    known = np.isfinite(values).any(axis=0)
    middle = np.full(values.shape[1], np.nan)
    middle[known] = np.nanmedian(values[:, known], axis=0)
    return middle
