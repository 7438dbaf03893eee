"""Templates at the seeing of a visit, of skies whose visits differ in seeing."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, predict_template, solve_dcr
from skyloom.algorithms.dcr.visit_inputs import round_psfs
from skyloom.algorithms.errors import ExtrapolatedTemplateWarning
from skyloom.algorithms.psf import gaussian_psf, psf_fwhm
from tests.algorithms.dcr.analytic import HELD_OUT, NORTH_UP, G, Scene, dozen, observed, scene

NOISE, SIZE = 5.0, 72
VISIT = HELD_OUT.isel(visit=[2])


class Sky:
    """Stars in visits of several seeings, with Gaussian or Moffat profiles."""

    def __init__(self, beta: float | None) -> None:
        rng = np.random.default_rng(3)
        self.scene: Scene = scene(rng, SIZE, 14)
        self.beta = beta
        self.fwhm = np.linspace(3.3, 4.9, 12)[rng.permutation(12)]
        self.table = dozen(rng)
        self.light = self.scene.render(self.table, self.fwhm, **self.profile)
        self.models: list[xr.Dataset] = []
        for _ in range(2):
            warps, self.coadd = observed(self.light, self.fwhm, NOISE, rng)
            if beta is not None:
                warps = warps.assign(psf=round_psfs(self.fwhm, beta=beta))
            found = solve_dcr(
                warps, self.table, G, self.coadd, jacobian=NORTH_UP,
                parameters=LinearParameters(reject_rounds=0),
            )  # fmt: skip
            self.models.append(found.model)

    @property
    def profile(self) -> dict[str, float]:
        """Return what the profile of stars is said with."""
        return {} if self.beta is None else {"beta": self.beta}

    def left(self, template: xr.Dataset, fwhm: float) -> float:
        """Return what a template leaves of a visit over the rms of the visit, near stars."""
        true = self.scene.render(VISIT, fwhm, **self.profile)[0]
        near = self.scene.near(8.0)
        rest = (true - template["image"].to_numpy())[near]
        return float(np.sqrt((rest**2).mean() / (true[near] ** 2).mean()))


@pytest.fixture(scope="module")
def gaussian() -> Sky:
    return Sky(None)


@pytest.fixture(scope="module")
def moffat() -> Sky:
    return Sky(3.0)


@pytest.mark.parametrize("fwhm", [3.3, 4.1, 4.9, 6.0])
def test_a_template_has_the_seeing_of_the_visit(gaussian: Sky, moffat: Sky, fwhm: float) -> None:
    for sky in (gaussian, moffat):
        assert sky.left(predict_template(sky.models[0], VISIT, fwhm=fwhm), fwhm) < 0.01
    if fwhm > 4.0:
        assert gaussian.left(predict_template(gaussian.models[0], VISIT), fwhm) > 0.15


@pytest.mark.parametrize("fwhm", [None, 4.9])
def test_pixels_that_lack_light_from_beyond_the_model_are_told(
    gaussian: Sky, moffat: Sky, fwhm: float | None
) -> None:
    for sky in (gaussian, moffat):
        model = sky.models[0]
        before = model[v.MASK].copy(deep=True)
        total = model["model"].sum("subfilter").to_numpy()
        row, column = (int(at) for at in np.unravel_index(total.argmax(), total.shape))
        cut = {"y": slice(row, None), "x": slice(0, column + 1)}  # through the brightest star
        part = predict_template(model.isel(cut), VISIT, fwhm=fwhm)
        whole = predict_template(model, VISIT, fwhm=fwhm).isel(cut)
        lacks = np.abs(part["image"] - whole["image"]).to_numpy() > 0.01 * total.max()
        edge = (part[v.MASK].to_numpy() & v.MASK_PLANES["EDGE"]) != 0
        assert lacks.sum() > 5
        assert edge[lacks].all()
        assert not edge[10:-10, 10:-10].any()
        assert model[v.MASK].equals(before)


def test_an_image_of_a_star_says_the_same_as_its_width(gaussian: Sky, moffat: Sky) -> None:
    for sky, image in (
        (gaussian, gaussian_psf(4.5)),
        (moffat, round_psfs([4.5], beta=3.0).isel(visit=0)),
    ):
        by_image = predict_template(sky.models[0], VISIT, psf=image)
        by_width = predict_template(sky.models[0], VISIT, fwhm=4.5)
        peak = float(by_width["image"].max())
        assert float(abs(by_image["image"] - by_width["image"]).max()) < 2e-3 * peak
        xr.testing.assert_allclose(by_image["variance"], by_width["variance"], rtol=0.02)
        widths = [float(psf_fwhm(each["psf"])) for each in (by_image, by_width)]
        assert widths[0] == pytest.approx(widths[1], rel=0.01)
        assert widths[0] > 4.5  # refraction draws it out


def test_the_seeing_of_the_model_changes_nothing(gaussian: Sky) -> None:
    own = predict_template(gaussian.models[0], VISIT)
    same = predict_template(gaussian.models[0], VISIT, fwhm=3.3)
    for name in ("image", "variance"):
        peak = float(abs(own[name]).max())
        assert float(abs(own[name] - same[name]).max()) < 1e-5 * peak
    assert float(psf_fwhm(same["psf"])) == pytest.approx(float(psf_fwhm(own["psf"])), rel=1e-4)


def test_the_noise_falls_as_stated_with_wider_seeing(gaussian: Sky, moffat: Sky) -> None:
    for sky in (gaussian, moffat):
        measured, stated = [], []
        for fwhm in (3.3, 4.0, 5.0):
            one, other = (predict_template(each, VISIT, fwhm=fwhm) for each in sky.models)
            difference = (one["image"] - other["image"]).to_numpy()
            near = sky.scene.near(8.0)
            measured.append(float((difference[near] ** 2).mean() / 2.0))
            stated.append(float(one["variance"].to_numpy()[near].mean()))
        found = np.array(measured) / measured[0]
        np.testing.assert_allclose(np.array(stated) / stated[0], found, rtol=0.1)
        assert found[-1] < 0.4


def test_a_sharper_visit_is_warned_of_and_its_noise_stays_bounded(moffat: Sky) -> None:
    model = moffat.models[0]
    with pytest.warns(ExtrapolatedTemplateWarning, match=r"2\.50 pixel, is sharper than .* 3\.30"):
        sharp = predict_template(model, VISIT, fwhm=2.5)
    own = predict_template(model, VISIT)
    assert 1.0 < float(sharp["variance"].mean() / own["variance"].mean()) <= 4.0
    assert moffat.left(sharp, 2.5) < moffat.left(own, 2.5)
    edge = (sharp[v.MASK].to_numpy() & v.MASK_PLANES["EDGE"]) != 0
    for along in (edge.all(axis=0), edge.all(axis=1)):  # two rims, without gaps in them
        assert along[0]
        assert along[-1]
        assert np.count_nonzero(np.diff(along)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fwhm": 4.0, "psf": gaussian_psf(4.0)}, "give fwhm or psf, not both"),
        ({"fwhm": 0.0}, "fwhm must be positive, got 0"),
        ({"fwhm": np.nan}, "fwhm must be positive, got nan"),
        ({"psf": gaussian_psf(4.0)[:-1]}, "of odd sides, got {'psf_y': 40"),
        ({"psf": -gaussian_psf(4.0)}, "psf must be finite, of positive sum"),
    ],
)
def test_what_is_no_seeing_is_refused(
    gaussian: Sky, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict_template(gaussian.models[0], VISIT, **given)  # type: ignore[arg-type]


def test_inputs_of_a_template_stay_as_they_are(moffat: Sky) -> None:
    model, psf = moffat.models[0].copy(deep=True), gaussian_psf(5.0)
    kept = psf.copy(deep=True)
    predict_template(model, VISIT, psf=psf)
    xr.testing.assert_identical(model, moffat.models[0])
    xr.testing.assert_identical(psf, kept)
