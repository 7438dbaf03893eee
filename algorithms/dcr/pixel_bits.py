"""Truth values of the pixels of many visits, eight in a byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PixelBits"]

Bools = NDArray[np.bool_]


class PixelBits:
    """Truth values (visit, y, x), false at first.

    Parameters
    ----------
    visits : int
    shape : (y, x)

    Examples
    --------
    >>> bits, ones = PixelBits(2, (3, 10)), np.zeros((3, 10), bool)
    >>> ones[1:, 4:6] = True
    >>> bits.add_plane(1, ones)
    >>> bits.plane(1).sum(axis=1).tolist(), bits.any_of(0), bits.any_of(1)
    ([0, 2, 2], False, True)
    """

    def __init__(self, visits: int, shape: tuple[int, ...]) -> None:
        self.columns = shape[1]
        self.bits = np.zeros((visits, shape[0], -(-shape[1] // 8)), np.uint8)

    def plane(self, visit: int) -> Bools:
        """Return the values (y, x) of a visit."""
        return self._unpacked(self.bits[visit])

    def any_of(self, visit: int) -> bool:
        """Return whether any value of a visit is true."""
        return bool(self.bits[visit].any())

    def any_visit(self) -> Bools:
        """Return the pixels (y, x) that are true in any visit."""
        return self._unpacked(np.bitwise_or.reduce(self.bits, axis=0))

    def add_plane(self, visit: int, values: Bools) -> None:
        """Set values (y, x) of a visit where they are true."""
        self.bits[visit] |= np.packbits(values, axis=-1)

    def _unpacked(self, bits: NDArray[np.uint8]) -> Bools:
        return np.unpackbits(bits, axis=-1, count=self.columns).astype(bool)
