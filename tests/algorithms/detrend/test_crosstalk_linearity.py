"""Crosstalk and linearity: exact inverses of what amplifiers do to each other and to themselves."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.interpolate
import xarray as xr

from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.algorithms.detrend import (
    CrosstalkParameters,
    ScienceDetrendParameters,
    correct_crosstalk,
    correct_linearity,
    detrend,
)
from skyloom.algorithms.vocabulary import MASK_PLANES
from tests.algorithms.detrend.frames import plane_of_amplifiers, read_out

SHAPE = (120, 96)
NAMES = ["C00", "C01", "C10", "C11"]
HEARD = MASK_PLANES["CROSSTALK"]


def matrix(scale=3e-3, seed=2):
    fractions = np.random.default_rng(seed).uniform(-scale, scale, (4, 4))
    np.fill_diagonal(fractions, 0.0)
    return xr.DataArray(fractions, {"amp": NAMES, "source_amp": NAMES})


def talked(image, table, fractions, flips=((0, 0),) * 4):
    """Return a trimmed image with crosstalk between pixels that are read at the same time."""
    rows = amplifier_rows(table)
    turns = [
        tuple(
            slice(None, None, -1 if own != against else 1)
            for own, against in zip((row.flip_y, row.flip_x), flip, strict=True)
        )
        for row, flip in zip(rows, flips, strict=True)
    ]
    read = [image[row.trimmed.slices][turn] for row, turn in zip(rows, turns, strict=True)]
    out = image.copy()
    for row, turn, own in zip(rows, turns, fractions, strict=True):
        out[row.trimmed.slices][turn] += sum(f * r for f, r in zip(own, read, strict=True))
    return out


def exposure(image):
    return xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})


def test_crosstalk_is_undone_exactly(table, rng):
    true = rng.uniform(0.0, 5e4, SHAPE)
    mixed = talked(true, table, matrix().values)
    assert abs(mixed - true).max() > 100
    found = correct_crosstalk(exposure(mixed), table, matrix())
    np.testing.assert_allclose(found["image"], true, rtol=1e-12)
    raw = read_out(mixed, table, dtype=np.float64)
    chain = detrend(raw, table, gain=1.0, crosstalk=matrix())
    np.testing.assert_allclose(chain["image"], true, rtol=1e-6, atol=1e-2)


def test_amplifiers_may_be_read_against_the_way_they_are_stored(table, rng):
    true = rng.uniform(0.0, 5e4, SHAPE)
    flips = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    mixed = talked(true, table, matrix().values, flips)
    told = xr.Dataset(
        {
            "crosstalk": matrix(),
            "read_flip_y": ("amp", flips[:, 0] > 0),
            "read_flip_x": ("amp", flips[:, 1] > 0),
        },
        attrs={"detector": "R0"},
    )
    found = correct_crosstalk(exposure(mixed), table, told)
    np.testing.assert_allclose(found["image"], true, rtol=1e-12)
    raw = read_out(mixed, table, dtype=np.float64)
    chain = detrend(raw, table, gain=1.0, crosstalk=told)
    np.testing.assert_allclose(chain["image"], true, rtol=1e-6, atol=1e-2)
    wrong = correct_crosstalk(exposure(mixed), table, matrix())
    assert abs(wrong["image"] - true).max() > 50


def test_pixels_that_heard_a_loud_one_are_flagged(table):
    true = np.zeros(SHAPE)
    true[3, 5] = 5e4  # read with (3, 90), (116, 5) and (116, 90)
    fractions = matrix()
    fractions.loc["C10", "C00"] = 0.0
    parameters = CrosstalkParameters(threshold=4e4)
    mixed = talked(true, table, fractions.values)
    found = correct_crosstalk(exposure(mixed), table, fractions, parameters=parameters)
    assert np.argwhere(found["mask"].values).tolist() == [[3, 90], [116, 90]]
    assert (found["mask"].values[[3, 116], [90, 90]] == HEARD).all()
    raw = read_out(mixed, table)
    chain = detrend(
        raw,
        table,
        parameters=ScienceDetrendParameters(crosstalk=parameters),
        crosstalk=fractions,
        gain=1.0,
    )
    np.testing.assert_array_equal(chain["mask"], found["mask"])
    deaf = CrosstalkParameters(threshold=5.1e4)
    quiet = correct_crosstalk(exposure(mixed), table, fractions, parameters=deaf)
    assert not quiet["mask"].any()
    saturated = table.copy()
    saturated["saturation"] = ("amp", [4e4] * 4)
    heard = detrend(raw, saturated, crosstalk=fractions, gain=1.0)["mask"].values
    assert heard[3, 5] == MASK_PLANES["SAT"]
    assert (heard[[3, 116], [90, 90]] == HEARD).all()


def test_pixels_that_were_never_read_talk_to_nobody(table):
    image = np.full(SHAPE, 1000.0)
    image[3, 5] = np.nan
    found = correct_crosstalk(exposure(image), table, matrix())["image"]
    assert np.isnan(found[3, 5])
    assert int(np.isnan(found).sum()) == 1


def test_crosstalk_that_does_not_fit_is_named(table):
    data = exposure(np.zeros(SHAPE)).assign_attrs(detector="R0")
    few = matrix().isel(amp=slice(3))
    odd = table.copy(deep=True)
    odd["data_y_stop"][0] -= 1
    odd["y_stop"][0] -= 1
    for crosstalk, amplifiers, message in (
        (few, table, "crosstalk lacks amp C11"),
        (matrix().drop_vars("source_amp"), table, "crosstalk lacks source_amp C00"),
        (matrix() * np.nan, table, "not finite"),
        (matrix().rename(source_amp="other"), table, "needs .'amp', 'source_amp'"),
        (matrix().assign_attrs(detector="R7"), table, "crosstalk is of detector 'R7'"),
        (matrix(), odd, r"data sections of one shape: C00 \(59, 48\)"),
    ):
        with pytest.raises(ValueError, match=message):
            correct_crosstalk(data, amplifiers, crosstalk)
    silent = correct_crosstalk(data, table, matrix() * 0.0)
    np.testing.assert_array_equal(silent["image"], data["image"])


def linearity(**attrs):
    knots = np.array([[0.0, 1e3, 1e4, 4e4, 6e4]] * 4)
    knots[2, 3:] = np.nan
    correction = np.array([[0.0, 3.0, 50.0, 700.0, 900.0]] * 4) * [[1.0], [0.5], [2.0], [0.0]]
    return xr.Dataset(
        {
            "knot_signal": (("amp", "knot"), knots),
            "knot_correction": (("amp", "knot"), correction),
        },
        coords={"amp": NAMES},
        attrs=attrs,
    )


def test_a_spline_of_the_correction_is_added(table, rng):
    image = rng.uniform(-500.0, 7e4, SHAPE)
    found = correct_linearity(exposure(image), table, linearity())["image"].values
    for index, row in enumerate(amplifier_rows(table)):
        x, y = (
            linearity()[name].values[index][np.isfinite(linearity()["knot_signal"][index])]
            for name in ("knot_signal", "knot_correction")
        )
        spline = scipy.interpolate.CubicSpline(x, y, bc_type="natural")
        signal = image[row.trimmed.slices]
        expected = signal + spline(np.clip(signal, x[0], x[-1]))
        np.testing.assert_allclose(found[row.trimmed.slices], expected, rtol=1e-12)


def test_a_table_of_the_correction_is_read_between_its_lines(table, rng):
    image = rng.uniform(-500.0, 7e4, SHAPE)
    given = linearity(interpolation="linear")
    found = correct_linearity(exposure(image), table, given)["image"].values
    row = amplifier_rows(table)[0]
    x, y = (given[name].values[0] for name in ("knot_signal", "knot_correction"))
    signal = image[row.trimmed.slices]
    np.testing.assert_allclose(
        found[row.trimmed.slices], signal + np.interp(signal, x, y), rtol=1e-12
    )


def test_a_polynomial_undoes_the_loss_it_is_the_inverse_of(table, rng):
    true = rng.uniform(0.0, 5e4, SHAPE)
    loss = plane_of_amplifiers(table, [1e-6, 8e-7, 5e-7, 0.0])
    read = true - loss * true**2
    a = np.array([1e-6, 8e-7, 5e-7, 0.0])
    terms = np.stack([c * a ** (n + 1) for n, c in enumerate((1, 2, 5, 14, 42, 132, 429))], axis=1)
    given = xr.Dataset({"polynomial": (("amp", "coefficient"), terms)}, coords={"amp": NAMES})
    found = correct_linearity(exposure(read), table, given)
    np.testing.assert_allclose(found["image"], true, rtol=2e-6)
    raw = read_out(read, table, dtype=np.float64)
    chain = detrend(raw, table, gain=1.0, linearity=given)
    np.testing.assert_allclose(chain["image"], true, rtol=2e-6, atol=1e-3)
    reordered = given.isel(amp=[3, 1, 0, 2])
    xr.testing.assert_identical(
        correct_linearity(exposure(read), table, reordered)["image"], found["image"]
    )


def test_linearity_that_does_not_fit_is_named(table):
    data = exposure(np.zeros(SHAPE)).assign_attrs(detector="R0")
    good = linearity()
    falling = good.copy(deep=True)
    falling["knot_signal"][1] = falling["knot_signal"][1].values[::-1]
    for given, message in (
        (good.isel(amp=[0]), "linearity lacks the amplifiers C01, C10, C11"),
        (good.drop_vars("amp"), "linearity lacks the amplifiers C00"),
        (good.drop_vars("knot_signal"), "needs 'polynomial', or"),
        (good.assign(polynomial=(("amp", "coefficient"), np.zeros((4, 1)))), "needs 'polynomial'"),
        (falling, "linearity of amplifier C01 needs two or more knots that increase"),
        (good.assign_attrs(interpolation="cubic"), "interpolation is 'cubic'"),
        (good.assign_attrs(detector="R7"), "linearity is of detector 'R7', the frame of 'R0'"),
        (
            xr.Dataset(
                {"polynomial": (("amp", "coefficient"), np.full((4, 1), np.nan))},
                coords={"amp": NAMES},
            ),
            "coefficients that are not finite",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            correct_linearity(data, table, given)
