"""Curves of stated values: closed loops, turn-offs, mock flats, kernels, boundary shifts."""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms.photon_transfer.electrostatic import boundary_shifts
from skyloom.algorithms.photon_transfer.fit import Start, fit_covariances
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.photon_transfer.pair_gain import pair_gain
from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import (
    SolveParameters,
    TurnoffParameters,
)
from skyloom.algorithms.photon_transfer.turnoff import Turnoff, find_turnoff
from tests.algorithms.photon_transfer.test_electrostatic import PUBLISHED
from tests.algorithms.photon_transfer.test_kernel import (
    WITH_ZERO_SUM,
    WITHOUT_ZERO_SUM,
    kernel_of,
    published_case,
    table,
)
from tests.algorithms.photon_transfer.test_pair_values import mock_pair
from tests.validation.identities import REFERENCE, A
from tests.validation.rows import Row, at_most, within

__all__ = ["closed_loop", "kernels", "mock_solves", "series_bias", "turnoffs"]


def closed_loop() -> list[Row]:
    """Return the rows of the reference's closed loop of the variance model."""
    time = np.arange(1.0, 97.0, 5.0)
    mean = 1000 * time - 5e-6 * time**2
    variance = model_covariance([[-1.2e-6]], 0.75, 1.5, mean)
    sigma = 1 / np.array(REFERENCE["closed_loop_sqrt_weights"])
    relative = sigma[:, None, None] / variance
    start = Start(1.5, np.array([[-2e-6]]), None)
    found = fit_covariances(mean, variance, relative, start, model="exp00")
    noise = float(np.sqrt(found.noise[0, 0]))
    return [
        at_most("`exp00` closed loop: gain less 0.75", found.gain - 0.75, 1e-7, "electron/adu",
                "+.1e"),
        at_most("`exp00` closed loop: a_00 against -1.2e-6", float(found.a[0, 0]) / -1.2e-6 - 1,
                1e-5, "relative", "+.1e"),
        at_most("`exp00` closed loop: noise less sqrt(1.5)", noise - float(np.sqrt(1.5)), 1e-7,
                "electron", "+.1e"),
    ]  # fmt: skip


def _turnoff(name: str, parameters: TurnoffParameters) -> Turnoff:
    curve = REFERENCE["curves"][name]
    missing = [np.nan] * (REFERENCE["points"] - len(curve["mean"]))
    mean, variance = (np.array(curve[key] + missing) for key in ("mean", "variance"))
    relative = np.full(mean.shape, np.sqrt(2 / 1e6))
    usable = np.ones(mean.shape, dtype=bool)
    return find_turnoff(mean, variance, usable, relative_sigma=relative, parameters=parameters)


def turnoffs() -> list[Row]:
    """Return the rows of three coarse curves of LSST Camera amplifiers, in both modes."""
    rows = []
    for name, curve in REFERENCE["curves"].items():
        found = _turnoff(name, TurnoffParameters(mode="legacy"))
        rows += [
            within(f"coarse curve `{name}`, turn-off `legacy`", found.turnoff,
                   curve["legacy_turnoff"], 1e-3, "adu", ".4f"),
            within("its sampling error", found.sampling_error, curve["legacy_sampling_error"],
                   1e-3, "adu", ".4f"),
        ]  # fmt: skip
    stated = {
        "normal": (74185.9, 1.401, 38.1, 92174.0),
        "upturn": (71832.3, 1.617, 83.3, 97440.9),
        "dip": (87557.8, 1.448, 30.2, 87557.8),
    }
    for name, (turnoff, gain, noise, wide) in stated.items():
        found = _turnoff(name, TurnoffParameters())
        loose = _turnoff(name, TurnoffParameters(fraction=0.01))
        rows += [
            within(f"coarse curve `{name}`, turn-off `robust`", found.turnoff, turnoff, 0.06,
                   "adu", ".1f"),
            within("gain of its window", found.gain, gain, 6e-4, "electron/adu", ".4f"),
            within("squared noise of its window", found.noise, noise, 0.06, "electron2", ".2f"),
            within("turn-off with a model error of 1 %", loose.turnoff, wide, 0.06, "adu", ".1f"),
        ]  # fmt: skip
    return rows


def mock_solves() -> list[Row]:
    """Return the rows of curves solved from the reference's mock flats."""
    times = np.arange(1, 97, 5)
    pairs = xr.concat([mock_pair(int(time), lags=3) for time in times], dim="pair")
    pairs = pairs.expand_dims(amp=["C00"])
    rows = []
    for model in ("exact", "exact_b", "series4", "series4_no_b", "exp00"):
        ptc = solve(pairs, parameters=SolveParameters(model=model, minimum_mean=2000.0))
        rows.append(within(f"mock flats, 3 lags, mean > 2000 adu: gain by `{model}`",
                           float(ptc["gain"][0]), 0.75, 0.01, "electron/adu", ".4f"))  # fmt: skip
    rng = np.random.default_rng(5)
    for method in ("NONE", "SIMPLE", "FULL"):
        found = []
        for time in times:
            electrons = 100.0 * time
            one, two = (rng.normal(electrons, np.sqrt(electrons + 1.5), (204, 200)) / 0.75
                        for _ in range(2))  # fmt: skip
            mean = 0.5 * (one.mean() + two.mean())
            ratio = float(np.mean((one - two) ** 2 / (one + two)))
            variance = 0.5 * float(np.var(one - two, ddof=1))
            gain = pair_gain(float(mean), variance, method=method, ratio=ratio,
                             read_noise=float(np.sqrt(1.5)) / 0.75)["gain"]  # fmt: skip
            found.append(float(gain))
        worst = max(found, key=lambda value: abs(value - 0.75))
        rows.append(within(f"mock flats at 100 electron/s: pair gain {method}, the worst of 20",
                           worst, 0.75, 0.04, "electron/adu", ".4f"))  # fmt: skip
    return rows


def series_bias() -> list[Row]:
    """Return how wrong truncated models are, which is why the exact one is the default."""
    signal = np.array([3e4, 5e4, 7.5e4, 1e5])
    exact = model_covariance(A, 1.0, 0.0, signal)
    off = model_covariance(A, 1.0, 0.0, signal, model="series4_no_b") / exact - 1
    stated = {"C_00": (off[:, 0, 0], [-1.7e-5, -1.3e-4, -7e-4, -2.3e-3], 0.05),
              "C_01": (off[:, 1, 0], [5e-4, 2.5e-3, 9e-3, 2.3e-2], 0.06)}  # fmt: skip
    return [
        Row(f"equation 20 less exact, {name}, at 3, 5, 7.5, 10 x 1e4 electron",
            ", ".join(f"{value:g}" for value in targets) + f" (± {100 * tolerance:.0f} %)",
            ", ".join(f"{value:.2g}" for value in found),
            bool(np.all(np.abs(found / np.array(targets) - 1) < tolerance)))
        for name, (found, targets, tolerance) in stated.items()
    ]  # fmt: skip


def kernels() -> list[Row]:
    """Return the rows of the published brighter-fatter kernel and boundary shifts."""
    rows = []
    for zero_sum, text in ((False, WITHOUT_ZERO_SUM), (True, WITH_ZERO_SUM)):
        kernel = kernel_of(published_case(), source="average", zero_sum=zero_sum)[:4, :4]
        expected = table(text)
        name = "with zero sum" if zero_sum else "without zero sum"
        rows.append(
            at_most(
                f"brighter-fatter kernel of the published case, {name}, 16 values",
                float(np.max(np.abs(kernel / expected - 1))),
                1e-6,
                "relative",
            )
        )
    shifts = boundary_shifts(PUBLISHED)
    stated = {
        "N_00": (shifts["north"], 0, 0, -9.604334e-7),
        "E_00": (shifts["east"], 0, 0, -6.749744e-7),
        "N_01": (shifts["north"], 1, 0, -1.834929e-7),
        "S_01": (shifts["south"], 1, 0, 9.604334e-7),
        "E_10": (shifts["east"], 0, 1, -1.661053e-7),
    }
    off = [float(side[y, x]) / value - 1 for side, y, x, value in stated.values()]
    rows.append(at_most(f"boundary shifts {', '.join(stated)} of the published model",
                        max(off, key=abs), 1e-6, "relative", "+.1e"))  # fmt: skip
    a = shifts["a"]
    for name, found, expected, step in (
        ("a_00", float(a[0, 0]) + 7.27e-10, -3.27009e-6, 5e-12),
        ("a_01", float(a[1, 0]), 4.1193e-7, 5e-12),
        ("a_10", float(a[0, 1]), 1.7342e-7, 5e-12),
    ):
        rows.append(within(f"electrostatic model, {name} (tolerance: its last stated digit)",
                           found, expected, step, "1/electron", ".6g"))  # fmt: skip
    return rows
