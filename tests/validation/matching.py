"""Matched backgrounds of visits: closed loops with truth, a galaxy with a halo, peers."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray
from reproject.mosaicking._background import determine_offset_matrix, solve_corrections_sgd
from reproject.mosaicking._subset_array import ReprojectedArraySubset

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SkyloomWarning
from skyloom.algorithms.matching import (
    MatchParameters,
    choose_reference_visit,
    match_backgrounds,
    match_basis,
    update_match,
)
from skyloom.algorithms.matching.fields import PolynomialBasis
from skyloom.algorithms.matching.match_gauge import own_fields
from skyloom.algorithms.matching.match_inputs import functions_of_bins, grid_of_background
from skyloom.algorithms.simulate import SimulatedTract, TractParameters, simulate_tract
from tests.algorithms.matching.montage import (
    FRAME,
    binned_scene,
    montage_is_there,
    montage_scene,
    plane_error,
    planes_of_match,
    prepare_montage,
    run_model,
)
from tests.algorithms.matching.test_match import chain, error_of, fields_of, match_truth
from tests.validation.coadds import write_for_swarp
from tests.validation.rows import BESIDE, Row, at_most, between, not_measured, within

__all__ = ["measure"]

Floats = NDArray[np.float64]
PLAIN = MatchParameters(robust=False)
MONTAGE_LEFT = "nine images of 220²: background that Montage's planes leave, over ours"
MONTAGE_SLOPES = "slopes, ours against Montage's"
MONTAGE_LEVELS = "levels, ours against Montage's"
MONTAGE_FLAT = "levels only: background left over Montage's"
GALAXY = TractParameters(
    visits=20,
    slope=20.0,
    curvature=10.0,
    missing=0.1,
    source=40.0,
    source_sigma=0.07,
    source_shape="halo",
)


def drawn(seed: int, **scene: Any) -> SimulatedTract:
    return simulate_tract(np.random.default_rng(seed), parameters=TractParameters(**scene))


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def promised(found: xr.Dataset, made: SimulatedTract) -> float:
    """Return the rms error of fields where visits overlap, by their covariance."""
    grid = grid_of_background(found)
    functions = functions_of_bins(match_basis(found), grid)
    seen = np.isfinite(made.background["level"].values)
    seen &= seen.sum(axis=0) > 1
    total = 0.0
    for where, covariance in zip(seen, found["coefficient_covariance"].values, strict=True):
        at = functions[where.ravel()]
        total += float(np.vdot(at.T @ at, covariance))
    return float(np.sqrt(total / seen.sum()))


def loop_rows() -> list[Row]:
    """Return the rows of planes: errors, residuals, pulls, noise of the coadd."""
    rows = []
    for visits, published, count in (
        (2, 0.026, 20),
        (5, 0.053, 20),
        (20, 0.046, 10),
        (60, 0.054, 5),
    ):
        errors, formal, ratios = [], [], []
        for seed in range(count):
            made = drawn(seed, visits=visits)
            found = match_backgrounds(made.background, parameters=PLAIN)
            errors.append(error_of(found, made))
            formal.append(promised(found, made))
            ratios.append(float(found["overlap_ratio_after"]))
        rows += [
            at_most(
                f"planes of {visits} visits: error, noise 0.7 to 1.5",
                rms(errors),
                1.3 * published,
                form=".3f",
            ),
            between(
                "the same over what its covariance promises", rms(errors) / rms(formal), 0.7, 1.3
            ),
        ]
        if visits in (5, 20):
            spread = {5: 0.012, 20: 0.005}[visits]
            rows.append(
                within(
                    f"overlap residual over noise, {visits} visits",
                    float(np.mean(ratios)),
                    1.0,
                    3 * spread,
                )
            )
    for visits in (5, 20):
        pulls = []
        for seed in range(60):
            made = drawn(100 + seed, visits=visits)
            found = match_backgrounds(made.background)
            error = np.sqrt(np.einsum("vkk->vk", found["coefficient_covariance"].values))
            pulls.append((found["coefficients"].values - match_truth(made, found)) / error)
        rows.append(
            within(
                f"pulls of coefficients, 60 simulations of {visits} visits, robust",
                float(np.std(pulls)),
                1.0,
                0.07,
            )
        )
    for visits, theirs in ((4, 0.99), (25, 0.99), (100, 0.99)):
        made = drawn(
            7, visits=visits, gaps=0, dead=0.0, dither=0.0, radius=2.0, quietest=1.0, noisiest=1.0
        )
        common = match_backgrounds(made.background)["sky"] - made.truth["sky"]
        common = common - made.truth["field"].mean(v.VISIT)
        rows.append(
            between(
                f"noise of a bin in the coadd of {visits} visits, times the root of {visits}",
                float(common.std()) * np.sqrt(visits),
                0.0,
                1.03,
            )
        )
        bins = match_backgrounds(
            made.background, parameters=MatchParameters(mode="reference_bins", reference_visit=1)
        )
        copied = (made.background["level"] + bins["offset"]).mean(v.VISIT)
        copied = copied - made.truth["sky"] - made.truth["field"][0]
        rows.append(
            within(
                "the same bin by bin to a reference, not times the root",
                float(copied.std()),
                theirs,
                0.05,
            )
        )
    return rows


def harder_rows() -> list[Row]:
    """Return the rows of splines, outliers, sources, updates, chains and lost patches."""
    rows = []
    for noise in (0.3, 3.0):
        scene = {"slope": 0.0, "level": 0.0, "field": 5.0, "dither": 0.6}
        spline = MatchParameters(basis="spline", robust=False)
        tried = 10.0 ** np.arange(-3.0, 0.1, 0.5)
        errors, own, chosen = [], [], []
        for seed in range(3):
            made = drawn(seed, visits=24, quietest=noise, noisiest=noise, **scene)
            found = match_backgrounds(made.background, parameters=spline)
            own.append(error_of(found, made))
            chosen.append(found.attrs["smoothing"])
            fixed = [
                spline.model_copy(update={"smoothing": float(smoothing)}) for smoothing in tried
            ]
            errors.append(
                [error_of(match_backgrounds(made.background, parameters=p), made) for p in fixed]
            )
        least = np.sqrt(np.mean(np.square(errors), axis=0))
        best = int(np.argmin(least))
        rows += [
            between(
                f"8 x 8 splines, noise {noise}: error with the smoothing chosen, over the least",
                rms(own) / float(least[best]),
                0.0,
                1.15,
            ),
            between(
                "smoothing chosen, over the best",
                float(np.median(chosen)) / float(tried[best]),
                1 / 3,
                3.0,
            ),
            Row(
                "its error (published: 0.0675 and 0.403, in another scene)",
                BESIDE,
                f"{rms(own):.3f}",
                True,
            ),
        ]
    clean, spoilt, plain = [], [], []
    for seed in range(5):
        scene = {"visits": 24, "dither": 0.6}
        made = drawn(seed, **scene)
        clean.append(error_of(match_backgrounds(made.background), made))
        made = drawn(seed, **scene, ghosts=30.0, trails=15.0)
        spoilt.append(error_of(match_backgrounds(made.background), made))
        plain.append(error_of(match_backgrounds(made.background, parameters=PLAIN), made))
    rows += [
        between(
            "ghosts and trails in a sixth of visits, error over that without",
            rms(spoilt) / rms(clean),
            0.0,
            1.3,
        ),
        Row(
            "the same without robust weights (published: about 15)",
            BESIDE,
            f"{rms(plain) / rms(clean):.1f}",
            True,
        ),
    ]
    for visits, tolerance in ((10, 0.2), (50, 0.06)):
        amplitudes = []
        for seed in range(5):
            made = drawn(seed, visits=visits, stars=0, quietest=1.0, noisiest=1.0)
            found = match_backgrounds(made.background)
            amplitudes.append(amplitude(found, made))
        rows.append(
            within(
                f"amplitude of a source of 3, sigma 7.5 % of the tract, {visits} visits",
                float(np.mean(amplitudes)),
                3.0,
                tolerance,
            )
        )
    made = drawn(3, visits=60)
    full = match_backgrounds(made.background)
    new = update_match(
        match_backgrounds(made.background.isel({v.VISIT: slice(0, 59)})),
        made.background.isel({v.VISIT: [59]}),
    )
    theta = (full["coefficients"] - full["coefficients"][:59].mean(v.VISIT)).values[59]
    error = np.sqrt(np.diag(full["coefficient_covariance"].values[59]))
    rows.append(
        at_most(
            "one visit added to 59, off the full solution in its errors",
            rms((new["coefficients"].values[59] - theta) / error),
            0.05,
        )
    )
    errors, formal, free = [], [], []
    for seed in range(20):
        background, field = chain(np.random.default_rng(seed))
        seen = np.isfinite(background["level"].values)
        for kept, prior in ((errors, "auto"), (free, "none")):
            found = match_backgrounds(
                background, parameters=PLAIN.model_copy(update={"slope_prior": prior})
            )
            rest = fields_of(found) - field
            kept.append(rms((rest - rest.mean(axis=0))[seen]))
            if prior == "auto":
                formal.append(rms(found["offset_error"]))
    rows += [
        between(
            "chain of 10 visits: error with a prior on slopes over what errors promise",
            rms(errors) / rms(formal),
            0.0,
            1.3,
        ),
        Row(
            "the same, with and without prior",
            "prior better",
            f"{rms(errors):.1f}, {rms(free):.1f}",
            rms(errors) < rms(free),
        ),
    ]
    whole, lacking = [], []
    for seed in range(10):
        for kept, missing in ((whole, 0.0), (lacking, 0.3)):
            made = drawn(seed, visits=20, missing=missing)
            kept.append(error_of(match_backgrounds(made.background), made))
    rows.append(
        between(
            "30 % of patches missing: error over that with all",
            rms(lacking) / rms(whole),
            0.0,
            1.35,
        )
    )
    return rows


def amplitude(found: xr.Dataset, made: SimulatedTract) -> float:
    """Return the amplitude of the source in the sky, which has one plane beside."""
    functions = functions_of_bins(
        PolynomialBasis(grid_of_background(found).shape, 1), grid_of_background(found)
    )
    shape = made.truth["source"].values.reshape(-1, 1) / 3.0
    design = np.hstack([functions, shape])
    good = np.isfinite(found["sky"].values.ravel())
    root = np.sqrt(found["sky_weight"].values.ravel()[good])
    sky = found["sky"].values.ravel()[good]
    answer = np.linalg.lstsq(design[good] * root[:, None], sky * root)[0]
    return float(answer[-1])


def halo_flux(sky: Floats, weight: Floats, made: SimulatedTract) -> float:
    """Return the flux of the galaxy beyond its disk over the true one.

    One background of second order is fitted to the coadd where the galaxy is faint, and
    subtracted.
    """
    grid = grid_of_background(made.background)
    functions = functions_of_bins(PolynomialBasis(grid.shape, 2), grid)
    source = made.truth["source"].values.ravel()
    stars = (made.truth["sky"].values.ravel() - source) > 0
    known = np.isfinite(sky) & (weight > 0) & ~stars
    outside = known & (source < 0.02)
    root = np.sqrt(weight[outside])
    theta = np.linalg.lstsq(functions[outside] * root[:, None], sky[outside] * root)[0]
    halo = known & (source < 0.1 * source.max()) & (source > 0.1)
    return float((sky - functions @ theta)[halo].sum() / source[halo].sum())


def peer_rows() -> list[Row]:
    """Return the row of levels only, matched by an independent package from pixels."""
    scene, truth = montage_scene(np.random.default_rng(2), 60, 40, 3)
    y, x = np.mgrid[:60, :60]
    for image, (row, column), (_, in_y, in_x) in zip(*scene, truth, strict=True):
        middle = FRAME / 2 - 0.5
        image -= (in_y * (y + row - middle) + in_x * (x + column - middle)).astype(np.float32)
    arrays = [
        ReprojectedArraySubset(
            image.astype(np.float64),
            np.ones(image.shape, bool),
            [(int(row), int(row) + 60), (int(column), int(column) + 60)],
        )
        for image, (row, column) in zip(*scene, strict=True)
    ]
    theirs = solve_corrections_sgd(determine_offset_matrix(arrays))
    levels = PLAIN.model_copy(update={"order": 0})
    ours = match_backgrounds(binned_scene(scene), parameters=levels)["coefficients"].values[:, 0]
    difference = (ours - ours.mean()) - (theirs - theirs.mean())
    return [at_most("levels, ours against reproject's, noise of a pixel 1", rms(difference), 0.05)]


def swarp_rows() -> list[Row]:
    """Return the rows of a faint source of 64 pixels, after SWarp took a mesh from each visit."""
    rng = np.random.default_rng(5)
    side, size = 1024, 16
    y, x = np.mgrid[:side, :side] - (side - 1) / 2.0
    shape = np.exp(-0.5 * (y**2 + x**2) / 64.0**2)
    plane = np.stack([np.ones_like(x), x / side, y / side], axis=-1).reshape(-1, 3)
    fields = (rng.normal(0.0, [50.0, 20.0, 20.0], (6, 3)) @ plane.T).reshape(6, side, side)
    images = (3.0 * shape + fields + rng.standard_normal(fields.shape)).astype(np.float32)

    def kept(coadd: Floats, template: Floats, functions: Floats) -> float:
        design = np.column_stack([functions, template.ravel()])
        return float(np.linalg.lstsq(design, coadd.ravel())[0][-1])

    bins = side // size
    level = images.astype(np.float64).reshape(6, bins, size, bins, size).mean(axis=(2, 4))
    dims = (v.VISIT, v.TRACT_Y, v.TRACT_X)
    background = xr.Dataset(
        {"level": (dims, level), "variance": (dims, np.full(level.shape, 1.0 / size**2))},
        {v.VISIT: np.arange(6)},
        {"tract_shape": [side, side], "bin_size": [size, size]},
    )
    found = match_backgrounds(background)
    grid = grid_of_background(found)
    functions = functions_of_bins(PolynomialBasis(grid.shape, 2), grid)
    template = shape.reshape(bins, size, bins, size).mean(axis=(1, 3))
    ours = kept(found["sky"].values, template, functions)
    rows = [between("a source of 3, sigma 64 pixels, 6 visits: amplitude kept", ours, 2.94, 3.06)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = write_for_swarp(folder, images, np.ones_like(images))
        for mesh, published in ((64, 0.39), (128, 1.61), (256, 2.62), (512, 2.94)):
            what = f"the same of SWarp, mesh of {mesh} pixels"
            if not command:
                rows.append(not_measured(what, f"{published} ± 3 %", "SWarp is not installed"))
                continue
            options = list(command)
            for key in ("-RESAMPLE", "-SUBTRACT_BACK"):  # it takes backgrounds where it resamples
                options[options.index(key) + 1] = "Y"
            options += ["-BACK_SIZE", str(mesh), "-RESAMPLING_TYPE", "NEAREST"]
            options += ["-CENTER_TYPE", "MANUAL", "-CENTER", "0,0", "-IMAGE_SIZE", f"{side},{side}"]
            options += ["-PIXELSCALE_TYPE", "MANUAL", "-PIXEL_SCALE", "0.36"]
            subprocess.run(options, cwd=folder, check=True, capture_output=True)
            coadd = fits.getdata(folder / "out.fits").astype(np.float64)
            theirs = kept(coadd, shape, plane[:, :1])
            rows.append(within(what, theirs, published, 0.03 * published))
    return rows


def galaxy_rows() -> list[Row]:
    """Return the rows of 20 visits of a large galaxy, with curved backgrounds."""
    joint = MatchParameters(order=2)
    ratios, better, half = [], [], []
    fluxes: dict[str, list[float]] = {name: [] for name in ("joint", "truth", "mask", "all")}
    for seed in range(10):
        made = simulate_tract(np.random.default_rng(seed), parameters=GALAXY)
        found = match_backgrounds(made.background, parameters=joint)
        sky, weight = (found[name].values.ravel() for name in ("sky", "sky_weight"))
        fluxes["joint"].append(halo_flux(sky, weight, made))
        fluxes["truth"].append(without_fields(made, made.truth["field"].values))
        for name, limit in (("mask", 3.0), ("all", 0.02)):  # of detection, and of all there is
            fluxes[name].append(without_fields(made, fields_of_visits(made, limit)))
        if seed >= 5:
            continue
        ratios.append(float(found["overlap_ratio_after"]))
        own, errors = error_of(found, made), []
        for visit in made.background[v.VISIT].values:
            chosen = MatchParameters(mode="reference", order=2, reference_visit=int(visit))
            other = match_backgrounds(made.background, parameters=chosen)
            if np.isfinite(other["coefficients"]).all():
                errors.append(error_of(other, made))
        better.append(own / min(errors))
        half.append(half_covered(made, joint))
    smooth, by_bin = np.transpose(half)
    kept = fluxes["joint"]
    return [
        between(
            "20 visits, planes and curves of 2 %: overlap rms after matching over noise",
            float(np.mean(ratios)),
            0.0,
            1.3,
        ),
        at_most(
            f"flux of a galaxy's halo kept by joint matching, {ranged(kept)} in 10 scenes: rms "
            "deviation from 1",
            rms(np.array(kept) - 1.0),
            0.03,
            form=".3f",
        ),
        Row(
            "the same without any error of matching: noise and the one background that is fitted",
            BESIDE,
            f"{rms(np.array(fluxes['truth']) - 1.0):.3f}, {ranged(fluxes['truth'])}",
            True,
        ),
        within("its mean by joint matching", float(np.mean(kept)), 1.0, 0.03),
        Row(
            "its mean after a background of each visit of the same order, objects masked as "
            "detection would",
            "loses it",
            f"{np.mean(fluxes['mask']):.3f}, {ranged(fluxes['mask'])}",
            float(np.mean(fluxes["mask"])) < 0.9,
        ),
        Row(
            "the same, all of the galaxy masked as only the truth can",
            BESIDE,
            f"{np.mean(fluxes['all']):.3f}, {ranged(fluxes['all'])}",
            True,
        ),
        between(
            "error over that with the best reference visit, smooth fields",
            float(np.mean(better)),
            0.0,
            1.0,
        ),
        between(
            f"a reference that covers half, bins that it has: joint error over that of smooth "
            f"fields, {ranged(smooth)} in 5 scenes",
            float(smooth.max()),
            0.0,
            0.8,
        ),
        between(
            f"the same over that of offsets bin by bin, {ranged(by_bin)}",
            float(by_bin.max()),
            0.0,
            0.8,
        ),
    ]


def ranged(values: Any) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"


def fields_of_visits(made: SimulatedTract, limit: float) -> Floats:
    """Return fields of second order fitted to each visit alone, (visit, y, x).

    Stars are masked, and the galaxy where it is brighter than a limit.
    """
    grid = grid_of_background(made.background)
    functions = functions_of_bins(PolynomialBasis(grid.shape, 2), grid)
    shape = made.background["level"].shape
    level = made.background["level"].values.reshape(shape[0], -1).T
    stars = (made.truth["sky"] - made.truth["source"]).values.ravel() > 0
    bright = made.truth["source"].values.ravel() > limit
    good = np.isfinite(level) & ~(stars | bright)[:, None]
    weight = good / made.truth["noise"].values ** 2
    level = np.where(np.isfinite(level), level, 0.0).astype(np.float64)
    return (functions @ own_fields(level, weight, functions).T).T.reshape(shape)


def without_fields(made: SimulatedTract, fields: Floats) -> float:
    """Return the halo's flux in the weighted mean of visits without their fields."""
    level = made.background["level"].values - fields
    weight = np.isfinite(level) / made.truth["noise"].values[:, None, None] ** 2
    total = weight.sum(axis=0)
    sky = np.where(np.isfinite(level), level * weight, 0.0).sum(axis=0)
    sky = sky / np.where(total > 0, total, np.nan)
    return halo_flux(sky.ravel(), total.ravel(), made)


def half_covered(made: SimulatedTract, joint: MatchParameters) -> tuple[float, float]:
    """Return the error of joint matching over those with a reference of half the tract.

    Where the reference has data: elsewhere it can only be extrapolated.
    """
    visit, _ = choose_reference_visit(made.background)
    chosen = made.background[v.VISIT] == visit
    columns = np.arange(made.background.sizes[v.TRACT_X])
    hidden = chosen & xr.DataArray(columns >= 24, dims=v.TRACT_X)
    background = made.background.assign(level=made.background["level"].where(~hidden))
    smooth, bins = (
        MatchParameters(mode="reference", order=2, reference_visit=visit),
        MatchParameters(mode="reference_bins", reference_visit=visit),
    )
    fields = [
        fields_of(match_backgrounds(background, parameters=joint)),
        fields_of(match_backgrounds(background, parameters=smooth)),
        -match_backgrounds(background, parameters=bins)["offset"].values,
    ]
    seen = np.isfinite(background["level"].values)
    compared = seen & seen[chosen.values] & (seen.sum(axis=0) > 1) & np.isfinite(fields[2])
    errors = []
    for found in fields:
        rest = np.where(compared, found - made.truth["field"].values, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # bins that nobody has
            errors.append(float(np.sqrt(np.nanmean((rest - np.nanmean(rest, axis=0)) ** 2))))
    return errors[0] / errors[1], errors[0] / errors[2]


def montage_rows() -> list[Row]:
    """Return the rows of nine images, matched by Montage from their pixels."""
    if not montage_is_there():
        targets = {
            MONTAGE_LEFT: "≥ 1",
            MONTAGE_SLOPES: "≤ 0.0005 per pixel",
            MONTAGE_LEVELS: "≤ 0.1",
            MONTAGE_FLAT: "1 ± 0.05",
        }
        absent = "Montage is not installed"
        return [not_measured(what, target, absent) for what, target in targets.items()]
    scene, truth = montage_scene(np.random.default_rng(1), 220, 160, 3)
    background = binned_scene(scene)
    planes = planes_of_match(match_backgrounds(background), scene)
    with tempfile.TemporaryDirectory() as folder:
        prepare_montage(Path(folder), scene)
        theirs, _ = run_model(Path(folder), 20000)
        levels, _ = run_model(Path(folder), 20000, "-l")
    ours, their = plane_error(planes, truth, scene), plane_error(theirs, truth, scene)
    level = match_backgrounds(background, parameters=PLAIN.model_copy(update={"order": 0}))[
        "coefficients"
    ].values
    flat = plane_error(np.hstack([level, 0 * level, 0 * level]), truth, scene)
    other = plane_error(levels, truth, scene)
    difference = np.abs((planes - planes.mean(axis=0)) - (theirs - theirs.mean(axis=0))).max(axis=0)
    return [
        at_most(
            "nine images of 220², noise 1: background that planes leave", ours, 0.015, form=".4f"
        ),
        between(MONTAGE_LEFT, their / ours, 1.0, float("inf")),
        at_most(MONTAGE_SLOPES, float(difference[1:].max()), 5e-4, "per pixel"),
        at_most(MONTAGE_LEVELS, float(difference[0]), 0.1),
        within(MONTAGE_FLAT, flat / other, 1.0, 0.05),
    ]


def measure() -> list[Row]:
    """Return the rows of this topic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        return (
            loop_rows()
            + harder_rows()
            + galaxy_rows()
            + peer_rows()
            + swarp_rows()
            + montage_rows()
        )
