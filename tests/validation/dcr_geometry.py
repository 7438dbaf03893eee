"""Real geometry and real band-passes: what four exposures of HSC, twelve of DECam and its measured
band-passes make of sub-bands.

Visits of HSC are read from their summaries; band-passes are those measured for 62 detectors, and
the standard atmosphere of the survey. Stars are simulated.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import erfa
import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.dcr import (
    Band,
    band_vectors,
    effective_wavelength,
    identifiability,
    predict_template,
    solve_dcr,
    subband_edges,
)
from skyloom.algorithms.errors import SkyloomWarning
from skyloom.algorithms.refraction import Weather, differential_refraction
from skyloom.algorithms.simulate import chromatic_images, simulate_chromatic
from skyloom.algorithms.visit_conditions import visit_conditions
from skyloom.flows.dcr_bands import band_values
from tests.algorithms.dcr.analytic import CENTRES, HELD_OUT, SIGMA, G, coadd_of, observed, scene
from tests.algorithms.dcr.real_visits import (
    COSMOS,
    DECAM_PIXEL,
    HSC_PIXEL,
    HSC_Z,
    decam_visits,
    fisher_sigma,
)
from tests.algorithms.dcr.skies import rms
from tests.real_data.measured import SHARED
from tests.validation.rows import BESIDE, Row, at_most, between, not_measured, within

__all__ = ["measure"]

Floats = NDArray[np.float64]
VISITS = (1176, 17900, 17930, 17934)
FLIPPED = np.diag([-1.0, 1.0])
SUMMARIES = SHARED / "hsc-visits-cosmos"
PASSES = SHARED / "decam-detector-throughput"


def measure() -> list[Row]:
    """Measure everything."""
    return [*_hsc(), *_decam(), *_band_passes()]


def _summaries() -> tuple[dict[int, Any], Floats]:
    """Return conditions of visits from their summaries, and (altitude, airmass) of the headers."""
    records, said = {}, []
    for visit in VISITS:
        with fits.open(SUMMARIES / f"visitSummary_{visit}.fits.gz") as hdus:
            row = hdus["VisitInfo"].data[0]
        angles = ("boresightradec_ra", "boresightradec_dec", "longitude", "latitude",
                  "boresightazalt_alt")  # fmt: skip
        ra, dec, longitude, latitude, altitude = (float(np.rad2deg(row[name])) for name in angles)
        records[visit] = observing_conditions(
            float(row["tai"]) / 86400e9 + 40587.0, ra, dec, longitude=longitude,
            latitude=latitude, height=float(row["elevation"]),
            exposure_time=float(row["exposuretime"]), temperature=float(row["airtemperature"]),
            pressure=float(row["airpressure"]), humidity=float(row["humidity"]),
        )  # fmt: skip
        said.append((altitude, float(row["boresightairmass"])))
    return records, np.array(said)


def _predicted(band: Band, table: xr.Dataset, jacobian: Floats) -> tuple[float, float]:
    vectors = band_vectors(band, table, jacobian)
    found = identifiability(vectors, np.ones(len(vectors)), 4.0)
    return found.trace, found.moment_sigma


def _hsc() -> list[Row]:
    if not SUMMARIES.is_dir():
        return [not_measured("four visits of HSC", "—", f"{SUMMARIES.name} is not there")]
    records, said = _summaries()
    altitude = np.array([record.altitude for record in records.values()])
    table = visit_conditions(records, COSMOS)
    angles = table["parallactic_angle"].to_numpy()
    worst = 0.0
    for record in records.values():
        air = Weather(record.temperature, record.pressure, record.humidity)
        tangent = np.tan(np.deg2rad(90.0 - record.altitude))
        nm = np.array([450.0, 550.0, 700.0, 850.0, 932.0])
        ours = differential_refraction(
            nm, 500.0, record.altitude, air, latitude=record.latitude, height=record.height
        )
        both = [
            erfa.refco(air.pressure / 100, air.temperature, air.humidity / 100, one / 1000)
            for one in (500.0, *nm)
        ]
        total = np.array([np.rad2deg(a * tangent + b * tangent**3) * 3600 for a, b in both])
        worst = max(worst, float(np.abs(ours / (total[1:] - total[0]) - 1.0).max()))
    jacobian = HSC_PIXEL * FLIPPED
    through_z, through_g = (_predicted(band, table, jacobian) for band in (HSC_Z, G))
    whole_g = fisher_sigma(G, table, jacobian, 4.0)
    scatter, slope = _scatter(table, jacobian)
    return [
        at_most("HSC, 4 visits: altitude in mid exposure less that of the header at its start",
                float(np.abs(altitude - said[:, 0]).max()), 0.5, "degree", form=".2f"),
        at_most("HSC: secant of the zenith distance less the airmass of the header",
                float(np.abs(1 / np.sin(np.deg2rad(altitude)) - said[:, 1]).max()), 0.005),
        at_most("HSC: parallactic angles, largest difference to those computed from the headers",
                float(np.abs(angles - [-43.7, 3.6, 42.4, 46.8]).max()), 0.5, "degree", form=".2f"),
        at_most("HSC: differential refraction in the air of the visits, 450 to 932 nm, beside "
                "ERFA (which knows no gravity of the place, 0.07 %)", worst, 0.0057),
        between("HSC, through z as taken: expected error of a colour at S/N 100, warned of above "
                "0.05 of the band", through_z[1], 0.05, float("inf")),
        within(f"HSC, if it had been g: the same (spread {through_g[0]:.2f} pixel2), over that of "
               f"the whole Fisher matrix, {whole_g:.3f}", through_g[1] / whole_g, 1.0, 0.25,
               form=".3f"),
        Row("HSC, if it had been g: scatter of colours of stars of S/N 100, measured with the PSF "
            "over 30 realisations, over that of the whole Fisher matrix", BESIDE,
            f"{scatter / whole_g:.2f}", True),
        Row("the same: slope of these colours over true ones, drawn to the mean where data are "
            "weak", BESIDE, f"{slope:.2f}", True),
    ]  # fmt: skip


def _scatter(table: xr.Dataset, jacobian: Floats) -> tuple[float, float]:
    """Return the scatter of first moments of stars of a total S/N of 100, and their slope."""
    rng = np.random.default_rng(8)
    side, count, noise = 128, 9, 5.0
    cells = np.stack(np.divmod(np.arange(count), 3)) * 40 + 24.0
    y, x = cells + rng.uniform(-3, 3, (2, count))
    sigma = 4.0 * SIGMA
    flux = 100.0 * noise / np.sqrt(table.sizes["visit"] / (4 * np.pi * sigma**2))
    stars = scene(rng, side, count)._replace(y=y, x=x, flux=np.full(count, flux))
    truth = chromatic_images(stars.table, table, G, jacobian, (side, side)).to_numpy()
    rows, columns = np.mgrid[:side, :side]
    found = []
    for seed in range(30):
        warps, _ = observed(truth, 4.0, noise, np.random.default_rng(100 + seed))
        warps = warps.assign_coords(visit=table["visit"].to_numpy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkyloomWarning)
            model = solve_dcr(warps, table, G, coadd_of(warps), jacobian=jacobian).model
        for star in range(count):
            square = (rows - y[star]) ** 2 + (columns - x[star]) ** 2
            psf = np.exp(-square / (2 * sigma**2))
            part = (model["model"].to_numpy() * psf).sum(axis=(1, 2))
            found.append(float(CENTRES @ part / part.sum()))
    moments = np.array(found).reshape(30, count)
    slope = np.polyfit(stars.moment, moments.mean(axis=0), 1)[0]
    return float(np.sqrt(moments.var(axis=0, ddof=1).mean())), float(slope)


def _decam() -> list[Row]:
    table, jacobian = decam_visits(), DECAM_PIXEL * FLIPPED
    trace, sigma = _predicted(G, table, jacobian)
    whole = fisher_sigma(G, table, jacobian, 4.0)
    return [
        within(f"DECam, geometry of 12 visits in g (spread {trace:.2f} pixel2): expected error of "
               f"a colour over that of the whole Fisher matrix, {whole:.4f}", sigma / whole, 1.0,
               0.25, form=".3f"),
    ]  # fmt: skip


def _band_passes() -> list[Row]:
    if not PASSES.is_dir():
        return [not_measured("band-passes of DECam", "—", f"{PASSES.name} is not there")]
    rows = []
    air = str(PASSES / "des_atm_std.fits")
    for name in "grizY":
        file = str(PASSES / f"{name}_band_per_detector_throughput.fits")
        band = Band(**band_values(name, {"file": file, "atmosphere": air}))
        each = [
            effective_wavelength(Band(**band_values(name, {"file": file, "detector": number})))
            for number in (1, 31, 62)
        ]
        edges = subband_edges(band, 3)
        parts = []
        for low, high in pairwise(edges):
            nm = np.linspace(low, high, 4001)
            parts.append(np.trapezoid(band.transmission(nm), nm))
        rows.append(
            at_most(
                f"{name} of DECam, {band.lambda_min:.1f} to {band.lambda_max:.1f} nm, mean photon "
                f"{band.lambda_ref:.1f} (without air, detectors 1, 31, 62: "
                f"{', '.join(f'{one:.1f}' for one in each)}): sub-bands end at "
                f"{', '.join(f'{edge:.1f}' for edge in edges[1:-1])}, relative differences of "
                "their throughput",
                float(np.ptp(parts) / np.mean(parts)), 1e-3,
            )
        )  # fmt: skip
    for division in ("throughput", "width"):
        ratios, chi2 = _through_g(air, division)
        listed = ", ".join(f"{one:.3f}" for one in ratios)
        what = (
            f"skies through the g band of DECam, sub-bands of equal {division} "
            f"(χ² per pixel {chi2:.2f}): residual in held-out visits"
        )
        if division == "throughput":
            rows.append(Row(what, "≤ 0.05 each", listed, bool((ratios <= 0.05).all())))
        else:
            rows.append(Row(what, BESIDE, listed, True))
    return rows


def _through_g(air: str, division: str) -> tuple[Floats, float]:
    """Return what templates leave of held-out visits through the real band-pass, 4 skies."""
    file = str(PASSES / "g_band_per_detector_throughput.fits")
    band = Band(**band_values("g", {"file": file, "atmosphere": air, "division": division}))
    found, chi2 = [], []
    for seed in range(1, 5):
        made = simulate_chromatic(np.random.default_rng(seed), band=band)
        y, x = np.mgrid[:128, :128]
        near = np.zeros((128, 128), bool)
        for at_y, at_x in zip(made.scene["y"].values, made.scene["x"].values, strict=True):
            near |= np.hypot(y - at_y, x - at_x) <= 8.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkyloomWarning)
            solved = solve_dcr(
                made.warps, made.conditions, band, made.coadd, jacobian=made.jacobian
            )
            truth = chromatic_images(made.scene, HELD_OUT, band, made.jacobian, (128, 128))
            templates = [
                predict_template(solved.model, HELD_OUT.isel(visit=[number]))["image"]
                for number in range(4)
            ]
        plain = made.coadd["image"].to_numpy()
        found.append(
            [
                rms((true - one.to_numpy())[near]) / rms((true - plain)[near])
                for true, one in zip(truth.to_numpy(), templates, strict=True)
            ]
        )
        chi2.append(float(solved.diagnostics["chi2_total"]))
    return np.mean(found, axis=0), float(np.mean(chi2))
