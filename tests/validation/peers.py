"""Flats made by an independent package that moves charge: GalSim's silicon sensors.

Charge is added in 40 steps of 2000 electron, each shared out by the areas that the pixels have
after the steps before. Stated values and scatters are of 24 flats; the tolerance is 4 sigma.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import galsim
import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.covariance import covariance_sums
from skyloom.algorithms.photon_transfer.lattice import even_sum
from tests.validation.rows import Row, within

FLATS, SIDE, STEPS, ELECTRONS, EDGE, LAGS = 24, 256, 40, 2000.0, 8, 7
STATED = {
    "e2v": {
        (0, 0): (0.842, 0.002),
        (1, 0): (0.0237, 0.0005),
        (0, 1): (0.0053, 0.0006),
        (1, 1): (0.0073, 0.0007),
        (2, 0): (0.0045, 0.001),
        "sum": (1.007, 0.015),
    },
    "itl": {
        (0, 0): (0.922, 0.002),
        (1, 0): (0.0144, 0.0011),
        (0, 1): (0.0035, 0.0009),
        (1, 1): (0.0034, 0.0007),
        "sum": (1.010, 0.015),
    },
}


def flat(sensor_name: str, seed: int) -> NDArray[np.float64]:
    """Return a flat of a sensor whose pixel areas follow the charge collected so far."""
    sensor = galsim.SiliconSensor(name=f"lsst_{sensor_name}_50_8", rng=galsim.BaseDeviate(seed + 1))
    image = galsim.ImageF(SIDE, SIDE, scale=0.2, init_value=0)
    generator = np.random.default_rng(seed)
    for step in range(STEPS):
        area = sensor.calculate_pixel_areas(image, use_flux=step > 0).array
        image.array[:] += generator.poisson(ELECTRONS * area / area.mean())
    return np.asarray(image.array, dtype=np.float64)


def covariances(task: tuple[str, int]) -> NDArray[np.float64]:
    """Return the covariances of a pair of flats over the mean, (lag_y, lag_x)."""
    name, pair = task
    first, second = (flat(name, 2 * pair + number) for number in range(2))
    mean = 0.5 * (first.mean() + second.mean())
    inside = slice(EDGE, -EDGE)
    difference = (first - second)[inside, inside]
    difference = (difference - difference.mean()).astype(np.float32)
    return covariance_sums(difference, lags=LAGS).covariance / mean


def measure() -> list[Row]:
    """Return the rows of this topic."""
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for name, stated in STATED.items():
            tasks = [(name, pair) for pair in range(FLATS // 2)]
            found = np.mean(list(pool.map(covariances, tasks)), axis=0)
            for key, (value, sigma) in stated.items():
                measured = even_sum(found) if key == "sum" else float(found[key])
                label = (
                    "sum over lags ≤ 6" if key == "sum" else f"C at lag_y {key[0]}, lag_x {key[1]}"
                )
                rows.append(
                    within(
                        f"GalSim {name}: {label}, over the mean",
                        measured,
                        value,
                        4 * sigma,
                        form=".4f",
                    )
                )
    return rows  # fmt: skip
