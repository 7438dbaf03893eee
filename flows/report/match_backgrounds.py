"""The report of matched backgrounds: overlaps before and after, the gauge, errors, who is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.matching import TractGrid, basis_at_bins, match_basis
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.match_blocks import MATCHED, grid_of
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.numbers import number, with_error
from skyloom.flows.report.sections import Image, drawn_image
from skyloom.flows.report.tract_figures import bins_figure, cost_figure, fields_figure, sky_figure
from skyloom.storage.match_schemas import SUITABILITY

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = (
    "ingest",
    "detrended",
    "sky_subtracted",
    "warps",
    "tract_levels",
    "background_match",
)
MOST_SOLUTIONS = 8
MOST_VISITS = 18  # whose bins are shown, the worst first
GAUGES: Final = {
    "mean": "the mean of the fields of all visits is zero: the coadd keeps the average background",
    "reference": "the field of the reference visit is zero: the coadd keeps its background",
    "absolute": "fields agree in the mean with fits to each visit alone",
}
Floats = NDArray[np.float64]


class Solution(NamedTuple):
    """One filter on one tract: the match, its visits only, and their levels and fields in bins."""

    match: xr.Dataset
    grid: TractGrid
    level: Floats
    field: Floats
    functions: Floats
    unit: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Filter and tract for people."""
        return (
            f"{self.match[v.FILTER].item() or 'without name'}, tract {self.match[v.TRACT].item()}"
        )

    @property
    def visits(self) -> list[int]:
        """The visits in their order."""
        return [int(visit) for visit in self.match[v.VISIT].to_numpy()]

    def rms(self, matched: bool) -> Floats:
        """Return the rms of each visit about the sky that it shares with others."""
        rest = self.residual(matched)
        shared = (np.isfinite(rest).sum(axis=0) > 1)[None]
        count = (np.isfinite(rest) & shared).sum(axis=(1, 2))
        square = np.where(np.isfinite(rest) & shared, rest**2, 0.0).sum(axis=(1, 2))
        return np.asarray(np.sqrt(square / np.where(count > 0, count, np.nan)))

    def residual(self, matched: bool) -> Floats:
        """Return levels less the mean of their bin, with or without the fields."""
        level = self.level - self.field if matched else self.level
        seen = np.isfinite(level)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, level, 0.0).sum(axis=0) / count
        return np.asarray(level - mean)


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's matched backgrounds, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``match_backgrounds`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    solutions = _solutions(store)
    return write_page(
        store,
        Path(path),
        kind="Matched backgrounds",
        steps=STEPS,
        tiles=_tiles(solutions),
        sections=[_section(one, f"match-{index}") for index, one in enumerate(solutions)],
        product="background_match",
    )


def _solutions(store: Store) -> list[Solution]:
    if "background_match" not in store or "warps" not in store:
        return []
    done, opened = store.done("background_match"), store["background_match"]
    configuration = store.attrs("background_match").get("configuration", {})
    sky_map = SkyMapParameters.model_validate(store.attrs("warps")["sky_map"])
    levels = store["tract_levels"]
    found = []
    for row, column in list(zip(*np.nonzero(done), strict=True))[:MOST_SOLUTIONS]:
        match = opened.isel({v.FILTER: int(row), v.TRACT: int(column)}).load()
        match = match.isel({v.VISIT: match["status"].to_numpy() != v.OffsetStatus.NOT_MEASURED})
        tract = int(match[v.TRACT].item())
        grid = grid_of(sky_map, tract, configuration.get("bin_size"))
        rows, columns = grid.bins
        inside = {v.TRACT_Y: slice(0, rows), v.TRACT_X: slice(0, columns)}
        match = match.isel(inside).assign_attrs(
            store.attrs("background_match"), tract_shape=list(grid.shape)
        )
        own = levels.sel({v.VISIT: match[v.VISIT].to_numpy(), v.TRACT: tract}).isel(inside)
        own = own[["level", "flags"]].transpose(v.VISIT, v.TRACT_Y, v.TRACT_X).load()
        bad = int(v.BinFlag.EMPTY | v.BinFlag.LOW_COUNT | v.BinFlag.BAD_VARIANCE)
        level = np.where(own["flags"].to_numpy() & bad, np.nan, own["level"].to_numpy())
        functions = basis_at_bins(match_basis(match), grid)
        coefficients = match["coefficients"].transpose(v.VISIT, v.COEFFICIENT).to_numpy()
        fields = np.einsum("yxk,vk->vyx", functions, coefficients)
        found.append(
            Solution(
                match, grid, level.astype(np.float64), fields, functions,
                levels["level"].attrs.get("units", ""), dict(configuration.get("match", {})),
            )
        )  # fmt: skip
    return found


def _section(one: Solution, anchor: str) -> Section:
    visits = list(map(str, one.visits))
    return Section(
        anchor,
        f"Filter {one.name}",
        _gauge_text(one),
        [
            _bins_image(one, matched=False),
            _bins_image(one, matched=True),
            _sky_image(one),
            _fields_image(one, visits),
            _cost_image(one, visits),
        ],
        [_rms_table(one), _visit_table(one), _left_table(one), _cost_table(one)],
    )


def _gauge_text(one: Solution) -> str:
    settings, match = one.settings, one.match
    basis = (
        f"cubic splines of {' × '.join(map(str, settings.get('knots', ())))} knots"
        if settings.get("basis") == "spline"
        else f"polynomials of order {settings.get('order')}"
    )
    reference = int(match["reference_visit"])
    if settings.get("mode") == "reference":
        text = f"Each visit is matched to the reference visit {reference} by {basis}."
    else:
        gauge = settings.get("gauge", "mean")
        text = f"All visits are matched at once by {basis}. What matching cannot know: "
        text += GAUGES.get(gauge, gauge)
        text += f" (visit {reference})." if gauge == "reference" else "."
        text += (
            f" χ² {number(float(match['chi2']))} for {number(float(match['dof']))} degrees of "
            "freedom; the fields took "
            f"{number(float(match['effective_parameters']), 3)} parameters; condition "
            f"{number(float(match['condition']), 2)}."
        )
    if reference >= 0 and settings.get("reference_visit") is not None:
        text += " The reference was named by the configuration."
    bins = one.grid.bin_size
    return f"{text} Bins of {bins[0]} × {bins[1]} pixels."


def _worst(one: Solution) -> list[int]:
    """Return the places of the visits that are shown: with data, the worst before matching."""
    rms = one.rms(matched=False)
    known = np.flatnonzero(np.isfinite(one.level).any(axis=(1, 2)))
    order = known[np.argsort(-np.nan_to_num(rms[known], nan=-1.0), kind="stable")]
    return sorted(int(place) for place in order[:MOST_VISITS])


def _bins_image(one: Solution, *, matched: bool) -> Image:
    shown = _worst(one)
    rest, rms = one.residual(matched), one.rms(matched)
    panels = [(f"{one.visits[i]}: rms {number(float(rms[i]), 3)}", rest[i]) for i in shown]
    word = "matched" if matched else "before matching"
    noise = float(one.match["bin_noise"])
    note = "" if len(shown) == len(one.visits) else f" The {len(shown)} worst visits."
    return drawn_image(
        bins_figure, panels, f"level − mean of visits, {one.unit}",
        text=f"Levels of visits through {one.name}, {word}",
        caption=f"{word.capitalize()}: bins of each visit less the mean of all visits in the bin; "
        f"grey: no data. Noise of a bin {number(noise, 3)} {one.unit}.{note}",
    )  # fmt: skip


def _sky_image(one: Solution) -> Image:
    sky = one.match["sky"].to_numpy()
    count = one.match["visit_count"].to_numpy().astype(np.float64)
    return drawn_image(
        sky_figure, sky, count, one.unit,
        text=f"Sky that visits share through {one.name}, and how many there are",
    )  # fmt: skip


def _fields(one: Solution) -> tuple[Floats, Floats, Floats]:
    """Return the mean field of each visit over the tract, its error, and the rms of the rest."""
    mean = one.functions.mean(axis=(0, 1))
    covariance = one.match["coefficient_covariance"].transpose(v.VISIT, ...).to_numpy()
    level = one.field.mean(axis=(1, 2))
    sigma = np.sqrt(np.maximum(np.einsum("k,vkl,l->v", mean, covariance, mean), 0.0))
    slope = np.sqrt(np.mean((one.field - level[:, None, None]) ** 2, axis=(1, 2)))
    return level, sigma, slope


def _fields_image(one: Solution, visits: list[str]) -> Image:
    level, sigma, slope = _fields(one)
    return drawn_image(
        fields_figure, visits, level, sigma, slope, one.match["offset_error"].to_numpy(), one.unit,
        text=f"Fields of the visits through {one.name}",
        caption="What is subtracted from each visit. Errors are one standard deviation, in the "
        "gauge of the solution.",
    )  # fmt: skip


def _cost_image(one: Solution, visits: list[str]) -> Image:
    best = _best(one)
    return drawn_image(
        cost_figure, visits, _costs(one), best,
        text=f"Cost of each visit as a reference through {one.name}",
        caption="Ranks (how many visits are significantly better) times their weights, over the "
        "number of visits.",
    )  # fmt: skip


def _costs(one: Solution) -> dict[str, Floats]:
    weights = one.settings.get("selection", {})
    names = ("coverage", "complexity", "noise")
    own = {name: float(weights.get(name, 0.0)) for name in names}
    total = sum(own.values()) or 1.0
    ranks = {name: one.match[f"reference_rank_{name}"].to_numpy() for name in names}
    usable = max(1, int(np.isfinite(one.match["reference_cost"].to_numpy()).sum()))
    if weights.get("mode") == "compat":  # ratios to the worst, not ranks
        return {name: own[name] * ranks[name] for name in names}
    return {name: own[name] / total * ranks[name] / usable for name in names}


def _best(one: Solution) -> int | None:
    reference = int(one.match["reference_visit"])
    if reference in one.visits:
        return one.visits.index(reference)
    cost = one.match["reference_cost"].to_numpy()
    return int(np.nanargmin(cost)) if np.isfinite(cost).any() else None


def _rms_table(one: Solution) -> Table:
    match, unit = one.match, one.unit

    def value(name: str) -> str:
        return number(float(match[name]))

    rows = [
        (f"rms about the sky that visits share ({unit})", value("overlap_rms_before"),
         value("overlap_rms_after")),
        ("the same over the noise of the bins",
         number(float(match["overlap_rms_before"]) / float(match["bin_noise"])),
         value("overlap_ratio_after")),
        (f"mean difference, 95 % of pairs of visits below ({unit})",
         value("pair_difference_95_before"), value("pair_difference_95_after")),
        ("rms step of the sky where visits begin or end, its noise", "", value("seam_step")),
        ("the same where none does", "", value("inner_step")),
    ]  # fmt: skip
    return Table("Overlaps", ("", "before", "matched"), rows, (1, 2))


def _visit_table(one: Solution) -> Table:
    level, sigma, slope = _fields(one)
    before, after = one.rms(matched=False), one.rms(matched=True)
    match = one.match
    names = ("offset_error", "mean_residual", "component", "terms_used", "bins_used", "status")
    columns = {name: match[name].to_numpy() for name in names}
    rows = [
        (
            str(visit),
            with_error(float(level[i]), float(sigma[i])),
            number(float(slope[i]), 3),
            number(float(columns["offset_error"][i]), 3),
            number(float(before[i]), 3),
            number(float(after[i]), 3),
            number(round(float(columns["mean_residual"][i]), 3), 2),
            str(int(columns["bins_used"][i])),
            str(int(columns["terms_used"][i])),
            str(int(columns["component"][i])),
            v.OffsetStatus(int(columns["status"][i])).name,
        )
        for i, visit in enumerate(one.visits)
    ]
    unit = one.unit
    headings = (
        "visit",
        f"level of the field ({unit})",
        f"rms of the rest ({unit})",
        f"error ({unit})",
        "rms before",
        "rms matched",
        "mean residual (σ)",
        "bins",
        "terms",
        "group",
        "status",
    )
    return Table("Visits", headings, rows, tuple(range(10)))


def _left_table(one: Solution) -> Table:
    """Return the visits that are not matched to all others, and why."""
    groups = one.match["component"].to_numpy()
    codes = one.match["status"].to_numpy()
    matched = np.isin(codes, MATCHED)
    sizes = {int(group): int((groups[matched] == group).sum()) for group in np.unique(groups)}
    largest = max(sizes, key=lambda group: (sizes[group], -group), default=-1)
    rows = []
    for visit, group, code in zip(one.visits, groups, codes, strict=True):
        status = v.OffsetStatus(int(code))
        if int(group) == largest and status in (v.OffsetStatus.OK, v.OffsetStatus.SINGLE):
            continue
        reason = {
            v.OffsetStatus.ISOLATED: "overlaps no other visit; keeps its own background",
            v.OffsetStatus.NO_DATA: "no bin has data",
            v.OffsetStatus.BAD_VARIANCE: "no bin has a usable variance",
            v.OffsetStatus.NO_REFERENCE_OVERLAP: "does not overlap the reference visit",
            v.OffsetStatus.REDUCED: "overlaps determine only a simpler field",
        }.get(status, "")
        if int(group) != largest and status in (v.OffsetStatus.OK, v.OffsetStatus.REDUCED):
            reason = f"belongs to group {int(group)} of {sizes[int(group)]} visits, which does not "
            reason += f"overlap group {largest} of {sizes[largest]}"
        rows.append((str(visit), status.name, reason))
    return Table(
        "Visits that hang loose or are left out",
        ("visit", "status", "why"),
        rows,
        (0,),
        "None: all visits hang together.",
    )


def _cost_table(one: Solution) -> Table:
    match, best = one.match, _best(one)
    rows = []
    order = np.argsort(np.nan_to_num(match["reference_cost"].to_numpy(), nan=np.inf), kind="stable")
    for place in map(int, order):
        values = {name: float(match[f"reference_{name}"].to_numpy()[place]) for name in SUITABILITY}
        word = "" if place != best else "best"
        if place == best and int(match["reference_visit"]) >= 0:
            word = "the reference"
        if not np.isfinite(values["cost"]):
            word = "too little coverage or data"
        rows.append(
            (
                str(one.visits[place]),
                number(values["cost"], 3),
                f"{number(values['coverage'], 3)} ({number(values['rank_coverage'], 3)})",
                f"{number(values['complexity'], 3)} ({number(values['rank_complexity'], 3)})",
                f"{number(values['noise'], 3)} ({number(values['rank_noise'], 3)})",
                word,
            )
        )
    columns = ("visit", "cost", "coverage (rank)", "χ²/dof of a plane (rank)",
               "variance of bins (rank)", "")  # fmt: skip
    return Table("Which visit would be the best reference", columns, rows, (0, 1, 2, 3, 4))


def _tiles(solutions: list[Solution]) -> list[tuple[str, str, str]]:
    tiles = [("solutions", str(len(solutions)), "filters × tracts")]
    if not solutions:
        return tiles
    codes = np.concatenate([one.match["status"].to_numpy() for one in solutions])
    tiles.append(("visits matched", str(int(np.isin(codes, MATCHED).sum())), f"of {codes.size}"))
    groups = max(len(np.unique(one.match["component"].to_numpy())) for one in solutions)
    tiles.append(("groups", str(groups), "1: all visits hang together"))
    for name, text in (("overlap_rms_before", "before"), ("overlap_rms_after", "matched")):
        value = max(float(np.nan_to_num(float(one.match[name]))) for one in solutions)
        tiles.append((f"rms in overlaps, {text}", number(value, 3), solutions[0].unit))
    ratio = max(float(np.nan_to_num(float(one.match["overlap_ratio_after"]))) for one in solutions)
    tiles.append(("matched, over noise", number(ratio, 3), "1 is perfect"))
    return tiles
