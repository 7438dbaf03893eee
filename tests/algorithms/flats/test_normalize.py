"""Statistics of many flats: brought together by label, selected, split into scales."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    collect_statistics,
    measure_flat,
    normalize_flats,
    select_exposures,
    solve_flat_scales,
)

AMPS = {"D8": list("ABCD"), "D16": list("ABCDEFGH"), "D2": ["X", "Y"]}
LIGHT = {101: 1000.0, 102: 2000.0, 103: 500.0, 104: 4000.0}


def response(detector: str, amp: str) -> float:
    return 1.0 + 0.05 * list(AMPS).index(detector) + 0.01 * (ord(amp) - ord("A"))


def one(detector: str, exposure: int, reason: str = "FLAT", amps=None) -> xr.Dataset:
    """Return statistics of one exposure of one detector, without noise in the level."""
    amps = AMPS[detector] if amps is None else amps
    level = np.array([LIGHT[exposure] * response(detector, amp) for amp in amps])
    adu = {"units": "adu"}
    return xr.Dataset(
        {
            "mean": ((), level.mean(), adu),
            "sigma": ((), np.sqrt(level.mean()), adu),
            "count_used": ((), 1000 * len(amps)),
            "amp_mean": ("amp", level, adu),
            "amp_sigma": ("amp", np.sqrt(level), adu),
            "amp_count_used": ("amp", np.full(len(amps), 1000)),
        },
        coords={
            "amp": amps,
            "detector": detector,
            "exposure": exposure,
            "observation_reason": reason,
            "focal_x": 10.0 * list(AMPS).index(detector),
        },
    )


def night() -> list[xr.Dataset]:
    return [one(detector, exposure) for exposure in LIGHT for detector in AMPS]


def test_scales_of_amplifiers_of_a_mixed_focal_plane_have_the_right_labels():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scales = normalize_flats(
            night(), level="AMP", parameters=FlatScaleParameters(gauge="reference",
                                                                 reference=("D8", "A"))
        )  # fmt: skip
    for detector, amps in AMPS.items():
        for amp in amps:
            found = float(scales["detector_scale"].sel(detector=detector, amp=amp))
            assert found == pytest.approx(response(detector, amp) / response("D8", "A"), rel=1e-12)
    assert np.isnan(scales["detector_scale"].sel(detector="D2", amp="A"))
    assert scales["exposure_scale"].sel(exposure=103) == pytest.approx(500.0, rel=1e-12)
    assert scales["exposure_scale"].attrs["units"] == "adu"


def test_order_of_datasets_makes_no_difference():
    parts = night()
    expected = normalize_flats(parts, level="AMP")
    mixed = [parts[index] for index in np.random.default_rng(1).permutation(len(parts))]
    found = normalize_flats(mixed, level="AMP").sel(
        detector=expected["detector"], exposure=expected["exposure"], amp=expected["amp"]
    )
    xr.testing.assert_allclose(found["detector_scale"], expected["detector_scale"], rtol=1e-13)
    xr.testing.assert_allclose(found["exposure_scale"], expected["exposure_scale"], rtol=1e-13)


def test_a_table_and_single_statistics_give_the_same():
    table = collect_statistics(night(), level="AMP")
    assert table["amp_mean"].dims == ("detector", "exposure", "amp")
    assert table["focal_x"].dims == ("detector",)
    assert table["observation_reason"].dims == ("exposure",)
    for level in ("DETECTOR", "AMP"):
        xr.testing.assert_equal(normalize_flats(table, level=level)["model"],
                                normalize_flats(night(), level=level)["model"])  # fmt: skip


def test_amplifiers_that_do_not_exist_can_be_told_from_dead_ones():
    table = collect_statistics(night(), level="AMP")
    filled = table.assign(amp_count_used=table["amp_count_used"].fillna(0).astype(int))
    dead = filled.copy(deep=True)
    dead["amp_mean"].loc["D8", :, "B"] = np.nan
    dead["amp_count_used"].loc["D8", :, "B"] = 0
    with pytest.warns(UserWarning, match="D8 E, D8 F, D8 G, D8 H, .* have no usable level"):
        normalize_flats(filled, level="AMP")
    with pytest.warns(UserWarning, match="detectors D8 B have no usable level"):
        normalize_flats(dead, level="AMP", amplifier_names=AMPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalize_flats(filled, level="AMP", amplifier_names=AMPS)
    with pytest.raises(KeyError, match="D2"):
        normalize_flats(dead, level="AMP", amplifier_names={"D8": ["A"], "D16": ["A"]})


def test_exposures_are_selected_by_header_values_whatever_their_case():
    parts = [one(d, e, "ptc" if e == 104 else "Flat") for e in LIGHT for d in AMPS]
    scales = normalize_flats(parts, select={"observation_reason": "FLAT"})
    assert scales["exposure"].values.tolist() == [101, 102, 103]
    both = normalize_flats(parts, select={"observation_reason": ["flat", "PTC"]})
    assert both.sizes["exposure"] == 4
    table = collect_statistics(parts)
    xr.testing.assert_identical(
        normalize_flats(table, select={"observation_reason": "flat"}), scales
    )
    with pytest.raises(NoUsableDataError, match=r"no inputs match .*observation_reason: Flat, ptc"):
        normalize_flats(parts, select={"observation_reason": "dome"})
    with pytest.raises(NoUsableDataError, match=r"no inputs match .*observation_reason: Flat, ptc"):
        select_exposures(table, {"observation_reason": "dome"})
    with pytest.raises(KeyError, match="no 'group'"):
        normalize_flats(parts, select={"group": "x"})
    with pytest.raises(KeyError, match="no 'group'"):
        select_exposures(table, {"group": "x"})


def test_no_inputs_are_an_error():
    with pytest.raises(NoUsableDataError, match="no inputs match"):
        normalize_flats([])


def test_a_detector_that_occurs_twice_in_an_exposure_is_named():
    with pytest.raises(ValueError, match="detector D16 of exposure 102 occurs more than once"):
        normalize_flats([*night(), one("D16", 102)])


def test_amplifiers_that_differ_between_exposures_are_named():
    parts = night()
    parts[4] = one("D16", 102, amps=list("ABCDEFG"))
    with pytest.raises(ValueError, match=r"detector D16 has amplifiers .* in exposure 102"):
        normalize_flats(parts, level="AMP")
    table = collect_statistics(night(), level="AMP")
    table["amp_count_used"].loc["D16", 102, "H"] = np.nan
    with pytest.raises(ValueError, match=r"D16 lacks the amplifiers \['H'\] in exposure 102"):
        normalize_flats(table, level="AMP")


def test_what_is_missing_from_statistics_is_named():
    with pytest.raises(KeyError, match="exposure and detector"):
        normalize_flats([one("D8", 101).drop_vars("detector")])
    with pytest.raises(KeyError, match="lack sigma"):
        normalize_flats([one("D8", 101).drop_vars("sigma")])
    with pytest.raises(KeyError, match="lack amp_mean"):
        normalize_flats([one("D8", 101).drop_vars("amp_mean")], level="AMP")
    with pytest.raises(KeyError, match="lack amp_sigma"):
        normalize_flats(collect_statistics(night(), level="AMP").drop_vars("amp_sigma"),
                        level="AMP")  # fmt: skip
    with pytest.raises(ValueError, match="'DETECTOR' or 'AMP'"):
        normalize_flats(night(), level="amp")


def test_missing_exposures_of_a_detector_do_not_matter():
    parts = [part for part in night() if (part["detector"], part["exposure"]) != ("D8", 103)]
    scales = normalize_flats(parts[:1] + parts[2:])
    full = normalize_flats(night(), parameters=FlatScaleParameters(gauge="equal"))
    part = normalize_flats(parts[:1] + parts[2:], parameters=FlatScaleParameters(gauge="equal"))
    xr.testing.assert_allclose(
        part["detector_scale"], full["detector_scale"].sel(detector=part["detector"]), rtol=1e-12
    )
    assert int(scales["dof"]) == int(full["dof"]) - 2


def test_measured_flats_become_scales():
    rng = np.random.default_rng(5)
    boxes = {"A": (0, 40, 0, 50), "B": (0, 40, 50, 100)}
    sides = ("y_start", "y_stop", "x_start", "x_stop")
    columns = {name: ("amp", [box[i] for box in boxes.values()]) for i, name in enumerate(sides)}
    raw = {f"data_{name}": column for name, column in columns.items()}
    amplifiers = xr.Dataset(columns | raw, coords={"amp": list(boxes)})
    truth = {"S0": 0.9, "S1": 1.1}
    parts = []
    for exposure, light in ((1, 5000.0), (2, 20000.0), (3, 10000.0)):
        for detector, scale in truth.items():
            image = rng.normal(light * scale, np.sqrt(light * scale), (40, 100)).astype("f4")
            frame = xr.Dataset(
                {"image": (("y", "x"), image, {"units": "adu"})},
                coords={"exposure": exposure, "detector": detector},
            )
            parts.append(measure_flat(frame, amplifiers))
    scales = normalize_flats(parts, parameters=FlatScaleParameters(systematic=1e-5))
    pull = (scales["detector_scale"] - [0.9, 1.1]) / scales["detector_scale_sigma"]
    assert float(np.abs(pull).max()) < 4.0
    assert float(scales["detector_scale_sigma"].max()) < 2e-4
    stacked = xr.concat([xr.concat(parts[d::2], "exposure") for d in range(2)], "detector")
    xr.testing.assert_equal(
        normalize_flats(stacked, parameters=FlatScaleParameters(systematic=1e-5))["model"],
        scales["model"],
    )


def test_inputs_are_not_changed():
    parts = night()
    before = [part.copy(deep=True) for part in parts]
    normalize_flats(parts, level="AMP", select={"observation_reason": "flat"})
    for part, old in zip(parts, before, strict=True):
        xr.testing.assert_identical(part, old)
    table = collect_statistics(parts, level="AMP")
    old = table.copy(deep=True)
    solve_flat_scales(table["mean"])
    normalize_flats(table, level="AMP", select={"observation_reason": "flat"})
    xr.testing.assert_identical(table, old)
