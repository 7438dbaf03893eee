"""Artifacts: what is found in simulated visits, what is kept, and how the decision falls."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import label

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import (
    ArtifactParameters,
    CoaddParameters,
    accumulate,
    apply_artifacts,
    coadd,
    decide_artifacts,
    few_epochs,
    find_artifacts,
    find_candidates,
    finish_coadd,
    protect_sources,
    static_sky,
)
from skyloom.algorithms.coadd.candidates import difference_from_sky
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.simulate import SimulatedVisits, VisitParameters, simulate_visits

BIT = v.MASK_PLANES
BRIGHT = VisitParameters(
    satellite=30.0, cosmic_rays=5, variable=0.3, transients=(2, 5), flux_range=2.0, faintest=300.0
)
MASKED = CoaddParameters(bad_planes=("NO_DATA", "BAD", "SAT", "CLIPPED"))


@pytest.fixture(scope="module")
def made() -> SimulatedVisits:
    """Return 10 visits with a satellite, cosmic rays, a variable star and two transients."""
    return simulate_visits(np.random.default_rng(11), parameters=BRIGHT)


@pytest.fixture(scope="module")
def found(made) -> xr.Dataset:
    return find_artifacts(made.matched, warps=made.warps)


def clipped(found: xr.Dataset) -> np.ndarray:
    return (found["artifact_mask"].values & BIT["CLIPPED"]) != 0


def pixel_of(made: SimulatedVisits, kind: str, number: int = 0) -> tuple[int, int, np.ndarray]:
    """Return row, column and fluxes of a source."""
    index = np.flatnonzero(made.truth["kind"].values == kind)[number]
    y, x = (round(float(made.truth[f"source_{axis}"][index])) for axis in "yx")
    return y, x, made.truth["flux"].values[:, index]


def test_the_number_of_few_epochs_is_the_stated_one():
    epochs = [1, 2, 3, 4, 5, 10, 33, 34, 50, 67, 100, 200]
    assert few_epochs(epochs).tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 8]
    other = ArtifactParameters(few_fraction=0.5, few_offset=1.0, few_slope=0.0)
    assert few_epochs([1, 2, 9], parameters=other).tolist() == [0, 1, 1]


def test_a_satellite_and_cosmic_rays_are_clipped_in_their_visit(made, found):
    mask, hits = clipped(found), made.truth["artifact"].values
    assert hits[0].sum() > 1000
    assert hits[1].sum() == 5
    for visit in (0, 1):
        assert mask[visit][hits[visit]].mean() >= 0.95
    y, x = np.nonzero(hits[1])
    assert not mask[np.arange(10) > 1][:, y, x].any()


def test_what_many_visits_show_is_kept_and_what_two_show_is_not(made, found):
    mask = clipped(found)
    y, x, _ = pixel_of(made, "variable")
    assert not mask[:, y - 3 : y + 4, x - 3 : x + 4].any()
    y, x, flux = pixel_of(made, "transient", 1)
    assert (flux > 0).sum() == 5
    assert not mask[:, y, x].any()
    y, x, flux = pixel_of(made, "transient", 0)
    assert (flux > 0).sum() == 2
    np.testing.assert_array_equal(mask[:, y, x], flux > 0)


def test_nothing_is_found_where_nothing_happens():
    quiet = simulate_visits(np.random.default_rng(3))
    found = find_artifacts(quiet.matched)
    assert found["candidate_count"].values.sum() == 0
    assert not found["artifact_mask"].values.any()
    assert (found["epochs"].values == 10).all()


def test_the_coadd_without_artifacts_has_none(made, found):
    with_all = coadd(made.warps)
    without = coadd(made.warps, artifacts=found["artifact_mask"])
    hits = made.truth["artifact"].values[:2].any(axis=0)
    far = made.truth["sky"].values < BRIGHT.background + 1.0
    y, x, _ = pixel_of(made, "variable")
    far[y - 20 : y + 21, x - 20 : x + 21] = False
    for number in (0, 1):
        y, x, _ = pixel_of(made, "transient", number)
        far[max(y - 20, 0) : y + 21, max(x - 20, 0) : x + 21] = False
    chosen = hits & far
    assert chosen.sum() > 200
    sigma = np.sqrt(without["variance"].values[chosen])
    pull = (without["image"].values[chosen] - BRIGHT.background) / sigma
    assert abs(pull.mean()) < 4.0 / np.sqrt(chosen.sum())
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=0.15)
    before = (with_all["image"].values[chosen] - BRIGHT.background) / sigma
    assert before.mean() > 3.0
    told = BIT["CLIPPED"] | BIT["INEXACT_PSF"]
    assert ((without["mask"].values[hits] & told) == told).mean() > 0.95


def test_masks_with_artifacts_give_exactly_what_the_rejecting_coadd_gives(made, found):
    artifacts = found["artifact_mask"]
    expected = coadd(made.warps, artifacts=artifacts)
    masked = apply_artifacts(made.warps, artifacts)
    plain = coadd(masked, parameters=MASKED)
    assert plain.identical(expected)
    each = [masked.isel(visit=i) for i in range(10)]
    assert coadd(each, parameters=MASKED).identical(expected)
    unmasked = [made.warps.isel(visit=i) for i in (3, 1, 0, 2, 4, 9, 8, 7, 6, 5)]
    assert coadd(unmasked, artifacts=artifacts).identical(expected)
    lazy = coadd(made.warps.chunk(y=100), artifacts=artifacts.chunk(y=90))
    assert lazy.identical(expected)
    added = finish_coadd(accumulate(each, parameters=MASKED))
    np.testing.assert_allclose(added["image"], expected["image"], rtol=1e-6)


def test_lazy_and_reordered_warps_have_the_same_artifacts(made, found):
    assert find_artifacts(made.matched.chunk(visit=3, y=80), warps=made.warps).identical(found)
    order = [4, 2, 9, 0, 1, 3, 5, 8, 7, 6]
    again = find_artifacts([made.matched.isel(visit=i) for i in order], warps=made.warps)
    for name in found.data_vars:
        np.testing.assert_array_equal(again[name], found[name])
    lazy = apply_artifacts(made.warps.chunk(y=80), found["artifact_mask"])
    assert lazy["mask"].chunks is not None
    np.testing.assert_array_equal(
        lazy["mask"], apply_artifacts(made.warps, found["artifact_mask"])["mask"]
    )


def test_inputs_stay_as_they_are(made, found):
    copies = [each.copy(deep=True) for each in made]
    again = find_artifacts(made.matched, warps=made.warps)
    apply_artifacts(made.warps, again["artifact_mask"])
    for each, copy in zip(made, copies, strict=True):
        assert each.identical(copy)
    assert again.identical(found)


def test_an_artifact_is_not_compared_with_itself():
    """With three visits a plain mean would be shifted by a third of the artifact."""
    few = VisitParameters(visits=3, cosmic_rays=5, ray_significance=100.0, stars=5)
    made = simulate_visits(np.random.default_rng(7), parameters=few)
    found = find_artifacts(made.matched)
    assert clipped(found)[1][made.truth["artifact"].values[1]].all()
    assert found["artifact_count"].values.tolist()[0] == 0
    assert found["artifact_count"].values.tolist()[2] == 0
    assert label(clipped(found)[1], structure=np.ones((3, 3)))[1] == 5


def test_the_difference_is_that_to_the_mean_of_the_others(made):
    matched = made.matched.isel(visit=slice(0, 4))
    sky = static_sky(matched)
    warp = matched.isel(visit=2)
    image, variance, _ = difference_from_sky(warp, sky)
    w = sky["input_weight"].values[:, None, None]
    value, s = matched["image"].values.astype(float), matched["variance"].values.astype(float)
    used = np.abs(value - sky["center"].values) <= sky["half_width"].values
    used[2] = False
    total = (w * used).sum(0)
    np.testing.assert_allclose(
        image, value[2] - (w * used * value).sum(0) / total, rtol=1e-4, atol=2e-3
    )
    np.testing.assert_allclose(variance, s[2] + (w**2 * used * s).sum(0) / total**2, rtol=1e-4)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7])
def test_few_visits_don_t_hide_outliers_and_what_varies_keeps_a_static_sky(number):
    rng = np.random.default_rng(number)
    warps = flat_visits((30, 30), number)
    warps["image"].values[: max(number // 3, 1), 10:15, 10:15] += 12.0
    varying = np.arange(number) * 300.0
    warps["image"].values[:, 20, 20] = rng.permutation(varying)
    sky = static_sky(warps)
    assert abs(float(sky["image"][10:15, 10:15].mean())) < 1.0
    assert np.isfinite(sky["image"]).all()
    assert float(sky["image"][20, 20]) == pytest.approx(varying.mean(), abs=160.0)
    loose = static_sky(warps, parameters=ArtifactParameters(sky_noise_clip=None))
    assert float(loose["image"][20, 20]) == pytest.approx(varying.mean(), abs=1.0)
    if number in (5, 6, 7):  # the reference's clip lets two in so many pass
        one_more = flat_visits((30, 30), number)
        one_more["image"].values[:2, 10:15, 10:15] += 12.0
        assert float(static_sky(one_more)["image"][10:15, 10:15].mean()) < 1.0


def test_the_variance_of_the_difference_is_its_scatter():
    quiet = simulate_visits(
        np.random.default_rng(5), parameters=VisitParameters(stars=0, visits=4, noise_spread=0.5)
    )
    # of warps that are not matched, so that pixels are independent; clipping takes a little
    parameters = ArtifactParameters(sky_clip=20.0)
    sky = static_sky(quiet.warps, parameters=parameters)
    for i in range(4):
        image, variance, _ = difference_from_sky(quiet.warps.isel(visit=i), sky)
        assert (image / np.sqrt(variance)).std() == pytest.approx(1.0, abs=0.02)


def test_a_visit_outside_the_static_sky_is_compared_with_all_of_it(made):
    sky = static_sky(made.matched.isel(visit=slice(0, 5)))
    warp = made.matched.isel(visit=7)
    image, variance, _ = difference_from_sky(warp, sky)
    np.testing.assert_allclose(image, warp["image"].values - sky["image"].values, atol=1e-3)
    np.testing.assert_allclose(variance, warp["variance"].values + sky["variance"].values, 1e-5)
    template = xr.Dataset({name: sky[name] for name in ("image", "variance")})
    again = difference_from_sky(made.matched.isel(visit=2), template)
    assert not np.array_equal(again.image, difference_from_sky(made.matched.isel(visit=2), sky)[0])
    np.testing.assert_array_equal(difference_from_sky(warp, template).image, image)


def test_candidates_in_few_epochs_are_artifacts_unless_protected():
    shape = (20, 30)
    pixels = [(y, x) for y in (5, 6) for x in (10, 11)]
    y, x = np.array(pixels).T
    candidates = xr.Dataset(
        {
            "y_index": ("pixel", y), "x_index": ("pixel", x),
            "region": ("pixel", np.zeros(4, int)),
        }
    )  # fmt: skip
    count, epochs = np.zeros(shape, np.int16), np.full(shape, 10, np.int16)
    count[y, x] = 2, 2, 2, 3
    assert decide_artifacts(candidates, count, epochs)["is_artifact"].item()
    count[y, x] = 2, 2, 3, 3  # a half is not more than a half
    decision = decide_artifacts(candidates, count, epochs)
    assert not decision["is_artifact"].item()
    assert (decision["few"].item(), decision["few_fraction"].item()) == (2, 0.5)
    count[y, x] = 1
    protected = np.zeros(shape, np.int32)
    protected[5:7, 10] = 1
    assert decide_artifacts(candidates, count, epochs, protected=protected)["is_artifact"].item()
    protected[5:7, 11] = 2  # inside two objects is not inside one
    assert decide_artifacts(candidates, count, epochs, protected=protected)["is_artifact"].item()
    protected[5:7, 11] = 1
    assert decide_artifacts(candidates, count, epochs, protected=protected)["is_protected"].item()
    for visits in (1, 2):  # nothing can be rejected
        few = np.full(shape, visits, np.int16)
        assert not decide_artifacts(candidates, count, few)["is_artifact"].item()
    with pytest.raises(GeometryError, match="outside the arrays"):
        decide_artifacts(candidates, count[:6, :], epochs[:6, :])
    with pytest.raises(GeometryError, match="epoch_count has shape"):
        decide_artifacts(candidates, count[:6, :], epochs)


def warp_with(values, variance=1.0, mask=None) -> xr.Dataset:
    plane = ("y", "x")
    values = np.asarray(values, np.float32)
    mask = np.zeros(values.shape, np.int32) if mask is None else mask
    return xr.Dataset(
        {
            "image": (plane, values, {"units": "nJy"}),
            "variance": (plane, np.full(values.shape, variance, np.float32)),
            "mask": (plane, mask, v.mask_attributes()),
        }
    )


def flat_visits(shape=(40, 40), number=4) -> xr.Dataset:
    rng = np.random.default_rng(1)
    each = [
        warp_with(rng.normal(0, 1, shape)).assign_coords(visit=visit) for visit in range(number)
    ]
    return xr.concat(each, dim="visit")


def test_regions_need_four_pixels_and_grow():
    warps = flat_visits()
    warps["image"].values[0, 10, 10:13] = 60.0  # three pixels are too few
    warps["image"].values[0, 20:22, 20:22] = -60.0
    parameters = ArtifactParameters(growth=1.0, rescale=False)
    sky = static_sky(warps)
    found = find_candidates(warps.isel(visit=0), sky, psf_sigma=1.6, parameters=parameters)
    assert int(found["region"].max()) == 0
    grown = np.zeros((40, 40), bool)
    grown[found["y_index"], found["x_index"]] = True
    assert grown[18, 20]
    assert not grown[17, 20]
    assert not grown[10].any()
    assert grown.sum() == 4 + 4 * 2 * 2 + 4  # a square with two rows around it, corners cut


def test_candidates_on_pixels_that_say_nothing_are_none():
    warps = flat_visits()
    warps["image"].values[0, 10:14, 10:14] = 90.0
    warps["mask"].values[0, 5:20, 5:20] = BIT["SUSPECT"]
    found = find_candidates(warps.isel(visit=0), static_sky(warps), psf_sigma=2.0)
    assert found.sizes["pixel"] == 0


def test_pixels_without_data_get_no_data_and_nothing_else():
    warps = flat_visits().assign_coords(band="r")
    warps["image"].values[0, :10] = np.nan
    warps["variance"].values[0, :10] = np.inf
    warps["mask"].values[0, 5:15] = BIT["EDGE"]
    warps["mask"].values[1, :, :20] = BIT["SAT"]
    found = find_artifacts(warps, psf_sigma=2.0)
    planes = found["artifact_mask"].values
    assert (planes[0, :10] == BIT["NO_DATA"]).all()
    assert (planes[0, 10:15] == BIT["EDGE"]).all()
    assert not planes[0, 15:].any()
    assert not planes[1].any()
    made = coadd(warps, artifacts=found["artifact_mask"], weights=np.ones(4))
    row = made["mask"].values[:, 0]
    rejected = v.plane_bits(["REJECTED", "SAT", "INEXACT_PSF"])
    assert (row[:10] == rejected).all()  # visit 1 alone tells: visit 0 has just no data there
    edge = v.plane_bits(["EDGE", "SENSOR_EDGE"])
    assert (row[10:15] == (rejected | edge)).all()
    assert (made["n_image"].values[:10, :20] == 2).all()


def test_a_visit_without_matched_warp_is_reported_and_gives_nothing(made):
    found = find_artifacts(made.matched.isel(visit=slice(0, 9)), warps=made.warps)
    codes = found["input_status"].values.tolist()
    assert codes == [v.InputStatus.OK] * 9 + [v.InputStatus.NO_MATCHED_WARP]
    assert (found["artifact_mask"].values[9] == BIT["NO_DATA"]).all()
    with pytest.warns(UserWarning, match="1009: NO_DATA"):
        without = coadd(made.warps, artifacts=found["artifact_mask"])
    assert (without["n_image"].values <= 9).all()
    with pytest.raises(KeyError, match=r"lack visits \[1009\]"):
        find_artifacts(made.matched, warps=made.warps.isel(visit=slice(0, 9)))


def test_two_visits_are_searched_for_cosmic_rays_one_by_one():
    few = VisitParameters(visits=2, cosmic_rays=5, ray_significance=100.0, stars=8, sharpest=2.0)
    made = simulate_visits(np.random.default_rng(8), parameters=few)
    found = find_artifacts(made.matched, warps=made.warps)
    hits = made.truth["artifact"].values
    assert clipped(found)[hits].all()
    assert clipped(found).sum() < 5 * 9
    alone = find_artifacts(made.matched.isel(visit=[1]), warps=made.warps.isel(visit=[1]))
    np.testing.assert_array_equal(clipped(alone)[0], clipped(found)[1])
    # matched warps alone cannot show them
    assert not clipped(find_artifacts(made.matched)).any()


def test_bright_objects_are_protected_and_the_background_is_local():
    y, x = np.indices((200, 210), dtype=np.float64)
    image = 3.0 * x + 5000.0  # a gradient that is no object
    image += 4000.0 * np.exp(-0.5 * ((y - 60) ** 2 + (x - 90) ** 2) / 9.0)
    image -= 3000.0 * np.exp(-0.5 * ((y - 150) ** 2 + (x - 150) ** 2) / 9.0)
    labels = protect_sources(
        warp_with(image), psf_sigma=3.0, parameters=ArtifactParameters(protect_bin=40)
    )
    assert labels.max() == 2
    assert labels[60, 90] > 0
    assert labels[150, 150] > 0
    assert labels[60, 90] != labels[150, 150]
    assert labels[10, 10] == labels[190, 200] == 0
    again = protect_sources(warp_with(image), psf_sigma=3.0)
    assert again[60, 90] > 0


def test_where_bright_objects_leave_no_background_thresholds_rise_and_then_it_is_an_error():
    checks = np.where(np.indices((64, 64)).sum(0) % 2, 1000.0, -1000.0)
    with pytest.raises(NoUsableDataError, match="leave no background"):
        protect_sources(
            warp_with(checks), psf_sigma=3.0, parameters=ArtifactParameters(protect_retries=2)
        )
    assert not protect_sources(warp_with(checks), psf_sigma=3.0).any()  # ten times are enough
    with pytest.raises(NoUsableDataError, match="no data"):
        protect_sources(warp_with(np.full((20, 20), np.nan)), psf_sigma=3.0)


def test_misuse_is_named(made, found):
    with pytest.raises(ValueError, match="psf_sigma must be given"):
        find_artifacts(made.warps)
    sky = static_sky(made.matched)
    warp = made.matched.isel(visit=0)
    for call in (
        lambda: find_candidates(warp, sky, psf_sigma=0.0),
        lambda: protect_sources(sky, psf_sigma=-1.0),
    ):
        with pytest.raises(ValueError, match="psf_sigma must be > 0"):
            call()
    with pytest.raises(GeometryError, match="the warp has shape"):
        find_candidates(warp.isel(y=slice(0, 9)), sky, psf_sigma=3.0)
    artifacts = found["artifact_mask"]
    for call in (coadd, lambda warps, artifacts: apply_artifacts(warps, artifacts)):
        with pytest.raises(KeyError, match=r"lack visits \[1000\]"):
            call(made.warps, artifacts=artifacts.isel(visit=slice(1, 10)))
        with pytest.raises(GeometryError, match="artifacts have shape"):
            call(made.warps, artifacts=artifacts.isel(y=slice(0, 9)))
    with pytest.raises(KeyError, match="unknown mask plane"):
        find_candidates(
            warp, sky, psf_sigma=3.0, parameters=ArtifactParameters(unusable_planes=("HOT",))
        )
