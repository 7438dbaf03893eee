"""The flow ``dcr_coadds``: sub-band images of the sky without refraction, from many visits.

``dcr`` (filter, patch) solves for the sub-bands of a patch, ``dcr_coadd`` (filter, patch) is their
sum. A template for any altitude and parallactic angle is predicted from ``dcr``, see
`skyloom.flows.templates`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import Band, LinearParameters, SolverParameters
from skyloom.algorithms.dcr.coverage import GROUPS
from skyloom.algorithms.dcr.uncertainty import LEVELS
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.refraction import ALTITUDES
from skyloom.algorithms.sky import MaskObjectsParameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.algorithms.visit_conditions import conditions_of_exposures
from skyloom.flows.dcr_bands import band_values
from skyloom.flows.dcr_blocks import (
    LAGS,
    PSF_SIZE,
    DcrBlockParameters,
    broad_band,
    broad_band_quality,
    chromatic_patch,
    dcr_quality,
    score_quality,
    scored_visit,
)
from skyloom.flows.flow import Flow
from skyloom.flows.patches import PLACE, patch_sizes, stored_warps
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    selected_exposures,
)
from skyloom.flows.step import Input, Labels, Lookup, Reduction, Same, Step
from skyloom.storage.dcr_schemas import dcr_coadd_schema, dcr_schema, dcr_scores_schema

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.records import Label
    from skyloom.storage.store import Store

__all__ = ["DcrCoaddsConfiguration", "dcr_coadds"]

MARGIN = 64  # pixels around a tile, at most as a rule
Touched = Mapping[tuple["Label", "Label"], Labels]


class DcrCoaddsConfiguration(Parameters):
    """Everything that can be chosen about chromatic coadds."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures are used; all detectors are"
    )
    bands: dict[str, Band] = Field(
        default_factory=dict,
        description="limits and reference wavelength (nm) of each filter, or a file of its "
        "band-pass; filters that are not named are left out",
    )
    dcr: SolverParameters = Field(
        LinearParameters(),
        description="how sub-bands are solved for: solver linear, or iterative with parameters of "
        "its own",
    )
    detection: MaskObjectsParameters = Field(
        MaskObjectsParameters(
            iterations=2, background_bin=256, smoothing=1.7, threshold=5.0, growth=2
        ),
        description="how objects are found on the coadd, whose colours are solved for",
    )
    psf_fwhm: float = Field(
        4.0,
        gt=0,
        description="FWHM of stars in warps, pixel, where neither `warp_psf` nor headers tell",
    )
    match: Literal["auto", "required", "none"] = Field(
        "auto",
        description="whether backgrounds are matched; auto: if match_backgrounds was run. Visits "
        "that could not be matched are left out then",
    )
    minimum: int = Field(2, ge=1, description="fewest visits of a model")
    held_out: tuple[int, ...] = Field(
        (),
        description="visits that no model is made of: templates are judged on them. Leave them out "
        "of the coadds too (selection.exclude_exposures), or these know them",
    )

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        """Name each band after its filter if it has no name of its own; read band-passes."""
        bands = values.get("bands") if isinstance(values, dict) else None
        if isinstance(bands, dict):
            named = {
                key: band_values(key, band) if isinstance(band, dict) else band
                for key, band in bands.items()
            }
            return {**values, "bands": named}
        return values

    @model_validator(mode="after")
    def _not_mixed(self) -> DcrCoaddsConfiguration:
        names = [band.name for band in self.bands.values()]
        mixed = sorted({name for name in names if names.count(name) > 1})
        if mixed:
            filters = [key for key, band in self.bands.items() if band.name in mixed]
            raise ValueError(
                f"bands {', '.join(filters)} are all named {mixed[0]!r}: visits through several "
                "filters are never mixed in one model"
            )
        return self


def dcr_coadds(
    store: Store, configuration: DcrCoaddsConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that makes the chromatic coadds of a store.

    Parameters
    ----------
    store : Store
        With warps and coadds: the flows `warps` and `coadds` make them.
    configuration : DcrCoaddsConfiguration or mapping, optional
        What differs from the defaults; ``bands`` are needed.

    Raises
    ------
    StoreError
        If there are no warps or coadds.
    ConfigurationError
        If the configuration is wrong, a filter has no band, or visits have no observing
        conditions; the message names them.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> dcr_coadds(create_store("memory://doctest-dcr-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.ConfigurationError: bands: lambda_min, lambda_max and lambda_ref \
(nm) of a filter are needed, such as --set bands.g.lambda_min=400
    """
    configuration = configured(DcrCoaddsConfiguration, configuration)
    if not configuration.bands:
        raise ConfigurationError(
            "bands: lambda_min, lambda_max and lambda_ref (nm) of a filter are needed, such as "
            "--set bands.g.lambda_min=400"
        )
    table = selected_exposures(store, configuration.selection)
    visits, done = stored_warps(store, table)
    filters, notes = _filters(configuration, exposures_by_filter(table, visits))
    chosen = [visit for members in filters.values() for visit in members]
    _check_conditions(store, table.sel({v.EXPOSURE: chosen}))
    if "coadd" not in store:
        raise StoreError(
            f"{store.url} has no product 'coadd', which the sub-bands start from: run the flow "
            "coadds first (skyloom run STORE coadds)"
        )
    matched = configuration.match != "none" and "background_match" in store
    if not matched and configuration.match == "required":
        raise StoreError(
            f"{store.url} has no product 'background_match': run the flow match_backgrounds first"
        )
    if not matched and configuration.match == "auto":
        notes += (f"backgrounds are not matched: {store.url} has no product 'background_match'",)
    notes += _known_visits(store, configuration, filters)
    model = _model_step(store, configuration, filters, done, matched)
    steps: tuple[Step, ...] = (model, _sum_step(model))
    if configuration.held_out:
        steps += (_score_step(configuration, filters, done, model),)
    return Flow("dcr_coadds", store, steps, configuration, notes)


def _filters(
    configuration: DcrCoaddsConfiguration, found: Mapping[str, Labels]
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Return the visits of filters that have a band, and what is left out."""
    chosen = {name: visits for name, visits in found.items() if name in configuration.bands}
    unknown = [name for name in configuration.bands if name not in found]
    if unknown or not chosen:
        raise ConfigurationError(
            f"bands: no warps were taken through {', '.join(unknown)}; there are those of "
            f"{', '.join(found) or 'no filter'}"
        )
    left = [name or "(no name)" for name in found if name not in chosen]
    notes = (f"filters without a band are left out: {', '.join(left)}",) if left else ()
    return chosen, notes


def _known_visits(
    store: Store, configuration: DcrCoaddsConfiguration, filters: Mapping[str, Labels]
) -> tuple[str, ...]:
    """Return a note of visits that are held out but part of the coadds they are judged beside."""
    if not configuration.held_out or "input_weight" not in store["coadd"]:
        return ()
    weights = store["coadd"]["input_weight"].load()
    weights = weights.max([dim for dim in weights.dims if dim not in (v.FILTER, v.VISIT)])
    known = [
        visit
        for name, visits in filters.items()
        for visit in visits
        if visit in configuration.held_out
        and name in weights[v.FILTER].values
        and visit in weights[v.VISIT].values
        and float(weights.sel({v.FILTER: name, v.VISIT: visit})) > 0
    ]
    if not known:
        return ()
    names = ",".join(map(str, known))
    return (
        f"held_out: visits {', '.join(map(str, known))} are part of the coadds, which know them, "
        f"and so do the models that start from these: run the flow coadds with "
        f"--set selection.exclude_exposures=[{names}]",
    )


def _check_conditions(store: Store, table: xr.Dataset) -> None:
    """Refuse visits that are too low, or whose altitude and angle cannot be known, by name."""
    try:
        found = conditions_of_exposures(table)
    except ValueError as error:
        raise ConfigurationError(
            f"{error}. Give the camera of {store.url} an `observatory`, and header keys of time, "
            "pointing and weather, and ingest again, or leave these out "
            "(selection.exclude_exposures)"
        ) from error
    low = [name for name, record in found.items() if not record.altitude >= ALTITUDES[0]]
    if low:
        raise ConfigurationError(
            f"exposures {', '.join(map(str, low))} are below {ALTITUDES[0]:g} degree of altitude, "
            "where refraction is not known: leave them out (selection.exclude_exposures)"
        )


def _model_step(
    store: Store,
    configuration: DcrCoaddsConfiguration,
    filters: Mapping[str, Labels],
    done: list[tuple[Label, Label]],
    matched: bool,
) -> Step:
    filter_of = {visit: name for name, visits in filters.items() for visit in visits}
    members: dict[tuple[Label, Label], list[Label]] = defaultdict(list)
    for visit, patch in sorted(done, key=str):
        if visit in filter_of and visit not in configuration.held_out:
            members[filter_of[visit], patch].append(visit)
    touched = {key: tuple(found) for key, found in members.items()}
    if not touched:
        raise ConfigurationError("held_out: no visit is left that a model could be made of")
    patches = tuple(p for p in store.labels("warps")[v.PATCH] if any(p == q for _, q in touched))
    sky_map = SkyMapParameters.model_validate(store.attrs("warps")["sky_map"])
    units = store.schema("warps").variable("image").unit
    sizes = patch_sizes(sky_map, patches)
    pixels, most = sizes[v.Y] * sizes[v.X], max(map(len, touched.values()))
    among: Any = ((v.FILTER, v.PATCH), touched)
    inputs: list[Input] = [
        Reduction("warps", "warps", v.VISIT, configuration.minimum, among=among, lazy=True),
        Same("coadd", "coadd"),
        PLACE,
    ]
    if matched:
        tracts: dict[Label, Label] = {patch: int(str(patch).split("-")[0]) for patch in patches}
        inputs.append(Lookup("match", "background_match", v.PATCH, v.TRACT, tracts))
    if "warp_psf" in store:
        inputs.append(Reduction("psfs", "warp_psf", v.VISIT, 0, among=among))
    planes, side = configuration.dcr.subfilters, PSF_SIZE
    return Step(
        chromatic_patch,
        DcrBlockParameters(
            sky_map=sky_map,
            bands=configuration.bands,
            dcr=configuration.dcr,
            detection=configuration.detection,
            psf_fwhm=configuration.psf_fwhm,
        ),
        dcr_schema(units),
        {v.FILTER: tuple(filters), v.PATCH: patches, v.VISIT: tuple(sorted(filter_of, key=str))},
        tuple(inputs),
        revision=10,
        sizes={
            **sizes,
            v.SUBFILTER: planes,
            f"{v.SUBFILTER}_2": planes,
            v.BAND_EDGE: 2,
            v.COVERAGE_GROUP: GROUPS,
            v.NOISE_LEVEL: LEVELS,
            v.PSF_Y: side,
            v.PSF_X: side,
            v.LAG_Y: LAGS,
            v.LAG_X: LAGS,
        },
        attrs={
            "sky_map": sky_map.model_dump(mode="json"),
            "bands": {
                key: band.model_dump(mode="json") for key, band in configuration.bands.items()
            },
            "dcr": configuration.dcr.model_dump(mode="json"),
        },
        memory_bytes=_memory(sizes, configuration.dcr, most),
        read_bytes=20 * pixels * most,
        quality=dcr_quality,
        only=frozenset(touched),
    )


def _memory(sizes: Mapping[str, int], dcr: SolverParameters, visits: int) -> int:
    """Return what a task holds: planes, and the data of visits that are kept or worked on."""
    pixels, planes = sizes[v.Y] * sizes[v.X], dcr.subfilters
    if isinstance(dcr, LinearParameters):
        kept = min(8 * visits * pixels, int(1e9 * dcr.memory))
        return kept + (60 + visits // 2 + 45 * planes + 8 * planes**2) * pixels
    height, width = (min(sizes[dim], dcr.tile + 2 * MARGIN) for dim in (v.Y, v.X))
    rows = 12 * height * sizes[v.X] * visits
    return rows + 28 * height * width * visits + (60 * planes + 80) * pixels


def _sum_step(model: Step) -> Step:
    pixels = model.sizes[v.Y] * model.sizes[v.X]
    return Step(
        broad_band,
        Parameters(),
        dcr_coadd_schema(model.schema.variable("model").unit),
        {dim: model.labels[dim] for dim in (v.FILTER, v.PATCH)},
        (Same("model", "dcr"),),
        revision=5,
        sizes={dim: model.sizes[dim] for dim in (v.Y, v.X)},
        attrs={"sky_map": model.attrs["sky_map"]},
        memory_bytes=30 * pixels * model.sizes[v.SUBFILTER],
        read_bytes=16 * pixels * model.sizes[v.SUBFILTER],
        quality=broad_band_quality,
        only=model.only,
    )


def _score_step(
    configuration: DcrCoaddsConfiguration,
    filters: Mapping[str, Labels],
    done: list[tuple[Label, Label]],
    model: Step,
) -> Step:
    filter_of: dict[Label, Label] = {
        visit: name
        for name, visits in filters.items()
        for visit in visits
        if visit in configuration.held_out
    }
    unknown = [visit for visit in configuration.held_out if visit not in filter_of]
    if unknown:
        raise ConfigurationError(
            f"held_out: there are no warps of visits {', '.join(map(str, unknown))} through "
            "filters with a band"
        )
    assert model.only is not None  # it is made of the warps there are
    pairs = frozenset(
        (visit, patch)
        for visit, patch in done
        if visit in filter_of and (filter_of[visit], patch) in model.only
    )
    inputs: list[Input] = [
        Same("warp", "warps"),
        Lookup("model", "dcr", v.VISIT, v.FILTER, filter_of),
        Lookup("coadd", "coadd", v.VISIT, v.FILTER, filter_of),
        PLACE,
    ]
    if any(item.name == "psfs" for item in model.inputs):
        inputs.append(Same("psf", "warp_psf"))
    pixels = model.sizes[v.Y] * model.sizes[v.X]
    return Step(
        scored_visit,
        model.parameters,
        dcr_scores_schema(model.schema.variable("model").unit),
        {v.VISIT: tuple(sorted(filter_of, key=str)), v.PATCH: model.labels[v.PATCH]},
        tuple(inputs),
        memory_bytes=120 * pixels,
        read_bytes=30 * pixels,
        quality=score_quality,
        only=pairs,
        revision=6,
    )
