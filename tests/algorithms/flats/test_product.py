"""Normalisation of a combined flat: values, variance, masks, records, misuse."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.flats import normalize_product
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes


def flat(seed=1) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    image = rng.normal(0.8, 0.01, (40, 60)).astype(np.float32)
    image[:, 30:] *= 1.5
    mask = np.zeros((40, 60), np.int32)
    mask[3, 4] = MASK_PLANES["BAD"]
    image[3, 4] = 1e6
    return xr.Dataset(
        {
            "image": (("y", "x"), image, {"units": ""}),
            "variance": (("y", "x"), np.full((40, 60), 1e-4, np.float32), {"units": ""}),
            "mask": (("y", "x"), mask, mask_attributes()),
        },
        attrs={"detector": "S00"},
    )


def amplifiers(stop=60) -> xr.Dataset:
    columns = {
        "y_start": [0, 0],
        "y_stop": [40, 40],
        "x_start": [0, 30],
        "x_stop": [30, stop],
    }
    table = xr.Dataset({name: ("amp", values) for name, values in columns.items()})
    table = table.assign({f"data_{name}": ("amp", values) for name, values in columns.items()})
    return table.assign_coords(amp=["A", "B"])


def test_the_response_relative_to_the_focal_plane_is_kept():
    before = flat()
    found = normalize_product(before, "focal_plane")
    assert found.attrs == {"detector": "S00", "normalization": "focal_plane"}
    xr.testing.assert_identical(found.drop_attrs(), before.drop_attrs())
    assert "normalization" not in before.attrs


def test_a_flat_is_divided_by_the_mean_of_its_good_pixels():
    before = flat()
    found = normalize_product(before, "detector")
    level = found.attrs["normalization_level"]
    assert level == pytest.approx(1.0, abs=0.01)
    good = before["mask"].values == 0
    assert float(found["image"].values[good].mean()) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(found["variance"], before["variance"] / level**2, rtol=1e-6)
    xr.testing.assert_identical(found["mask"], before["mask"])
    assert found["image"].dtype == np.float32
    xr.testing.assert_identical(before, flat())
    xr.testing.assert_identical(normalize_product(found, "detector"), found)


def test_a_flat_is_divided_by_the_mean_of_each_amplifier_with_a_warning():
    with pytest.warns(UserWarning, match="hides errors of their gains"):
        found = normalize_product(flat(), "amp", amplifiers=amplifiers())
    for part in (slice(0, 30), slice(30, 60)):
        values = found["image"][:, part].values[found["mask"][:, part].values == 0]
        assert float(values.mean()) == pytest.approx(1.0, abs=1e-3)
    assert found.attrs["normalization_level"] == pytest.approx([0.8, 1.2], abs=0.01)


def test_what_cannot_be_normalized_is_bad():
    dead = flat()
    dead["mask"][:, 30:] |= MASK_PLANES["NO_DATA"]
    with pytest.warns(UserWarning, match="hides"):
        found = normalize_product(dead, "amp", amplifiers=amplifiers(stop=50))
    assert np.isnan(found["image"][:, 30:]).all()
    assert (found["mask"][:, 30:] & MASK_PLANES["BAD"] > 0).all()
    assert np.isfinite(found["image"][:, :30]).all()


def test_misuse_is_named():
    with pytest.raises(ValueError, match="focal_plane, detector, amp"):
        normalize_product(flat(), "median")
    with pytest.raises(ValueError, match="needs the amplifier table"):
        normalize_product(flat(), "amp")
    with pytest.raises(ValueError, match="normalized by 'detector' before"):
        normalize_product(normalize_product(flat(), "detector"), "focal_plane")
