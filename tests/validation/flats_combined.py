"""Twenty simulated flats of a large detector, combined, against their truth."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.combine import CombineParameters, combine_bias, combine_flats
from skyloom.algorithms.errors import SkyloomWarning
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

SIDE, NUMBER = 4096, 20
GAIN = (1.5, 0.8, 1.2, 0.6)  # electron/adu
READ_NOISE = (6.0, 5.0, 8.0, 4.0)  # electron
RAYS = 1e-3  # of the pixels of an exposure


class Flats(NamedTuple):
    """Exposures in adu, what they are divided by, the true flat, and where rays hit."""

    exposures: xr.Dataset
    scales: NDArray[np.float64]
    response: NDArray[np.float32]
    hit: NDArray[np.bool_]


def amplifiers(side: int = SIDE) -> xr.Dataset:
    """Return the table of four amplifiers side by side."""
    edges = np.linspace(0, side, len(GAIN) + 1).astype(int)
    columns = {
        "y_start": np.zeros(len(GAIN), int),
        "y_stop": np.full(len(GAIN), side),
        "x_start": edges[:-1],
        "x_stop": edges[1:],
    }
    columns |= {f"data_{name}": value for name, value in columns.items()}
    columns |= {"gain": np.array(GAIN), "read_noise": np.array(READ_NOISE)}
    names = list("ABCD")
    return xr.Dataset({k: ("amp", a) for k, a in columns.items()}, coords={"amp": names})


def simulated_flats(side: int = SIDE) -> Flats:
    """Return flats with the noise of photons and read-out, and cosmic rays."""
    rng = np.random.default_rng(20)
    response = (1.0 + 0.02 * rng.standard_normal((side, side), np.float32)).astype(np.float32)
    scales = np.exp(rng.uniform(np.log(6e3), np.log(24e3), NUMBER))
    gain, noise = (np.repeat(np.float32(a), side // len(GAIN)) for a in (GAIN, READ_NOISE))
    images = np.empty((NUMBER, side, side), np.float32)
    hit = np.zeros((side, side), np.bool_)
    for image, scale in zip(images, scales, strict=True):
        image[:] = rng.poisson(scale * response * gain)
        image += noise * rng.standard_normal(image.shape, np.float32)
        image /= gain
        places = tuple(rng.integers(0, side, (2, int(RAYS * image.size))))
        image[places] += rng.uniform(500.0, 3e4, places[0].size).astype(np.float32)
        hit[places] = True
    exposures = xr.Dataset(
        {"image": (("exposure", "y", "x"), images, {"units": "adu"})},
        coords={"exposure": np.arange(NUMBER)},
    )
    return Flats(exposures, scales, response, hit)


def best_variance(flats: Flats) -> NDArray[np.float64]:
    """Return the variance of the best mean of all exposures, which no method can beat."""
    gain, noise = (np.repeat(a, flats.response.shape[1] // len(GAIN)) for a in (GAIN, READ_NOISE))
    information = np.zeros(flats.response.shape)
    for scale in flats.scales:
        information += 1.0 / (flats.response / (scale * gain) + (noise / gain / scale) ** 2)
    return 1.0 / information


def _of_method(flats: Flats, expected: NDArray[np.float64], method: str) -> list[Row]:
    parameters = CombineParameters(method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        found = combine_flats(
            flats.exposures, flats.scales, amplifiers=amplifiers(), parameters=parameters
        )
    clean = ~flats.hit
    error = found["image"].values - flats.response
    told = found["variance"].values
    rejected = float(found["rejected_count"].values[clean].sum()) / (NUMBER * clean.sum())
    noise = float(np.sqrt(np.mean(error[clean] ** 2 / expected[clean])))
    about_told = float(np.mean(told[clean] / expected[clean]))
    pulls = float(np.sqrt(np.mean(error**2 / told, dtype=np.float64)))
    what = f"{NUMBER} flats of {SIDE}², {method}: "
    if method == "clip_reference":
        # equal weights, and good values that are lost
        return [
            between(what + "noise over that of the best mean", noise, 1.0, np.inf),
            between(what + "part of the good values that is left out", rejected, 0.0, 0.02),
        ]
    hit = flats.hit
    worst = float(np.abs(error[hit] / np.sqrt(told[hit])).max())
    bias = max(
        abs(float(np.mean(part))) for part in np.split(error / flats.response, len(GAIN), axis=1)
    )
    return [
        within(what + "noise over that of the best mean, pixels without rays", noise, 1.0, 0.03),
        within(
            what + "variance plane over that expected, pixels without rays", about_told, 1.0, 0.03
        ),
        within(
            what + "scatter about the truth over what the variance plane says", pulls, 1.0, 0.03
        ),
        between(what + "largest error of a pixel hit by rays, sigma", worst, 0.0, 6.0),
        at_most(what + "part of the good values that is left out", rejected, 1e-5),
        at_most(what + "mean of an amplifier relative to the truth", bias, 1e-4),
    ]


def _one_of_three() -> Row:
    rng = np.random.default_rng(3)
    values = rng.normal(1000.0, 5.0, (3, 2048, 2048)).astype(np.float32)
    hit = rng.random(values.shape[1:]) < 0.01
    values[1][hit] += 5000.0
    exposures = xr.Dataset(
        {"image": (("exposure", "y", "x"), values, {"units": "electron"})},
        coords={"exposure": np.arange(3)},
    )
    exposures["variance"] = xr.full_like(exposures["image"], 25.0)
    found = combine_bias(exposures, parameters=CombineParameters(pattern=0.0))
    sigma = np.sqrt(found["variance"].values[hit])
    worst = float(np.abs((found["image"].values[hit] - 1000.0) / sigma).max())
    return between(
        "three exposures, 1000 sigma added to 1 % of the pixels of one: largest error there, sigma",
        worst,
        0.0,
        5.0,
    )


def measure() -> list[Row]:
    """Return the rows of this topic."""
    flats = simulated_flats()
    expected = best_variance(flats)
    return [
        *_of_method(flats, expected, "clip_model"),
        *_of_method(flats, expected, "clip_reference"),
        _one_of_three(),
    ]
