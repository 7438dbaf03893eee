"""One background of coadds over a tract: measured and subtracted."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.matching import (
    TractModelParameters,
    measure_tract_background,
    subtract_tract_background,
)

SHAPE = (40, 60)
DIMS = ("band", v.TRACT_Y, v.TRACT_X)
Y, X = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 60), indexing="ij")
SKY = 3.0 + 2.0 * X - Y + X * Y
CELLS = TractModelParameters(model="cells")


def coadds(noise: float = 0.0) -> xr.Dataset:
    """Return levels of two bands, one with twice the background of the other."""
    rng = np.random.default_rng(1)
    level = np.stack([SKY, 2 * SKY]) + noise * rng.standard_normal((2, *SHAPE))
    return xr.Dataset(
        {
            "level": (DIMS, level, {"units": "nJy"}),
            "variance": (DIMS, np.full(level.shape, max(noise, 1.0) ** 2), {"units": "nJy2"}),
        },
        {"band": ["g", "r"]},
        {"tract_shape": [400, 600], "bin_size": [10, 10]},
    )


def test_a_smooth_background_is_found_and_subtracted():
    background = coadds()
    before = background.copy(deep=True)
    model = measure_tract_background(background)
    xr.testing.assert_identical(background, before)
    np.testing.assert_allclose(model["level"], background["level"], atol=1e-9)
    assert model["level"].attrs["units"] == "nJy"
    assert (model["flags"] == 0).all()
    y, x = np.arange(-10, 90), np.arange(200, 320)
    image = 3 + 2 * ((x - 299.5) / 295) - ((y - 199.5) / 195)[:, None]
    image = image + np.multiply.outer((y - 199.5) / 195, (x - 299.5) / 295)
    coadd = xr.Dataset(
        {
            "image": (("y", "x"), image.astype(np.float32), {"units": "nJy"}),
            "variance": (("y", "x"), np.ones((100, 120), np.float32)),
        },
        attrs={"box": [-10, 90, 200, 320]},
    )
    clean = subtract_tract_background(coadd, model.sel(band="g"))
    assert float(np.abs(clean["image"]).max()) < 1e-4
    assert clean["image"].attrs == {"units": "nJy"}
    assert clean["variance"].identical(coadd["variance"])
    lazy = subtract_tract_background(coadd.chunk({"y": 30}), model.sel(band="g"))
    assert lazy["image"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), clean)


def test_cells_follow_what_polynomials_do_not():
    background = coadds()
    wave = np.sin(4 * X) * np.cos(3 * Y)
    background["level"] = background["level"] + wave
    error = {}
    for chosen in (TractModelParameters(), CELLS):
        found = measure_tract_background(background, parameters=chosen)["level"]
        error[chosen.model] = float(np.abs(found - background["level"]).median())
    assert error["cells"] < 0.05 < error["polynomial"]


@pytest.mark.parametrize("model", ["polynomial", "cells"])
def test_an_object_that_is_masked_in_one_band_is_left_out_in_all(model):
    chosen = TractModelParameters(model=model, grow=2.0)
    background = coadds(0.01)
    source = 50 * np.exp(-0.5 * ((X - 0.2) ** 2 + Y**2) / 0.05**2)
    background["level"] = background["level"] + source
    objects = xr.zeros_like(background["level"], dtype=bool)
    objects[0] = source > 0.01
    found = measure_tract_background(background, objects=objects, parameters=chosen)
    clean = measure_tract_background(coadds(0.01), parameters=chosen)
    for band in (0, 1):
        assert float(np.abs(found["level"] - clean["level"])[band].max()) < 0.05
    assert int(found["flags"][20, 35]) & (v.BinFlag.FILLED | v.BinFlag.EXTRAPOLATED)
    assert int(found["flags"][0, 0]) == 0


def test_outlying_bins_do_not_count_and_bands_stay_apart():
    background = coadds(0.01)
    spoilt = background.copy(deep=True)
    spoilt["level"][0, 10:13, 10:13] += 100
    found = measure_tract_background(spoilt)
    clean = measure_tract_background(background)
    assert float(np.abs(found["level"] - clean["level"]).max()) < 0.01
    np.testing.assert_array_equal(found["level"][1], clean["level"][1])
    alone = measure_tract_background(background.sel(band="r"))
    np.testing.assert_array_equal(alone["level"], clean["level"][1])


def test_bins_near_empty_ones_are_left_out_and_far_ones_flagged():
    background = coadds()
    background["level"][1, :, 30:] = np.nan
    found = measure_tract_background(background, parameters=CELLS)
    assert np.isfinite(found["level"]).all()
    assert found["flags"][5, [10, 21, 22, 29, 30, 50]].values.tolist() == [0, 0, 4, 4, 8, 8]
    background["level"][0] = np.nan
    with pytest.raises(NoUsableDataError, match="no bin"):
        measure_tract_background(background)


def test_models_and_coadds_that_do_not_fit_are_named():
    model = measure_tract_background(coadds())
    image = xr.DataArray(np.zeros((2, 2), np.float32), dims=("y", "x"), attrs={"units": "nJy"})
    coadd = xr.Dataset({"image": image}, attrs={"box": [0, 2, 0, 2]})
    with pytest.raises(GeometryError, match="one band"):
        subtract_tract_background(coadd, model)
    one = model.sel(band="g")
    with pytest.raises(GeometryError, match="attribute box"):
        subtract_tract_background(coadd.drop_attrs(deep=False), one)
    with pytest.raises(GeometryError, match="electron"):
        subtract_tract_background(coadd.assign(image=image.assign_attrs(units="electron")), one)
