"""The sky of a simulated night: stars and galaxies in a field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate.night_parameters import SceneParameters
from skyloom.algorithms.simulate.truth import generator
from skyloom.algorithms.tangent_plane import from_tangent_plane, to_tangent_plane

__all__ = ["night_scene", "sky_scene"]

Floats = NDArray[np.float64]

SOURCE = "source"
BORDER = 60.0
"""Sky around the camera, arcsec, whose sources can still reach it."""


def sky_scene(
    centre: tuple[float, float],
    radius: float,
    filters: Sequence[str] = ("r",),
    *,
    seed: int = 0,
    parameters: SceneParameters | None = None,
) -> xr.Dataset:
    """Draw the stars and galaxies of a field.

    Parameters
    ----------
    centre : (float, float), degree
        Right ascension and declination of the field.
    radius : float, degree
        Sources fill the square of this half width in the tangent plane at the centre.
    filters : sequence of str
        Physical filters.
    seed : int
        Seed of the whole simulation.
    parameters : SceneParameters, optional
        Numbers, fluxes and sizes.

    Returns
    -------
    Dataset, (physical_filter, source)
        ``flux`` (electron/s at full response outside the atmosphere), ``right_ascension`` and
        ``declination`` (degree), ``scale`` (scale length of an exponential disc, arcsec; 0 is a
        star), ``axis_ratio`` and ``position_angle`` (degree, of the long axis, from north
        through east), and ``temperature`` (K) if temperatures are asked for, see
        `skyloom.algorithms.simulate.dispersion`. Sources may be added or changed before frames are
        made.

    Raises
    ------
    ValueError
        If the radius is not positive, or the faintest source is brighter than the brightest.

    Examples
    --------
    >>> field = sky_scene((150.0, 2.0), 0.02, ["g", "r"], seed=1)
    >>> field.flux.dims, bool((field.scale == 0).sum() > 50)
    (('physical_filter', 'source'), True)
    """
    parameters = parameters or SceneParameters()
    if not 0 < radius < 30:
        raise ValueError(f"radius must be > 0 and < 30 degrees, got {radius}")
    area = (2 * 60 * radius) ** 2
    rng = generator(seed, "scene", "stars")
    stars = _fluxes(
        rng,
        rng.poisson(parameters.star_density * area),
        parameters.faintest_star,
        parameters.brightest_star,
        parameters.star_slope,
    )
    columns = _columns(rng, stars, radius, np.zeros(stars.size))
    rng = generator(seed, "scene", "galaxies")
    galaxies = _fluxes(
        rng,
        rng.poisson(parameters.galaxy_density * area),
        parameters.faintest_galaxy,
        parameters.brightest_galaxy,
        parameters.galaxy_slope,
    )
    spread = parameters.galaxy_scale_spread * rng.standard_normal(galaxies.size)
    scale = parameters.galaxy_scale * np.exp(spread)
    parts = [columns, _columns(rng, galaxies, radius, scale), _giant(parameters)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in columns}
    ra, dec = from_tangent_plane(joined["east"], joined["north"], *centre)
    fluxes = []
    for name in filters:
        ratio = generator(seed, "scene", "filter", name).standard_normal(joined["flux"].size)
        fluxes.append(joined["flux"] * np.exp(parameters.colour_spread * ratio))
    colours: dict[str, Any] = {}
    if parameters.temperatures is not None:
        low, high = (float(np.log(limit)) for limit in parameters.temperatures)
        drawn = generator(seed, "scene", "temperatures").uniform(low, high, joined["flux"].size)
        colours["temperature"] = (SOURCE, np.exp(drawn), {"units": v.KELVIN})
    return xr.Dataset(
        {
            **colours,
            "flux": (
                (v.FILTER, SOURCE),
                np.array(fluxes).reshape(len(filters), -1),
                {"units": v.ELECTRON_PER_SECOND},
            ),
            "right_ascension": (SOURCE, ra, {"units": v.DEGREE}),
            "declination": (SOURCE, dec, {"units": v.DEGREE}),
            "scale": (SOURCE, joined["scale"], {"units": v.ARCSECOND}),
            "axis_ratio": (SOURCE, joined["axis_ratio"], {"units": v.DIMENSIONLESS}),
            "position_angle": (SOURCE, joined["position_angle"], {"units": v.DEGREE}),
        },
        coords={v.FILTER: np.array(filters, dtype=str)},
    )


def _fluxes(
    rng: np.random.Generator, number: int, faintest: float, brightest: float, slope: float
) -> Floats:
    """Draw from N(> flux) ~ flux**-slope between two limits."""
    if faintest > brightest:
        raise ValueError(f"the faintest flux {faintest} is above the brightest {brightest}")
    low, high = faintest**-slope, brightest**-slope
    return np.asarray((low - rng.random(number) * (low - high)) ** (-1 / slope))


def _columns(
    rng: np.random.Generator, flux: Floats, radius: float, scale: Floats
) -> dict[str, Floats]:
    east, north = rng.uniform(-radius, radius, (2, flux.size))
    round_ = scale == 0
    return {
        "east": east,
        "north": north,
        "flux": flux,
        "scale": scale,
        "axis_ratio": np.where(round_, 1.0, rng.uniform(0.25, 1.0, flux.size)),
        "position_angle": np.where(round_, 0.0, rng.uniform(0.0, 180.0, flux.size)),
    }


def _giant(parameters: SceneParameters) -> dict[str, Floats]:
    """Return disc and halo of the giant galaxy, nothing if it has no flux."""
    number = 2 if parameters.giant_flux > 0 else 0
    halo = parameters.giant_halo_fraction
    values = {
        "east": [parameters.giant_offset[0] / 3600] * 2,
        "north": [parameters.giant_offset[1] / 3600] * 2,
        "flux": [parameters.giant_flux * (1 - halo), parameters.giant_flux * halo],
        "scale": [
            parameters.giant_scale,
            parameters.giant_scale * parameters.giant_halo_scale,
        ],
        "axis_ratio": [parameters.giant_axis_ratio, 1.0],
        "position_angle": [30.0, 0.0],
    }
    return {name: np.array(pair[:number], dtype=np.float64) for name, pair in values.items()}


def night_scene(
    plan: xr.Dataset,
    truth: Mapping[str, xr.Dataset],
    *,
    seed: int = 0,
    parameters: SceneParameters | None = None,
) -> xr.Dataset:
    """Draw the stars and galaxies of a field that holds all pointings of a plan.

    Parameters
    ----------
    plan : Dataset, (exposure)
        What `night_plan` returns.
    truth : mapping of str to Dataset
        What `night_truth` returns.
    seed : int
        Seed of the whole simulation.
    parameters : SceneParameters, optional
        Numbers, fluxes and sizes.

    Returns
    -------
    Dataset, (physical_filter, source)
        See `sky_scene`; without sources if the plan has no pointing.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid, night_plan, night_truth
    >>> transform = detector_transform((64, 64), pixel_size=0.015)
    >>> truth = night_truth({"A": amplifier_grid("A", (1, 2), (64, 32))}, {"A": transform})
    >>> night_scene(night_plan(["r"]), truth, seed=1).flux.dims
    ('physical_filter', 'source')
    """
    filters = [str(name) for name in next(iter(truth.values()))[v.FILTER].to_numpy()]
    ra, dec = plan["right_ascension"].to_numpy(), plan["declination"].to_numpy()
    pointed = np.isfinite(ra) & np.isfinite(dec)
    if not pointed.any():
        return sky_scene((0.0, 0.0), 1.0, filters, parameters=_nothing())
    ra, dec = ra[pointed], dec[pointed]
    middle_dec = 0.5 * (dec.min() + dec.max())
    around = to_tangent_plane(ra, dec, float(ra[0]), float(middle_dec))[0]
    middle = from_tangent_plane(0.5 * (around.min() + around.max()), 0.0, ra[0], middle_dec)
    centre = float(middle[0]), float(middle_dec)
    east, north = to_tangent_plane(ra, dec, *centre)
    reach = max(_reach(truth.values())) + BORDER / 3600
    radius = float(np.max(np.abs([east, north]))) + reach
    return sky_scene(centre, radius, filters, seed=seed, parameters=parameters)


def _nothing() -> SceneParameters:
    return SceneParameters(star_density=0.0, galaxy_density=0.0)


def _reach(truths: Iterable[xr.Dataset]) -> Iterable[float]:
    """Yield how far the corners of each detector are from the pointing, degree."""
    for truth in truths:
        ends: Any = [np.array([-0.5, truth.sizes[axis] - 0.5]) for axis in (v.X, v.Y)]
        x, y = to_focal_plane(truth["transform"].to_numpy(), ends[0], ends[1][:, None])
        yield float(np.hypot(x, y).max() * truth["plate_scale"] / 3600)
