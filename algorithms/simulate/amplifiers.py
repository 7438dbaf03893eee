"""Amplifier tables of made-up detectors."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.vocabulary import (
    ADU,
    AMP,
    DETECTOR,
    DIMENSIONLESS,
    ELECTRON,
    ELECTRON_PER_ADU,
)

__all__ = ["amplifier_grid"]


def amplifier_grid(
    detector: str,
    grid: tuple[int, int] = (2, 4),
    shape: tuple[int, int] = (512, 512),
    *,
    overscan: int = 32,
    gain: float = 1.5,
    read_noise: float = 6.0,
    saturation: float = float("nan"),
) -> xr.Dataset:
    """Return the amplifier table of a detector whose amplifiers stand in a regular grid.

    Parameters
    ----------
    detector : str
        Name of the detector.
    grid : (int, int)
        Amplifiers along y and x.
    shape : (int, int)
        Pixels (y, x) of the data section of an amplifier.
    overscan : int
        Columns of serial overscan to the right of each data section.
    gain : float, electron/adu
        Nominal gain.
    read_noise : float, electron
        Nominal read noise.
    saturation : float, adu
        Nominal saturation; NaN is unknown.

    Returns
    -------
    Dataset, (amp)
        The table that a camera would give, with the attribute ``detector``.

    Examples
    --------
    >>> table = amplifier_grid("R0", (2, 2), (100, 50), overscan=10)
    >>> table.amp.values.tolist(), table.data_x_start.values.tolist()
    (['C00', 'C01', 'C10', 'C11'], [0, 60, 0, 60])
    """
    row, column = (index.ravel() for index in np.indices(grid))
    y, x = row * shape[0], column * (shape[1] + overscan)
    boxes = {
        "data": (y, y + shape[0], x, x + shape[1]),
        "overscan": (y, y + shape[0], x + shape[1], x + shape[1] + overscan),
        "parallel_overscan": (y * 0,) * 4,
    }
    edges = ("y_start", "y_stop", "x_start", "x_stop")
    sections = {
        f"{kind}_{edge}": value
        for kind, box in boxes.items()
        for edge, value in zip(edges, box, strict=True)
    }
    trimmed = (y, y + shape[0], column * shape[1], (column + 1) * shape[1])
    sections |= dict(zip(edges, trimmed, strict=True))
    numbers = {
        "gain": (gain, ELECTRON_PER_ADU),
        "read_noise": (read_noise, ELECTRON),
        "saturation": (saturation, ADU),
    }
    return xr.Dataset(
        {
            **{
                key: (AMP, np.asarray(value, dtype=np.int32), {"units": DIMENSIONLESS})
                for key, value in sections.items()
            },
            **{
                name: (AMP, np.zeros(row.size, dtype=bool), {"units": DIMENSIONLESS})
                for name in ("flip_x", "flip_y")
            },
            **{
                name: (AMP, np.full(row.size, value), {"units": unit})
                for name, (value, unit) in numbers.items()
            },
        },
        coords={AMP: [f"C{i}{j}" for i, j in zip(row, column, strict=True)]},
        attrs={DETECTOR: detector},
    )
