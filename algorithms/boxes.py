"""Half-open boxes of pixels; a pixel is at its integer coordinate."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Box"]


class Box(NamedTuple):
    """A half-open box of parent pixels."""

    y_start: int
    y_stop: int
    x_start: int
    x_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        return self.y_stop - self.y_start, self.x_stop - self.x_start
