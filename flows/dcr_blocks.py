"""Chromatic coadds as tasks make them: one patch of one filter in, its sub-bands out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import AltitudeWarning, ObservingConditions
from skyloom.algorithms.dcr import (
    Band,
    DcrSolution,
    LinearParameters,
    SolverParameters,
    displacement,
    patch_jacobian,
    predict_template,
    solve_dcr,
    stack_planes,
)
from skyloom.algorithms.dcr.geometry_check import FIGURES
from skyloom.algorithms.dcr.scoring import noise_correlation, score_template
from skyloom.algorithms.dcr.visit_inputs import (
    at_objects,
    calm_variance,
    round_psfs,
    sky_variance,
    width_across,
)
from skyloom.algorithms.errors import KnownVisitWarning
from skyloom.algorithms.matching import offset_image
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf import MatchingParameters, match_psf, psf_at_points, psf_fwhm
from skyloom.algorithms.refraction import DefaultWeatherWarning
from skyloom.algorithms.sky import MaskObjectsParameters, mask_objects
from skyloom.algorithms.skymap import Patch, SkyMapParameters, Tract
from skyloom.algorithms.visit_conditions import conditions_of_exposures, visit_conditions
from skyloom.algorithms.warp import warp_noise_covariance
from skyloom.flows.lazy_warps import changed
from skyloom.flows.match_blocks import MATCHED
from skyloom.flows.patches import patch_of
from skyloom.flows.psf_blocks import located
from skyloom.storage.dcr_schemas import dcr_schema

__all__ = [
    "LAGS",
    "PSF_SIZE",
    "DcrBlockParameters",
    "broad_band",
    "broad_band_quality",
    "chromatic_patch",
    "dcr_quality",
    "noise_covariance",
    "patch_centre",
    "predicted",
    "restored_model",
    "score_quality",
    "scored_visit",
]

Inputs = Mapping[str, xr.Dataset]
Floats = NDArray[np.float64]
Images = NDArray[np.float32]
PSF_SIZE = 41
LAGS = 15
"""Between pixels of warps, along each axis, at which their noise is alike."""
OF_MODEL = ("variance", v.MASK, "model_weight", "weight_sum", "wavelength_edges", "covariance",
            "psf", "mean_weight")  # fmt: skip
OF_NOISE = ("noise_place", "level_covariance", "coverage", "coverage_weight", "visit_psf",
            "noise_covariance")  # fmt: skip
OF_SOLUTION = ("chi2", "pixel_count", "rejected", "rejected_fraction", "varying", "flux_scale",
               "used", "offset_y", "offset_x", "dispersion_y", "dispersion_x")  # fmt: skip
OF_SOME = ("condition_number", *(f"geometry_{name}" for name in FIGURES))
OF_CONDITIONS = ("airmass", "altitude", "parallactic_angle", "temperature", "pressure", "humidity",
                 "latitude", "height")  # fmt: skip


class DcrBlockParameters(Parameters):
    """How the warps of a patch become sub-bands."""

    sky_map: SkyMapParameters = Field(SkyMapParameters(), description="tracts and patches")
    bands: dict[str, Band] = Field(default_factory=dict, description="limits of filters")
    dcr: SolverParameters = Field(LinearParameters(), description="how sub-bands are solved for")
    detection: MaskObjectsParameters = Field(
        MaskObjectsParameters(), description="how objects are found on the coadd"
    )
    psf_fwhm: float = Field(4.0, gt=0, description="FWHM of stars if nothing else tells, pixel")
    psf_beta: float = Field(3.0, gt=1, description="exponent of their Moffat profile")


def patch_centre(tract: Tract, patch: Patch) -> tuple[float, float]:
    """Return right ascension and declination (degree) of the middle of a patch."""
    box = patch.outer
    x, y = (box.x_start + box.x_stop - 1) / 2.0, (box.y_start + box.y_stop - 1) / 2.0
    ra, dec = tract.plane.to_sky(np.array([x]), np.array([y]))
    return float(ra[0]), float(dec[0])


def chromatic_patch(inputs: Inputs, parameters: DcrBlockParameters) -> xr.Dataset:
    """Solve for the sub-bands of a patch."""
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    stored = inputs["warps"]
    band = _one_band(stored, parameters.bands)
    match = _fields(inputs.get("match"), stored, tract)
    warps = matched(stored, match, tract, patch)
    stored = stored.sel({v.VISIT: warps[v.VISIT].values})
    conditions = visit_conditions(recorded(stored), patch_centre(tract, patch))
    warn_of_conditions(conditions)
    coadd = detected_coadd(inputs["coadd"], tract, patch, parameters.detection)
    objects = (coadd[v.MASK] & v.MASK_PLANES["DETECTED"]) != 0
    start = coadd.assign(variance=sky_variance(coadd["variance"], objects))
    jacobian = patch_jacobian(tract.plane, patch.outer)
    fwhm = seeing(stored, inputs.get("psfs"), displacement(conditions, jacobian), parameters, tract)
    psf = round_psfs(fwhm, beta=parameters.psf_beta, size=PSF_SIZE)
    level = calm_level(coadd)
    warps = as_solved_for(warps, match, objects.values, level).assign(
        psf=psf.assign_coords({v.VISIT: warps[v.VISIT]}),
        psf_fwhm=(v.VISIT, fwhm, {"units": v.PIXEL}),
        noise_covariance=noise_covariance(stored),
    )
    found = solve_dcr(
        warps,
        conditions,
        band,
        without_level(start, level),
        jacobian=jacobian,
        solver=parameters.dcr.solver,
        parameters=parameters.dcr,
    )
    return stored_model(found, conditions, level, fwhm)


def _one_band(warps: xr.Dataset, bands: Mapping[str, Band]) -> Band:
    """Return the band of warps, all of which must be taken through one filter."""
    names = np.unique(warps[v.FILTER].values.astype(str)) if v.FILTER in warps.coords else [""]
    if len(names) > 1:
        raise ValueError(f"warps of several filters are never mixed: {', '.join(names)}")
    name = str(names[0])
    if name not in bands:
        raise ValueError(f"no lambda_min, lambda_max and lambda_ref are known of filter {name!r}")
    return bands[name]


def recorded(warps: xr.Dataset) -> dict[int, ObservingConditions]:
    """Return the conditions that warps carry, at their boresights."""
    names = [name for name, coord in warps.coords.items() if coord.dims == (v.VISIT,)]
    table = xr.Dataset(coords={name: warps[name].variable for name in names})
    return conditions_of_exposures(table.rename({v.VISIT: v.EXPOSURE}))


def warn_of_conditions(conditions: xr.Dataset) -> None:
    """Warn of visits whose weather was not recorded, or whose headers contradict time and place."""
    for flags, kind, said in (
        (v.ConditionFlag.TEMPERATURE_DEFAULTED, DefaultWeatherWarning, "the temperature of {} was "
         "not recorded: the usual one is used"),
        (v.ConditionFlag.PRESSURE_DEFAULTED, DefaultWeatherWarning, "the pressure of {} was not "
         "recorded: the usual one is used"),
        (v.ConditionFlag.HUMIDITY_DEFAULTED, DefaultWeatherWarning, "the humidity of {} was not "
         "recorded: the usual one is used"),
        (v.ConditionFlag.ALTITUDE_INCONSISTENT | v.ConditionFlag.HOUR_ANGLE_INCONSISTENT,
         AltitudeWarning, "altitude or hour angle of {} are not those of time and place, which are "
         "used"),
    ):  # fmt: skip
        visits = conditions[v.VISIT].values[(conditions["flags"].values & int(flags)) != 0]
        if visits.size:
            names = f"visits {', '.join(map(str, visits))}"
            warnings.warn(said.format(names), kind, stacklevel=2)


def _fields(match: xr.Dataset | None, warps: xr.Dataset, tract: Tract) -> xr.Dataset | None:
    """Return the fields that are added to visits, if there are any, with what they are of."""
    if match is None:
        return None
    units = str(warps["image"].attrs["units"])
    return match.assign_attrs(tract_shape=list(tract.shape), units=units)


def matched(warps: xr.Dataset, match: xr.Dataset | None, tract: Tract, patch: Patch) -> xr.Dataset:
    """Return the warps of a patch, not yet read, without visits that could not be matched."""
    found = located(warps, tract, patch)
    height, width = patch.outer.shape
    found = found.isel({v.Y: slice(0, height), v.X: slice(0, width)})
    if match is None:
        return found
    status = match["status"].sel({v.VISIT: found[v.VISIT].values})
    return found.isel({v.VISIT: np.isin(status.values, MATCHED)})


def as_solved_for(
    warps: xr.Dataset, match: xr.Dataset | None, objects: NDArray[np.bool_], level: float
) -> xr.Dataset:
    """Return warps, not yet read, with their offsets, less a level, with the noise of the sky.

    Only the variances are read, of one visit after the other.
    """
    y, x = warps.attrs["box"][0], warps.attrs["box"][2]
    visits = [int(visit) for visit in warps[v.VISIT].values]
    calm = [
        calm_variance(warps["variance"].isel({v.VISIT: index}).values, objects)
        for index in range(len(visits))
    ]

    def image(values: Images, index: int, rows: slice, columns: slice) -> Images:
        if match is not None:
            box = (y + rows.start, y + rows.stop, x + columns.start, x + columns.stop)
            offset = offset_image(match, visits[index], box)
            values = values + offset.values.astype(np.float32)
        return np.asarray(values - np.float32(level))

    def variance(values: Images, index: int, rows: slice, columns: slice) -> Images:
        return at_objects(values, objects[rows, columns], calm[index])

    return warps.assign(
        image=changed(warps["image"], image), variance=changed(warps["variance"], variance)
    )


def detected_coadd(
    coadd: xr.Dataset, tract: Tract, patch: Patch, parameters: MaskObjectsParameters
) -> xr.Dataset:
    """Return the planes of a coadd, DETECTED where it has objects."""
    height, width = patch.outer.shape
    planes = located(coadd, tract, patch).isel({v.Y: slice(0, height), v.X: slice(0, width)})
    planes = planes.drop_vars(list(planes.coords)).load()
    return planes.assign({v.MASK: mask_objects(planes, parameters=parameters)})


def noise_covariance(warps: xr.Dataset) -> xr.DataArray:
    """Return how alike the noise of neighbouring pixels of warps is, (visit, lag_y, lag_x).

    From the sum of its autocorrelation that warps keep: pixels as much smaller than those of the
    detector as make that sum with a Lanczos kernel.
    """
    sums = np.ones(warps.sizes[v.VISIT])
    if "noise_correlation" in warps:
        said = warps["noise_correlation"].values
        sums = np.where(np.isfinite(said), np.maximum(said, 1.0), 1.0)
    white = xr.zeros_like(warp_noise_covariance(size=LAGS))
    white[LAGS // 2, LAGS // 2] = 1.0
    whole = float(warp_noise_covariance(size=LAGS).sum() / warp_noise_covariance(size=1).item())
    found = []
    for total in sums:
        scale = float(np.sqrt(whole / total))
        one = warp_noise_covariance(matrix=np.diag([scale, scale]), size=LAGS)
        found.append(one / one[LAGS // 2, LAGS // 2] if total > 1.0 else white)
    return xr.concat(found, v.VISIT).assign_coords({v.VISIT: warps[v.VISIT]})


def seeing(
    warps: xr.Dataset,
    psfs: xr.Dataset | None,
    zenith: NDArray[Any],
    parameters: DcrBlockParameters,
    tract: Tract,
) -> NDArray[Any]:
    """Return the FWHM of stars of each visit, pixel.

    What headers say counts first, then what was measured, across the vertical; else the
    parameter.
    """
    scale = 3600.0 * float(np.sqrt(abs(np.linalg.det(tract.plane.matrix))))
    said = np.full(warps.sizes[v.VISIT], np.nan)
    if "seeing" in warps.coords:
        said = warps["seeing"].values / scale
    for index, visit in enumerate(warps[v.VISIT].values):
        if said[index] > 0 or psfs is None or visit not in psfs[v.VISIT].values:
            continue
        images = psfs["psf"].sel({v.VISIT: visit})
        widths = [width_across(images.isel({v.POINT: point}), tuple(zenith[index]))
                  for point in range(images.sizes[v.POINT])]  # fmt: skip
        known = [width for width in widths if np.isfinite(width)]
        said[index] = float(np.median(known)) if known else np.nan
    return np.where(said > 0, said, parameters.psf_fwhm)


def calm_level(coadd: xr.Dataset) -> float:
    """Return the median of a coadd without its objects, 0 if nothing is left.

    A solution has steps at the borders of a patch if its sky is not 0 there.
    """
    objects = (coadd[v.MASK].values & v.MASK_PLANES["DETECTED"]) != 0
    calm = coadd["image"].values[~objects & np.isfinite(coadd["image"].values)]
    return float(np.median(calm)) if calm.size else 0.0


def without_level(image: xr.Dataset, level: float) -> xr.Dataset:
    """Return images less a level."""
    lowered = (image["image"] - np.float32(level)).assign_attrs(image["image"].attrs)
    return image.assign(image=lowered)


def stored_model(
    found: DcrSolution, conditions: xr.Dataset, level: float, fwhm: Floats
) -> xr.Dataset:
    """Return what a product keeps of a solution."""
    model, told = found
    planes = model["model"] + np.float32(level / model.sizes[v.SUBFILTER])
    kept: dict[str, Any] = {
        "model": planes.assign_attrs(model["model"].attrs).variable,
        **counted(model),
        **{name: model[name].variable for name in OF_MODEL},
        **{name: model[name].variable for name in OF_NOISE if name in model},
        **{name: told[name].variable for name in OF_SOLUTION},
        **{name: conditions[name].variable for name in OF_CONDITIONS},
    }
    kept["condition_flags"] = conditions["flags"].variable
    kept["psf_fwhm"] = (v.VISIT, fwhm, {"units": v.PIXEL})
    kept["sky_level"] = ((), level, dict(model["model"].attrs))
    kept["status"] = ((), np.uint8(worst_status(told["status"].values)))
    kept["iterations"] = ((), np.int32(told["iterations"].values.max(initial=0)))
    smallest, largest = np.sort(told["dispersion_eigenvalues"].values)
    for name, value in (
        *((name, largest_of(told, name))
          for name in ("residual", "convergence_first", "convergence_last")),
        ("chi2_total", told["chi2_total"]),
        ("spread", told["dispersion_trace"]),
        ("smallest_spread", smallest),
        ("largest_spread", largest),
        ("colour_error", told["moment_sigma"]),
        *((name, told.get(name, np.nan)) for name in OF_SOME),
        ("adherence", model.attrs.get("adherence", np.nan)),
    ):  # fmt: skip
        kept[name] = ((), float(value))
    block = xr.Dataset(kept).drop_attrs(deep=False)
    for variable in dcr_schema(str(model["model"].attrs["units"])).variables:
        if variable.name in block:
            block[variable.name].attrs.setdefault("units", variable.unit)
    return block.assign_coords({v.VISIT: model[v.VISIT].values})


def counted(model: xr.Dataset) -> dict[str, xr.Variable]:
    """Return how many visits there are at each pixel, and reach each sub-band by iteration."""
    if "visit_count" not in model:
        return {"n_image": model["n_image"].variable}
    return {"n_image": model["visit_count"].variable, "plane_count": model["n_image"].variable}


def largest_of(told: xr.Dataset, name: str) -> float:
    """Return the largest value of the tiles; NaN if the solution has none."""
    values = told[name].values if name in told else np.empty(0)
    return float(np.nanmax(values)) if np.isfinite(values).any() else np.nan


def worst_status(codes: NDArray[Any]) -> int:
    """Return the status of a patch by those of its tiles.

    Examples
    --------
    >>> import numpy as np
    >>> v.DcrStatus(worst_status(np.array([0, 3]))).name
    'CONVERGED'
    """
    present = {int(code) for code in codes}
    order = (
        v.DcrStatus.BAD_FIT,
        v.DcrStatus.DIVERGED,
        v.DcrStatus.NOT_CONVERGED,
        v.DcrStatus.CONVERGED,
        v.DcrStatus.NO_LEVERAGE,
        v.DcrStatus.NO_SOURCES,
        v.DcrStatus.NO_VALID_PIXELS,
    )
    return int(next((code for code in order if code in present), v.DcrStatus.NOT_MEASURED))


def restored_model(
    block: xr.Dataset, tract: Tract, patch: Patch, band: Band, parameters: SolverParameters
) -> xr.Dataset:
    """Return a stored model as `predict_template` takes it, without the level of the sky."""
    known = np.isfinite(block["altitude"].values) & np.isfinite(block["mean_weight"].values)
    model = block.isel({v.VISIT: np.flatnonzero(known)}).load()
    level = np.float32(float(model["sky_level"]) / model.sizes[v.SUBFILTER])
    planes = (model["model"] - level).assign_attrs(model["model"].attrs)
    return model.assign(model=planes).assign_attrs(
        box=list(patch.outer),
        wcs=tract.plane.header(),
        band=band.name,
        band_definition=band.model_dump_json(),
        jacobian=json.dumps(patch_jacobian(tract.plane, patch.outer).tolist()),
        parameters=parameters.model_dump_json(),
        solver=parameters.solver,
        adherence=float(model["adherence"]),
    )


def predicted(model: xr.Dataset, conditions: xr.Dataset, **seeing: Any) -> xr.Dataset:
    """Return the template of a restored model, with the level of the sky.

    ``fwhm`` or ``psf`` may be given, as for `predict_template`.
    """
    made = predict_template(model, conditions, **seeing)
    image = made["image"] + np.float32(float(model["sky_level"]))
    return made.assign(image=image.assign_attrs(made["image"].attrs))


def dcr_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how well the sub-bands of a patch are known, and how well visits agree with them."""
    used = block["used"].values
    chi2 = block["chi2"].values[used]
    return {
        "status": v.DcrStatus(int(block["status"])).name,
        "iterations": int(block["iterations"]),
        "visits": int(used.sum()),
        "chi2": float(np.median(chi2)) if chi2.size else None,
        "worst_chi2": float(chi2.max()) if chi2.size else None,
        "colour_error": _finite(block["colour_error"]),
    }


def _finite(value: xr.DataArray) -> float | None:
    return float(value) if np.isfinite(float(value)) else None


def broad_band(inputs: Inputs, parameters: Parameters) -> xr.Dataset:
    """Return the sum of the sub-bands of a patch."""
    made = stack_planes(inputs["model"])[["image", "variance", v.MASK, "n_image"]]
    return made.drop_vars(list(made.coords)).drop_attrs(deep=False)


def broad_band_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return coverage and noise of a broad-band coadd."""
    image, variance = block["image"].values, block["variance"].values
    good = np.isfinite(image) & np.isfinite(variance)
    return {
        "covered": float(good.mean()),
        "noise": float(np.sqrt(np.median(variance[good]))) if good.any() else None,
    }


def scored_visit(inputs: Inputs, parameters: DcrBlockParameters) -> xr.Dataset:
    """Judge the template of a visit that no model is made of, beside the plain coadd."""
    tract, patch = patch_of(parameters.sky_map, inputs["place"])
    stored = over_visits(inputs["warp"])
    band = _one_band(stored, parameters.bands)
    _warn_of_known(int(stored[v.VISIT].values[0]), inputs["coadd"])
    height, width = patch.outer.shape
    there = {v.Y: slice(0, height), v.X: slice(0, width)}
    warp = located(inputs["warp"], tract, patch).isel(there).load()
    conditions = visit_conditions(recorded(stored), patch_centre(tract, patch))
    direction = displacement(conditions, patch_jacobian(tract.plane, patch.outer))
    psf = over_visits(inputs["psf"]) if "psf" in inputs else None
    fwhm = seeing(stored, psf, direction, parameters, tract)
    coadd = detected_coadd(inputs["coadd"], tract, patch, parameters.detection)
    model = restored_model(inputs["model"].isel(there), tract, patch, band, parameters.dcr)
    pair = at_one_seeing(warp, coadd, fwhm[0], coadd_psf(inputs, parameters), parameters)
    template = predicted(model, conditions, psf=pair.psf)
    compared = float(psf_fwhm(pair.psf))
    score = score_template(
        pair.warp,
        template,
        pair.coadd,
        direction=(float(direction[0, 0]), float(direction[0, 1])),
        fwhm=compared,
        correlation=pair.correlation,
    )
    found: dict[str, Any] = {
        f"{name}_{of}": score[name].sel(of=of).drop_vars("of").variable
        for name in ("residual", "dipole", "detections")
        for of in ("template", "coadd")
    }
    found |= {name: score[name].variable for name in ("ratio", "objects", "pixels")}
    found |= {
        name: conditions[name].isel({v.VISIT: 0}).variable
        for name in ("airmass", "altitude", "parallactic_angle")
    }
    found["psf_fwhm"] = ((), float(fwhm[0]), {"units": v.PIXEL})
    found["compared_fwhm"] = ((), compared, {"units": v.PIXEL})
    kept = {v.FILTER: str(stored[v.FILTER].values[0])} if v.FILTER in stored.coords else {}
    return xr.Dataset(found, coords=kept)


def _warn_of_known(visit: int, coadd: xr.Dataset) -> None:
    """Warn of a visit that is part of the coadd beside."""
    if "input_weight" not in coadd or visit not in coadd[v.VISIT].values:
        return
    if float(coadd["input_weight"].sel({v.VISIT: visit})) > 0:
        warnings.warn(
            f"visit {visit} is part of the coadd that its template is judged beside: what that "
            "leaves is too little",
            KnownVisitWarning,
            stacklevel=2,
        )


class Pair(NamedTuple):
    """A visit and a coadd of the same point-spread function, and how far the noise of neighbouring
    pixels of the visit is alike; see `noise_correlation`."""

    warp: xr.Dataset
    coadd: xr.Dataset
    psf: xr.DataArray
    correlation: float


def at_one_seeing(
    warp: xr.Dataset,
    coadd: xr.Dataset,
    fwhm: float,
    coadded: xr.DataArray,
    parameters: DcrBlockParameters,
) -> Pair:
    """Return a visit and a coadd at the worse seeing of both: nothing is sharpened."""
    own = round_psfs([fwhm], beta=parameters.psf_beta, size=PSF_SIZE).isel({v.VISIT: 0})
    if fwhm >= float(psf_fwhm(coadded)):
        matched = _smoothed(coadd, coadded, own)
        # Objects are where they were.
        return Pair(warp, matched.assign({v.MASK: coadd[v.MASK]}), own, 1.0)
    return Pair(_smoothed(warp, own, coadded), coadd, coadded, noise_correlation(own, coadded))


def _smoothed(image: xr.Dataset, psf: xr.DataArray, target: xr.DataArray) -> xr.Dataset:
    box = image.attrs["box"]
    x, y = (box[2] + box[3] - 1) / 2.0, (box[0] + box[1] - 1) / 2.0
    return match_psf(
        image, psf_at_points(psf, x, y), target, parameters=MatchingParameters(min_ratio=1.0)
    )


def coadd_psf(inputs: Inputs, parameters: DcrBlockParameters) -> xr.DataArray:
    """Return the point-spread function of a coadd: the mean of those of its visits that are known.

    Without any it is as wide as the parameters say.
    """
    known = inputs["model"]["psf_fwhm"].load()
    known = known.isel({v.VISIT: np.flatnonzero(known.values > 0)})
    weights = np.ones(known.sizes[v.VISIT])
    if "input_weight" in inputs["coadd"]:
        own = inputs["coadd"]["input_weight"].load().reindex_like(known)
        weights = np.where(own.values > 0, own.values, 0.0)
    some = weights > 0
    if not some.any():
        psfs = round_psfs([parameters.psf_fwhm], beta=parameters.psf_beta, size=PSF_SIZE)
        return psfs.isel({v.VISIT: 0})
    psfs = round_psfs(known.values[some], beta=parameters.psf_beta, size=PSF_SIZE)
    mean = np.average(psfs.values, axis=0, weights=weights[some])
    return xr.DataArray(mean, dims=(v.PSF_Y, v.PSF_X))


def over_visits(block: xr.Dataset) -> xr.Dataset:
    """Return a block of one visit with a dimension of visits, its coordinates too."""
    found = block.expand_dims(v.VISIT)
    scalars = {name: coord for name, coord in found.coords.items() if not coord.dims}
    return found.assign_coords({name: (v.VISIT, [coord.item()]) for name, coord in scalars.items()})


def score_quality(block: xr.Dataset) -> Mapping[str, Any]:
    """Return how much less a template leaves of a visit than the plain coadd does."""
    return {
        "ratio": _finite(block["ratio"]),
        **{name: int(block[name]) for name in ("detections_template", "detections_coadd")},
    }
