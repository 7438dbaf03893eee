"""Bands of a configuration: numbers, or files of measured band-passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from skyloom.algorithms.dcr import Band
from skyloom.storage.throughput import read_throughput

__all__ = ["band_values"]

OF_FILES: Final = ("file", "detector", "column", "atmosphere")
"""What says which band-pass is read; all else are fields of a band."""


def band_values(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a band from its part of a configuration.

    Parameters
    ----------
    name : str
        Of the band, if it has no ``name`` of its own.
    given : mapping
        Fields of `skyloom.algorithms.dcr.Band`; or a ``file`` with its band-pass, as of
        `skyloom.storage.throughput.read_throughput`, with ``detector``, ``column`` and
        ``atmosphere`` (a second file, whose throughput multiplies that of the first). Fields that
        are given win over those of the file.

    Raises
    ------
    ValueError
        If a file cannot be read, or does not hold a band-pass; the message names it.

    Examples
    --------
    >>> band_values("g", {"lambda_min": 400.0})
    {'name': 'g', 'lambda_min': 400.0}
    """
    if "file" not in given:
        return {"name": name, **given}
    fields = {key: value for key, value in given.items() if key not in OF_FILES}
    table = read_throughput(
        given["file"], detector=given.get("detector"), column=given.get("column")
    )
    nm, passed = table["wavelength"].to_numpy(), table.to_numpy()
    if "atmosphere" in given:
        air = read_throughput(given["atmosphere"])
        passed = passed * np.interp(nm, air["wavelength"].to_numpy(), air.to_numpy())
    chosen = {"name": name, **fields}
    try:
        return Band.from_throughput(wavelength=nm, throughput=passed, **chosen).model_dump()
    except ValidationError:  # what is wrong with fields is told where they stand
        whole = Band.from_throughput(name, nm, passed)
        limits = ("lambda_min", "lambda_max", "lambda_ref")
        return {key: getattr(whole, key) for key in limits} | chosen
