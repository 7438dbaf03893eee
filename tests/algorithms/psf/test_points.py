"""Point-spread functions at points and between them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.psf import evaluate_psf, gaussian_psf, psf_at_points, psf_fwhm

Y, X = (values.ravel().astype(float) for values in np.mgrid[0:4:1, 0:5:1] * 100)


def varying(change: float = 0.001) -> xr.Dataset:
    """Return Gaussians whose sigma squared grows along x."""
    widths = np.sqrt(16.0 * (1 + change * X))
    return psf_at_points(np.stack([gaussian_psf(width, size=61) for width in widths]), X, Y)


def test_images_are_normalised_and_the_input_stays():
    images = np.stack([3.0 * gaussian_psf(4.0).values, gaussian_psf(4.0).values])
    before = images.copy()
    psf = psf_at_points(images, [1.0, 2.0], [3.0, 4.0])
    np.testing.assert_allclose(psf["psf"].sum(("psf_y", "psf_x")), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(images, before)
    assert psf["psf"].dims == ("point", "psf_y", "psf_x")
    assert psf["x"].values.tolist() == [1.0, 2.0]


def test_the_nearest_point_is_taken():
    psf = varying()
    found = evaluate_psf(psf, 149.0, 260.0)
    np.testing.assert_allclose(found, psf["psf"][3 * 5 + 1])


@pytest.mark.parametrize(("between", "limit"), [("linear", 1e-2), ("quadratic", 2e-3)])
def test_polynomials_follow_a_smooth_change(between, limit):
    psf = varying()
    for x, y in ((50.0, 50.0), (333.0, 10.0)):
        found = float(psf_fwhm(evaluate_psf(psf, x, y, between=between)))
        assert found == pytest.approx(np.sqrt(16.0 * (1 + 0.001 * x)), rel=limit)


def test_a_linear_change_of_the_image_is_reproduced_exactly():
    one, other = gaussian_psf(3.0, size=41).values, gaussian_psf(5.0, size=41).values
    share = (X + 2 * Y) / 1000
    images = one + share[:, None, None] * (other - one)
    psf = psf_at_points(images, X, Y)
    found = evaluate_psf(psf, [37.0, 210.0], [5.0, 77.0], between="linear")
    expected = [one + share * (other - one) for share in (0.047, 0.364)]
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert found.dims == ("point", "psf_y", "psf_x")


@pytest.mark.parametrize("between", ["nearest", "linear", "quadratic"])
def test_too_few_points_give_the_nearest(between):
    images = np.stack([gaussian_psf(width, size=41) for width in (3.0, 4.0)])
    psf = psf_at_points(images, [0.0, 100.0], [0.0, 0.0])
    np.testing.assert_allclose(evaluate_psf(psf, 70.0, 3.0, between=between), images[1])


def test_missing_points_are_left_out_and_their_order_does_not_matter():
    psf = varying()
    holed = psf.copy(deep=True)
    holed["psf"][6] = np.nan
    turned = holed.isel(point=slice(None, None, -1))
    for between in ("nearest", "quadratic"):
        here, there = (
            evaluate_psf(given, 104.0, 103.0, between=between) for given in (holed, turned)
        )
        assert np.isfinite(here).all()
        np.testing.assert_allclose(here, there, atol=1e-13)


def test_wrong_sets_are_refused():
    image = gaussian_psf(3.0)
    with pytest.raises(ValueError, match="as many x and y"):
        psf_at_points(image, [0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="no positive sum"):
        psf_at_points(-image, 0.0, 0.0)
    with pytest.raises(ValueError, match="odd"):
        psf_at_points(np.ones((1, 4, 4)), 0.0, 0.0)
    psf = psf_at_points(image, 0.0, 0.0)
    with pytest.raises(ValueError, match="between must be one of nearest"):
        evaluate_psf(psf, 0.0, 0.0, between="cubic")
    with pytest.raises(ValueError, match="one, or a list each"):
        evaluate_psf(psf, [0.0, 1.0], 0.0)
    with pytest.raises(NoUsableDataError, match="without NaN"):
        evaluate_psf(psf * np.nan, 0.0, 0.0)
