"""Shifts of sub-bands against printed values, and images that are shifted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from astropy.wcs import WCS

from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.dcr import (
    Band,
    dcr_shifts,
    displacement,
    finalize_planes,
    init_model,
    join_small_splits,
    patch_jacobian,
    shift_image,
    shift_margin,
    stack_planes,
    subband_edges,
)
from skyloom.algorithms.refraction import parallactic_angle
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.algorithms.visit_conditions import visit_conditions

G = Band.from_effective("g", 476.31, 147.0)
NORTH_UP = np.diag([-0.2, 0.2])
MIRRORED = np.diag([0.2, 0.2])


def conditions(altitude: float = 65.0, angle: float = -154.12709, **more: float) -> xr.Dataset:
    values = {
        "altitude": altitude, "parallactic_angle": angle, "temperature": 20.0,
        "pressure": 73892.0, "humidity": 40.0, "latitude": -30.244639, "height": 2663.0,
    } | more  # fmt: skip
    return xr.Dataset({name: ("visit", [value]) for name, value in values.items()})


def amplitudes(mode: str, **options: float) -> np.ndarray:
    found = dcr_shifts(G, conditions(), NORTH_UP, mode=mode, **options)  # type: ignore[arg-type]
    return np.asarray(found["amplitude"].values[0] / 0.2)


def test_shifts_towards_the_zenith_are_the_printed_ones() -> None:
    assert amplitudes("endpoint_mean") == pytest.approx([0.65298, 0.02129, -0.43182], abs=1e-5)
    split = [[0.83812, 0.46783], [0.15199, -0.10940], [-0.33596, -0.52769]]
    assert amplitudes("split") == pytest.approx(np.array(split), abs=1e-5)
    assert amplitudes("integrated") == pytest.approx([0.63020, 0.00708, -0.44118], abs=1e-5)


def test_shifts_on_a_mirrored_grid_are_the_printed_ones_and_those_of_the_reference() -> None:
    found = dcr_shifts(G, conditions(), MIRRORED, mode="endpoint_mean")
    pairs = np.stack([found["shift_y"].values[0], found["shift_x"].values[0]], axis=1)
    printed = [(-0.58752, -0.28494), (-0.01916, -0.00929), (0.38854, 0.18844)]
    assert pairs == pytest.approx(np.array(printed), abs=1e-5)
    reference = [(-0.587550, -0.284956), (-0.0191588, -0.0092918), (0.3885578, 0.1884465)]
    assert pairs == pytest.approx(np.array(reference), rel=1e-3)
    usual = dcr_shifts(G, conditions(), NORTH_UP, mode="endpoint_mean")
    assert usual["shift_x"].values == pytest.approx(-found["shift_x"].values, abs=1e-15)


def test_the_direction_is_that_of_the_zenith_on_the_grid() -> None:
    angle = parallactic_angle(30.0, -10.0, -30.244639)
    assert angle == pytest.approx(130.2857, abs=1e-4)
    found = dcr_shifts(G, conditions(angle=float(angle)), NORTH_UP * 5, mode="endpoint_mean")
    unit = [float(found[name][0, 0] / found["amplitude"][0, 0]) for name in ("shift_y", "shift_x")]
    assert unit == pytest.approx([-0.6466, -0.7628], abs=1e-4)


def test_blue_is_displaced_towards_the_zenith_and_more_than_red() -> None:
    rng = np.random.default_rng(3)
    for altitude, angle in zip(rng.uniform(25, 85, 10), rng.uniform(-180, 180, 10), strict=True):
        found = dcr_shifts(G, conditions(altitude, angle), NORTH_UP)
        blue, _, red = found["amplitude"].values[0]
        assert blue > 0 > red
        assert blue > -red
        zenith = np.array([np.cos(np.deg2rad(angle)), -np.sin(np.deg2rad(angle))])
        moved = np.array([found["shift_y"].values[0, 0], found["shift_x"].values[0, 0]])
        assert moved @ zenith == pytest.approx(np.hypot(*moved))


def test_a_shift_is_the_way_on_the_sky_that_light_is_lifted() -> None:
    """The same by moving a position up a meridian through the zenith, and back to pixels."""
    plane = TangentPlane(50.0, -10.0, 400.0, 300.0, np.diag([-0.2, 0.2]) / 3600)
    box = (1000, 1101, 2000, 2101)
    at = plane.to_sky(2050.0, 1050.0)
    angle = np.deg2rad(37.0)
    jacobian = patch_jacobian(plane, box)
    found = dcr_shifts(G, conditions(40.0, 37.0), jacobian, mode="endpoint_mean")
    for lifted, dy, dx in zip(
        *(found[name].values[0] for name in ("amplitude", "shift_y", "shift_x")), strict=True
    ):
        length = np.deg2rad(lifted / 3600)
        ra, dec = np.deg2rad(float(at[0])), np.deg2rad(float(at[1]))
        new = np.arcsin(np.sin(dec) * np.cos(length) + np.cos(dec) * np.sin(length) * np.cos(angle))
        turned = np.arctan2(
            np.sin(angle) * np.sin(length) * np.cos(dec),
            np.cos(length) - np.sin(dec) * np.sin(new),
        )
        x, y = plane.to_pixels(np.rad2deg(ra + turned), np.rad2deg(new))
        assert (float(y) - 1050, float(x) - 2050) == pytest.approx((dy, dx), abs=1e-3)


@pytest.mark.parametrize("pole", [90.0, -90.0])
@pytest.mark.parametrize("apart", [0.0, 0.04, 0.14, 3.0, 400.0])  # arcsec
def test_a_patch_near_a_pole_has_square_pixels_and_directions_of_its_own(
    pole: float, apart: float
) -> None:
    """Its centre may lie any way from the pole, and the tangent point somewhere else."""
    for place, tangent in ((0.0, 0.0), (77.0, 30.0), (200.0, 1000.0)):
        dec = pole - np.sign(pole) * tangent / 3600
        plane = TangentPlane(30.0, dec, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
        x0, y0 = (float(at) for at in plane.to_pixels(0.0, pole))
        x = round(x0) + 5.0 * round(apart * np.cos(np.deg2rad(place)))
        y = round(y0) + 5.0 * round(apart * np.sin(np.deg2rad(place)))
        if apart < 1.0:  # between pixels: move the pole instead
            plane = plane._replace(
                x=plane.x + x - x0 - 5.0 * apart * np.cos(np.deg2rad(place)),
                y=plane.y + y - y0 - 5.0 * apart * np.sin(np.deg2rad(place)),
            )
        found = patch_jacobian(plane, (int(y) - 50, int(y) + 51, int(x) - 50, int(x) + 51))
        scale = 0.2 * np.eye(2)
        assert found @ found.T == pytest.approx(scale @ scale, abs=1e-5)
        assert np.linalg.det(found) == pytest.approx(-0.04, rel=1e-4)
        x_pole, y_pole = plane.to_pixels(0.0, pole)
        if apart > 0.01:  # the pole lies due north of it, or due south
            way = found @ np.array([float(x_pole) - x, float(y_pole) - y])
            assert np.rad2deg(np.arctan2(way[0], np.sign(pole) * way[1])) == pytest.approx(
                0.0, abs=1e-3
            )


def test_displacements_are_the_same_on_either_side_of_a_pole() -> None:
    """A field of a few pixels: its pixels must move alike, whatever their right ascensions."""
    record = observing_conditions(
        60025.36, 30.0, -89.9, longitude=-70.7494, latitude=-30.244639, height=2663.0,
        temperature=8.0, pressure=73892.0, humidity=30.0,
    )  # fmt: skip
    plane = TangentPlane(30.0, -90.0, 0.0, 0.0, np.diag([-0.2, 0.2]) / 3600)
    moved = []
    for y, x in ((0, 0), (0, 1), (1, 0), (-1, -1), (3, -2), (-40, 25)):
        ra, dec = plane.to_sky(float(x), float(y))
        table = visit_conditions({1: record}, (float(ra), float(dec)))
        moved.append(displacement(table, patch_jacobian(plane, (y, y + 1, x, x + 1)))[0])
    assert np.ptp(np.array(moved), axis=0) == pytest.approx(0.0, abs=2e-3)
    assert np.hypot(*moved[0]) == pytest.approx(5.0, abs=1e-3)


def test_elsewhere_the_jacobian_is_that_of_differences_in_right_ascension() -> None:
    rng = np.random.default_rng(2)
    for ra, dec in zip(rng.uniform(0.0, 360.0, 20), rng.uniform(-70.0, 70.0, 20), strict=True):
        plane = TangentPlane(ra, dec, 0.0, 0.0, rng.normal(0.0, 0.2, (2, 2)) / 3600)
        y, x = rng.integers(-5000, 5000, 2)
        found = patch_jacobian(plane, (int(y), int(y) + 1, int(x), int(x) + 1))
        ras, decs = plane.to_sky(x + np.array([0.5, -0.5, 0, 0]), y + np.array([0, 0, 0.5, -0.5]))
        _, middle = plane.to_sky(float(x), float(y))
        turned = (ras - ras[0] + 180.0) % 360.0 - 180.0
        east, north = 3600 * turned * np.cos(np.deg2rad(middle)), 3600 * decs
        differences = [[east[0] - east[1], east[2] - east[3]],
                       [north[0] - north[1], north[2] - north[3]]]  # fmt: skip
        assert found == pytest.approx(np.array(differences), abs=1e-9)


@pytest.mark.parametrize("turn", [0.0, 33.0, 180.0])
def test_a_shift_is_that_of_a_place_raised_in_the_frame_of_the_horizon(turn: float) -> None:
    """Altitude plus refraction, back to the sky and to pixels: by astropy alone."""
    ra, dec, time = 209.0, -20.25, 60025.36
    site = {"longitude": -70.7494, "latitude": -30.244639, "height": 2663.0}
    air = {"temperature": 8.0, "pressure": 73892.0, "humidity": 30.0}
    record = observing_conditions(time, ra, dec, **site, **air)
    projection = WCS(naxis=2)
    projection.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    projection.wcs.crval, projection.wcs.crpix = [ra, dec], [51.0, 51.0]
    angle = np.deg2rad(turn)
    matrix = 0.2 * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    projection.wcs.cd = matrix / 3600
    table = visit_conditions({1: record}, (ra, dec))
    found = dcr_shifts(G, table, matrix, mode="endpoint_mean")
    place = EarthLocation.from_geodetic(site["longitude"], site["latitude"], site["height"])
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=Time(time, format="mjd", scale="tai"), location=place)
        here = SkyCoord(ra, dec, unit="deg").transform_to(frame)
        raised = found["amplitude"].values[0] * units.arcsec
        moved = SkyCoord(here.az, here.alt + raised, frame=frame).icrs
    x, y = projection.world_to_pixel(moved)
    np.testing.assert_allclose(y - 50.0, found["shift_y"][0], atol=0.01)
    np.testing.assert_allclose(x - 50.0, found["shift_x"][0], atol=0.01)
    assert np.abs(found["shift_y"]).max() > 0.05


def test_splits_that_hardly_differ_are_joined_axis_by_axis() -> None:
    pair = np.array([[0.10, 0.0], [0.06, 0.0]])
    assert join_small_splits(pair, 0.1) == pytest.approx(np.array([[0.08, 0.0]] * 2), abs=1e-15)
    assert join_small_splits(pair, 0.0).tolist() == pair.tolist()
    found = dcr_shifts(G, conditions(85.0), NORTH_UP, mode="split")
    joined = dcr_shifts(G, conditions(85.0), NORTH_UP, mode="endpoint_mean")
    assert found["shift_y"].values[..., 0] == pytest.approx(joined["shift_y"].values, abs=1e-12)


def test_the_margin_holds_every_shift_and_the_kernel() -> None:
    found = dcr_shifts(G, conditions(20.0, 0.0), NORTH_UP, mode="split")
    largest = np.abs(found["shift_y"].values).max()
    assert shift_margin(found, 4) == np.ceil(largest) + 5


@pytest.mark.parametrize("order", ["fourier", 1, 3, 5])
def test_whole_shifts_move_a_pixel_exactly(order: object) -> None:
    image = xr.DataArray(np.zeros((11, 10)), dims=("y", "x"))
    image[5, 4] = 1.0
    for dy, dx in itertools.product((-2, -1, 0, 1, 2), (-2, 0, 1)):
        moved = shift_image(image, (dy, dx), order=order)  # type: ignore[arg-type]
        expected = np.zeros((11, 10))
        expected[5 + dy, 4 + dx] = 1.0
        assert moved.values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", ["fourier", 1, 3, 5])
def test_the_transpose_is_the_shift_back(order: object) -> None:
    rng = np.random.default_rng(5)
    one, other = (xr.DataArray(rng.normal(size=(48, 50)), dims=("y", "x")) for _ in range(2))
    good = xr.DataArray(rng.random((48, 50)) > 0.3, dims=("y", "x"))
    seen = shift_image(one, (1.3, -0.7), order=order).where(good, 0.0)  # type: ignore[arg-type]
    back = shift_image(other.where(good, 0.0), (-1.3, 0.7), order=order)  # type: ignore[arg-type]
    scale = float(np.sqrt((seen**2).sum() * (other**2).sum()))
    assert abs(float((seen * other).sum() - (one * back).sum())) < 1e-12 * scale
    for shape in ((64, 64), (31, 40)):
        one, other = (xr.DataArray(rng.normal(size=shape), dims=("y", "x")) for _ in range(2))
        dy, dx = rng.uniform(-2, 2, 2)
        there = float((shift_image(one, (dy, dx), order=order) * other).sum())  # type: ignore[arg-type]
        back = float((one * shift_image(other, (-dy, -dx), order=order)).sum())  # type: ignore[arg-type]
        scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
        assert abs(there - back) / scale < 1e-12


@pytest.mark.parametrize(("order", "tolerance"), [("fourier", 1e-6), (3, 0.005)])
def test_a_star_comes_back(order: object, tolerance: float) -> None:
    y, x = np.mgrid[-16:17, -16:17]
    star = xr.DataArray(np.exp(-(y**2 + x**2) * 4 * np.log(2) / 16.0), dims=("y", "x"))
    there = shift_image(star, (0.5, 0.3), order=order)  # type: ignore[arg-type]
    back = shift_image(there, (-0.5, -0.3), order=order)  # type: ignore[arg-type]
    assert back.values == pytest.approx(star.values, abs=tolerance)


def test_pixels_that_are_not_finite_do_not_spread() -> None:
    image = xr.DataArray(np.ones((2, 8, 8), "f4"), dims=("visit", "y", "x"), attrs={"units": "nJy"})
    image[1, 3, 3] = np.nan
    before = image.copy(deep=True)
    for order in ("fourier", 1, 3):
        moved = shift_image(image, (0.4, 0.2), order=order)  # type: ignore[arg-type]
        assert np.isfinite(moved).all()
        assert moved.dtype == np.float32
        assert moved.attrs == {"units": "nJy"}
        lazy = shift_image(image.chunk(visit=1), (0.4, 0.2), order=order)  # type: ignore[arg-type]
        assert lazy.values.tobytes() == moved.values.tobytes()
    xr.testing.assert_identical(image, before)


def coadd() -> xr.Dataset:
    image = np.array([[6.0, np.nan, 3.0]], "f4")
    variance = np.array([[3.0, np.inf, 0.0]], "f4")
    mask = np.zeros((1, 3), "i4")
    planes = {"image": image, "variance": variance, "mask": mask}
    return xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()})


def test_a_model_begins_with_equal_parts_and_ends_with_their_sum() -> None:
    template = coadd()
    before = template.copy(deep=True)
    model = init_model(template, G, 4)
    assert model["model"].values[:, 0].T.tolist() == [[1.5] * 4, [0.0] * 4, [0.0] * 4]
    assert (model["mask"].values == [[0, 256, 256]]).all()
    assert stack_planes(model)["image"].values.tolist() == [[6.0, 0.0, 0.0]]
    assert stack_planes(model)["variance"].values[0, 0] == 3.0
    assert model["wavelength_edges"].values[0, 0] == subband_edges(G, 4)[0]
    xr.testing.assert_identical(template, before)


def test_amplified_planes_keep_their_sum() -> None:
    planes = xr.DataArray(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1), dims=("subfilter", "y", "x"))
    found = finalize_planes(planes, 3.0)
    assert found.values.ravel().tolist() == [-1.0, 2.0, 5.0]
    assert float(found.sum()) == float(planes.sum())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lambda_min": 229.0}, "lambda_min must be from"),
        ({"lambda_min": 600.0}, "lambda_min must be below lambda_max"),
        ({"lambda_ref": 3000.0}, "lambda_ref must be from"),
        ({"throughput": ((400.0, 1.0), (390.0, 1.0))}, "ascending"),
        ({"throughput": ((400.0, 0.0), (600.0, 0.0))}, "0 all over"),
    ],
)
def test_bands_that_cannot_be_are_refused_by_name(values: dict, message: str) -> None:  # type: ignore[type-arg]
    limits = {"name": "g", "lambda_min": 400.0, "lambda_max": 550.0, "lambda_ref": 470.0}
    with pytest.raises(ValueError, match=message):
        Band(**(limits | values))


def test_a_band_without_limits_names_them() -> None:
    with pytest.raises(ValueError, match="lambda_max"):
        Band(name="g", lambda_min=400.0, lambda_ref=470.0)  # type: ignore[call-arg]


def test_what_refraction_needs_is_named_where_it_lacks() -> None:
    with pytest.raises(ValueError, match="conditions lack pressure"):
        dcr_shifts(G, conditions().drop_vars("pressure"), NORTH_UP)
    with pytest.raises(ValueError, match="not finite in humidity"):
        dcr_shifts(G, conditions(humidity=np.nan), NORTH_UP)
    with pytest.raises(ValueError, match="altitude must be from 5"):
        dcr_shifts(G, conditions(altitude=4.0), NORTH_UP)
    with pytest.raises(ValueError, match="subfilters must be an integer of at least 1"):
        dcr_shifts(G, conditions(), NORTH_UP, subfilters=0)
    with pytest.raises(ValueError, match="mode must be"):
        dcr_shifts(G, conditions(), NORTH_UP, mode="mean")  # type: ignore[arg-type]
