"""Arithmetic on the names of units."""

from __future__ import annotations

import re

__all__ = ["squared_units"]


def squared_units(units: str) -> str:
    """Return the square of a unit as astropy reads it: ``electron/adu`` to ``electron2/adu2``."""
    return re.sub(
        r"([A-Za-z_]+)(?:\*\*|\^)?(-?\d+)?",
        lambda factor: f"{factor[1]}{2 * int(factor[2] or 1)}",
        units,
    )
