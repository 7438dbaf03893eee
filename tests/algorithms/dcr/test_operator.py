"""What a visit shows of planes: against the sum over all light, and its exact transpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.compiled import compiled
from skyloom.algorithms.dcr import (
    LinearParameters,
    dispersion,
    displacement,
    predict_template,
    solve_dcr,
)
from skyloom.algorithms.dcr.operator import fourier_operator, relative_widths, subband_shares
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.fused import fused
from skyloom.algorithms.psf import moffat_psf, psf_fwhm
from tests.algorithms.dcr.analytic import (
    CENTRES,
    HELD_OUT,
    NORTH_UP,
    SIGMA,
    G,
    dozen,
    observed,
    scene,
)

FWHM = 4.0


def by_wavelength(chromatic_seeing: float) -> tuple[Any, Any, Any]:
    """Return shares of planes, displacements (visit, node, 2), widths (visit, node)."""
    wavelengths, shares = subband_shares(G, 3, "linear")
    moved = (
        dispersion(G, HELD_OUT, wavelengths)[:, :, None]
        * displacement(HELD_OUT, NORTH_UP)[:, None, :]
    )
    widths = FWHM * relative_widths(G, wavelengths, chromatic_seeing)
    return shares, moved, widths


@pytest.mark.parametrize("chromatic_seeing", [0.0, -0.2, 0.3])
def test_a_visit_shows_the_sum_over_all_light_of_moved_and_widened_stars(
    chromatic_seeing: float,
) -> None:
    size, fluxes = 64, np.array([300.0, 200.0, 100.0])
    operator = fourier_operator(
        (size, size), G, HELD_OUT, NORTH_UP, fwhm=np.full(4, FWHM),
        chromatic_seeing=chromatic_seeing,
    )  # fmt: skip
    at = np.arange(size) - size // 2

    def star(dy: Any, dx: Any, fwhm: Any) -> Any:
        sigma = fwhm * SIGMA
        rows, columns = (
            np.exp(-((at - shift) ** 2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
            for shift in (dy, dx)
        )
        return rows[:, None] * columns

    planes = fluxes[:, None, None] * star(0.0, 0.0, FWHM)
    shares, moved, widths = by_wavelength(chromatic_seeing)
    spectrum = operator.spectrum(planes.astype(np.float32))
    for visit in range(4):
        light = fluxes @ shares
        expected = sum(
            flux * star(*shift, width)
            for flux, shift, width in zip(light, moved[visit], widths, strict=True)
        )
        found = operator.predict(visit, spectrum)
        assert found == pytest.approx(expected, abs=2e-6 * float(np.abs(expected).max()))


def test_series_are_as_good_as_the_sum_over_all_light_at_every_frequency() -> None:
    shape = (90, 75)
    operator = fourier_operator(
        shape, G, HELD_OUT, NORTH_UP, fwhm=np.array([3.0, 4.0, 6.0, 12.0]), chromatic_seeing=-0.2
    )
    shares, moved, _ = by_wavelength(-0.2)
    wavelengths, _ = subband_shares(G, 3, "linear")
    ky, kx = 2 * np.pi * fft.fftfreq(shape[0])[:, None], 2 * np.pi * fft.rfftfreq(shape[1])
    wider = relative_widths(G, wavelengths, -0.2) ** 2 - 1
    for visit, fwhm in enumerate((3.0, 4.0, 6.0, 12.0)):
        light = [
            np.exp(-1j * (ky * dy + kx * dx) - (fwhm * SIGMA) ** 2 / 2 * more * (ky**2 + kx**2))
            for (dy, dx), more in zip(moved[visit], wider, strict=True)
        ]
        expected = np.einsum("sj,jyx->yxs", shares, np.array(light))
        assert np.abs(operator.response(visit) - expected).max() < 3e-6


@pytest.mark.parametrize("shape", [(40, 45), (45, 40), (41, 43), (140, 36)])
def test_the_transpose_is_exact_with_seeing_of_any_kind(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    fwhm = np.array([3.0, 3.5, 4.0, 5.0])
    transfer = PointSpreads(fwhm, None, match=True).ratios(shape)
    operator = fourier_operator(
        shape, G, HELD_OUT, NORTH_UP, transfer=transfer, fwhm=fwhm, chromatic_seeing=-0.2
    )
    planes = rng.normal(size=(3, *shape)).astype(np.float32)
    image = rng.normal(size=shape).astype(np.float32)
    weights = rng.uniform(size=(shape[0] - 5, shape[1] - 3)).astype(np.float32)
    whole = np.zeros(shape, np.float32)
    whole[: shape[0] - 5, : shape[1] - 3] = weights
    spectrum = operator.spectrum(planes)
    for visit in range(4):
        back = np.zeros((3, shape[0], shape[1] // 2 + 1), np.complex64)
        operator.add_transposed(visit, image, back)
        seen = operator.predict(visit, spectrum)
        assert np.vdot(seen, image.astype(float)) == pytest.approx(
            np.vdot(planes, operator.planes(back).astype(float)), rel=2e-5, abs=1e-3
        )
        normal, steps = np.zeros_like(back), np.zeros_like(back)
        operator.add_normal(visit, spectrum, weights, normal)
        operator.add_transposed(visit, seen * whole, steps)
        assert np.abs(normal - steps).max() < 1e-5 * np.abs(steps).max()


def test_products_and_sums_are_rounded_once_in_kernels_as_outside() -> None:
    @compiled
    def added(one: Any, two: Any, three: Any) -> Any:
        out = np.empty_like(one)
        for index in range(one.size):
            out[index] = fused(one[index], two[index], three[index])
        return out

    one, two = np.random.default_rng(3).normal(size=(2, 1003)).astype(np.float32)
    three = (-one * two).astype(np.float32)  # what is left is the rounding of the product
    assert (added(one, two, three) == fused(one, two, three)).all()


def test_widths_are_needed_where_seeing_depends_on_wavelength() -> None:
    with pytest.raises(ValueError, match="fwhm is needed"):
        fourier_operator((32, 32), G, HELD_OUT, NORTH_UP, chromatic_seeing=-0.2)


def test_psfs_are_scaled_to_those_of_the_sharpest_light() -> None:
    stamps = np.stack([moffat_psf(one, beta=3.0, size=41).to_numpy() for one in (4.0, 5.0)])
    given = PointSpreads(np.array([4.0, 5.0]), stamps.copy(), match=True)
    found = given.in_sharpest_light(G, -0.2, 3)
    factor = (G.lambda_max / G.lambda_ref) ** -0.2
    assert found.fwhm == pytest.approx(factor * given.fwhm)
    assert found.images is not None
    assert found.images.sum(axis=(1, 2)) == pytest.approx(1.0)
    widths = [float(psf_fwhm(xr.DataArray(one, dims=(v.PSF_Y, v.PSF_X)))) for one in found.images]
    assert widths == pytest.approx(factor * given.fwhm, rel=2e-3)
    assert (given.images == stamps).all()
    assert given.in_sharpest_light(G, -0.2, 1) is given


class Chromatic:
    """A sky whose seeing is sharper in the red, solved with and without knowing it."""

    def __init__(self, stamps: bool) -> None:
        rng = np.random.default_rng(1)
        self.scene, table = scene(rng), dozen(rng)
        fwhm = np.random.default_rng(3).permutation(np.linspace(3.3, 5.0, 12))
        truth = self.scene.render(table, fwhm, chromatic_seeing=-0.2)
        warps, self.coadd = observed(truth, fwhm, 5.0, rng)
        if stamps:
            at = np.arange(-20, 21)
            rows = np.exp(-(at**2) / (2 * (fwhm[:, None] * SIGMA) ** 2))
            images = rows[:, :, None] * rows[:, None, :]
            warps["psf"] = (
                (v.VISIT, v.PSF_Y, v.PSF_X),
                images / images.sum(axis=(1, 2), keepdims=True),
            )
        self.held_out = self.scene.render(HELD_OUT, 3.3, chromatic_seeing=-0.2)
        self.known, self.ignored = (
            solve_dcr(
                warps, table, G, self.coadd, jacobian=NORTH_UP,
                parameters=LinearParameters(chromatic_seeing=power),
            )
            for power in (-0.2, 0.0)
        )  # fmt: skip

    def left(self, model: xr.Dataset) -> float:
        """Return what templates leave of stars over what the plain coadd leaves."""
        near, ratios = self.scene.near(8.0), []
        for visit in range(4):
            template = predict_template(model, HELD_OUT.isel(visit=[visit]))
            deviations = [
                (self.held_out[visit] - image.to_numpy())[near]
                for image in (template["image"], self.coadd["image"])
            ]
            ratios.append(float(np.linalg.norm(deviations[0]) / np.linalg.norm(deviations[1])))
        return float(np.sqrt(np.mean(np.square(ratios))))

    def offset(self, model: xr.Dataset) -> float:
        """Return by how much first moments are wrong, measured with the PSF of the model."""
        sky, fwhm = self.scene, float(model.attrs["model_fwhm"])
        y, x = np.mgrid[: sky.size, : sky.size]
        wrong = []
        for star in np.flatnonzero(sky.flux > 4e4):
            square = (y - sky.y[star]) ** 2 + (x - sky.x[star]) ** 2
            psf = np.exp(-square / (2 * (fwhm * SIGMA) ** 2))
            flux = (model["model"].to_numpy() * psf).sum(axis=(1, 2))
            wrong.append(float(CENTRES @ flux / flux.sum()) - sky.moment[star])
        return float(np.median(wrong))


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.ExtrapolatedTemplateWarning")
@pytest.mark.parametrize("stamps", [False, True])
def test_seeing_that_depends_on_wavelength_is_part_of_the_model(stamps: bool) -> None:
    sky = Chromatic(stamps)
    known, ignored = (float(one.diagnostics["chi2_total"]) for one in (sky.known, sky.ignored))
    assert known < 1.15 < 1.25 < ignored
    assert sky.left(sky.known.model) < 0.9 * sky.left(sky.ignored.model)
    assert sky.left(sky.known.model) < 0.04
    assert abs(sky.offset(sky.known.model)) < 5e-4
    assert 4e-3 < sky.offset(sky.ignored.model) < 8e-3


def test_the_psf_of_a_template_is_as_wide_as_stars_of_chromatic_seeing() -> None:
    rng = np.random.default_rng(1)
    one, table = scene(rng, 65, 1), dozen(rng)
    one = one._replace(y=np.array([32.0]), x=np.array([32.0]), flux=np.array([1e5]),
                       spectrum=np.full((1, 60), 1 / 60))  # fmt: skip
    warps, coadd = observed(one.render(table, FWHM, chromatic_seeing=-0.2), FWHM, 1.0, rng)
    model = solve_dcr(warps, table, G, coadd, jacobian=NORTH_UP,
                      parameters=LinearParameters(chromatic_seeing=-0.2)).model  # fmt: skip
    assert model.attrs["model_fwhm"] == pytest.approx(FWHM * (G.lambda_max / G.lambda_ref) ** -0.2)
    found = predict_template(model, HELD_OUT.isel(visit=[1]))
    star = one.render(HELD_OUT.isel(visit=[1]), FWHM, chromatic_seeing=-0.2)[0] / 1e5
    psf = found["psf"].to_numpy()
    half = psf.shape[0] // 2
    inner = psf[half - 15 : half + 16, half - 15 : half + 16]
    assert inner == pytest.approx(star[17:48, 17:48], abs=1e-3 * float(star.max()))
