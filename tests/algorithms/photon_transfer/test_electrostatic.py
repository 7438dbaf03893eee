"""The electrostatic model of the brighter-fatter effect: known values, symmetries, fits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import xarray as xr

from skyloom.algorithms.photon_transfer.conversion_depth import (
    conversion_depth,
    silicon_absorption,
)
from skyloom.algorithms.photon_transfer.electrostatic import ElectrostaticModel, boundary_shifts
from skyloom.algorithms.photon_transfer.electrostatic_fit import (
    ElectrostaticFitParameters,
    fit_electrostatic,
)
from skyloom.algorithms.simulate import TYPICAL_A
from skyloom.algorithms.vocabulary import AmplifierFlag

PUBLISHED = ElectrostaticModel(
    z_q=2.90316973,
    z_sh=2.90317056,
    z_sv=4.00073241,
    a=0.00191671,
    b=3.5,
    alpha=0.64506325,
)
SIDES = ("north", "south", "east", "west")


def amplifiers(a: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"a": (("amp", "lag_y", "lag_x"), a, {"units": "1/electron"})})


def test_shifts_of_the_published_model() -> None:
    shifts = boundary_shifts(PUBLISHED)
    at = {
        name: float(shifts[side].sel(lag_y=j, lag_x=i))
        for name, side, i, j in (
            ("N_00", "north", 0, 0),
            ("E_00", "east", 0, 0),
            ("N_01", "north", 0, 1),
            ("S_01", "south", 0, 1),
            ("E_10", "east", 1, 0),
        )
    }
    expected = {
        "N_00": -9.604334e-7,
        "E_00": -6.749744e-7,
        "N_01": -1.834929e-7,
        "S_01": 9.604334e-7,
        "E_10": -1.661053e-7,
    }
    assert at == pytest.approx(expected, rel=1e-6)
    # published to six digits and fewer
    assert float(shifts.a[0, 0]) + 7.27e-10 == pytest.approx(-3.27009e-6, abs=5e-12)
    assert float(shifts.a.sel(lag_y=1, lag_x=0)) == pytest.approx(4.1193e-7, abs=5e-12)
    assert float(shifts.a.sel(lag_y=0, lag_x=1)) == pytest.approx(1.7342e-7, abs=5e-12)


def test_what_one_pixel_gains_its_neighbour_loses() -> None:
    shifts = boundary_shifts(PUBLISHED, 6)
    np.testing.assert_array_equal(shifts.south[1:], -shifts.north[:-1])
    np.testing.assert_array_equal(shifts.west[:, 1:], -shifts.east[:, :-1])
    np.testing.assert_array_equal(shifts.north[0], shifts.south[0])
    a = shifts.a.to_numpy()
    total = a[0, 0] + 2 * (a[0, 1:].sum() + a[1:, 0].sum()) + 4 * a[1:, 1:].sum()
    # all that is left crosses the outer border of the lags
    north, east = shifts.north.to_numpy()[-1], shifts.east.to_numpy()[:, -1]
    crossing = 2 * (north[0] + 2 * north[1:].sum()) + 2 * (east[0] + 2 * east[1:].sum())
    assert total == pytest.approx(crossing, rel=1e-10)
    assert total < 0
    np.testing.assert_allclose(sum(shifts[side] for side in SIDES), shifts.a, rtol=1e-13)


def test_a_shift_is_the_integral_of_the_field_of_all_charges() -> None:
    model = ElectrostaticModel(z_q=3.0, z_sh=3.5, z_sv=5.0, a=1.0, b=2.5, alpha=1.0)
    half = 0.5 * model.pixel_size
    heights = [(3.0, 1.0), (-3.0, -1.0)]
    plus, minus = 3.0, -3.0
    for image in range(10):
        plus, minus = (-minus, -plus) if image % 2 else (200 - minus, 200 - plus)
        heights += [(plus, 1.0), (minus, -1.0)]

    def field(z: float, along: float) -> float:
        total = 0.0
        for order, (height, sign) in enumerate(heights):
            steps = (-2 / 3, 0.0, 2 / 3) if order < 2 else (0.0,)
            for u in steps:
                for v in steps:
                    dx, dy = along - model.a * u, half - model.b * v
                    cube = (dx * dx + dy * dy + (z - height) ** 2) ** 1.5
                    total += sign * dy / cube / len(steps) ** 2
        return total

    def drift(along: float) -> float:
        return scipy.integrate.quad(field, 3.5, 100.0, args=(along,), epsabs=0, epsrel=1e-9)[0]

    mean = scipy.integrate.quad(drift, 0.0, half, epsabs=0, epsrel=1e-8)[0] / half
    expected = -mean / (4 * np.pi * 660 * 10)
    assert float(boundary_shifts(model, 1).north[0, 0]) == pytest.approx(expected, rel=1e-7)


def test_turning_the_pixel_exchanges_the_axes() -> None:
    turned = PUBLISHED._replace(
        a=PUBLISHED.b, b=PUBLISHED.a, z_sh=PUBLISHED.z_sv, z_sv=PUBLISHED.z_sh
    )
    one, other = boundary_shifts(PUBLISHED, 4), boundary_shifts(turned, 4)
    np.testing.assert_allclose(one.a.to_numpy(), other.a.to_numpy().T, rtol=1e-13)
    np.testing.assert_allclose(one.north.to_numpy(), other.east.to_numpy().T, rtol=1e-13)


def test_charge_converted_deeper_is_moved_less() -> None:
    shallow = conversion_depth([390.0, 400.0, 410.0], [0, 1, 0])
    deep = conversion_depth([990.0, 1000.0, 1010.0], [0, 1, 0])
    values = [
        float(boundary_shifts(PUBLISHED, 1, depth=depth).north[0, 0])
        for depth in (None, shallow, deep)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert 0.5 < values[2] / values[0] < 0.99


def test_one_depth_bin_equals_a_thinner_drift() -> None:
    depth = xr.DataArray([1.0], dims="depth", coords={"depth": [20.0]})
    found = boundary_shifts(PUBLISHED, 2, depth=depth)
    two = xr.DataArray([0.5, 0.5], dims="depth", coords={"depth": [10.0, 30.0]})
    mean = boundary_shifts(PUBLISHED, 2, depth=two)
    at_10 = boundary_shifts(PUBLISHED, 2, depth=depth.assign_coords(depth=[10.0]))
    at_30 = boundary_shifts(PUBLISHED, 2, depth=depth.assign_coords(depth=[30.0]))
    np.testing.assert_allclose(mean.a, 0.5 * (at_10.a + at_30.a), rtol=1e-12)
    assert abs(float(at_30.a[0, 0])) < abs(float(found.a[0, 0])) < abs(float(at_10.a[0, 0]))


def test_depths_below_the_end_of_the_drift_do_not_count() -> None:
    depth = xr.DataArray([0.6, 0.4], dims="depth", coords={"depth": [10.0, 98.0]})
    alone = xr.DataArray([1.0], dims="depth", coords={"depth": [10.0]})
    xr.testing.assert_identical(
        boundary_shifts(PUBLISHED, 2, depth=depth), boundary_shifts(PUBLISHED, 2, depth=alone)
    )
    with pytest.raises(ValueError, match="above the end of the drift"):
        boundary_shifts(PUBLISHED, 2, depth=depth[1:])


def test_misuse_of_the_model_is_named() -> None:
    with pytest.raises(ValueError, match="lags must be at least 1"):
        boundary_shifts(PUBLISHED, 0)
    with pytest.raises(ValueError, match="lengths must be positive"):
        boundary_shifts(PUBLISHED._replace(a=0.0))


def test_absorption_is_the_published_formula_and_of_the_size_of_the_measured_one() -> None:
    # the formula by hand at 1000 nm and 300 K, 1/cm
    photon, thermal = 1239.841984 / 1000, 8.617333262e-5 * 300
    gap = 1.1557 - 7.021e-4 * 300**2 / 1408
    by_hand = 0.0
    for phonon, coupling in ((1.827e-2, 5.5), (5.773e-2, 4.0)):
        boson = 1 / (np.exp(phonon / thermal) - 1)
        by_hand += 323.1 * coupling * boson * (photon - gap + phonon) ** 2
        by_hand += 323.1 * coupling * (boson + 1) * (photon - gap - phonon) ** 2
    assert float(silicon_absorption(1000.0, 300.0)) * 1e4 == pytest.approx(by_hand, rel=1e-12)
    # Green and Keevers 1995, 1/cm
    measured = {400: 9.52e4, 500: 1.11e4, 600: 4140, 700: 1900, 800: 850, 900: 306, 1000: 64}
    ratio = silicon_absorption(list(measured), 300.0) * 1e4 / np.array(list(measured.values()))
    assert ratio.min() > 0.9
    assert ratio.max() < 1.51
    assert silicon_absorption(950.0, 173.0) < silicon_absorption(950.0, 300.0)


def test_depths_of_one_wavelength_fall_exponentially() -> None:
    depth = conversion_depth([899.999, 900.0, 900.001], [0.0, 1.0, 0.0], thickness=200.0)
    rate = float(silicon_absorption(900.0))
    ratios = depth.to_numpy()[1:] / depth.to_numpy()[:-1]
    np.testing.assert_allclose(ratios, np.exp(-rate), rtol=1e-9)
    assert float(depth.sum()) == pytest.approx(1.0, rel=1e-14)


def test_throughputs_that_mean_nothing_are_refused_and_inputs_stay_as_they_are() -> None:
    wavelength, throughput = np.array([700.0, 800.0]), np.array([1.0, 2.0])
    conversion_depth(wavelength, throughput)
    assert wavelength.tolist() == [700.0, 800.0]
    assert throughput.tolist() == [1.0, 2.0]
    for wrong in ([0.0, 0.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="not zero everywhere"):
            conversion_depth(wavelength, wrong)
    with pytest.raises(ValueError, match="must increase"):
        conversion_depth(wavelength[::-1], throughput)
    with pytest.raises(ValueError, match="same length"):
        conversion_depth(wavelength, [1.0])
    with pytest.raises(ValueError, match="must be positive"):
        silicon_absorption(-5.0)


def test_the_published_model_is_found_again_from_its_shifts() -> None:
    truth = PUBLISHED._replace(beta=7.27e-10)
    found = fit_electrostatic(amplifiers(boundary_shifts(truth).a.to_numpy()[None]))
    values = dict(zip(found.parameter.to_numpy(), found.parameter_value.to_numpy(), strict=True))
    for name in ("z_q", "z_sh", "z_sv", "b", "alpha", "beta"):
        assert values[name] == pytest.approx(getattr(truth, name), rel=1e-6), name
    np.testing.assert_allclose(found.a_model, found.a_mean, rtol=0, atol=1e-15)
    assert bool(found.converged)
    assert float(found.north[0, 0]) == pytest.approx(-9.604334e-7, rel=1e-6)


def test_a_fit_that_knows_the_filter_gives_other_heights_than_one_that_does_not() -> None:
    depth = conversion_depth([850.0, 900.0, 950.0], [0.5, 1, 0.5], bin_size=5.0)
    truth = ElectrostaticModel(z_q=3.0, z_sh=3.5, z_sv=4.5, a=1.0, b=3.0, alpha=0.7)
    ptc = amplifiers(boundary_shifts(truth, 5, depth=depth).a.to_numpy()[None])
    before = depth.copy(deep=True), ptc.copy(deep=True)
    known, unknown = fit_electrostatic(ptc, depth=depth), fit_electrostatic(ptc)
    xr.testing.assert_identical(depth, before[0])
    xr.testing.assert_identical(ptc, before[1])
    expected = [3.0, 3.5, 4.5, 1.0, 3.0, 0.7]
    np.testing.assert_allclose(known.parameter_value[:6], expected, rtol=1e-4)
    assert np.abs(unknown.parameter_value[:6] / expected - 1).max() > 1e-3


@pytest.mark.parametrize("noise", [3e-9, 1e-10])
def test_noise_is_averaged_over_amplifiers(noise: float) -> None:
    truth = ElectrostaticModel(z_q=3.0, z_sh=3.5, z_sv=5.0, a=1.0, b=2.5, alpha=0.7, beta=2e-10)
    clean = boundary_shifts(truth, 8).a.to_numpy()
    rng = np.random.default_rng(11)
    found = fit_electrostatic(amplifiers(clean + noise * rng.standard_normal((16, 8, 8))))
    assert float(np.abs(found.a_model - clean).max()) < 4 * noise / 4
    # errors come from the scatter of 16 amplifiers: chi2 / dof is 15 / 13 on average
    assert float(found.chi2 / found.dof) == pytest.approx(15 / 13, abs=4 * np.sqrt(2 / 57))
    if noise == 1e-10:
        # small enough that the problem is linear and no number stands at its bound
        pull = (found.parameter_value - np.array(truth[:7])) / found.parameter_sigma
        assert float(np.abs(pull).max()) < 4


def test_one_wild_value_of_one_amplifier_harms_neither_it_nor_the_others() -> None:
    clean = boundary_shifts(PUBLISHED, 6).a.to_numpy()
    rng = np.random.default_rng(2)
    a = clean + 3e-9 * rng.standard_normal((10, 6, 6))
    a[7, 1, 2] += 1e-6
    found = fit_electrostatic(amplifiers(a))
    assert int(found["count"][1, 2]) == 9
    assert int(found["count"].sum()) >= 360 - 4
    assert float(found.a_mean[1, 2]) == pytest.approx(clean[1, 2], abs=4 * 3e-9 / 3)


def test_bad_and_incomplete_amplifiers_are_left_out() -> None:
    clean = boundary_shifts(PUBLISHED, 4).a.to_numpy()
    a = np.stack([clean, 2 * clean, clean])
    a[2, 3, 3] = np.nan
    ptc = amplifiers(a).assign(amp_flag=("amp", [0, int(AmplifierFlag.BAD), 0]))
    found = fit_electrostatic(ptc)
    np.testing.assert_array_equal(found.a_mean, clean)
    with pytest.raises(ValueError, match="no amplifier"):
        fit_electrostatic(ptc.isel(amp=[1, 2]))
    with pytest.raises(KeyError, match="lacks a"):
        fit_electrostatic(ptc.drop_vars("a"))
    with pytest.raises(ValueError, match="three or more"):
        fit_electrostatic(ptc.isel(lag_x=slice(2)))


def test_a_measured_matrix_is_described_to_a_few_percent_near_the_charge() -> None:
    measured = np.array(TYPICAL_A)
    found = fit_electrostatic(
        amplifiers(measured[None]), parameters=ElectrostaticFitParameters(fit_range=5)
    )
    ratio = found.a_model.to_numpy()[:2, :2] / measured[:2, :2]
    np.testing.assert_allclose(ratio, 1, atol=0.06)
