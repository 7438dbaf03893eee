"""Scales of flats: pulls, the Cramér-Rao bound, a large camera, and levels of real cameras."""

from __future__ import annotations

import time
import warnings

import numpy as np
import xarray as xr

from skyloom.algorithms.errors import DegenerateFitError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    inside_polygon,
    measure_flat,
    measure_scales,
    normalize_flats,
    solve_flat_scales,
)
from tests.real_data.measured import SHARED, decam_throughputs, hsc_sky_levels
from tests.validation.by_test import rows_of_tests
from tests.validation.flat_levels import errors_over_bound, illuminated_camera, simulated_camera
from tests.validation.rows import Row, at_most, between, within

__all__ = ["measure"]

DIMS = ("detector", "exposure")


def small_matrices(trials: int = 3000) -> list[Row]:
    """Return pulls of 9 detectors in 12 exposures with missing cells and unequal errors."""
    rng = np.random.default_rng(3)
    response = 1.0 + 0.1 * rng.normal(size=9)
    light = 1e4 * np.exp(rng.uniform(0.0, 1.4, 12))
    seen = rng.random((9, 12)) > 0.25
    noise = rng.uniform(0.5e-3, 2e-3, (9, 12))
    exact = FlatScaleParameters(outliers="none", systematic=0.0)
    level = np.where(seen, np.outer(response, light), np.nan)
    count = xr.DataArray(np.ones((9, 12)), dims=DIMS)

    def solved(values: np.ndarray) -> xr.Dataset:
        table = xr.DataArray(values, dims=DIMS)
        return solve_flat_scales(table, count, table * noise, parameters=exact)

    truth = solved(level)
    names = ("detector_scale", "exposure_scale")
    pulls: dict[str, list[np.ndarray]] = {name: [] for name in names}
    chi2 = []
    for _ in range(trials):
        found = solved(level * np.exp(noise * rng.normal(size=noise.shape)))
        for name in names:
            pulls[name].append(((found[name] - truth[name]) / found[f"{name}_sigma"]).values)
        chi2.append(float(found["chi2"]))
    return [
        *(
            within(f"9 x 12, 25 % missing, {trials} trials: pulls of {name}, standard deviation",
                   float(np.std(pulls[name])), 1.0, 0.05)
            for name in names
        ),
        within("the same: chi2 / dof", float(np.mean(chi2)) / int(truth["dof"]), 1.0, 0.05),
    ]  # fmt: skip


def weak_link() -> list[Row]:
    """Return what a link by one detector costs."""
    rng = np.random.default_rng(3)
    response = 1.0 + 0.1 * rng.normal(size=9)
    light = 1e4 * np.exp(rng.uniform(0.0, 1.4, 12))
    response /= response.mean()
    level = np.outer(response, light)
    level[5:, :6] = np.nan
    level[:4, 6:] = np.nan
    table = xr.DataArray(level, dims=DIMS)
    error = {}
    for method, iterations in (("wls", 1), ("alternating", 10), ("alternating", 10_000)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = measure_scales(table, method=method, iterations=iterations, gauge="equal")
        worst = float(np.abs(found["detector_scale"].values / response - 1.0).max())
        error[method, iterations] = worst, [str(w.message) for w in caught]
    short, texts = error["alternating", 10]
    return [
        at_most("two blocks linked by one detector, closed form: largest relative error",
                error["wls", 1][0], 1e-13),
        Row("the same, alternating means, 10 iterations", "must warn", f"{short:.1e} off; "
            f"{'warns' if texts else 'silent'}", bool(texts)),
        at_most("the same, iterated to convergence", error["alternating", 10_000][0], 1e-9),
    ]  # fmt: skip


def large_camera(trials: int = 60) -> list[Row]:
    """Return the numbers of 189 detectors x 16 amplifiers x 40 exposures."""
    camera = simulated_camera()
    found = errors_over_bound(camera, trials)
    level = xr.DataArray(
        np.where(camera.seen, camera.truth, np.nan).reshape(189, 16, 40),
        dims=("detector", "amp", "exposure"),
        coords={"detector": np.arange(189), "exposure": np.arange(40)},
    )
    times = []
    for _ in range(5):
        started = time.perf_counter()
        solve_flat_scales(level)
        times.append(time.perf_counter() - started)
    level[0, :, 1] = np.nan
    try:
        solve_flat_scales(level)
        message = "no error"
    except DegenerateFitError as error:
        message = str(error)
    what = "189 x 16 x 40, 3 % missing, one exposure hangs on by one detector"
    return [
        between(f"{what}: rms of errors over the Cramér-Rao bound, {trials} trials",
                found.error, 0.0, 1.1),
        within("the same: pulls", found.pull, 1.0, 0.05),
        within("the same: chi2 / dof", found.chi2_per_dof, 1.0, 0.05),
        between("the same: time of a solution", min(times), 0.0, 1.0, "s"),
        Row("that detector lost in the other exposure: error", "names the groups",
            message[:150] + " ...", "2 sets of detectors" in message and "component 1" in message),
    ]  # fmt: skip


def closed_loop() -> list[Row]:
    """Return flats with gradients, vignetting, dead cells and a drifting lamp, from pixels."""
    exposures, response, _ = illuminated_camera(side=240)
    side = exposures[0].sizes["y"]
    box = {"y_start": 0, "y_stop": side, "x_start": 0, "x_stop": side}
    columns = box | {f"data_{name}": value for name, value in box.items()}
    table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    table = table.assign_coords(amp=["A"])
    measured = []
    for flat in exposures:
        corners = flat.attrs["polygon"]
        inside = inside_polygon((side, side), corners)
        place = {name: 100.0 * flat.attrs[key][inside].mean()
                 for name, key in (("focal_x", "u"), ("focal_y", "w"))}  # fmt: skip
        measured.append(measure_flat(flat, table, polygon=corners).assign_coords(place))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = normalize_flats(
            measured, parameters=FlatScaleParameters(systematic=0.0, gradient_order=1)
        )
    kept = [part for part in measured if int(part["exposure"]) != 109]
    flat = normalize_flats(kept, parameters=FlatScaleParameters(systematic=0.0, outliers="none"))
    terms = np.column_stack([np.ones(12), fitted["focal_x"].values, fitted["focal_y"].values])
    error = np.log(fitted["detector_scale"].values / response)
    common, *_ = np.linalg.lstsq(terms, error, rcond=None)
    pull = (error - terms @ common) / fitted["detector_scale_sigma"].values
    late = fitted["exposure"].values[fitted["exposure_status"].values != 0].tolist()
    return [
        between("12 x 20 from pixels, gradients fitted: largest error of G", float(
            np.abs(pull).max()), 0.0, 3.0, "sigma"),
        within("the same: chi2 / dof", float(fitted["chi2"]) / int(fitted["dof"]), 1.0, 0.2),
        between("the same without gradients: chi2 / dof", float(flat["chi2"]) / int(flat["dof"]),
                5.0, np.inf),
        Row("the drifting exposure", "named", f"{late}", late == [109]),
    ]  # fmt: skip


def real_levels() -> list[Row]:
    """Return the levels of Hyper Suprime-Cam, and DECam simulated from measured throughputs."""
    level = hsc_sky_levels()
    scales = solve_flat_scales(level, parameters=FlatScaleParameters(systematic=None))
    residual = np.log1p(scales["residual"])
    scatter = float(np.log(scales["detector_scale"]).std())
    scatter_sigma = scatter / np.sqrt(2.0 * (level.sizes["detector"] - 1))
    per_dof, per_dof_sigma = float(scales["systematic"]), float(scales["systematic_sigma"])
    beyond = [
        f"detector {int(level['detector'][d])} of {int(level['exposure'][e])} "
        f"({100 * float(residual[d, e]):+.2f} %, {float(scales['pull'][d, e]):+.1f} sigma)"
        for d, e in np.argwhere(np.abs(scales["pull"].values) > 3.0)
    ]
    rows = [
        Row("Hyper Suprime-Cam, 103 detectors x 4 visits: scatter of detectors", "1.73 %",
            f"{100 * scatter:.2f} ± {100 * scatter_sigma:.2f} %", abs(scatter - 0.0173) < 5e-5),
        within("the same: rms of residuals", 100 * float(np.sqrt((residual**2).mean())), 0.42,
               0.005, "%", ".3f"),
        Row("the same: per degree of freedom", "0.48 %",
            f"{100 * per_dof:.3f} ± {100 * per_dof_sigma:.3f} %", abs(per_dof - 0.0048) < 5e-5),
        within("the same: largest residual", 100 * float(np.abs(residual).max()), 1.44, 0.005,
               "%", ".3f"),
        Row("the same: cells beyond 3 sigma", "named", "; ".join(beyond), len(beyond) == 2),
    ]  # fmt: skip
    truth = decam_throughputs()
    rng = np.random.default_rng(7)
    light = 2e4 * np.exp(rng.uniform(0.0, np.log(3.0), 12))
    stated = dict(zip("grizY", (0.57, 0.70, 1.00, 0.28, 0.81), strict=True))
    for band, value in stated.items():
        response = truth.sel(physical_filter=band)
        pulls, chi2, found = [], [], response
        for _ in range(20):
            noisy = response * xr.DataArray(light, dims="exposure")
            noisy = noisy * np.exp(1e-3 * rng.normal(size=noisy.shape))
            scales = solve_flat_scales(noisy)
            found = scales["detector_scale"]
            pulls.append(((found - response) / scales["detector_scale_sigma"]).values)
            chi2.append(float(scales["chi2"]) / int(scales["dof"]))
        rows += [
            within(f"DECam in {band}, 62 detectors x 12 exposures: scatter of responses found",
                   100 * float(found.std()), value, 0.02, "%", ".3f"),
            within("the same: pulls of 20 trials", float(np.std(pulls)), 1.0, 0.1, form=".3f"),
        ]  # fmt: skip
    return rows


def measure() -> list[Row]:
    """Return the rows of this topic."""
    rows = [*small_matrices(), *weak_link(), *large_camera(), *closed_loop()]
    if SHARED.exists():
        rows += real_levels()
    return rows + rows_of_tests("tests/algorithms/flats/test_gradients.py", jobs=1)
