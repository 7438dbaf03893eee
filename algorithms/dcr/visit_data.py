"""The data of a patch, visit by visit, as they count: which visits and pixels, on which scale."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.operator import FourierOperator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import Run, detected_pixels, weighted_pixels
from skyloom.algorithms.dcr.pixel_bits import PixelBits
from skyloom.algorithms.dcr.transfer import PointSpreads

__all__ = ["Setting", "Visit", "VisitData"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Images = NDArray[np.float32]
Result = TypeVar("Result")

TOGETHER: Final = 4
"""Visits that may be worked on at once: what is made of them is held until it is added up."""


class Setting(Protocol):
    """What is given of a patch."""

    warps: xr.Dataset
    template: xr.Dataset
    p: LinearParameters
    visits: int
    vectors: Floats
    offsets: Floats
    spreads: PointSpreads
    adherence: float
    run: Run

    def operator(self, shape: tuple[int, int]) -> FourierOperator:
        """Return the operators over a periodic image of this shape."""

    def padded(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the shape of the periodic image for some pixels."""


class Visit(NamedTuple):
    """The image and weights (y, x) of a visit, 0 where a pixel does not count."""

    number: int
    image: Images
    weights: Images


class VisitData:
    """Data of a patch, of which some visits and pixels may be left out, and visits scaled.

    ``used`` (visit,) and ``scales`` (visit,), the flux of a visit over that of the others, may be
    set; pixels are left out with ``rejected``.

    Weights, which every iteration needs, are kept in memory, then images too, of as many visits as
    the parameters have room for. The others are read again whenever they are needed.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.shape = (setting.template.sizes[v.Y], setting.template.sizes[v.X])
        self.used = np.ones(setting.visits, bool)
        self.scales = np.ones(setting.visits)
        self.rejected = PixelBits(setting.visits, self.shape)
        self.good = PixelBits(setting.visits, self.shape)
        self.detected: Bools = detected_pixels(setting.template)
        labels, self.number = ndimage.label(self.detected, np.ones((3, 3), bool))
        self.sources = np.asarray(labels, np.int32)
        self._warps = setting.warps[["image", "variance", v.MASK]]
        self._lock = threading.Lock()
        self._sums = np.zeros(setting.visits)
        self._known = np.zeros(setting.visits, bool)
        self._images: dict[int, Images] = {}
        self._weights: dict[int, Images] = {}
        image = 4 * self.detected.size
        self._room = int(1e9 * setting.p.memory) // image
        self.locate()

    def locate(self) -> None:
        """Take note of where visits lie: once more when that has changed."""
        self.whole = self.setting.padded(*self.shape)
        self._operator: FourierOperator | None = None

    @property
    def mean_weights(self) -> Floats:
        """Return the mean weight of each visit over the patch, before any pixel is rejected."""
        return np.where(self.used, self._sums / self.detected.size * self.scales**2, 0.0)

    @property
    def operator(self) -> FourierOperator:
        """Return the operators over the periodic image of the patch."""
        with self._lock:
            if self._operator is None:
                self._operator = self.setting.operator(self.whole)
            return self._operator

    def each(self, work: Callable[[Visit], Result], used: Bools | None = None) -> Iterator[Result]:
        """Yield what work makes of visits with their data as they count, in their order.

        Parameters
        ----------
        work : function
        used : array, (visit,), optional
            Visits; those that are used if not given.
        """
        return self._run(lambda number: work(self._counting(number)), used)

    def each_weights(self, work: Callable[[int, Images], Result]) -> Iterator[Result]:
        """Yield what work makes of the number and the weights (y, x) of visits, in their order."""

        def of_visit(number: int) -> Result:
            kept = self._weights.get(number)
            return work(number, self._left(number, self._raw(number)[1] if kept is None else kept))

        return self._run(of_visit, None)

    def _run(self, work: Callable[[int], Result], used: Bools | None) -> Iterator[Result]:
        numbers = [int(each) for each in np.flatnonzero(self.used if used is None else used)]
        for start in range(0, len(numbers), TOGETHER):
            yield from self.setting.run(work, numbers[start : start + TOGETHER])

    def _counting(self, number: int) -> Visit:
        image, weights = self._raw(number)
        left = self._left(number, weights)
        if left is not weights:
            image = np.where(left > 0, image, np.float32(0.0))
            image /= np.float32(self.scales[number])
        return Visit(number, image, left)

    def _left(self, number: int, weights: Images) -> Images:
        """Return the weights of a visit without its rejected pixels, for its flux as scaled."""
        if self.rejected.any_of(number):
            weights = np.where(self.rejected.plane(number), np.float32(0.0), weights)
        if self.scales[number] != 1.0:
            weights = weights * np.float32(self.scales[number] ** 2)
        return weights

    def _raw(self, number: int) -> tuple[Images, Images]:
        """Return the image and weights of a visit as they are read."""
        if number in self._images:
            return self._images[number], self._weights[number]
        warp = self._warps.isel({v.VISIT: slice(number, number + 1)}).compute()
        planes = weighted_pixels(warp, self.setting.p.reject_planes)
        image, weights, _ = (each[0] for each in planes)
        with self._lock:
            if not self._known[number]:
                self._known[number] = True
                self._sums[number] = weights.sum(dtype=np.float64)
                self.good.add_plane(number, weights > 0)
            if number < self._room:
                self._weights[number] = weights
            if number < self._room - self.setting.visits:
                self._images[number] = image
        return image, weights
