"""Each step of detrending: its inverse, its variance and mask, and all of them in order."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import (
    BrighterFatterParameters,
    CosmicRayParameters,
    InterpolationParameters,
    OverscanParameters,
    SaturationParameters,
    ScienceDetrendParameters,
    add_variance,
    apply_gain,
    assemble,
    correct_brighter_fatter,
    correct_crosstalk,
    correct_linearity,
    detrend,
    divide_flat,
    flag_saturation,
    interpolate_pixels,
    mask_defects,
    reject_cosmic_rays,
    subtract_bias,
    subtract_dark,
    subtract_fringe,
    subtract_overscan,
)
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.frames import calibration, plane_of_amplifiers, read_out

SHAPE = (120, 96)
NAMES = ("C00", "C01", "C10", "C11")


def heard():
    """Return crosstalk between all amplifiers."""
    fractions = np.random.default_rng(4).uniform(-2e-3, 2e-3, (4, 4))
    return xr.DataArray(
        fractions, {"amp": list(NAMES), "source_amp": list(NAMES)}, attrs={"id": "X1"}
    )


def curved():
    """Return the linearity of amplifiers that lose up to a per cent."""
    knots = np.array([0.0, 5e3, 2e4, 5e4])
    correction = np.outer([1.0, 0.5, 2.0, 0.0], [0.0, 5.0, 80.0, 400.0])
    return xr.Dataset(
        {
            "knot_signal": (("amp", "knot"), np.tile(knots, (4, 1)), {"units": "adu"}),
            "knot_correction": (("amp", "knot"), correction, {"units": "adu"}),
        },
        coords={"amp": list(NAMES)},
        attrs={"id": "L1"},
    )


def small_kernel():
    kernel = np.outer([0.2, 0.6, 1.0, 0.6, 0.2], [0.2, 0.6, 1.0, 0.6, 0.2]) * -2e-7
    return xr.DataArray(kernel, dims=("kernel_y", "kernel_x"), attrs={"id": "K1"})


@pytest.fixture
def calibrations(rng):
    mask = np.where(rng.random(SHAPE) < 0.01, MASK_PLANES["BAD"], 0)
    flat = rng.normal(1.0, 0.02, SHAPE)
    flat[30, 40] = 0.0
    return {
        "bias": calibration(rng.normal(0.0, 3.0, SHAPE), "adu", variance=np.full(SHAPE, 0.5)),
        "dark": calibration(
            rng.exponential(0.5, SHAPE), "electron/s", variance=np.full(SHAPE, 0.01)
        ),
        "flat": calibration(flat, "", variance=np.full(SHAPE, 1e-6), mask=mask),
        "fringe": calibration(rng.normal(0.0, 1.0, SHAPE), "", variance=np.full(SHAPE, 0.1)),
    }


@pytest.fixture
def raw(table, rng):
    """Return a noisy raw frame with stars, cosmic rays, dead and saturated pixels."""
    y, x = np.indices(SHAPE)
    light = rng.poisson(2000.0, SHAPE) + rng.normal(0.0, 5.0, SHAPE)
    for star_y, star_x in ((20, 30), (90, 70), (60, 48)):
        light += 3e4 * np.exp(-((y - star_y) ** 2 + (x - star_x) ** 2) / 8.0)
    light[50, 10:14] += 4000.0
    frame = read_out(light / plane_of_amplifiers(table, table["gain"].values), table)
    noise = rng.normal(0.0, 3.0, (frame.sizes["y"], frame.sizes["x"]))
    frame["image"] = frame["image"] + noise.astype(np.float32)
    frame["image"].attrs["units"] = "adu"
    frame["image"][40, 17] = np.nan
    frame["image"][10:20, 20] = 60_500.0
    return frame


def in_steps(raw, table, calibrations, defects, parameters, scale):
    """Return what the public steps give one after the other, as `detrend` orders them."""
    frame = subtract_overscan(raw, table, parameters=parameters.overscan)
    planes = flag_saturation(raw, table, parameters=SaturationParameters(suspect_fraction=0.9))
    # float64 between the steps, as in the fused chain
    frame["image"] = frame["image"].astype(np.float64)
    frame["mask"] = frame["mask"] | planes
    frame = correct_crosstalk(frame, table, heard(), parameters=parameters.crosstalk)
    bias = calibrations["bias"]
    frame = subtract_bias(frame, bias)
    frame = correct_linearity(frame, table, curved())
    frame = apply_gain(frame, table)
    noise = frame["overscan_noise"] ** 2 * (1 + 1 / 16)  # of the pixel and of its row's level
    frame = add_variance(frame, table, read_noise=noise**0.5 * table["gain"])
    gain = plane_of_amplifiers(table, table["gain"].values)
    frame["variance"] = frame["variance"] + gain**2 * bias["variance"]
    frame["variance"].attrs["units"] = "electron2"
    frame["image"] = correct_brighter_fatter(
        frame["image"].astype(np.float32),
        small_kernel(),
        parameters=parameters.brighter_fatter,
    )["image"].astype(np.float64)
    frame["image"].attrs["units"] = "electron"
    frame = subtract_dark(frame, calibrations["dark"])
    frame = divide_flat(frame, calibrations["flat"])
    frame = mask_defects(frame, defects)
    grown = flag_saturation(raw, table, parameters=parameters.saturation)
    frame["mask"] = frame["mask"] | grown
    frame = reject_cosmic_rays(frame, parameters=parameters.cosmic_rays)
    frame = interpolate_pixels(frame, parameters=parameters.interpolation)
    return subtract_fringe(frame, calibrations["fringe"], scale=scale)


def test_the_chain_is_its_steps_in_order(raw, table, calibrations):
    parameters = ScienceDetrendParameters(
        saturation=SaturationParameters(suspect_fraction=0.9, grow=1, bleed=3, bleed_length=5),
        cosmic_rays=CosmicRayParameters(reject=True),
        interpolation=InterpolationParameters(planes=("COSMIC_RAY", "BAD")),
    )
    defects = xr.DataArray(np.zeros(SHAPE, bool), dims=("y", "x"), attrs={"id": "hot"})
    defects[70, 60:63] = True
    expected = in_steps(raw, table, calibrations, defects, parameters, 20.0)
    found = detrend(
        raw,
        table,
        parameters=parameters,
        linearity=curved(),
        crosstalk=heard(),
        brighter_fatter=small_kernel(),
        defects=defects,
        fringe_scale=20.0,
        **calibrations,
    )
    np.testing.assert_allclose(found["image"], expected["image"], rtol=3e-6, atol=1e-3)
    np.testing.assert_allclose(found["variance"], expected["variance"], rtol=1e-5)
    np.testing.assert_array_equal(found["mask"], expected["mask"])
    flags = found["mask"].values
    for plane in ("SAT", "SUSPECT", "COSMIC_RAY", "INTERPOLATED", "NO_DATA", "BAD", "CROSSTALK"):
        assert ((flags & MASK_PLANES[plane]) != 0).any(), plane
    assert found.attrs["applied"] == [
        "overscan: row_mean",
        "crosstalk: X1",
        "bias: without id",
        "linearity: L1",
        "gain: camera",
        "variance: given",
        "brighter_fatter: K1",
        "dark: without id",
        "flat: without id",
        "defects: hot",
        "saturation: grown 1, bleed 3",
        "cosmic_rays: 4.5 sigma",
        "interpolation: COSMIC_RAY, BAD",
        "fringe: without id",
    ]


def test_no_step_changes_its_input_and_lazy_is_eager(raw, table, calibrations):
    night = xr.concat([raw, raw * 0.5, raw * 0.9], "exposure", coords="minimal", compat="override")
    night = night.assign_coords(dark_time=("exposure", [1.0, 2.0, 3.0]))
    night["image"].attrs["units"] = "adu"
    plain = subtract_overscan(night, table)
    charge = add_variance(apply_gain(plain, table), table)
    hot = xr.DataArray(np.eye(*SHAPE, dtype=bool), dims=("y", "x"))
    adu, every = {"exposure": 1, "y": 50}, {"exposure": 2, "x": 31}
    gaps = InterpolationParameters(planes=("NO_DATA",))
    for step, data in (
        (lambda e, c: assemble(e, table).to_dataset(name="image"), night),
        (lambda e, c: flag_saturation(e, table).to_dataset(name="mask"), night),
        (lambda e, c: subtract_overscan(e, table), night),
        (lambda e, c: correct_crosstalk(e, table, heard()), plain),
        (lambda e, c: correct_linearity(e, table, curved()), plain),
        (lambda e, c: subtract_bias(e, c["bias"]), plain),
        (lambda e, c: apply_gain(e, table), plain),
        (lambda e, c: add_variance(e, table), charge),
        (lambda e, c: subtract_dark(e, c["dark"]), charge),
        (lambda e, c: divide_flat(e, c["flat"]), charge),
        (lambda e, c: subtract_fringe(e, c["fringe"], scale=3.0), charge),
        (lambda e, c: mask_defects(e, hot), charge),
        (lambda e, c: interpolate_pixels(e, parameters=gaps), charge),
        (lambda e, c: reject_cosmic_rays(e), charge),
    ):
        before = data.copy(deep=True), {k: c.copy(deep=True) for k, c in calibrations.items()}
        eager = step(data, calibrations)
        xr.testing.assert_identical(data, before[0])
        for name, each in calibrations.items():
            xr.testing.assert_identical(each, before[1][name])
        for chunks in (adu, every):
            lazy = step(
                data.chunk(chunks), {k: c.chunk({"y": 40}) for k, c in calibrations.items()}
            )
            assert any(variable.chunks is not None for variable in lazy.values())
            xr.testing.assert_identical(lazy.compute(), eager)
        first = {"exposure": 0}
        one = step(data.isel(first), calibrations)
        xr.testing.assert_identical(eager.isel(first)[list(one)], one)


def test_assembly_only_moves_pixels(table, rng):
    image = rng.integers(0, 60_000, SHAPE).astype(np.uint16)
    raw = read_out(image, table, level=0.0, dtype=np.uint16)
    found = assemble(raw, table)
    np.testing.assert_array_equal(found, image)
    assert found.dtype == np.uint16
    assert int(found["exposure"]) == 3


def test_bias_dark_flat_gain_and_fringe_undo_what_made_them(table, calibrations, rng):
    signal = rng.uniform(100.0, 1e4, SHAPE)
    planes = {name: each["image"].values.astype(float) for name, each in calibrations.items()}
    planes["flat"][30, 40] = 1.0
    calibrations["flat"]["image"][30, 40] = 1.0
    gain = plane_of_amplifiers(table, table["gain"].values)
    light = signal + 7.0 * planes["fringe"]
    adu = (light * planes["flat"] + 10.0 * planes["dark"]) / gain + planes["bias"]
    frame = xr.Dataset(
        {"image": (("y", "x"), adu, {"units": "adu"})}, coords={"exposure_time": 10.0}
    )
    frame = subtract_bias(frame, calibrations["bias"])
    frame = apply_gain(frame, table)
    frame = subtract_dark(frame, calibrations["dark"])
    frame = divide_flat(frame, calibrations["flat"])
    frame = subtract_fringe(frame, calibrations["fringe"], scale=7.0)
    np.testing.assert_allclose(frame["image"], signal, rtol=1e-12)
    assert frame["image"].attrs == {"units": "electron"}
    assert "variance" not in frame


def test_variances_of_calibrations_are_carried_along(table, calibrations):
    frame = xr.Dataset(
        {
            "image": (("y", "x"), np.full(SHAPE, 200.0), {"units": "adu"}),
            "variance": (("y", "x"), np.full(SHAPE, 30.0), {"units": "adu2"}),
        }
    )
    biased = subtract_bias(frame, calibrations["bias"])
    np.testing.assert_allclose(biased["variance"], 30.5)
    charge = apply_gain(biased, table, gain=2.0)
    np.testing.assert_allclose(charge["variance"], 122.0)
    assert charge["variance"].units == "electron2"
    dark = subtract_dark(charge, calibrations["dark"], dark_time=10.0)
    np.testing.assert_allclose(dark["variance"], 123.0)
    flat = calibration(np.full(SHAPE, 0.5), "", variance=np.full(SHAPE, 1e-4))
    charge["image"][:] = 400.0
    divided = divide_flat(charge, flat)
    np.testing.assert_allclose(
        divided["variance"], 122.0 / 0.25 + 800.0**2 * 1e-4 / 0.25, rtol=1e-6
    )
    fringed = subtract_fringe(divided, calibrations["fringe"], scale=10.0)
    np.testing.assert_allclose(fringed["variance"] - divided["variance"], 10.0, rtol=1e-5)


def test_steps_name_what_does_not_fit(table, calibrations):
    adu = xr.Dataset({"image": (("y", "x"), np.ones(SHAPE), {"units": "adu"})})
    electron = xr.Dataset({"image": (("y", "x"), np.ones(SHAPE), {"units": "electron"})})
    other = {kind: c.assign_attrs(detector="R1") for kind, c in calibrations.items()}
    told = electron.assign_attrs(detector="R0"), adu.assign_attrs(detector="R0")
    times = {"dark_time": 1.0}
    for call, message in (
        (lambda: subtract_bias(told[1], other["bias"]), "bias is of detector 'R1', the frame of"),
        (lambda: subtract_dark(told[0], other["dark"], **times), "dark is of detector 'R1'"),
        (lambda: divide_flat(told[0], other["flat"]), "flat is of detector 'R1'"),
        (lambda: subtract_fringe(told[0], other["fringe"]), "fringe is of detector 'R1'"),
        (lambda: mask_defects(told[0], other["flat"]), "defects are of detector 'R1'"),
        (lambda: subtract_bias(electron, calibrations["bias"]), "units 'electron', needs 'adu'"),
        (lambda: subtract_dark(adu, calibrations["dark"]), "units 'electron/s', needs 'adu/s'"),
        (lambda: subtract_dark(electron, calibrations["dark"]), "no finite dark_time"),
        (lambda: subtract_fringe(adu, calibrations["fringe"], scale=np.nan), "must be finite"),
        (lambda: add_variance(electron, table, read_noise=np.nan), "no read noise is known"),
        (lambda: add_variance(adu, table), "units 'adu', needs 'electron'"),
        (lambda: apply_gain(adu.isel(y=slice(9)), table), "image has shape"),
        (lambda: divide_flat(adu.isel(x=0), calibrations["flat"]), "needs x"),
        (
            lambda: divide_flat(adu, calibrations["flat"].isel(x=slice(4))),
            r"flat has shape \(120, 4",
        ),
        (lambda: reject_cosmic_rays(adu), "units 'adu'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(KeyError, match="no variable 'image'; it has level"):
        divide_flat(adu.rename(image="level"), calibrations["flat"])
    with pytest.raises(KeyError, match="no variable 'image'"):
        assemble(adu.rename(image="level"), table)
    with pytest.raises(KeyError, match="no variable 'variance'"):
        reject_cosmic_rays(electron)
    with pytest.raises(TypeError, match="floating point, got dtype int64"):
        apply_gain(adu.astype(int), table)
    with pytest.raises(TypeError, match="real numbers"):
        assemble(adu.astype(complex), table)
    with pytest.raises(ValueError, match="beyond the raw image"):
        subtract_overscan(adu, table)


def test_parameters_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="unknown mask planes HOT"):
        InterpolationParameters(planes=("HOT",))
    with pytest.raises(ValueError, match="serial"):
        OverscanParameters(serial="rows")
    assert BrighterFatterParameters().level == "detector"
