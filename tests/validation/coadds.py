"""Coadds and rejected artifacts: real visits beside a published stack, simulated ones, peers.

SWarp is a program of its own (in Debian, ``apt install swarp``); without it its row says so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.signal import fftconvolve

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import (
    CoaddParameters,
    accumulate,
    coadd,
    find_artifacts,
    finish_coadd,
    merge_accumulated,
    optimal_coadd,
)
from skyloom.algorithms.psf import (
    PsfMeasurementParameters,
    StarParameters,
    VarianceScalingParameters,
    gaussian_psf,
    match_psf,
    measure_psf,
    psf_at_points,
    rescale_variance,
)
from skyloom.algorithms.simulate import SimulatedVisits, VisitParameters, simulate_visits
from skyloom.algorithms.sky import MaskObjectsParameters, mask_objects
from tests.algorithms.coadd.scenes import real_geometry
from tests.validation.rows import Row, at_most, between, not_measured, within

__all__ = ["measure", "write_for_swarp"]

Floats = NDArray[np.float64]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "decam-i-visits-obs04"
VISITS = "abcde"
SCALING = VarianceScalingParameters(bin_size=64)  # wide beside the kernels
OBJECTS = MaskObjectsParameters(smoothing=2.0, growth=6, background_bin=256)
PSF_SIGMA = 2.2  # of the matched ones, pixel
MARGIN = 20  # pixels along the border that kernels reach across


def _real_visits(matched: bool) -> xr.Dataset:
    """Return five DECam visits with the variance of their sky and read noise, in adu."""
    warps = []
    for number, name in enumerate(VISITS):
        with fits.open(REAL / f"DEC-OBS04{name}.mini.fits") as file:
            image, header = file[0].data.astype(np.float64), file[0].header
        variance = header["AVSKY"] / header["GAIN"] + (header["RDNOISE"] / header["GAIN"]) ** 2
        if matched and number:
            kernel = fits.getdata(REAL / f"DEC-OBS04{name}.MatchKernel.fits").astype(np.float64)
            image = fftconvolve(image, kernel, mode="same")
            variance *= float((kernel**2).sum())
        image = image[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32)
        plane = (v.Y, v.X)
        warp = xr.Dataset(
            {
                "image": (plane, image, {"units": v.ADU}),
                "variance": (plane, np.full(image.shape, variance, np.float32)),
                v.MASK: (plane, np.zeros(image.shape, np.int32), v.mask_attributes()),
            },
            coords={v.VISIT: number},
        )
        warp[v.MASK] = mask_objects(warp, parameters=OBJECTS)
        warps.append(rescale_variance(warp, parameters=SCALING))
    return xr.concat(warps, dim=v.VISIT)


def real() -> list[Row]:
    """Return the rows of five real visits."""
    upstream = fits.getdata(REAL / "Stack-DEC-OBS04.fits").astype(np.float64)
    upstream = upstream[MARGIN:-MARGIN, MARGIN:-MARGIN]
    rows = []
    for matched in (False, True):
        visits = _real_visits(matched)
        made = coadd(visits)
        what = "five DECam visits" + (", PSFs matched" if matched else "")
        alike = float(np.corrcoef(made["image"].values.ravel(), upstream.ravel())[0, 1])
        rows.append(between(f"{what}: correlation with the upstream stack", alike, 0.997, np.inf))
        halves = [coadd(visits.isel({v.VISIT: chosen})) for chosen in ([0, 2, 4], [1, 3])]
        deep = mask_objects(made[["image", "variance"]], parameters=OBJECTS)
        sky = (deep.values & v.MASK_PLANES["DETECTED"]) == 0
        # faint objects are in both halves and not in their difference
        difference = (halves[0]["image"] - halves[1]["image"]).values[sky]
        variance = (halves[0]["variance"] + halves[1]["variance"]).values[sky]
        quartiles = np.percentile(difference / np.sqrt(variance), [25, 75])
        noise = 0.741301 * float(quartiles[1] - quartiles[0])
        rows.append(within(f"{what}: noise of two halves over that expected", noise, 1.0, 0.05))
    return rows


def real_artifacts() -> list[Row]:
    """Return the rows of what is rejected in five real visits."""
    visits = _real_visits(matched=True)
    found = find_artifacts(visits, psf_sigma=PSF_SIGMA)
    mask = (found["artifact_mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
    image, sigma = visits["image"].values, np.sqrt(visits["variance"].values)
    regions = alone = 0
    for visit in range(len(VISITS)):
        labels, number = label(mask[visit], structure=np.ones((3, 3)))
        others = np.delete(np.arange(len(VISITS)), visit)
        for region in range(1, number + 1):
            peak = np.where(labels == region, image[visit], -np.inf).argmax()
            y, x = np.unravel_index(peak, labels.shape)
            level = np.median(image[others, y, x])
            pulls = (image[:, y, x] - level) / sigma[:, y, x]
            regions += 1
            alone += int(pulls[visit] > 10.0 and np.abs(pulls[others]).max() < 5.0)
    upstream = fits.getdata(REAL / "Stack-DEC-OBS04.fits").astype(np.float64)
    upstream = upstream[MARGIN:-MARGIN, MARGIN:-MARGIN]
    clean = coadd(visits, artifacts=found["artifact_mask"])["image"].values
    here = mask.any(axis=0)
    apart = float(np.std((clean - upstream)[here]))
    before = float(np.std((coadd(visits)["image"].values - upstream)[here]))
    told = f"{apart:.1f} adu, {before:.1f} without rejection"
    return [
        Row(
            "artifacts of the five that 10 sigma in one visit and nothing in the others show",
            "all",
            f"{alone} of {regions}",
            0 < regions == alone,
        ),
        Row("there, mean less upstream median: rms", "< half", told, apart < 0.5 * before),
    ]


def real_widths() -> list[Row]:
    """Return the rows of point-spread functions measured on the stars of the five themselves."""
    visits, fewer = _real_visits(matched=False), StarParameters(significance=25.0, radius=10)
    parameters = PsfMeasurementParameters(least=3, stars=fewer)
    planes = ["image", "variance", v.MASK]
    warps = [visits[planes].isel({v.VISIT: index}) for index in range(len(VISITS))]
    psfs = [measure_psf(warp, parameters=parameters) for warp in warps]
    widths = np.array([float(psf["fwhm"][0]) for psf in psfs])
    headers = [fits.getheader(REAL / f"DEC-OBS04{name}.mini.fits")["FWHM"] for name in VISITS]
    ratio = widths / np.array(headers)
    target = 1.1 * float(widths.max()) + 0.05
    box = [0, visits.sizes[v.Y], 0, visits.sizes[v.X]]
    matched = [
        match_psf(
            warp.assign_attrs(box=box),
            psf_at_points(psf["psf"].values, psf["x"].values, psf["y"].values),
            target,
        )[[*planes, "target_fwhm"]]
        for warp, psf in zip(warps, psfs, strict=True)
    ]
    found = [
        find_artifacts(xr.concat(matched, dim=v.VISIT), warps=visits),
        find_artifacts(_real_visits(matched=True), psf_sigma=PSF_SIGMA),
    ]
    counts = [each["artifact_count"].values.tolist() for each in found]
    return [
        at_most(
            "widths of stars of the five visits over those of their headers, relative scatter "
            f"(mean {ratio.mean():.3f})",
            float(ratio.std() / ratio.mean()),
            0.03,
            form=".3f",
        ),
        Row(
            "artifacts of each visit with point-spread functions measured here",
            f"{counts[1]}, as with the published kernels",
            str(counts[0]),
            counts[0] == counts[1],
        ),
    ]


def _events(seed: int) -> SimulatedVisits:
    parameters = VisitParameters(
        satellite=30.0,
        cosmic_rays=5,
        variable=0.3,
        transients=(2, 5),
        flux_range=2.0,
        faintest=300.0,
    )
    return simulate_visits(np.random.default_rng(seed), parameters=parameters)


def artifacts() -> list[Row]:
    """Return the rows of artifacts in 40 sets of 10 visits, and of quiet ones."""
    line, rays, kept, clipped = [], [], [], []
    for seed in range(40):
        made = _events(seed)
        found = find_artifacts(made.matched)
        mask = (found["artifact_mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
        hits = made.truth["artifact"].values
        line.append(mask[0][hits[0]].mean())
        rays.append(mask[1][hits[1]].mean())
        for i in np.flatnonzero(made.truth["kind"].values != "star"):
            y, x = (round(float(made.truth[f"source_{axis}"][i])) for axis in "yx")
            seen = made.truth["flux"].values[:, i] > 0
            if hits[:, y - 9 : y + 10, x - 9 : x + 10].any():
                continue  # a satellite crosses it, so that one visit more shows something
            if seen.sum() == 2:
                clipped.append(mask[seen, y, x].all())
            else:
                kept.append(not mask[:, y, x].any())
    false = pixels = 0
    for seed in range(100, 110):
        quiet = simulate_visits(np.random.default_rng(seed))
        found = find_artifacts(quiet.matched)
        false += int(found["artifact_count"].sum())
        pixels += found["artifact_mask"].size
    what = "in 40 simulated sets of 10 visits"
    return [
        between(f"pixels of satellites clipped in their visit, {what}", min(line), 0.95, np.inf),
        between(f"pixels of 100-sigma rays clipped, mean {what}", np.mean(rays), 0.95, np.inf),
        Row(
            f"variable stars and transients in 5 visits kept, {what}",
            "all",
            f"{sum(kept)} of {len(kept)}",
            all(kept),
        ),
        Row(
            f"transients in 2 visits clipped in both, {what}",
            "all",
            f"{sum(clipped)} of {len(clipped)}",
            all(clipped),
        ),
        Row(f"false artifacts in {pixels / 1e6:.1f}e6 quiet pixels", "0", str(false), false == 0),
    ]


def small_numbers() -> list[Row]:
    """Return the rows of artifacts in few visits."""
    rows = []
    for number in (1, 2, 3, 5):
        hit = extra = total = pixels = 0
        for seed in range(10):
            few = VisitParameters(visits=max(number, 2), cosmic_rays=5, stars=10, sharpest=2.0)
            made = simulate_visits(np.random.default_rng(seed), parameters=few)
            chosen = slice(1, 2) if number == 1 else slice(0, number)
            warps, matched = (each.isel(visit=chosen) for each in made[:2])
            found = find_artifacts(matched, warps=warps)
            mask = (found["artifact_mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
            truth = made.truth["artifact"].values[chosen]
            hit += int(mask[truth].sum())
            total += int(truth.sum())
            for one, true in zip(mask, truth, strict=True):
                labels, regions = label(one, structure=np.ones((3, 3)))
                extra += regions - len(set(labels[true]) - {0})
            pixels += mask.size
        what = f"{number} visit{'s' if number > 1 else ''}, 10 sets"
        rows += [
            between(f"100-sigma rays found, {what}", hit / total, 0.95, np.inf),
            Row(
                f"regions clipped without a ray, {what}",
                "no target" if number < 3 else "0",
                f"{extra} in {pixels / 1e6:.1f}e6 pixels",
                number < 3 or extra == 0,
            ),
        ]
    return rows


def depth() -> list[Row]:
    """Return the rows of noise and significance, and of streaming."""
    parameters = VisitParameters(noise_spread=0.4, height=601, width=601, bad_box=100)
    made = simulate_visits(np.random.default_rng(1), parameters=parameters)
    found = coadd(made.warps)
    empty = np.abs(made.truth["sky"].values - parameters.background) < 0.02
    rows = []
    for name, warps in (("direct", made.warps), ("PSF-matched", made.matched)):
        each = coadd(warps)
        pulls = (each["image"].values - parameters.background)[empty]
        pulls = pulls / np.sqrt(each["variance"].values[empty])
        what = f"noise of a coadd of {name} warps over that of its variance"
        rows.append(within(what, float(pulls.std()), 1.0, 0.03))
    s = made.warps["variance"].values.astype(np.float64)
    good = (made.warps[v.MASK].values & v.MASK_PLANES["BAD"]) == 0
    best = np.sqrt((good / s).sum(axis=0))
    gained = 1.0 / np.sqrt(found["variance"].values)
    rows.append(
        within(
            "significance of stars over that of all visits", float((gained / best).mean()), 1, 0.02
        )
    )
    parts = [accumulate([made.warps.isel(visit=i)]) for i in range(10)]
    while len(parts) > 1:
        merged = [merge_accumulated(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        parts = merged + parts[2 * len(merged) :]
    added = finish_coadd(parts[0])
    for name in ("image", "variance"):
        apart = float(np.abs(added[name].values / found[name].values - 1.0).max())
        rows.append(
            at_most(f"a tree of merged sums less all at once, {name}, relative", apart, 1e-6)
        )
    equal = bool((added[v.MASK].values == found[v.MASK].values).all())
    rows.append(Row("the same, mask", "equal", "equal" if equal else "differs", equal))
    return rows


def resampled() -> list[Row]:
    """Return the rows of turned and dithered detectors, resampled and matched."""
    clipped, pulls, fluxes, elsewhere = [], [], [], 0
    side = 300
    y, x = np.indices((side, side))
    for seed in range(4):
        scene = real_geometry(
            np.random.default_rng(seed), visits=8, side=side, stars=25, satellite=30.0
        )
        found = find_artifacts(scene.matched, warps=scene.warps)
        mask = (found["artifact_mask"].values & v.MASK_PLANES["CLIPPED"]) != 0
        clipped.append(mask[0][scene.trail[0] > 5.0].mean())
        elsewhere += int(mask[1:].sum())
        made = coadd(scene.warps, artifacts=found["artifact_mask"])
        stars = [scene.stars[name].values for name in ("sx", "sy", "flux")]
        near = [np.hypot(y - sy, x - sx) for sx, sy, _ in zip(*stars, strict=True)]
        sky = (np.min(near, axis=0) > 14.0) & np.isfinite(made["image"].values)
        pulls.append(made["image"].values[sky] / np.sqrt(made["variance"].values[sky]))
        for i, away in enumerate(near):
            others = [each for j, each in enumerate(near) if j != i]
            alone = np.min(others, axis=0)[away < 1.0].min() > 24.0
            if alone and away[[0, -1]].min() > 12.0 and away[:, [0, -1]].min() > 12.0:
                fluxes.append(made["image"].values[away < 10.0].sum() / stars[2][i])
    noise = float(np.concatenate(pulls).std())
    what = "8 turned, dithered detectors, Lanczos3, matched, 4 sets"
    return [
        between(f"pixels of satellites clipped, {what}", min(clipped), 0.95, np.inf),
        Row(f"pixels clipped in other visits, {what}", "0", str(elsewhere), elsewhere == 0),
        within(f"noise of the coadd over that of its variance, {what}", noise, 1.0, 0.03),
        within(f"median flux of {len(fluxes)} stars over the truth, {what}",
               float(np.median(fluxes)), 1.0, 0.01),
    ]  # fmt: skip


def optimal() -> list[Row]:
    """Return the rows of optimal coadds of visits of different seeing."""
    widths, noise, flux = (2.5, 4.0, 6.0, 3.5), np.array([2.0, 1.0, 1.5, 3.0]), 60.0
    psf = xr.concat([gaussian_psf(width, size=31) for width in widths], dim=v.VISIT)
    psf = psf.assign_coords({v.VISIT: np.arange(4)})
    expected = flux * np.sqrt(((psf**2).sum(("psf_y", "psf_x")).values / noise**2).sum())
    scores, fluxes, whites = [], [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        image = noise[:, None, None] * rng.standard_normal((4, 121, 121))
        image[:, 45:76, 45:76] += flux * psf.values
        spread = np.broadcast_to(noise[:, None, None] ** 2, image.shape)
        dims = (v.VISIT, v.Y, v.X)
        warps = xr.Dataset(
            {
                "image": (dims, image.astype(np.float32), {"units": v.NANOJANSKY}),
                "variance": (dims, spread.astype(np.float32)),
            },
            coords={v.VISIT: np.arange(4)},
        )
        made = optimal_coadd(warps, psf)
        scores.append(float(made["score"][60, 60]))
        fluxes.append(float(made["detection"][60, 60] * made["flux_sigma"] ** 2))
        pulls = made["image"].values[:40] / np.sqrt(made["variance"].values[:40])
        whites.append(float((pulls[:, 1:] * pulls[:, :-1]).mean()))
    what = "in 100 optimal coadds of four visits"
    return [
        within(f"significance of a star over that of all visits, {what}",
               float(np.mean(scores)) / expected, 1.0, 0.02),
        within(f"flux of a star over the truth, {what}", float(np.mean(fluxes)) / flux, 1.0, 0.02),
        within(f"scatter of its significance, {what}", float(np.std(scores)), 1.0, 0.15),
        within(f"correlation of neighbouring pixels of the proper image, {what}",
               float(np.mean(whites)), 0.0, 0.002),
    ]  # fmt: skip


def write_for_swarp(
    folder: Path, images: NDArray[np.float32], weights: NDArray[np.float32]
) -> list[str]:
    """Write images and weight maps, and return the command that averages them with SWarp."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return []
    header = fits.Header()
    for axis, kind in ((1, "RA---TAN"), (2, "DEC--TAN")):
        header[f"CTYPE{axis}"] = kind
        header[f"CRPIX{axis}"] = images.shape[3 - axis] / 2 + 0.5
        header[f"CRVAL{axis}"] = 0.0
        header[f"CDELT{axis}"] = -1e-4 if axis == 1 else 1e-4
    names = []
    for i, (image, weight) in enumerate(zip(images, weights, strict=True)):
        names.append(f"w{i:03d}.fits")
        fits.PrimaryHDU(image, header).writeto(folder / names[-1])
        fits.PrimaryHDU(weight, header).writeto(folder / f"w{i:03d}.weight.fits")
    options = {
        "RESAMPLE": "N",
        "SUBTRACT_BACK": "N",
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "RESCALE_WEIGHTS": "N",
        "FSCALASTRO_TYPE": "NONE",
        "IMAGEOUT_NAME": "out.fits",
        "WEIGHTOUT_NAME": "out.weight.fits",
        "MEM_MAX": "4000",
        "COMBINE_BUFSIZE": "4000",
        "NTHREADS": "1",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET",
    }
    command = [program, *names]
    for key, value in options.items():
        command += [f"-{key}", value]
    return command


def peers() -> list[Row]:
    """Return the row beside SWarp."""
    rng = np.random.default_rng(2)
    images = rng.normal(100.0, 10.0, (6, 200, 220)).astype(np.float32)
    spread = np.linspace(50.0, 200.0, 6, dtype=np.float32)[:, None, None]
    weights = np.broadcast_to(1.0 / spread, images.shape).copy()
    holes = rng.random(images.shape) < 0.05
    weights[holes] = 0.0
    warps = xr.Dataset(
        {
            "image": ((v.VISIT, v.Y, v.X), images, {"units": v.ADU}),
            "variance": ((v.VISIT, v.Y, v.X), np.broadcast_to(spread, images.shape).copy()),
            v.MASK: (
                (v.VISIT, v.Y, v.X),
                np.where(holes, v.MASK_PLANES["BAD"], 0).astype(np.int32),
                v.mask_attributes(),
            ),
        },
        coords={v.VISIT: np.arange(6)},
    )
    made = coadd(warps, parameters=CoaddParameters())
    with tempfile.TemporaryDirectory() as folder:
        command = write_for_swarp(Path(folder), images, weights)
        if not command:
            return [not_measured("SWarp less ours", "≤ 1e-5", "SWarp is not installed")]
        subprocess.run(
            [*command, "-COMBINE_TYPE", "WEIGHTED"], cwd=folder, check=True, capture_output=True
        )
        theirs = fits.getdata(Path(folder) / "out.fits").astype(np.float64)
        weight = fits.getdata(Path(folder) / "out.weight.fits").astype(np.float64)
    some = weight > 0
    apart = np.abs(theirs / made["image"].values - 1.0)[some]
    error = np.abs(weight * made["variance"].values - 1.0)[some]
    return [
        at_most("weighted mean less SWarp's, relative", float(apart.max()), 1e-5),
        at_most("inverse variance less SWarp's weight, relative", float(error.max()), 1e-5),
    ]


def measure() -> list[Row]:
    """Return all rows."""
    return [
        *real(),
        *real_artifacts(),
        *real_widths(),
        *artifacts(),
        *small_numbers(),
        *depth(),
        *optimal(),
        *resampled(),
        *peers(),
    ]
