"""Skies in sub-bands: simulated visits of known refraction, against truth and simpler templates.

Stars are black bodies of 3500 to 15 000 K evaluated at 60 wavelengths, at places between pixels:
nothing is interpolated in the simulation. Twelve visits at airmasses from 1.02 to 1.8 are fitted;
templates are judged on four visits that are not, without noise, within 8 px of stars.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import solve_dcr, stack_planes, star_colours
from skyloom.algorithms.dcr.colours import HELD
from skyloom.algorithms.errors import DegenerateGeometryWarning
from tests.algorithms.dcr.analytic import (
    HELD_OUT,
    NORTH_UP,
    G,
    coadd_of,
    conditions,
    dozen,
    observed,
    scene,
)
from tests.algorithms.dcr.scatter import alike, scatter_of, seeing_of, thin_scatter
from tests.algorithms.dcr.skies import (
    FWHM,
    SIZE,
    Floats,
    Sky,
    count_detections,
    galaxy,
    make_sky,
    measure_stars,
    nearest_visit,
    predicted,
    ratios,
    rms,
    solve,
    templates_of,
)
from tests.validation.rows import BESIDE, Row, at_most, between, within

__all__ = ["measure"]

SCENES = 6


def measure() -> list[Row]:
    """Measure everything."""
    skies = [make_sky(seed, 5.0) for seed in range(1, 1 + SCENES)]
    return [
        *_templates(skies),
        *_colours(skies),
        *_faint(),
        *_geometry(skies[0]),
        *_seeing(),
        *_chromatic(),
        *_damage(skies[0]),
        *_noise(skies[0]),
        *_noise_at_defaults(),
        *_detections(skies[0]),
        *_galaxy(),
        *_parts(skies[0]),
    ]


def _templates(skies: list[Sky]) -> list[Row]:
    """Judge templates of all methods."""
    found: dict[str, list[Floats]] = {}
    chi2, plain, iterations = [], [], []
    for sky in skies:
        early = solve(sky, max_iterations=5, reject_rounds=0)
        chi2.append(float(early.diagnostics["chi2_total"]))
        solved = solve(sky)
        iterations.append(int(solved.diagnostics["iterations"].item()))
        detected = (sky.template[v.MASK].to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
        lacking = (sky.warps["image"] - sky.template["image"]).to_numpy()[:, detected]
        plain.append(float((lacking**2).mean() / 25.0))
        for name, templates in (
            ("linear", templates_of(solved.model)),
            ("nearest", nearest_visit(sky)),
            ("iterative", templates_of(solve(sky, solver="iterative", max_iterations=12,
                                             use_convergence=False, order=1).model)),
            ("cubic", templates_of(solve(sky, solver="iterative").model)),
            ("free", templates_of(solve(
                sky, solver="iterative", max_iterations=12, use_convergence=False,
                clamp_frequency=0.0, clamp_iteration=0.0, use_model_weights=False,
                progressive_gain=False).model)),
        ):  # fmt: skip
            found.setdefault(name, []).append(ratios(sky, templates))
    means = {name: np.mean(each, axis=0) for name, each in found.items()}
    listed = {name: ", ".join(f"{one:.3f}" for one in each) for name, each in means.items()}
    spec = np.array([0.60, 0.74, 0.47, 0.29])
    return [
        between("linear: χ² per pixel at sources after 5 iterations, worst of 6 skies (plain coadd "
                f"{np.mean(plain):.0f})", max(chi2), 0.75, 1.05),
        at_most("linear: iterations to a relative residual of 1e-4, most", max(iterations), 12,
                form=".0f"),
        Row("linear: residual in held-out visits over that of the plain coadd",
            "≤ 0.05 each", listed["linear"], bool((means["linear"] <= 0.05).all())),
        Row("the same of a single visit at the nearest altitude", "reported", listed["nearest"],
            True),
        Row("the same of the iterative solver, 12 iterations, linear interpolation",
            "≤ 0.60, 0.74, 0.47, 0.29 (the reference's)", listed["iterative"],
            bool((means["iterative"] <= spec).all())),
        Row("the same of the iterative solver at its defaults, cubic splines", "reported",
            listed["cubic"], True),
        Row("the same without clamps and taper, cubic splines",
            "≤ 0.1 each", listed["free"], bool((means["free"] <= 0.1).all())),
    ]  # fmt: skip


def _colours(skies: list[Sky]) -> list[Row]:
    """Compare first moments of spectra with the truth."""
    both = [(sky, solve(sky)) for sky in skies]
    each = [measure_stars(sky, solved.model, 5.0) for sky, solved in both]
    found, true, _, parts, flux = (np.concatenate(one) for one in zip(*each, strict=True))
    slope, offset = np.polyfit(true, found, 1)
    deviation, sigma = _moments(skies, tolerance=1e-5)
    faint = _moments([make_sky(seed, 50.0) for seed in range(1, 1 + SCENES)])
    flat = [measure_stars(sky, solve(sky, in_band="flat").model, 5.0) for sky in skies]
    steep = np.polyfit(np.concatenate([one.true for one in flat]),
                       np.concatenate([one.found for one in flat]), 1)[0]  # fmt: skip
    wrong = G.model_copy(update={"lambda_ref": G.lambda_ref + 5.0})
    shifted = [solve(sky, band=wrong, outlier_factor=1e9, reject_rounds=0) for sky in skies]
    stars = [measure_stars(sky, one.model, 5.0) for sky, one in zip(skies, shifted, strict=True)]
    offsets = np.concatenate([one.found - one.true for one in stars])
    return [
        within(f"first moments of {len(found)} black bodies of 3500–15 000 K: slope over the "
               "truth", slope, 1.0, 0.02, form=".4f"),
        at_most("their scatter about the line, in units of the band",
                rms(found - slope * true - offset), 0.002),
        within("width of the pulls of `star_colours` by the stated errors, at signals to noise up "
               "to 14 000", float((deviation / sigma).std()), 1.0, 0.2, form=".3f"),
        Row("the same by the stated noise alone", BESIDE, f"{_alone(deviation, sigma):.3f}", None),
        within("the same at a tenth of the signal to noise, by the stated errors",
               float((faint[0] / faint[1]).std()), 1.0, 0.2, form=".3f"),
        Row("the same by the stated noise alone", BESIDE, f"{_alone(*faint):.3f}", None),
        at_most("scatter of the fractions of flux in sub-bands", rms(parts), 0.005),
        at_most("scatter of total fluxes", rms(flux), 0.002),
        within("slope with spectra flat within sub-bands, 1 / (1 - 1/9)", float(steep), 1.11,
               0.02, form=".4f"),
        within("reference wavelength wrong by 5 nm: χ² per pixel, mean of 6 skies",
               float(np.mean([one.diagnostics["chi2_total"] for one in shifted])), 2.0, 0.5,
               form=".2f"),
        within("reference wavelength wrong by 5 nm: offset of first moments",
               float(np.median(offsets)), 0.027, 0.003, form=".4f"),
    ]  # fmt: skip


def _moments(skies: list[Sky], **options: float) -> tuple[Floats, Floats]:
    """Return the errors of the moments of isolated stars, and their stated noise."""
    wrong, sigma = [], []
    for sky in skies:
        stars = sky.scene
        apart = np.hypot(stars.y[:, None] - stars.y, stars.x[:, None] - stars.x)
        np.fill_diagonal(apart, np.inf)
        chosen = np.flatnonzero((stars.flux > 9e3) & (apart.min(axis=1) > 12))
        found = star_colours(solve(sky, **options).model, stars.y[chosen], stars.x[chosen])
        wrong.append(found["moment"].to_numpy() - stars.moment[chosen])
        sigma.append(found["moment_sigma"].to_numpy())
    return np.concatenate(wrong), np.concatenate(sigma)


def _alone(wrong: Floats, sigma: Floats) -> float:
    """Return the width of pulls by noise alone."""
    return float((wrong / np.sqrt(sigma**2 - HELD**2)).std())


def _chromatic() -> list[Row]:
    """Seeing sharper in the red, known to the model and ignored."""
    rng = np.random.default_rng(11)
    fwhm = rng.permutation(np.linspace(3.3, 5.0, 12))
    sky = make_sky(2, 5.0, fwhm, chromatic_seeing=-0.2)
    held_out = sky.scene.render(HELD_OUT, 3.3, chromatic_seeing=-0.2)
    near, plain = sky.scene.near(8.0), sky.template["image"].to_numpy()
    chosen = np.flatnonzero(sky.scene.flux > 2e4)
    chi2, left, offset = [], [], []
    for power in (-0.2, 0.0):
        solved = solve(sky, chromatic_seeing=power)
        chi2.append(float(solved.diagnostics["chi2_total"]))
        left.append(
            [
                rms((true - template)[near]) / rms((true - plain)[near])
                for true, template in zip(held_out, templates_of(solved.model), strict=True)
            ]
        )
        found = star_colours(solved.model, sky.scene.y[chosen], sky.scene.x[chosen])
        wrong = found["moment"].to_numpy() - sky.scene.moment[chosen]
        offset.append(float(np.median(wrong)))
    listed = [", ".join(f"{one:.3f}" for one in each) for each in left]
    return [
        between("seeing of 3.3 to 5.0 px that goes with the power -0.2 of the wavelength, known: "
                f"χ² per pixel (ignored {chi2[1]:.2f})", chi2[0], 0.85, 1.15),
        Row(f"the same: residual in held-out visits (ignored {listed[1]})", "≤ 0.04 each",
            listed[0], max(left[0]) <= 0.04),
        at_most(f"the same: offset of first moments (ignored {offset[1]:.4f})", abs(offset[0]),
                0.001, form=".4f"),
    ]  # fmt: skip


def _faint() -> list[Row]:
    """The same at a tenth of the signal to noise."""
    chi2, ratio, stars = [], [], []
    for seed in range(1, 1 + SCENES):
        sky = make_sky(seed, 50.0)
        solved = solve(sky)
        chi2.append(float(solved.diagnostics["chi2_total"]))
        ratio.append(ratios(sky, templates_of(solved.model)))
        stars.append(measure_stars(sky, solved.model, 50.0))
    found, true, sigma = (np.concatenate([one[k] for one in stars]) for k in (0, 1, 2))
    slope = float(np.polyfit(true, found, 1)[0])
    mean = np.mean(ratio, axis=0)
    return [
        between("noise of 50: χ² per pixel, mean", float(np.mean(chi2)), 0.8, 1.0),
        Row("noise of 50: residual in held-out visits over that of the plain coadd",
            "≤ 0.30 each", ", ".join(f"{one:.3f}" for one in mean), bool((mean <= 0.3).all())),
        between("noise of 50: slope of first moments", slope, 0.95, 1.05),
        within(f"noise of 50: width of the pulls of {len(found)} first moments by the stated noise",
               float(((found - true) / sigma).std()), 1.0, 0.2, form=".3f"),
    ]  # fmt: skip


def _geometry(sky: Sky) -> list[Row]:
    """Mirrored and turned geometry, and degenerate ones."""
    rows = []
    turn = np.deg2rad(30.0)
    turned = NORTH_UP @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for name, jacobian in (("mirrored", np.diag([0.2, 0.2])), ("turned by 30 degrees", turned)):
        solved = solve(sky, jacobian=jacobian, outlier_factor=1e9, reject_rounds=0)
        bad = bool((solved.diagnostics["status"] == v.DcrStatus.BAD_FIT).all())
        value = float(solved.diagnostics["chi2_total"])
        rows.append(
            Row(f"geometry {name}: χ² per pixel, reported as a bad fit", "> 100, reported",
                f"{value:.0f}, {'reported' if bad else 'not reported'}", bad and value > 100)
        )  # fmt: skip
    mirrored = np.diag([0.2, 0.2])
    rows += [
        _geometry_found(
            noise, {"mirrored": mirrored, "turned by 30°": turned, "turned by 180°": -NORTH_UP}
        )
        for noise in (5.0, 50.0)
    ]
    flipped = sky._replace(
        warps=sky.warps.isel(x=slice(None, None, -1)),
        template=sky.template.isel(x=slice(None, None, -1)),
    )
    one, other = solve(sky), solve(flipped, jacobian=mirrored)
    difference = one.model["model"].to_numpy() - other.model["model"].to_numpy()[..., ::-1]
    rows.append(
        at_most("patch mirrored with its images: difference of planes over their noise",
                rms(difference) / 1.1, 0.1)
    )  # fmt: skip
    rng = np.random.default_rng(5)
    same = conditions(np.full(6, 40.0), 30.0)
    images = sky.scene.render(same, FWHM)
    twins = Sky(sky.scene, same, images, *observed(images, FWHM, 5.0, rng))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solved = solve_dcr(twins.warps, same, G, twins.template, jacobian=NORTH_UP)
    warned = any(issubclass(one.category, DegenerateGeometryWarning) for one in caught)
    stars = measure_stars(twins, solved.model, 5.0)
    slope = float(np.polyfit(stars.true, stars.found, 1)[0])
    rows.append(
        Row("identical visits: slope of first moments, warned of", "< 0.1, warned",
            f"{slope:.3f}, {'warned' if warned else 'not warned'}", abs(slope) < 0.1 and warned)
    )  # fmt: skip
    return rows


def _geometry_found(noise: float, wrong: dict[str, Floats]) -> Row:
    """Judge geometries at default parameters: wrong ones are named, the right one is not."""
    said, good = [], True
    for seed in (1, 2, 3):
        one = make_sky(seed, noise)
        for name, jacobian in {"right": NORTH_UP, **wrong}.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = solve(one, jacobian=jacobian).diagnostics
            bad = bool((found["status"] == v.DcrStatus.BAD_FIT).all())
            angle = float(found["geometry_angle"])
            expected = float(name.split()[-1].rstrip("°")) if name.startswith("turned") else 0.0
            off = abs((angle - expected + 180.0) % 360.0 - 180.0)
            flip = bool(found["geometry_mirrored"])
            good &= bad == (name != "right") and flip == (name == "mirrored") and off < 1.0
            said.append(off)
    return Row(
        f"noise of {noise:.0f}, default parameters, 3 skies: mirrored, turned and opposite "
        "geometries are reported with what mends them, right ones are not; largest error of the "
        "angle", "all, ≤ 1°", f"{'all' if good else 'not all'}, {max(said):.2f}°", good,
    )  # fmt: skip


def _seeing() -> list[Row]:
    """Visits of different seeing, part of the operator."""
    rng = np.random.default_rng(11)
    fwhm = rng.permutation(np.linspace(3.3, 5.0, 12))
    sky = make_sky(2, 5.0, fwhm)
    solved, ignored = solve(sky), solve(sky, match_seeing=False, outlier_factor=1e9)
    found = ratios(sky, templates_of(solved.model), 3.3)
    return [
        between("seeing of 3.3 to 5.0 px: χ² per pixel",
                float(solved.diagnostics["chi2_total"]), 0.9, 1.1),
        Row("seeing of 3.3 to 5.0 px: residual in held-out visits of 3.3 px", "≤ 0.03 each",
            ", ".join(f"{one:.3f}" for one in found), bool((found <= 0.03).all())),
        between("the same with the seeing ignored: χ² per pixel",
                float(ignored.diagnostics["chi2_total"]), 100, float("inf")),
    ]  # fmt: skip


def _damage(sky: Sky) -> list[Row]:
    """Bad pixels, half a visit lost, artifacts."""
    rng = np.random.default_rng(9)
    warps = sky.warps.copy(deep=True)
    image = warps["image"].to_numpy()
    image[rng.random(image.shape) < 0.1] = np.nan
    image[:, :, 40] = np.nan
    warps[v.MASK].to_numpy()[3, : SIZE // 2] = v.MASK_PLANES["NO_DATA"]
    solved = solve(sky._replace(warps=warps))
    found = ratios(sky, templates_of(solved.model))
    hit = sky.warps.copy(deep=True)
    hit["image"].to_numpy()[4, 60:63, 30] += 500.0
    hit["image"].to_numpy()[7, 20:23] += 150.0
    dirty = sky._replace(warps=hit, template=coadd_of(hit))
    cleaned = solve(dirty)
    difference = np.abs(
        (stack_planes(cleaned.model)["image"] - stack_planes(solve(sky).model)["image"]).to_numpy()
    )
    noise = 5.0 / np.sqrt(12)
    return [
        at_most("a tenth of pixels, a column and half a visit bad: iterations",
                int(solved.diagnostics["iterations"].item()), 15, form=".0f"),
        Row("the same: residual in held-out visits", "≤ 0.05 each",
            ", ".join(f"{one:.3f}" for one in found), bool((found <= 0.05).all())),
        at_most("a cosmic ray of 100 σ: largest change of the sum of planes, σ of the coadd",
                float(difference[57:66, 27:34].max() / noise), 3.0, form=".2f"),
        at_most("a satellite: largest change along it, σ of the coadd",
                float(difference[18:25].max() / noise), 3.0, form=".2f"),
    ]  # fmt: skip


def _noise(sky: Sky) -> list[Row]:
    """Scatter over realisations beside the stated noise."""
    planes, templates, model = [], [], None
    for seed in range(30):
        warps, _ = observed(sky.truth, FWHM, 5.0, np.random.default_rng(100 + seed))
        solved = solve(sky._replace(warps=warps), adherence=0.0, reject_rounds=0)
        model = solved.model
        planes.append(model["model"].to_numpy())
        templates.append(predicted(model, HELD_OUT, 2)["image"].to_numpy())
    detected = (sky.template[v.MASK].to_numpy() & v.MASK_PLANES["DETECTED"]) != 0
    core = ndimage.binary_erosion(detected, iterations=2)
    core[:10] = core[-10:] = core[:, :10] = core[:, -10:] = False
    assert model is not None
    rows = []
    scatter = np.var(planes, axis=0, ddof=1)
    for s, name in enumerate(("blue", "middle", "red")):
        stated = float(np.sqrt(model["variance"][s].to_numpy()[core].mean()))
        rows.append(
            within(f"noise of the {name} plane over 30 realisations, over the stated one",
                   float(np.sqrt(scatter[s][core].mean())) / stated, 1.0, 0.03, form=".4f")
        )  # fmt: skip
    of_template = predicted(model, HELD_OUT, 2)["variance"].to_numpy()
    stated = float(np.sqrt(of_template[core].mean()))
    found = float(np.sqrt(np.var(templates, axis=0, ddof=1)[core].mean()))
    rows.append(
        within("noise of a template over 30 realisations, over the stated one", found / stated,
               1.0, 0.03, form=".4f")
    )  # fmt: skip
    return rows


def _noise_at_defaults() -> list[Row]:
    """Scatter at default parameters, through Moffat profiles."""
    rows = []
    for low, high, covariance in ((4.0, 4.0, None), (3.3, 5.0, None), (3.3, 5.0, alike())):
        width = f"{low:.1f}" if low == high else f"{low:.1f}–{high:.1f}"
        width += " pixels" if covariance is None else " pixels, noise as warping leaves it"
        for noise in (5.0, 50.0):
            found = scatter_of(seeing_of(low, high), noise, 16, covariance=covariance)
            for where, values in (
                ("at objects", found.sources),
                ("at their edges", found.edges),
                ("away from them", found.away),
            ):
                rows.append(
                    Row(f"defaults, Moffat profiles of {width}, noise of {noise:.0f}: "
                        f"scatter {where} of blue, middle, red, their sum, a template, over the "
                        "stated noise",
                        "0.97 … 1.03 each", ", ".join(f"{one:.3f}" for one in values),
                        bool((abs(values - 1.0) <= 0.03).all()))
                )  # fmt: skip
    halves = thin_scatter(seeing_of(3.3, 5.0), 5.0, 32, size=128, stars=16)
    for half, found in zip(("in the half of the patch that every other visit misses",
                            "in the other half"), halves, strict=True):  # fmt: skip
        rows += [
            Row(f"the same of 3.3–5.0 pixels, noise of 5, {where} {half}",
                "0.97 … 1.03 each", ", ".join(f"{one:.3f}" for one in values),
                bool((abs(values - 1.0) <= 0.03).all()))
            for where, values in (
                ("at objects", found.sources),
                ("at their edges", found.edges),
                ("away from them", found.away),
            )
        ]  # fmt: skip
    return rows


def _detections(sky: Sky) -> list[Row]:
    """Count false detections in differences of held-out visits."""
    rows = []
    for noise in (5.0, 50.0):
        one = sky if noise == 5.0 else make_sky(1, noise)
        linear, plain = count_detections(one, solve(one).model, noise)
        rows.append(
            Row(f"noise of {noise:.0f}: false detections above 5 σ in held-out visits (plain "
                f"coadd {', '.join(map(str, plain))})",
                "≤ 2 each, plain ≥ 15", ", ".join(map(str, linear)),
                max(linear) <= 2 and min(plain) >= 15)
        )  # fmt: skip
    return rows


def _galaxy() -> list[Row]:
    """An exponential galaxy of 1e6 nJy with a gradient of colour."""
    rng = np.random.default_rng(21)
    table, size = dozen(rng), 96
    truth = galaxy(table, size)
    warps, template = observed(truth, FWHM, 5.0, rng)
    sky = Sky(scene(rng, size, 1), table, truth, warps, template)
    solved = solve(sky)
    held_out = galaxy(HELD_OUT, size)
    plain, found = template["image"].to_numpy(), []
    near = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2.0)) < 20
    for visit in range(4):
        left = held_out[visit] - predicted(solved.model, HELD_OUT, visit)["image"].to_numpy()
        found.append(rms(left[near]) / rms((held_out[visit] - plain)[near]))
    whole = stack_planes(solved.model)
    lowest = float((whole["image"] / np.sqrt(whole["variance"])).min())
    return [
        Row("galaxy with a gradient of colour: residual in held-out visits", "≤ 0.1 each",
            ", ".join(f"{one:.3f}" for one in found), max(found) <= 0.1),
        between("galaxy: lowest pixel of the sum of planes, σ of it", lowest, -5.0,
                float("inf")),
    ]  # fmt: skip


def _parts(sky: Sky) -> list[Row]:
    """Compare solutions that read and work on the visits in different ways."""
    whole = solve(sky).model["model"].to_numpy()
    chunked = sky._replace(warps=sky.warps.chunk({v.Y: 50, v.X: 37}))
    again = solve(chunked, memory=0.0).model["model"].to_numpy()
    return [
        at_most("visits kept in memory, and read in chunks whenever needed: largest difference of "
                "planes over the noise of a pixel", float(np.abs(again - whole).max() / 5.0), 0.0)
    ]  # fmt: skip
