"""How far the charge of one pixel moves the boundaries of its neighbours, from electrostatics.

The charge lies at height z_q over the gates, spread evenly over a small rectangle, between two
conducting planes at 0 and at the thickness of the silicon; image charges keep both planes at their
potential. A boundary moves by the transverse field integrated along the drift, from the height
where charge is converted down to z_sh for the horizontal sides of a pixel (north, south) and z_sv
for the vertical ones (east, west). The sum over the four sides is the change of area a that
covariances measure (Astier and Regnault 2023). Lags are ``(lag_y, lag_x)``, lengths in um, shifts
in pixels per electron, counted positive where the pixel at that lag grows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.vocabulary import LAG_X, LAG_Y, PER_ELECTRON

__all__ = ["ElectrostaticModel", "boundary_shifts"]

Floats = NDArray[np.float64]

PERMITTIVITY: Final = 660.0
"""Of silicon, electron/(V um)."""
IMAGES: Final = 11
"""Pairs of charges, the true one and its first image included."""
GRID: Final = 3
"""Points along each side of the rectangle of charge."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)


class ElectrostaticModel(NamedTuple):
    """Heights, size of the charge and strength: all that the boundary shifts depend on.

    Examples
    --------
    >>> ElectrostaticModel(z_q=2.9, z_sh=2.9, z_sv=4.0, a=0.1, b=3.5).thickness
    100.0
    """

    z_q: float
    """Height of the charge, um."""
    z_sh: float
    """Height at which drift ends at horizontal sides, um."""
    z_sv: float
    """Height at which drift ends at vertical sides, um."""
    a: float
    """Half width of the charge along x, um."""
    b: float
    """Half width of the charge along y, um."""
    alpha: float = 1.0
    """Strength of the shifts over that of the model."""
    beta: float = 0.0
    """Offset of the change of area, the same at all lags, 1/electron."""
    thickness: float = 100.0
    """Thickness of the silicon, um."""
    pixel_size: float = 10.0
    """Size of a pixel, um."""


def _sources(model: ElectrostaticModel) -> Floats:
    """Return the charges as rows of (x, y, z, charge); images beyond the first are points."""
    steps = (2 * np.arange(GRID) - GRID + 1) / GRID
    x, y = np.meshgrid(model.a * steps, model.b * steps)
    rows = [
        np.stack([x, y, np.full_like(x, height), np.full_like(x, sign / GRID**2)], axis=-1)
        for height, sign in ((model.z_q, 1.0), (-model.z_q, -1.0))
    ]
    points = []
    plus, minus = model.z_q, -model.z_q
    for image in range(1, IMAGES):
        top = 2 * model.thickness if image % 2 else 0.0
        plus, minus = top - minus, top - plus
        points += [(0.0, 0.0, plus, 1.0), (0.0, 0.0, minus, -1.0)]
    return np.concatenate([*(row.reshape(-1, 4) for row in rows), np.array(points)])


@compiled
def _side_shifts(
    sources: Floats,
    lags: int,
    pixel: float,
    bottom: float,
    tops: Floats,
    top_weights: Floats,
    nodes: Floats,
    weights: Floats,
) -> Floats:
    """Return the integral of the field through the far side of each pixel, [across, along].

    Sources are (along, across, height, charge), ``along`` the side and ``across`` it.
    """
    out = np.zeros((lags, lags))
    for j in range(lags):
        across = (j + 0.5) * pixel
        for i in range(lags):
            total = 0.0
            for node in range(nodes.size):
                along = (i + 0.5 * nodes[node]) * pixel
                value = 0.0
                for source in range(sources.shape[0]):
                    du = along - sources[source, 0]
                    dv = across - sources[source, 1]
                    square = du * du + dv * dv
                    drop = bottom - sources[source, 2]
                    term = -drop / np.sqrt(square + drop * drop)
                    height = sources[source, 2]
                    for top in range(tops.size):
                        rise = tops[top] - height
                        term += top_weights[top] * rise / np.sqrt(square + rise * rise)
                    value += sources[source, 3] * dv / square * term
                total += 0.5 * weights[node] * value
            out[j, i] = total
    return out


def _tops(model: ElectrostaticModel, depth: xr.DataArray | None) -> tuple[Floats, Floats]:
    """Return the heights at which charge is converted and their weights."""
    if depth is None:
        return np.array([model.thickness]), np.ones(1)
    tops = model.thickness - depth["depth"].to_numpy().astype(np.float64)
    weights = depth.to_numpy().astype(np.float64)
    # charge that is converted below the end of the drift does not drift
    drifts = (tops > max(model.z_sh, model.z_sv)) & (weights > 0)
    if not drifts.any():
        raise ValueError(f"no charge is converted above the end of the drift, {model.z_sv} um")
    return tops[drifts], weights[drifts] / weights[drifts].sum()


def boundary_shifts(
    model: ElectrostaticModel, lags: int = 8, *, depth: xr.DataArray | None = None
) -> xr.Dataset:
    """Return the shifts of the four sides of the pixels around one electron.

    Parameters
    ----------
    model : ElectrostaticModel
        Heights, size of the charge and strength.
    lags : int
        Lags 0 to ``lags - 1`` are returned along each axis.
    depth : DataArray, (depth), optional
        Distribution of the conversion depth, as `conversion_depth` gives it; without it all light
        converts at the surface.

    Returns
    -------
    Dataset, (lag_y, lag_x)
        ``north``, ``south``, ``east``, ``west``, each in pixels per electron, positive outward,
        and their sum plus beta, ``a``, in 1/electron.

    Raises
    ------
    ValueError
        If lags < 1, a length is not positive or no charge is converted above the drift's end.

    Notes
    -----
    The field of a charge at height z, integrated from z0 to t at the distance rho and component
    x, is x/rho^2 [(t-z)/sqrt(rho^2+(t-z)^2) - (z0-z)/sqrt(rho^2+(z0-z)^2)], averaged over the
    side by Gauss-Legendre quadrature with 20 points.

    Examples
    --------
    >>> model = ElectrostaticModel(z_q=2.9, z_sh=2.9, z_sv=4.0, a=0.1, b=3.5, alpha=0.65)
    >>> shifts = boundary_shifts(model, 2)
    >>> bool(shifts.a[0, 0] < 0), bool(shifts.a[1, 0] > shifts.a[0, 1] > 0)
    (True, True)
    """
    if lags < 1:
        raise ValueError(f"lags must be at least 1, got {lags}")
    lengths = {name: getattr(model, name) for name in ("z_q", "a", "b", "thickness", "pixel_size")}
    if not all(value > 0 for value in lengths.values()):
        raise ValueError(f"lengths must be positive, got {lengths}")
    sources = _sources(model)
    tops, weights = _tops(model, depth)
    scale = -model.alpha / (4 * np.pi * PERMITTIVITY * model.pixel_size)
    turned = np.ascontiguousarray(sources[:, [1, 0, 2, 3]])
    upper = scale * _side_shifts(
        sources, lags, model.pixel_size, model.z_sh, tops, weights, NODES, WEIGHTS
    )
    right = scale * np.transpose(
        _side_shifts(turned, lags, model.pixel_size, model.z_sv, tops, weights, NODES, WEIGHTS)
    )
    # the near side of a pixel is the far side of the one before; by symmetry that of pixel 0 is
    # its own far side
    lower = np.concatenate([upper[:1], -upper[:-1]])
    left = np.concatenate([right[:, :1], -right[:, :-1]], axis=1)
    sides = {"north": upper, "south": lower, "east": right, "west": left}
    dims, units = (LAG_Y, LAG_X), {"units": PER_ELECTRON}
    return xr.Dataset(
        {
            **{name: (dims, values, units) for name, values in sides.items()},
            "a": (dims, upper + lower + right + left + model.beta, units),
        },
        coords={LAG_Y: np.arange(lags), LAG_X: np.arange(lags)},
    )
