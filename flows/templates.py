"""Templates from stored chromatic coadds: what the sky looks like at any altitude and angle."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import airmass
from skyloom.algorithms.dcr import Band, solver_parameters
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.psf import psf_fwhm
from skyloom.algorithms.recorded_conditions import HUMIDITIES, TEMPERATURES, possible_pressures
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.dcr_blocks import predicted, restored_model
from skyloom.flows.patches import patch_label, sky_map_of
from skyloom.storage.template_fits import write_template as write_fits

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["template", "write_template"]

WEATHER = ("temperature", "pressure", "humidity")


def template(
    store: Store,
    *,
    altitude: float,
    parallactic_angle: float,
    tract: int | None = None,
    patch: int | None = None,
    band: str | None = None,
    temperature: float | None = None,
    pressure: float | None = None,
    humidity: float | None = None,
    seeing: float | None = None,
) -> xr.Dataset:
    """Predict what a visit would show of a patch without noise.

    Parameters
    ----------
    store : Store
        With chromatic coadds: the flow `dcr_coadds` makes them.
    altitude, parallactic_angle : float, degree
        Of the centre of the patch.
    tract, patch : int, optional
        Which; may be left out where there is one.
    band : str, optional
        Filter; may be left out where there is one.
    temperature, pressure, humidity : float, Celsius, Pa, %, optional
        Weather; that of the median visit of the model without.
    seeing : float, arcsec, optional
        Full width at half maximum of stars, as light of the band's reference wavelength has it;
        that of the model, the sharpest of its visits, without.

    Returns
    -------
    Dataset, (y, x)
        ``image``, ``variance``, ``mask`` and, where the model knows one, ``psf``; attributes
        ``box`` and ``wcs`` say where it lies, ``conditions`` what it holds for, ``visits`` and
        ``config_hash`` what its model was made of.

    Raises
    ------
    StoreError
        If there are no chromatic coadds.
    ConfigurationError
        If tract, patch or band are not there, or have to be chosen; the message names those there
        are. If altitude, seeing or weather cannot be.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> template(create_store("memory://doctest-template", "generic"), altitude=60.0,
    ...          parallactic_angle=30.0)
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-template has no product 'dcr': run the \
flow dcr_coadds first (skyloom run STORE dcr_coadds)
    """
    if not 5.0 <= altitude <= 90.0:
        raise ConfigurationError(f"altitude must be from 5 to 90 degree, got {altitude:g}")
    if seeing is not None and not 0.0 < seeing < math.inf:
        raise ConfigurationError(f"seeing must be positive, in arcsec, got {seeing:g}")
    if not math.isfinite(parallactic_angle):
        raise ConfigurationError(f"parallactic_angle must be finite, got {parallactic_angle}")
    name, label = _chosen(store, tract, patch, band)
    block = store.read_block("dcr", {v.FILTER: name, v.PATCH: label})
    attrs = store.attrs("dcr")
    place = sky_map_of(SkyMapParameters.model_validate(attrs["sky_map"]))
    number, index = map(int, label.split("-"))
    where = place[number].patch(index)
    height, width = where.outer.shape
    cut = block.isel({v.Y: slice(0, height), v.X: slice(0, width)})
    model = restored_model(
        cut,
        place[number],
        where,
        Band.model_validate(attrs["bands"][name]),
        solver_parameters(attrs["dcr"]),
    )
    values = {
        "altitude": altitude,
        "parallactic_angle": parallactic_angle,
        "airmass": airmass(altitude),
        **{key: float(np.nanmedian(block[key])) for key in ("latitude", "height", *WEATHER)},
    }
    weather = {"temperature": temperature, "pressure": pressure, "humidity": humidity}
    given = {key: float(value) for key, value in weather.items() if value is not None}
    _check_weather(given, {**values, **given})
    values |= given
    conditions = xr.Dataset(
        {key: (v.VISIT, np.array([value])) for key, value in values.items()},
        coords={v.VISIT: np.array([0])},
    )
    scale = 3600.0 * float(np.sqrt(abs(np.linalg.det(place[number].plane.matrix))))
    fwhm = None if seeing is None else seeing / scale
    made = predicted(model, conditions, fwhm=fwhm)
    own = float(psf_fwhm(model["psf"])) * scale
    said = {
        **values,
        "seeing": own if seeing is None else float(seeing),
        "weather": _weather_source(given),
    }
    record = store.read_record("dcr", {v.FILTER: name, v.PATCH: label})
    used = block[v.VISIT].values[block["used"].values]
    return made.assign_attrs(
        box=list(where.outer),
        wcs=place[number].plane.header(),
        conditions=said,
        physical_filter=name,
        tract=number,
        patch=index,
        visits=used.tolist(),
        config_hash="" if record is None else record.config_hash,
    )


def _check_weather(given: Mapping[str, float], values: Mapping[str, float]) -> None:
    """Refuse weather that cannot be, by the bounds that records of visits have."""
    height = values["height"]
    limits = {
        "temperature": (*TEMPERATURES, "Celsius"),
        "humidity": (*HUMIDITIES, "%"),
        "pressure": (*possible_pressures(values["temperature"], height), "Pa"),
    }
    for name, (low, high, unit) in limits.items():
        if name not in given or low <= given[name] <= high:
            continue
        value = given[name]
        other = {"temperature": (value - 273.15, "K"), "pressure": (100.0 * value, "hPa")}
        meant, written = other.get(name, (math.nan, ""))
        hint = f" ({value:g} {written} are {meant:g} {unit})" if low <= meant <= high else ""
        at = f" at a height of {height:.0f} m" if name == "pressure" else ""
        raise ConfigurationError(
            f"{name} must be from {low:.0f} to {high:.0f} {unit}{at}, got {value:g}{hint}"
        )


def _weather_source(given: Mapping[str, float]) -> str:
    """Return where the weather is from.

    Examples
    --------
    >>> _weather_source({}), _weather_source({"pressure": 74000.0})
    ('median of the visits', 'given: pressure')
    """
    if not given:
        return "median of the visits"
    return "given" if len(given) == len(WEATHER) else f"given: {', '.join(given)}"


def write_template(
    store: Store, path: str | os.PathLike[str], *, overwrite: bool = False, **chosen: Any
) -> Path:
    """Write a template as a FITS file; see `template` for what can be chosen.

    The header says which versions, configuration and visits it is made of, and what was warned of.

    Raises
    ------
    StoreError
        If the file exists and is not to be replaced, or as for `template`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = template(store, **chosen)
    for each in caught:
        warnings.warn(each.message, each.category, stacklevel=2)
    said = made.attrs["conditions"]
    header = {
        "STORE": (Path(store.url).name[:60], "store that the template is of"),
        "FILTER": (made.attrs["physical_filter"], "physical filter"),
        "TRACT": made.attrs["tract"],
        "PATCH": made.attrs["patch"],
        "ALTITUDE": (said["altitude"], "[deg] altitude of the patch"),
        "PARANGLE": (said["parallactic_angle"], "[deg] parallactic angle"),
        "AIRMASS": said["airmass"],
        "AIRTEMP": (said["temperature"], "[deg C] temperature of the air"),
        "PRESSURE": (said["pressure"], "[Pa] air pressure"),
        "HUMIDITY": (said["humidity"], "[%] relative humidity"),
        "WEATHER": (said["weather"], "where the weather is from"),
        "SEEING": (said["seeing"], "[arcsec] FWHM of stars without refraction"),
    }
    header |= {
        "VISITS": ",".join(map(str, made.attrs["visits"])),
        "CFGHASH": (made.attrs["config_hash"], "configuration of the model"),
        "SWVERS": (version("skyloom"), "of skyloom"),
        "DATE": (datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"), "UTC"),
        **{f"WARN{n}": str(each.message) for n, each in enumerate(caught, 1)},
    }
    return write_fits(path, made, header=header, overwrite=overwrite)


def _chosen(
    store: Store, tract: int | None, patch: int | None, band: str | None
) -> tuple[str, str]:
    """Return the filter and the label of the patch that are meant."""
    if "dcr" not in store:
        raise StoreError(
            f"{store.url} has no product 'dcr': run the flow dcr_coadds first "
            "(skyloom run STORE dcr_coadds)"
        )
    there = sorted(
        (str(record.block[v.FILTER]), str(record.block[v.PATCH]))
        for record in store.records("dcr").values()
        if record.done
    )
    name = _one("band", band, [name for name, _ in there])
    own = [label for filter_, label in there if filter_ == name]
    number = _one("tract", tract, [int(label.split("-")[0]) for label in own])
    patches = [int(label.split("-")[1]) for label in own if int(label.split("-")[0]) == number]
    return name, patch_label(number, _one("patch", patch, patches))


def _one(what: str, wanted: Any, there: Sequence[Any]) -> Any:
    """Return the one that is wanted, or the only one there is."""
    known = sorted(set(there))
    if wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    names = ", ".join(map(str, known[:20])) or "none"
    said = f"{what} must be chosen" if wanted is None else f"there is no {what} {wanted!r}"
    raise ConfigurationError(f"{said}; there are {names}")
