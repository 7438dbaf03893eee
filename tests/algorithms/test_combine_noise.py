"""Exposures of very different noise combined: what is lost and found, whose noise is believed."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.combine import CombineParameters, combine_bias, combine_dark, combine_flats
from skyloom.algorithms.errors import NoiseMismatchWarning
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

DIMS = ("exposure", "y", "x")
SETS = ([10.0] * 3 + [100.0] * 3, [10.0] * 4 + [300.0] * 3, [30.0, 60.0, 120.0, 300.0])
READ_NOISE, SIDE = 5.0, 160


def table(read_noise=READ_NOISE, gain=1.0, side=SIDE) -> xr.Dataset:
    """Return one amplifier."""
    columns = {"y_start": [0], "y_stop": [side], "x_start": [0], "x_stop": [side]}
    columns |= {f"data_{name}": value for name, value in columns.items()}
    columns |= {"gain": [gain], "read_noise": [read_noise]}
    return xr.Dataset({k: ("amp", x) for k, x in columns.items()}, coords={"amp": ["A"]})


def darks_of(values, times, variance=None, units="electron") -> xr.Dataset:
    planes = {"image": (DIMS, np.asarray(values, np.float32), {"units": units})}
    if variance is not None:
        planes["variance"] = (DIMS, np.broadcast_to(np.float32(variance), np.shape(values)).copy())
    labels = np.arange(len(times))
    coords = {"exposure": labels, "dark_time": ("exposure", np.asarray(times, np.float64))}
    return xr.Dataset(planes, coords=coords)


@pytest.mark.parametrize("times", SETS)
@pytest.mark.parametrize("measured", [False, True])
def test_exposures_of_very_different_noise_lose_no_good_values(times, measured):
    rng = np.random.default_rng(1)
    values = rng.normal(0.0, READ_NOISE, (len(times), SIDE, SIDE))
    darks = darks_of(values, times, READ_NOISE**2 if measured else None)
    found = combine_dark(darks, amplifiers=table())
    # 5 sigma of a Gaussian are 6e-7 of the values, a tenth of a value here.
    assert int(found["rejected_count"].sum()) <= 3
    best = READ_NOISE / np.sqrt(np.sum(np.square(times)))
    noise = found["image"].values.std() / best
    assert noise <= 1.02
    pulls = found["image"].values / np.sqrt(found["variance"].values)
    # A level that is high by chance has photons: half of the predicted variances are a bit high.
    assert pulls.std() == pytest.approx(1.0, abs=0.02 if measured else 0.06)
    assert abs(pulls.mean()) < (4 if measured else 8) / SIDE


@pytest.mark.parametrize("times", SETS)
def test_rays_are_found_in_any_exposure_the_deepest_and_the_shallowest(times):
    rng = np.random.default_rng(2)
    times = np.asarray(times)
    values = rng.normal(0.0, READ_NOISE, (times.size, SIDE, SIDE))
    hit = rng.integers(0, times.size, (SIDE, SIDE))
    own = READ_NOISE / times
    rest = READ_NOISE / np.sqrt((times**2).sum() - times**2)
    # as large as the others can tell, 8 to 40 sigma of the difference to them
    size = rng.uniform(8.0, 40.0, hit.shape) * np.hypot(own, rest)[hit]
    np.put_along_axis(
        values,
        hit[None],
        np.take_along_axis(values, hit[None], 0) + (size * times[hit])[None],
        0,
    )
    found = combine_dark(darks_of(values, times, READ_NOISE**2))
    for index in range(times.size):
        pixels = hit == index
        others = np.delete(np.arange(times.size), index)
        weights = times[others] ** 2
        mean = np.average(values[others] / times[others, None, None], axis=0, weights=weights)
        right = np.isclose(found["image"].values, mean, rtol=1e-4, atol=1e-5)[pixels]
        # 8 sigma are seen as more than 5 but for one in 700, and told from the others so.
        assert right.mean() > 0.99
        error = found["image"].values[pixels]
        assert abs(error).max() < 6.5 * np.hypot(own, rest)[index]
        assert (found["count"].values[pixels] >= times.size - 1).mean() > 0.99


def test_values_that_are_too_low_are_left_out_where_others_say_so():
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, READ_NOISE, (5, 40, 40))
    values[3] -= 200.0
    found = combine_dark(darks_of(values, [60.0] * 5), amplifiers=table(side=40))
    others = np.delete(values, 3, axis=0).mean(axis=0) / 60.0
    np.testing.assert_allclose(found["image"], others, rtol=1e-4, atol=1e-6)
    assert (found["rejected_count"] == 1).all()


def combined_by_hand(values, noise_of, clip, extra_of):
    """Return mean, variance and number of values used, as the rule of clip_model says."""
    usable = np.isfinite(values)
    best = np.sort(values[usable])
    level = max(best[0] if best.size == 2 else np.median(best), 0.0)
    noise, extra = noise_of(level), extra_of(level)
    while True:
        w = np.where(usable, 1.0 / noise, 0.0)
        if not usable.any():
            return np.nan, np.nan, 0
        mean = (w * np.where(usable, values, 0.0)).sum() / w.sum()
        z = np.full(values.size, -np.inf)
        for k in np.flatnonzero(usable):
            others = usable.copy()
            others[k] = False
            if others.any():
                share = w / w[others].sum()
                of_others = (share * np.where(others, values, 0.0)).sum()
                squares = (share**2 * others).sum()
                variance = noise[k] + (share**2 * noise * others).sum()
                z[k] = (values[k] - of_others) ** 2 / (variance + extra * (1.0 + squares))
        if z.max() <= clip**2:
            return mean, 1.0 / w.sum(), int(usable.sum())
        high = np.where((values > mean) & (z > clip**2), z, -np.inf)
        usable[np.argmax(high if high.max() + 9.0 >= z.max() else z)] = False


@pytest.mark.parametrize("pattern", [0.0, 0.02])
def test_each_pixel_is_what_the_rule_says(pattern):
    rng = np.random.default_rng(4)
    scales = np.array([200.0, 1000.0, 1500.0, 3000.0, 9000.0])
    values = rng.poisson(scales[:, None, None] * np.ones((5, 40, 40))) + rng.normal(
        0.0, READ_NOISE, (5, 40, 40)
    )
    values *= 1.0 + pattern * rng.standard_normal(values.shape)
    hit = rng.random(values.shape) < 0.1
    values[hit] += rng.uniform(-0.5, 1.0, hit.sum()) * 2000.0
    bits = np.where(rng.random(values.shape) < 0.2, MASK_PLANES["SAT"], 0).astype(np.int32)
    bits[:, :20] *= rng.integers(0, 2)
    flats = xr.Dataset(
        {
            "image": (DIMS, values.astype(np.float32), {"units": "electron"}),
            "mask": (DIMS, bits, mask_attributes()),
        },
        coords={"exposure": np.arange(5)},
    )
    parameters = CombineParameters(pattern=pattern, fill_reach=1)
    found = combine_flats(flats, scales, amplifiers=table(side=40), parameters=parameters)
    trusted = scales >= 1500.0  # the three best have the best median
    used = np.where(bits == 0, values.astype(np.float32) / scales[:, None, None], np.nan)

    def noise(level):
        return level / scales + (READ_NOISE / scales) ** 2

    for y, x in np.ndindex(40, 40):
        column = used[:, y, x].astype(np.float32).astype(np.float64)
        good = np.isfinite(column)
        # the level is the median of the best three, or of all where one of these is masked
        chosen = column[trusted & good] if (trusted & good).sum() == 3 else column[good]
        level = max(chosen.min() if good.sum() == 2 else np.median(chosen), 0.0)
        mean, variance, count = combined_by_hand(
            column, lambda _, at=level: noise(at), 5.0, lambda _, at=level: (pattern * at) ** 2
        )
        assert int(found["count"][y, x]) == count
        assert int(found["rejected_count"][y, x]) == good.sum() - count
        assert float(found["image"][y, x]) == pytest.approx(mean, rel=2e-6)
        assert float(found["variance"][y, x]) == pytest.approx(variance, rel=2e-6)


@pytest.mark.parametrize("measured", [False, True])
def test_unequal_exposures_in_any_order_and_any_tiles_give_the_same(measured):
    rng = np.random.default_rng(5)
    times = np.array([10.0, 10.0, 10.0, 10.0, 300.0, 300.0, 300.0])
    values = rng.normal(0.0, READ_NOISE, (7, 60, 60))
    values[rng.random(values.shape) < 0.05] += 300.0
    values[4:, :10] = np.nan
    darks = darks_of(values, times, np.maximum(values, 0.0) + 25.0 if measured else None)
    before = darks.copy(deep=True)
    found = combine_dark(darks, amplifiers=table(side=60))
    xr.testing.assert_identical(darks, before)
    turned = combine_dark(darks.isel(exposure=[4, 0, 6, 2, 1, 5, 3]), amplifiers=table(side=60))
    xr.testing.assert_equal(found["count"], turned["count"])
    for name in ("image", "variance"):
        np.testing.assert_allclose(found[name], turned[name], rtol=3e-6, atol=1e-9)
    with dask.config.set(scheduler="synchronous"):
        tiled = combine_dark(darks.chunk(y=17, x=23), amplifiers=table(side=60))
    xr.testing.assert_identical(tiled, found)


@pytest.mark.parametrize("photons", [True, False])
def test_the_variances_of_frames_hold_whether_their_photons_are_in_them_or_not(photons):
    """Weights from noisy variances would pull the mean of faint frames down."""
    rng = np.random.default_rng(6)
    charge = rng.poisson(4.0, (9, SIDE, SIDE)) + rng.normal(0.0, READ_NOISE, (9, SIDE, SIDE))
    variance = np.maximum(charge, 0.0) + 25.0 if photons else 29.0
    darks = darks_of(charge, [10.0] * 9, variance)
    # A table of another read noise is not believed where frames have variances.
    for amplifiers in (None, table(read_noise=1.0), table(read_noise=50.0)):
        found = combine_dark(darks, amplifiers=amplifiers)
        error = (found["image"].values - 0.4) / np.sqrt(29.0 / 9 / 100.0)
        assert abs(error.mean()) < 4 / SIDE
        assert error.std() == pytest.approx(1.0, abs=0.02)
        # fewer than 2 of 230 400 values are beyond 5 sigma, of which charge is not quite Gaussian
        assert int(found["rejected_count"].sum()) <= 10
        pulls = (found["image"].values - 0.4) / np.sqrt(found["variance"].values)
        assert pulls.std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("nominal", "shown"), [(2.0, r"2\.[56]\d"), (5.0, r"1\.[89]\d"), (20.0, r"0\.(49|50)\d*")]
)
def test_a_read_noise_far_from_the_scatter_is_said_with_numbers(nominal, shown):
    rng = np.random.default_rng(7)
    values = rng.normal(0.0, 10.0, (9, SIDE, SIDE)).astype(np.float32)
    biases = xr.Dataset(
        {"image": (DIMS, values, {"units": "adu"})}, coords={"exposure": np.arange(9)}
    )
    message = (
        f"amplifier A: values left scatter {shown} times the noise of read noise {nominal:g} "
        "electron and gain 1 electron/adu, .* % of the values are left out"
    )
    with pytest.warns(NoiseMismatchWarning, match=message):
        combine_bias(biases, amplifiers=table(read_noise=nominal))
    variance = xr.full_like(biases["image"], 100.0)
    found = combine_bias(biases.assign(variance=variance), amplifiers=table(read_noise=nominal))
    assert int(found["rejected_count"].sum()) <= 3
    with pytest.warns(NoiseMismatchWarning, match="as their variances say; the detector"):
        combine_bias(biases.assign(variance=variance * 9.0))


def test_values_without_a_variance_take_the_predicted_one_or_are_left_out():
    rng = np.random.default_rng(8)
    values = rng.normal(100.0, 5.0, (4, 40, 40))
    variance = np.full(values.shape, 25.0)
    for index, odd in enumerate((np.nan, 0.0, -1.0, np.inf)):
        variance[1, index] = odd
    exposures = darks_of(values, [1.0] * 4, variance, units="adu")
    known = combine_bias(exposures, amplifiers=table(side=40, gain=2.0, read_noise=4.0))
    assert (known["count"] == 4).all()
    bare = combine_bias(exposures)
    assert (bare["count"][:4] == 3).all()
    assert not bare["rejected_count"].any()
    assert np.isfinite(bare["image"]).all()
    rest = np.float32(np.delete(values, 1, axis=0))[:, :4].mean(axis=0)
    np.testing.assert_allclose(bare["image"][:4], rest, rtol=1e-6)
    np.testing.assert_allclose(bare["variance"][:4], 25.0 / 3, rtol=1e-6)


def test_equal_weights_average_what_is_left():
    rng = np.random.default_rng(9)
    times = np.array([30.0, 60.0, 120.0, 300.0])
    values = rng.normal(0.0, READ_NOISE, (4, 40, 40))
    values[2, :5] += 3000.0
    parameters = CombineParameters(weights="equal")
    found = combine_dark(darks_of(values, times), amplifiers=table(side=40), parameters=parameters)
    rates = np.float32(values / times[:, None, None]).astype(np.float64)
    rates[2, :5] = np.nan
    np.testing.assert_allclose(found["image"], np.nanmean(rates, axis=0), rtol=1e-4, atol=1e-6)
    noise = (READ_NOISE / times) ** 2
    assert (found["variance"][10:] >= noise.sum() / 16 * 0.999).all()
    assert (found["count"][:5] == 3).all()
