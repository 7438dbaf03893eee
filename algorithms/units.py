"""Arithmetic on the names of units."""

from __future__ import annotations

import re

__all__ = ["inverse_units", "squared_units"]


def squared_units(units: str) -> str:
    """Return the square of a unit as astropy reads it: ``electron/adu`` to ``electron2/adu2``."""
    return re.sub(
        r"([A-Za-z_]+)(?:\*\*|\^)?(-?\d+)?",
        lambda factor: f"{factor[1]}{2 * int(factor[2] or 1)}",
        units,
    )


def inverse_units(units: str) -> str:
    """Return the inverse of a unit as astropy reads it: ``electron/s`` to ``s/electron``."""
    if not units:
        return units
    above, *below = units.split("/")
    if above == "1" and len(below) == 1:
        return below[0]
    return "/".join([" ".join(below) or "1", *above.split()])
