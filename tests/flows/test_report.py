"""The report shows what was measured and what went wrong, in one file that needs no other."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import small_store
import xarray as xr
from PIL import Image

from skyloom.algorithms.photon_transfer.kernel import brighter_fatter_kernel
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import SolveParameters
from skyloom.algorithms.simulate import TYPICAL_A
from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus
from skyloom.flows import photon_transfer
from skyloom.flows.report.blocks import amplifier_overview, detector_block, with_detectors
from skyloom.flows.report.codes import AMPLIFIER_FLAGS, PAIR_STATUSES
from skyloom.flows.report.curves import photon_transfer_figure
from skyloom.flows.report.findings import Thresholds, find_offenders
from skyloom.flows.report.focal_plane import focal_plane
from skyloom.flows.report.matrices import cumulative_sum, matrix_figure, old_fashioned_a
from skyloom.flows.report.numbers import with_error
from skyloom.flows.report.photon_transfer import ReportOptions, render_report, write_report
from skyloom.flows.report.style import data_uri
from skyloom.flows.report.tables import rejected_rows
from skyloom.storage import Store
from skyloom.storage.camera import load_camera
from skyloom.storage.records import Record

LAGS = 4
GAIN = 1.5


def flat_pairs(names: tuple[str, ...], *, bad: str | None = None, seed: int = 1) -> xr.Dataset:
    """Return pairs whose covariances scatter around a model, with one outlier each."""
    rng = np.random.default_rng(seed)
    mean = np.geomspace(200, 6e4, 24)
    a = np.asarray(TYPICAL_A)[:LAGS, :LAGS]
    noise = np.zeros((LAGS, LAGS))
    noise[0, 0] = 36.0
    axis = np.where(np.arange(LAGS) == 0, 1.0, 0.0)
    relative = np.sqrt((1 + axis[:, None] * axis) * (1 + axis[:, None]) * (1 + axis) / 4e6)
    covariance, sigma = [], []
    for _ in names:
        true = model_covariance(a, GAIN, noise, mean)
        error = relative * true[:, :1, :1]
        measured = true + error * rng.standard_normal(true.shape)
        measured[9, 0, 0] *= 1.2
        covariance.append(measured)
        sigma.append(error)
    values = np.stack(covariance, axis=1)
    pairs, amps = len(mean), len(names)
    status = np.zeros((pairs, amps), np.uint8)
    status[4, 0] = PairStatus.MEAN_MISMATCH
    means = np.repeat(mean[:, None], amps, axis=1)
    if bad is not None:
        index = names.index(bad)
        means[:, index], values[:, index] = np.nan, np.nan
        status[:, index] = PairStatus.ILLEGAL_MEAN
    lagged = ("pair", "amp", "lag_y", "lag_x")
    return xr.Dataset(
        {
            "mean": (("pair", "amp"), means, {"units": "adu"}),
            "variance": (("pair", "amp"), values[..., 0, 0], {"units": "adu2"}),
            "variance_sigma": (("pair", "amp"), np.stack(sigma, 1)[..., 0, 0], {"units": "adu2"}),
            "covariance": (lagged, values, {"units": "adu2"}),
            "covariance_sigma": (lagged, np.stack(sigma, 1), {"units": "adu2"}),
            "pair_status": (("pair", "amp"), status),
            "read_noise": (("pair", "amp"), np.full((pairs, amps), 4.0), {"units": "adu"}),
            "exposure_time": ("pair", mean / 1e3, {"units": "s"}),
        },
        coords={
            "pair": [f"{2 * i + 1}-{2 * i + 2}" for i in range(pairs)],
            "amp": list(names),
            "lag_y": np.arange(LAGS),
            "lag_x": np.arange(LAGS),
        },
    )


def solved(names: tuple[str, ...] = ("A", "B"), model: str = "exact", seed: int = 1) -> xr.Dataset:
    return solve(flat_pairs(names, seed=seed), parameters=SolveParameters(model=model))


def mosaic(detectors: list[str], amps: tuple[str, ...] = ("A", "B")) -> xr.Dataset:
    one = solved(amps)
    return one.expand_dims(detector=detectors).assign_attrs(one.attrs)


class Page(HTMLParser):
    """What a browser would find in a page: balanced tags, texts, and what it would load."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images: list[str] = []
        self.scripts = 0
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.scripts += tag == "script"
        self.anchors |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.images.append(found["src"])
            assert found["alt"]
        else:
            self.loads += [found[name] for name in ("src", "data", "srcset") if name in found]
        if tag == "a":
            self.links.add(found["href"])
        elif "href" in found:
            self.loads.append(found["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def check(self) -> None:
        """Fail unless the page is well-formed and needs nothing else."""
        assert self.open == []
        assert self.loads == []
        assert "could not be drawn" not in self.text
        assert self.scripts == 1
        assert all(link.startswith("#") and link[1:] in self.anchors for link in self.links)
        for image in self.images:
            kind, _, content = image.partition(",")
            assert kind == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as found:
                found.load()
                assert found.format == "PNG"
                assert min(found.size) > 100
                assert len(found.convert("L").getcolors() or ()) > 1  # something is drawn


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store.make_store(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def stored_page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(store, tmp_path_factory.mktemp("page") / "sub" / "report.html")
    return path.read_text(encoding="utf-8")


def rows_of(page: str, identity: str) -> Iterator[list[str]]:
    body = page[page.index(f'id="{identity}"') :]
    body = body[: body.index("</table>")]
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("<tbody>")[1], re.DOTALL):
        yield [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def test_a_report_of_a_store_is_one_well_formed_file_that_loads_nothing(stored_page: str) -> None:
    page = Page(stored_page)
    page.check()
    # Three of all amplifiers, two for each detector, three for each amplifier.
    assert len(page.images) == 3 + 2 * 2 + 3 * 4
    assert not re.search(r"https?://", stored_page)
    assert "url(" not in stored_page


def test_every_amplifier_is_listed_with_the_numbers_of_the_store(
    store: Store, stored_page: str
) -> None:
    ptc = store["ptc"].load()
    rows = {(row[0], row[1]): row for row in rows_of(stored_page, "summary")}
    assert set(rows) == {(d, a) for d in ptc.detector.values for a in ptc.amp.values}
    for (detector, amp), row in rows.items():
        one = ptc.sel(detector=detector, amp=amp)
        assert row[2] == with_error(float(one.gain), float(one.gain_sigma))
        assert row[3] == with_error(float(one.noise), float(one.noise_sigma))
        assert row[11] == f"{int(one.used.sum())} / {ptc.sizes['pair']}"


def test_rejected_pairs_and_lonely_exposures_are_named_with_their_reasons(
    store: Store, stored_page: str
) -> None:
    failed = store["ptc"].pair_status.sel(pair=small_store.LAMP_FAILED)
    assert (failed == PairStatus.MEAN_MISMATCH).all()
    for detector in ("R0", "R1"):
        section = stored_page[stored_page.index(f">Detector {detector}<") :]
        table = section[: section.index("</table>")]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
        at = cells.index(small_store.LAMP_FAILED)
        assert cells[at + 3 : at + 5] == ["MEAN_MISMATCH", "all"]
    lonely = stored_page[stored_page.index("Exposures that are in no pair") :]
    assert re.findall(r"<td[^>]*>(.*?)</td>", lonely)[:3] == [
        "UNPAIRED",
        "1",
        str(small_store.UNPAIRED),
    ]


def test_provenance_names_steps_versions_and_configuration(store: Store, stored_page: str) -> None:
    part = stored_page[stored_page.index('id="provenance"') :]
    for step in ("ingest", "dark_pairs", "flat_pairs", "ptc", "brighter_fatter"):
        assert f"<td>{step}</td>" in part
    record = next(iter(store.records("ptc").values()))
    assert record.versions["skyloom"] in part
    assert "lags: 4" in part
    assert "model exact" in stored_page


def test_the_flow_writes_the_same_report(store: Store, stored_page: str, tmp_path: Path) -> None:
    flow = photon_transfer(store, {"extract": {"lags": 4}})
    again = flow.report(tmp_path / "report.html").read_text(encoding="utf-8")
    footer = re.compile(r"Written by skyloom .*? UTC")
    assert footer.sub("", again) == footer.sub("", stored_page)


def test_a_store_without_any_product_gives_a_page_of_amplifiers_without_data(
    tmp_path: Path,
) -> None:
    from skyloom.storage import create_store

    empty = create_store(tmp_path / "empty", "simulated-mosaic")
    text = write_report(empty, tmp_path / "report.html").read_text(encoding="utf-8")
    Page(text).check()
    rows = list(rows_of(text, "summary"))
    assert len(rows) == 16
    assert {row[-1] for row in rows} == {"NO_DATA"}


def test_failed_skipped_and_interrupted_blocks_are_listed_with_their_reasons() -> None:
    records = [
        Record("flat_pairs", {"pair": "1-2", "detector": "S0"}, "failed", "checksum differs"),
        Record("ptc", {"detector": "S0"}, "skipped", "no flat_pairs of detector S0"),
        Record("ptc", {"detector": "S1"}, "started"),
        Record("ptc", {"detector": "S2"}, "done", warnings=("amplifier C cannot be solved",)),
    ]
    text = render_report(mosaic(["S0"]), records=records)
    part = text[text.index('id="attention"') : text.index('id="overview"')]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", part)
    assert cells[:4] == ["flat_pairs", "pair 1-2, detector S0", "failed", "checksum differs"]
    assert cells[4:8] == ["ptc", "detector S1", "interrupted", "no reason was recorded"]
    assert cells[8:12] == ["ptc", "detector S0", "skipped", "no flat_pairs of detector S0"]
    assert "amplifier C cannot be solved" in text[text.index('id="provenance"') :]


@pytest.mark.filterwarnings("ignore:1 of 2 amplifiers:UserWarning")
def test_a_bad_amplifier_is_shown_with_the_names_of_its_codes_and_comes_first() -> None:
    ptc = solve(flat_pairs(("A", "B"), bad="B"))
    text = render_report(ptc)
    Page(text).check()
    rows = {row[1]: row for row in rows_of(text, "summary")}
    assert "BAD" in rows["B"][-1]
    assert rows["B"][2] == "–"
    assert rows["A"][-1] == ""
    assert "ILLEGAL_MEAN" in text[: text.index('id="codes"')]
    findings = find_offenders(amplifier_overview(with_detectors(ptc)))
    assert findings[0].amp == "B"
    assert "BAD" in findings[0].what


def test_labels_reasons_and_titles_cannot_inject_markup() -> None:
    evil = '<script>alert("x")</script>'
    ptc = solved((evil, "$B_{")).expand_dims(detector=[f"<img src=x onerror=1>{evil}"])
    record = Record("ptc", {"detector": evil}, "failed", evil, warnings=(evil,))
    text = render_report(
        ptc, records=[record], title=evil, configuration={evil: evil, "list": [evil]}
    )
    page = Page(text)
    page.check()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;alert") >= 6


@pytest.mark.parametrize(
    ("model", "figures"), [("exp00", 2), ("linear", 2), ("exact_b", 3), ("series4_no_b", 3)]
)
def test_every_kind_of_model_can_be_shown(model: str, figures: int) -> None:
    ptc = solved(("A",), model=model)
    page = Page(render_report(ptc))
    page.check()
    assert len(page.images) == 3 + 1 + figures


@pytest.mark.parametrize(
    "lost",
    [
        "covariance", "covariance_sigma", "variance_sigma", "covariance_model", "a", "used",
        "pair_status", "amp_flag", "turnoff", "exposure_time", "chi2_pair", "mean",
    ],
)  # fmt: skip
def test_a_report_is_written_whatever_variable_is_missing(lost: str) -> None:
    Page(render_report(solved(("A",)).drop_vars(lost))).check()


def test_results_that_are_all_infinite_or_negative_do_not_stop_the_report() -> None:
    ptc = solved(("A", "B"))
    for value in (np.inf, -1.0):
        broken = ptc.copy(deep=True)
        for name, variable in broken.data_vars.items():
            if np.issubdtype(variable.dtype, np.floating):
                broken[name] = variable * 0 + value
        Page(render_report(broken)).check()


def test_a_figure_that_cannot_be_drawn_is_replaced_by_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("<no> ink")

    monkeypatch.setattr("skyloom.flows.report.sections.noise_figure", broken)
    text = render_report(solved(("A",)), options=ReportOptions(detailed_amplifiers=0))
    assert text.count("this figure could not be drawn") == 1
    assert "RuntimeError: &lt;no&gt; ink" in text
    assert len(Page(text).images) == 2 + 1


def test_datasets_without_pairs_or_amplifiers_are_reported() -> None:
    ptc = solved(("A", "B"))
    for empty in (ptc.isel(pair=[]), ptc.isel(amp=[]), xr.Dataset()):
        Page(render_report(empty)).check()


def test_kernels_and_darks_are_shown() -> None:
    ptc = solved(("A", "B"))
    shape = ("pair", "detector", "amp")
    darks = xr.Dataset(
        {
            "variance": (shape, np.full((3, 1, 2), 16.0)),
            "pair_status": (shape, np.zeros((3, 1, 2))),
        },
        coords={"detector": ["detector"], "amp": ["A", "B"]},
    )
    plain = Page(render_report(ptc))
    full = Page(render_report(ptc, kernel=brighter_fatter_kernel(ptc), dark_pairs=darks))
    full.check()
    assert len(full.images) == len(plain.images) + 1
    assert plain.images[2] != full.images[2]  # noise against darks


def test_large_cameras_get_panels_and_only_the_worst_in_full() -> None:
    names = [f"R{place:03d}" for place in range(40)]
    ptc = mosaic(names)
    gain = ptc["gain"].to_numpy().copy()
    gain[33, 1] *= 1.4
    ptc["gain"] = (("detector", "amp"), gain, ptc["gain"].attrs)
    options = ReportOptions(detailed_detectors=2, detailed_amplifiers=3)
    text = render_report(ptc, options=options)
    page = Page(text)
    page.check()
    assert re.findall(r">Detector (\w+)<", text) == ["R033", "R000"]
    assert len(page.images) == 3 + 2 + 2 + 3 * 3
    assert len(list(rows_of(text, "summary"))) == 80
    assert "3 worst amplifiers of 80" in text
    assert len(text) < 3e6


def test_a_lazy_dataset_gives_the_same_page_as_one_in_memory() -> None:
    ptc = mosaic(["S0", "S1"])
    footer = re.compile(r"Written by skyloom .*? UTC")
    options = ReportOptions(detailed_amplifiers=1)
    pages = [
        footer.sub("", render_report(each, options=options))
        for each in (ptc, ptc.chunk({"detector": 1}))
    ]
    assert pages[0] == pages[1]


def test_a_report_does_not_change_what_it_is_made_from() -> None:
    ptc = solved(("A",))
    before = ptc.copy(deep=True)
    render_report(ptc)
    xr.testing.assert_identical(ptc, before)


def test_threads_draw_the_same_images() -> None:
    one = detector_block(with_detectors(solved(("A",))), "detector").isel(amp=0)
    alone = [data_uri(draw(one)) for draw in (photon_transfer_figure, matrix_figure)]
    found: list[list[str]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                [data_uri(draw(one)) for draw in (photon_transfer_figure, matrix_figure)]
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_rejected_rows_say_who_rejected_a_pair_and_why() -> None:
    rows = rejected_rows(detector_block(with_detectors(solved(("A", "B"))), "detector"))
    by_pair = {(row[0], row[3]): row for row in rows}
    assert by_pair["9-10", "MEAN_MISMATCH"][4] == "A"
    assert by_pair["19-20", "OUTLIER"][4] == "all"


def test_offenders_are_those_beyond_a_threshold_and_in_order() -> None:
    overview = amplifier_overview(with_detectors(mosaic(["S0", "S1", "S2"])))
    assert find_offenders(overview, Thresholds(chi2_dof=3.0)) == []
    worse = overview.copy(deep=True)
    worse["gain"][1, 0] *= 1.3
    worse["turnoff"][2, 1] *= 0.2
    findings = find_offenders(worse, Thresholds(chi2_dof=3.0))
    assert findings[0][:2] == ("S2", "B")
    assert ("S1", "A", "gain differs from the median") in [f[:3] for f in findings]
    assert [f.severity for f in findings] == sorted((f.severity for f in findings), reverse=True)


def test_a_deviation_within_its_error_is_no_offence() -> None:
    overview = amplifier_overview(with_detectors(mosaic(["S0", "S1", "S2"]))).copy(deep=True)
    overview["a_00"][0, 0] *= 1.5
    named = [f[:3] for f in find_offenders(overview)]
    assert ("S0", "A", "a₀₀ differs from the median") in named
    overview["a_00_sigma"][0, 0] = abs(overview["a_00"][0, 0]) / 4
    named = [f[:3] for f in find_offenders(overview)]
    assert ("S0", "A", "a₀₀ differs from the median") not in named


def test_detectors_lie_where_the_camera_says_and_do_not_overlap() -> None:
    camera = load_camera("decam")
    names = camera.detector_names()
    overview = xr.Dataset(coords={"detector": names, "amp": camera.amplifier_names()})
    plane = focal_plane(overview, camera)
    assert plane.unit == "mm"
    centers = {name: corners.mean(axis=0) for name, corners in plane.detectors.items()}
    for name in names:
        np.testing.assert_allclose(centers[name], camera.detector(name).offset_mm, atol=1e-9)
    low = np.array([corners.min(axis=0) for corners in plane.detectors.values()])
    high = np.array([corners.max(axis=0) for corners in plane.detectors.values()])
    apart = (low[:, None] > high[None]) | (low[None] > high[:, None])
    assert (apart.any(axis=-1) | np.eye(len(names), dtype=bool)).all()


def test_sums_and_old_fashioned_estimates_follow_their_definitions() -> None:
    one = detector_block(with_detectors(solved(("A",))), "detector").isel(amp=0)
    a = one["a"].to_numpy()
    full = sum(a[abs(j), abs(i)] for j in range(1 - LAGS, LAGS) for i in range(1 - LAGS, LAGS))
    assert cumulative_sum(a)[-1] == pytest.approx(full / a[0, 0], rel=1e-12)
    estimate, signal = old_fashioned_a(one, 3e4)
    place = int(np.argmin(np.abs(one["mean"].to_numpy() - 3e4)))
    model = one["covariance_model"].to_numpy()[place]
    expected = model[1, 0] / (model[0, 0] * float(one["gain"]) * signal)
    assert estimate[1, 0] == pytest.approx(expected, rel=1e-12)


def test_every_code_has_a_meaning() -> None:
    assert set(PAIR_STATUSES) == set(PairStatus)
    assert set(AMPLIFIER_FLAGS) == {flag for flag in AmplifierFlag if flag.value}
