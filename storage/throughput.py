"""Band-passes from the files that observatories publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from astropy.io import ascii as text_tables
from astropy.io import fits
from astropy.units import Unit
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import IngestError

__all__ = ["read_throughput"]

Floats = NDArray[np.float64]

WAVELENGTHS: Final = ("lambda", "wavelength", "wave", "wl")
MEANS: Final = ("throughput", "throughput_avg", "throughput_atm", "transmission", "response")
DETECTORS: Final = ("throughput_ccd", "throughput_detector")
LONGEST: Final = 2500.0
"""Larger wavelengths without a unit are not nm but angstrom."""
SHORTEST: Final = 3.0
"""Smaller wavelengths without a unit are not nm but micrometre."""


def read_throughput(
    path: str | Path, *, detector: int | None = None, column: str | None = None
) -> xr.DataArray:
    """Read a band-pass from a table.

    Parameters
    ----------
    path : str or Path
        FITS table, or text in columns (CSV, ECSV, blanks) with or without names: one of
        wavelengths (``lambda``, ``wavelength``, the first), one of throughput (``throughput``,
        ``throughput_avg``, ``transmission``, ``response``, the second).
    detector : int, optional
        Number of a detector, from 1 on, where a column (``throughput_ccd``) has one value each.
    column : str, optional
        Name of the column to take in place of these.

    Returns
    -------
    DataArray, (wavelength)
        Of ascending wavelengths in nm: a column without a unit is taken as angstrom if it exceeds
        2500, as micrometre if all of it is below 3.

    Raises
    ------
    IngestError
        If there is no such table, column or detector; the message names file and columns.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder) / "g.txt"
    ...     _ = place.write_text("4000 0.0\\n4100 0.7\\n5400 0.8\\n5500 0.0\\n")
    ...     found = read_throughput(place)
    >>> found
    <xarray.DataArray 'throughput' (wavelength: 4)> Size: 32B
    array([0. , 0.7, 0.8, 0. ])
    Coordinates:
      * wavelength  (wavelength) float64 32B 400.0 410.0 540.0 550.0
    """
    place = Path(path)
    try:
        names, columns, units = _table(place)
    except (OSError, ValueError, text_tables.InconsistentTableError) as error:
        raise IngestError(f"{place}: no table of throughput could be read: {error}") from error
    at = _first(WAVELENGTHS, names, 0)
    if column is not None:
        chosen = _named(place, column, names)
    elif detector is not None:
        chosen = _named(place, next((n for n in DETECTORS if n in names), DETECTORS[0]), names)
    else:
        chosen = _first(MEANS, names, 1)
    if chosen >= len(columns):
        raise IngestError(f"{place}: there is one column only, {names[0]}")
    values = columns[chosen]
    if values.ndim > 1:
        count = values.shape[1]
        if detector is None or not 1 <= detector <= count:
            raise IngestError(
                f"{place}: {names[chosen]} is of detectors 1 to {count}, got detector {detector}"
            )
        values = values[:, detector - 1]
    nm = columns[at] * _scale(columns[at], units[at])
    order = np.argsort(nm)
    found = xr.DataArray(
        values[order], {"wavelength": nm[order]}, ("wavelength",), name="throughput"
    )
    found["wavelength"].attrs["units"] = v.NANOMETRE
    return found


def _table(place: Path) -> tuple[list[str], list[Floats], list[str]]:
    """Return names in small letters, columns and units."""
    if not place.is_file():
        raise FileNotFoundError("there is no such file")
    if ".fit" in place.name.lower():
        with fits.open(place) as hdus:
            tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
            if not tables:
                raise ValueError("no HDU is a table")
            names = [column.name for column in tables[0].columns]
            columns = [np.asarray(tables[0].data[name], np.float64) for name in names]
            units = [column.unit or "" for column in tables[0].columns]
    else:
        table = text_tables.read(str(place))
        names = list(table.colnames)
        if all(_is_number(name) for name in names):  # no names: the first row is one of numbers
            table = text_tables.read(str(place), format="no_header")
            names = list(table.colnames)
        columns = [np.asarray(table[name], np.float64) for name in names]
        units = [str(table[name].unit or "") for name in names]
    return [name.lower() for name in names], columns, units


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _first(known: Sequence[str], names: Sequence[str], otherwise: int) -> int:
    return next((names.index(name) for name in known if name in names), otherwise)


def _named(place: Path, name: str, names: Sequence[str]) -> int:
    if name.lower() not in names:
        raise IngestError(f"{place}: there is no column {name!r}; there are {', '.join(names)}")
    return names.index(name.lower())


def _scale(wavelength: Floats, unit: str) -> float:
    """Return the nm of one unit of a column."""
    if unit:
        return float(Unit(unit).to("nm"))
    if wavelength.max() > LONGEST:
        return 0.1
    return 1000.0 if wavelength.max() < SHORTEST else 1.0
