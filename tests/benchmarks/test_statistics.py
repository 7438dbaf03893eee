"""Clipped statistics beside the reference, astropy and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats

from skyloom.algorithms.statistics import clipped_moments

SIDE = 4096


@pytest.fixture(scope="module")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Return an image with sources and the mask of the good pixels, 94 per cent."""
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 30.0, (SIDE, SIDE)).astype(np.float32)
    image += np.where(rng.random(image.shape) < 0.05, rng.exponential(200.0), 0.0).astype("f4")
    return image, rng.random(image.shape) >= 0.06


def plain_numpy(image, good):
    values = image[good]
    lower, center, upper = np.percentile(values, [25, 50, 75])
    half_width = 3.0 * 0.741301109252802 * (upper - lower)
    for _ in range(3):
        used = values[np.abs(values - center) <= half_width]
        center, half_width = used.mean(dtype=np.float64), 3.0 * used.std(dtype=np.float64, ddof=1)
    return center, half_width


def test_clipped_statistics_of_a_detector(compare, peer, pixels):
    image, good = pixels
    compare(
        "clipped mean and variance, 3 sigma, 3 passes",
        lambda: clipped_moments(image, good),
        size="4096² float32 with mask",
        peers=(
            peer(
                "astropy.stats.sigma_clipped_stats",
                lambda: sigma_clipped_stats(image, mask=~good, sigma=3.0, maxiters=3),
                target=8.0,
                rounds=2,
            ),
            peer("plain numpy", lambda: plain_numpy(image, good), rounds=2),
        ),
        published_s=0.476,
        target=8.0,
        moved_bytes=5.0 * SIDE**2,
    )


def test_clipped_statistics_of_whole_numbers(compare, peer, pixels):
    image, good = pixels
    image = np.rint(image)
    compare(
        "clipped mean and variance of whole numbers",
        lambda: clipped_moments(image, good),
        size="4096² float32 with mask",
        peers=(peer("plain numpy", lambda: plain_numpy(image, good), rounds=2),),
        moved_bytes=5.0 * SIDE**2,
    )


@pytest.mark.parametrize("shape", [(128, 128), (2002, 512)])
def test_clipped_statistics_of_a_part(compare, peer, pixels, shape):
    image, good = (np.ascontiguousarray(plane[: shape[0], : shape[1]]) for plane in pixels)
    compare(
        "clipped mean and variance of a part",
        lambda: clipped_moments(image, good),
        size=f"{shape[0]} x {shape[1]} float32 with mask",
        peers=(
            peer(
                "astropy.stats.sigma_clipped_stats",
                lambda: sigma_clipped_stats(image, mask=~good, sigma=3.0, maxiters=3),
            ),
            peer("plain numpy", lambda: plain_numpy(image, good)),
        ),
        moved_bytes=5.0 * image.size,
        rounds=50,
    )
