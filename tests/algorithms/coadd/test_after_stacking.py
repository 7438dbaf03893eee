"""What is done to a finished coadd: holes filled, bright objects masked."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy.wcs import WCS

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import fill_no_data, mask_bright_objects
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.tangent_plane import TangentPlane, plane_of_header

NO_DATA, FILLED = v.MASK_PLANES["NO_DATA"], v.MASK_PLANES["INTERPOLATED"]
BRIGHT = v.MASK_PLANES["BRIGHT_OBJECT"]


def coadd_of(image, holes=None) -> xr.Dataset:
    image = np.array(image, np.float32)
    holes = ~np.isfinite(image) if holes is None else holes
    plane = ("y", "x")
    image[holes] = np.nan
    return xr.Dataset(
        {
            "image": (plane, image, {"units": "nJy"}),
            "variance": (plane, np.where(holes, np.inf, 1.0).astype(np.float32)),
            "mask": (plane, np.where(holes, NO_DATA, 0).astype(np.int32), v.mask_attributes()),
        }
    )


def test_holes_in_a_plane_are_filled_exactly():
    y, x = np.indices((40, 50), dtype=float)
    plane = 2.0 * x - 3.0 * y + 7.0
    holes = np.zeros(plane.shape, bool)
    holes[5:9, 10:30] = holes[20, 20] = holes[25:35, 4:6] = True
    coadd = coadd_of(plane, holes)
    filled = fill_no_data(coadd)
    np.testing.assert_allclose(filled["image"], plane, atol=1e-4)
    np.testing.assert_array_equal(filled["mask"], np.where(holes, NO_DATA | FILLED, 0))
    assert filled["variance"].identical(coadd["variance"])
    assert filled["image"].attrs == {"units": "nJy"}


def test_the_shorter_gap_is_bridged():
    image = np.zeros((9, 9))
    image[:, 0] = image[:, -1] = 8.0
    image[3] = image[5] = 1.0
    image[4, 1:-1] = np.nan
    assert (fill_no_data(coadd_of(image))["image"].values[4, 1:-1] == 1.0).all()
    equal = [[0.0, 4.0, 0.0], [2.0, np.nan, 6.0], [0.0, 10.0, 0.0]]
    assert float(fill_no_data(coadd_of(equal))["image"][1, 1]) == 5.5


@pytest.mark.parametrize(("level", "filled"), [(5.0, 5.0), (-5.0, 0.0)])
def test_where_the_data_end_the_median_is_taken_if_it_is_positive(level, filled):
    image = np.full((6, 8), level)
    image[:3, :4] = np.nan
    found = fill_no_data(coadd_of(image))["image"].values
    assert (found[:3, :4] == filled).all()
    assert (found[3:] == level).all()
    assert (fill_no_data(coadd_of(np.full((3, 3), np.nan)))["image"].values == 0.0).all()


def test_filling_is_the_same_when_lazy_and_changes_nothing_it_is_given():
    rng = np.random.default_rng(1)
    cube = xr.concat(
        [coadd_of(rng.normal(size=(20, 30)), rng.random((20, 30)) < 0.2) for _ in range(3)],
        dim="band",
    )
    copy = cube.copy(deep=True)
    filled = fill_no_data(cube)
    lazy = fill_no_data(cube.chunk(band=1, y=7))
    assert lazy["image"].chunks is not None
    assert lazy.compute().identical(filled)
    assert cube.identical(copy)
    assert filled.isel(band=1).identical(fill_no_data(cube.isel(band=1)))
    with pytest.raises(KeyError, match="mask"):
        fill_no_data(cube.drop_vars("mask"))


def patch(shape=(120, 150), scale=0.2, declination=40.0) -> xr.Dataset:
    """Return an empty coadd 30 pixels left of and 10 above the corner of its tract."""
    plane = TangentPlane(
        0.01, declination, 2000.0, 1000.0, np.array([[-scale, 0.0], [0.0, scale]]) / 3600
    )
    coadd = coadd_of(np.zeros(shape))
    box = [10, 10 + shape[0], -30, shape[1] - 30]
    return coadd.assign_attrs(wcs=plane.header(), box=box)


def objects_at(coadd, x, y, **columns) -> xr.Dataset:
    """Return objects at pixels of the arrays."""
    ra, dec = plane_of_header(coadd.attrs["wcs"]).to_sky(np.array(x) - 30.0, np.array(y) + 10.0)
    columns = {name: ("object", values) for name, values in columns.items()}
    return xr.Dataset({"right_ascension": ("object", ra), "declination": ("object", dec)} | columns)


def test_circles_and_boxes_are_masked_in_units_of_the_sky():
    coadd = patch()
    objects = objects_at(
        coadd,
        [40.0, 100.0],
        [60.0, 30.0],
        shape=["circle", "box"],
        radius=[2.0, np.nan],
        width=[np.nan, 4.0],
        height=[np.nan, 2.0],
    )
    masked = (mask_bright_objects(coadd, objects)["mask"].values & BRIGHT) != 0
    y, x = np.indices(masked.shape)
    # 2 arcsec are 10 pixels of 0.2 arcsec, but for the projection, 9e-7 at a tenth of a degree
    circle = np.hypot(x - 40.0, y - 60.0) <= 10.0
    box = (abs(x - 100.0) <= 10.0) & (abs(y - 30.0) <= 5.0)
    edge = np.abs(np.hypot(x - 40.0, y - 60.0) - 10.0) < 0.01
    edge |= (abs(abs(x - 100.0) - 10.0) < 0.01) | (abs(abs(y - 30.0) - 5.0) < 0.01)
    np.testing.assert_array_equal(masked[~edge], (circle | box)[~edge])


def test_objects_beyond_the_border_and_behind_the_horizon_do_no_harm():
    coadd = patch()
    objects = objects_at(
        coadd, [-5.0, 400.0], [60.0, 30.0], shape=["circle"] * 2, radius=[2.0, 2.0]
    )
    far = objects.isel(object=[1]).assign(right_ascension=("object", [180.0]))
    masked = mask_bright_objects(coadd, xr.concat([objects, far], dim="object"))
    found = (masked["mask"].values & BRIGHT) != 0
    assert found[60, :5].all()
    assert not found[:, 6:].any()


def test_the_bright_plane_is_added_when_lazy_too_and_inputs_stay():
    coadd = patch()
    objects = objects_at(coadd, [40.0], [60.0], shape=["circle"], radius=[3.0])
    copies = coadd.copy(deep=True), objects.copy(deep=True)
    eager = mask_bright_objects(coadd, objects)
    lazy = mask_bright_objects(coadd.chunk(y=50), objects)
    assert lazy["mask"].chunks is not None
    assert lazy.compute().identical(eager)
    assert coadd.identical(copies[0])
    assert objects.identical(copies[1])
    assert eager["mask"].attrs == v.mask_attributes()


def test_bright_objects_that_cannot_be_masked_are_named():
    coadd = patch()
    square = objects_at(
        coadd, [40.0], [60.0], shape=["box"], width=[3.0], height=[3.0], angle=[30.0]
    )
    with pytest.raises(ValueError, match=r"angle must be 0, got 30\.0"):
        mask_bright_objects(coadd, square)
    odd = objects_at(coadd, [40.0], [60.0], shape=["heart"])
    with pytest.warns(DroppedInputWarning, match="heart; known are circle, box"):
        masked = mask_bright_objects(coadd, odd)
    assert not masked["mask"].values.any()
    circle = objects_at(coadd, [40.0], [60.0], shape=["circle"], radius=[-1.0])
    with pytest.raises(ValueError, match="radius must be a positive number"):
        mask_bright_objects(coadd, circle)
    with pytest.raises(KeyError, match="'radius'"):
        mask_bright_objects(coadd, circle.drop_vars("radius"))
    with pytest.raises(KeyError, match="'shape'"):
        mask_bright_objects(coadd, circle.drop_vars("shape"))
    with pytest.raises(KeyError, match="attribute 'wcs'"):
        mask_bright_objects(coadd.drop_attrs(), circle)
    with pytest.raises(KeyError, match="'mask'"):
        mask_bright_objects(coadd.drop_vars("mask"), circle)


def test_a_plane_read_from_a_header_is_that_of_astropy():
    header = patch().attrs["wcs"]
    plane = plane_of_header(header)
    x, y = np.array([0.0, 500.0, -30.0]), np.array([0.0, 20.0, 400.0])
    ra, dec = plane.to_sky(x, y)
    others = WCS(header).pixel_to_world_values(x, y)
    np.testing.assert_allclose(ra, others[0], atol=1e-11)
    np.testing.assert_allclose(dec, others[1], atol=1e-11)
    with pytest.raises(ValueError, match="CTYPE1 must be RA---TAN"):
        plane_of_header(header | {"CTYPE1": "RA---SIN"})
    with pytest.raises(ValueError, match="CUNIT1"):
        plane_of_header(header | {"CUNIT1": "rad"})
    with pytest.raises(KeyError, match="CD1_1"):
        plane_of_header({key: value for key, value in header.items() if key != "CD1_1"})
