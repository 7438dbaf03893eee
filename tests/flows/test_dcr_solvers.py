"""Either solution for sub-bands through the flow: products, templates, report, configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import dcr_scene
import numpy as np
import pytest
import xarray as xr
import yaml
from astropy.io import fits
from dcr_scene import FILTER, DcrScene
from typer.testing import CliRunner

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, ExtrapolatedTemplateWarning
from skyloom.flows import dcr_coadds
from skyloom.flows.command_line import app
from skyloom.flows.dcr_blocks import noise_covariance
from skyloom.flows.templates import template
from skyloom.storage.store import Store, open_store

BANDS = {FILTER: dcr_scene.BAND}
BLOCK = {v.FILTER: FILTER, v.PATCH: "0-0"}
ITERATIVE: dict[str, Any] = {
    "bands": BANDS,
    "dcr": {"solver": "iterative", "max_iterations": 6, "clamp_frequency": 0.0},
}


class Made(NamedTuple):
    """The scene, a store with warps and coadds, and stores that either solver was run in."""

    scene: DcrScene
    warps: Path
    linear: Store
    iterative: Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    scene = DcrScene(dcr_scene.SPREAD)
    folder = tmp_path_factory.mktemp("solvers")
    scene.make(folder / "warps")
    stores = []
    for name, configuration in (("linear", {"bands": BANDS}), ("iterative", ITERATIVE)):
        shutil.copytree(folder / "warps", folder / name)
        store = open_store(folder / name)
        summary = dcr_coadds(store, configuration).run(progress=False)
        assert summary.exit_code == 0, str(summary)
        stores.append(store)
    return Made(scene, folder / "warps", *stores)


def left_of_visit(made: Made, store: Store, visit: int) -> float:
    """Return the rms that a template leaves of a visit at stars, without noise."""
    place = made.scene.conditions().sel({v.VISIT: visit})
    found = template(
        store,
        altitude=float(place["altitude"]),
        parallactic_angle=float(place["parallactic_angle"]),
    )
    index = made.scene.visits.index(visit)
    height, width = found["image"].shape
    truth, near = (
        image[:height, :width] for image in (made.scene.truth()[index], made.scene.stars.near(8.0))
    )
    return float(np.sqrt(((truth - found["image"].values)[near] ** 2).mean()))


def test_both_solvers_leave_less_of_visits_than_the_plain_coadd(made: Made) -> None:
    coadd = made.linear.read_block("coadd", BLOCK)["image"].values
    near = made.scene.stars.near(8.0)[: coadd.shape[0], : coadd.shape[1]]
    plain = float(np.sqrt(((made.scene.truth()[0] - coadd)[near] ** 2).mean()))
    linear, iterative = (left_of_visit(made, store, 1) for store in (made.linear, made.iterative))
    assert linear < 0.05 * plain
    assert linear < iterative < 0.6 * plain


def test_each_solver_says_how_it_ended(made: Made) -> None:
    block = made.iterative.read_block("dcr", BLOCK)
    record = made.iterative.read_record("dcr", BLOCK)
    assert record is not None
    assert record.quality["status"] in ("CONVERGED", "NOT_CONVERGED")
    assert record.quality["visits"] == 9
    assert record.quality["iterations"] == int(block["iterations"]) <= 6
    assert float(block["convergence_last"]) < 0.5 * float(block["convergence_first"])
    assert np.isnan(float(block["residual"]))
    inside = (slice(12, -12), slice(12, -12))
    assert (block["n_image"].values == 9).all()
    assert (block["plane_count"].values[:, *inside] == 9).all()
    assert block["used"].values.all()
    assert np.isfinite(block["chi2"].values).all()
    linear = made.linear.read_block("dcr", BLOCK)
    assert float(linear["residual"]) <= 1e-4
    assert np.isnan(float(linear["convergence_first"]))
    assert (linear["chi2"].values < block["chi2"].values).all()
    for each in (block, linear):
        weight = each["model_weight"].values
        assert 0.0 <= weight.min() < 0.01
        assert weight.max() == pytest.approx(1.0)


def test_a_stored_template_at_the_zenith_has_the_noise_of_the_sum_of_planes(made: Made) -> None:
    whole = made.linear.read_block("dcr_coadd", BLOCK)["variance"].values
    with pytest.warns(ExtrapolatedTemplateWarning):  # no visit was taken near the zenith
        found = template(made.linear, altitude=90.0, parallactic_angle=0.0)["variance"].values
    assert found == pytest.approx(whole[: found.shape[0], : found.shape[1]], rel=1e-3)
    kept = made.linear.read_block("dcr", BLOCK)
    weights = kept["weight_sum"].values
    for group, total in enumerate(kept["coverage_weight"].sum(v.VISIT).values):
        at = (kept["coverage"].values == group) & (weights > 0)
        assert float(weights[at].sum()) == pytest.approx(total * at.sum(), rel=0.01)
    assert np.isfinite(kept["noise_covariance"].values).all()
    assert np.isnan(made.iterative.read_block("dcr", BLOCK)["visit_psf"].values).all()


def test_noise_of_neighbouring_pixels_is_as_alike_as_warps_say() -> None:
    said = np.array([1.0, 1.15, 1.253, 2.0, np.nan])
    warps = xr.Dataset({"noise_correlation": (v.VISIT, said)}, {v.VISIT: np.arange(5)})
    found = noise_covariance(warps)
    assert found.sum((v.LAG_Y, v.LAG_X)).values == pytest.approx([1.0, 1.15, 1.253, 2.0, 1.0], 0.02)
    assert found.isel(lag_y=7, lag_x=7).values == pytest.approx(1.0)
    assert (found.isel(visit=0) != 0).sum() == 1
    bare = noise_covariance(xr.Dataset(coords={v.VISIT: [1, 2]}))
    assert bare.sum().item() == 2.0


def test_the_sum_of_planes_is_a_coadd_in_either_case(made: Made) -> None:
    plain = made.linear.read_block("coadd", BLOCK)["image"].values
    for store in (made.linear, made.iterative):
        whole = store.read_block("dcr_coadd", BLOCK)
        assert whole["image"].values.sum() == pytest.approx(plain.sum(), rel=3e-3)
        assert np.isfinite(whole["variance"].values).all()
        assert (whole["n_image"].values == 9).all()


def test_another_solver_makes_the_models_anew_and_the_same_one_nothing(
    made: Made, tmp_path: Path
) -> None:
    shutil.copytree(made.iterative.url.removeprefix("file://"), tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert dcr_coadds(store, ITERATIVE).plan().todo == 0
    assert dcr_coadds(store, {"bands": BANDS}).plan().todo == 2
    changed = {**ITERATIVE, "dcr": {**ITERATIVE["dcr"], "accelerate": 2.0}}
    assert dcr_coadds(store, changed).plan().todo == 2


def test_the_report_tells_which_solver_and_its_figures(made: Made, tmp_path: Path) -> None:
    page = dcr_coadds(made.iterative, ITERATIVE).report(tmp_path / "one.html").read_text()
    assert "iterated to, for comparison" in page
    assert "convergence, first" in page
    assert ">residual<" not in page
    page = dcr_coadds(made.linear, {"bands": BANDS}).report(tmp_path / "other.html").read_text()
    assert "solved for by weighted least squares" in page
    assert "convergence, first" not in page
    assert ">residual<" in page


def test_a_template_of_iterated_planes_is_written_as_fits(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "template.fits"
    place = made.scene.conditions().sel({v.VISIT: 3})
    arguments = ["template", made.iterative.url, str(path)]
    for name in ("altitude", "parallactic_angle"):
        arguments += [f"--{name.replace('_', '-')}", str(float(place[name]))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    with fits.open(path) as hdus:
        assert np.isfinite(hdus["IMAGE"].data).all()
        assert hdus["PSF"].data.sum() == pytest.approx(1.0, abs=1e-3)


def test_the_solver_and_its_parameters_are_read_from_a_file(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "dcr.yaml"
    file.write_text(yaml.safe_dump({**ITERATIVE, "bands": {FILTER: dict(dcr_scene.BAND)}}))
    result = CliRunner().invoke(
        app, ["plan", made.iterative.url, "dcr_coadds", "--config", str(file)]
    )
    assert result.exit_code == 0, result.output
    text = CliRunner().invoke(app, ["config", "default", "dcr_coadds"]).output
    assert yaml.safe_load(text)["dcr"]["solver"] == "linear"
    assert yaml.safe_load(text)["bands"] == {}


@pytest.mark.parametrize(
    ("dcr", "message"),
    [
        ({"solver": "newton"}, r"dcr: solver must be 'linear' or 'iterative'"),
        (
            {"solver": "iterative", "curvature": 0.1},
            r"dcr\.curvature: unknown key of solver iterative: it is one of solver linear",
        ),
        ({"clamp_width": 3}, r"dcr\.clamp_width: unknown key of solver linear"),
        ({"solver": "iterative", "gain": 1.0}, r"dcr\.gain: unknown key; did you mean 'base_gain'"),
        ({"solver": "iterative", "clamp_width": 0}, r"dcr\.clamp_width: Input should be greater"),
        (
            {"solver": "iterative", "min_iterations": 4, "max_iterations": 2},
            r"dcr: Value error, min_iterations must not be above max_iterations, got 4 and 2",
        ),
    ],
)
def test_a_parameter_of_the_other_solver_is_refused_by_name(
    made: Made, dcr: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        dcr_coadds(made.linear, {"bands": BANDS, "dcr": dcr})
