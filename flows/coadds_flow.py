"""The flow ``coadds``: the warps of each patch and filter averaged.

``coadd`` (filter, patch) reads its warps tile by tile. To find artifacts that few visits show,
``matched_warps`` (visit, patch) first brings all warps to one point-spread function.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import ArtifactParameters, CoaddParameters
from skyloom.algorithms.coadd.inputs import TILE_BYTES
from skyloom.algorithms.errors import StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf import MatchingParameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.flow import Flow
from skyloom.flows.patches import PLACE, patch_sizes, stored_warps
from skyloom.flows.psf_blocks import (
    MatchedWarpParameters,
    coadd_points,
    match_psf_quality,
    matched_warp,
)
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    selected_exposures,
)
from skyloom.flows.step import Input, Labels, Lookup, Reduction, Same, Step
from skyloom.flows.warp_blocks import CoaddBlockParameters, coadd_quality, coadded_patch
from skyloom.storage.warp_schemas import WARP_PART, coadd_schema, matched_warps_schema

if TYPE_CHECKING:
    from skyloom.storage.records import Label
    from skyloom.storage.store import Store

__all__ = ["CoaddsConfiguration", "coadds"]

WIDE = 2.0  # median widths, beyond which a visit does not set the common width
MARGIN = 0.02  # pixel, of the common width


class CoaddsConfiguration(Parameters):
    """Everything that can be chosen about coadds."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures are used; all detectors are"
    )
    coadd: CoaddParameters | None = Field(
        None,
        description="how warps are averaged; by default a clipped mean, or a mean if artifacts "
        "are looked for",
    )
    artifacts: ArtifactParameters | None = Field(
        None,
        description="how artifacts are found that few visits show, in warps brought to one "
        "point-spread function; null: they are not looked for",
    )
    matching: MatchingParameters = Field(
        MatchingParameters(), description="how warps are brought to one point-spread function"
    )
    target_fwhm: float | None = Field(
        None,
        gt=0,
        description="FWHM that they get, pixel; by default as wide as the widest needs, but for "
        "visits more than twice as wide as their median, which then add nothing",
    )
    psf_spacing: int = Field(
        500,
        ge=1,
        description="largest distance of points at which the coadd has a point-spread function, "
        "pixel",
    )
    match: Literal["auto", "required", "none"] = Field(
        "auto",
        description="whether backgrounds are matched; auto: if match_backgrounds was run. Visits "
        "that could not be matched are left out then",
    )
    minimum: int = Field(1, ge=1, description="fewest warps of a coadd")


def coadds(
    store: Store, configuration: CoaddsConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that makes the coadds of a store.

    Parameters
    ----------
    store : Store
        With warps: the flow `warps` makes them.
    configuration : CoaddsConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If there are no warps.
    ConfigurationError
        If the configuration is wrong.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> coadds(create_store("memory://doctest-coadds-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-coadds-flow holds no exposures: \
ingest exposures first (skyloom ingest)
    """
    configuration = configured(CoaddsConfiguration, configuration)
    table = selected_exposures(store, configuration.selection)
    visits, done = stored_warps(store, table)
    matched = configuration.match != "none" and "background_match" in store
    notes: tuple[str, ...] = ()
    if not matched and configuration.match == "required":
        raise StoreError(
            f"{store.url} has no product 'background_match': run the flow match_backgrounds first"
        )
    if not matched and configuration.match == "auto":
        notes = (f"backgrounds are not matched: {store.url} has no product 'background_match'",)
    if configuration.artifacts is not None and "warp_psf" not in store:
        raise StoreError(
            f"{store.url} has no product 'warp_psf', which finding artifacts needs: run the flow "
            "warps with its parameter psf"
        )
    step, touched = _step(store, configuration, exposures_by_filter(table, visits), done, matched)
    steps: tuple[Step, ...] = (step,)
    if configuration.artifacts is not None:
        pairs = frozenset((visit, key[1]) for key, own in touched.items() for visit in own)
        steps = _matched_step(store, configuration, step, pairs), step
    return Flow("coadds", store, steps, configuration, notes)


def _step(
    store: Store,
    configuration: CoaddsConfiguration,
    filters: Mapping[str, Labels],
    done: list[tuple[Label, Label]],
    matched: bool,
) -> tuple[Step, Mapping[tuple[Label, Label], Labels]]:
    """Return the step of coadds, and the visits of each filter and patch."""
    filter_of = {visit: name for name, visits in filters.items() for visit in visits}
    members: dict[tuple[Label, Label], list[Label]] = defaultdict(list)
    for visit, patch in sorted(done, key=str):
        if visit in filter_of:
            members[filter_of[visit], patch].append(visit)
    touched = {key: tuple(found) for key, found in members.items()}
    patches = tuple(p for p in store.labels("warps")[v.PATCH] if any(p == q for _, q in touched))
    sky_map = SkyMapParameters.model_validate(store.attrs("warps")["sky_map"])
    units = store.schema("warps").variable("image").unit
    sizes = patch_sizes(sky_map, patches)
    pixels, most = sizes[v.Y] * sizes[v.X], max(map(len, touched.values()))
    # Parts of all warps, with their offsets; the coadd and what is told of it.
    tile = 16 * max(TILE_BYTES // 12, most * sizes[v.X] * WARP_PART)
    known = "warp_psf" in store
    points = coadd_points((sizes[v.Y], sizes[v.X]), configuration.psf_spacing) if known else 0
    side = store.chunks("warp_psf").layout.length(v.PSF_Y) if known else 0
    rejects = configuration.artifacts is not None
    chosen = configuration.coadd or CoaddParameters(statistic="mean" if rejects else "clipped_mean")
    among: Any = ((v.FILTER, v.PATCH), touched)
    inputs: list[Input] = [
        Reduction("warps", "warps", v.VISIT, configuration.minimum, among=among, lazy=True),
        PLACE,
    ]
    if matched:
        inputs.append(_match_input(patches))
    if known:
        inputs.append(Reduction("psfs", "warp_psf", v.VISIT, 0, among=among))
    if rejects:
        inputs.append(Reduction("matched", "matched_warps", v.VISIT, 0, among=among, lazy=True))
    step = Step(
        coadded_patch,
        CoaddBlockParameters(
            sky_map=sky_map,
            coadd=chosen,
            artifacts=configuration.artifacts,
            target_fwhm=_target(store, configuration, filter_of) if rejects else 1.0,
            psf_spacing=configuration.psf_spacing,
            psf_points=points,
        ),
        coadd_schema(units, psf=known),
        {v.FILTER: tuple(filters), v.PATCH: patches, v.VISIT: tuple(sorted(filter_of, key=str))},
        tuple(inputs),
        revision=2,
        sizes={**sizes, **({v.POINT: points, v.PSF_Y: side, v.PSF_X: side} if known else {})},
        attrs={"sky_map": sky_map.model_dump(mode="json")},
        memory_bytes=tile
        + 40 * pixels
        + ((4 * most + 60) * pixels if rejects else 0)
        + 4 * side**2 * (points + most),
        read_bytes=12 * pixels * most * (3 if rejects else 1),
        quality=coadd_quality,
        only=frozenset(touched),
    )
    return step, touched


def _target(store: Store, configuration: CoaddsConfiguration, visits: Mapping[Label, str]) -> float:
    """Return the FWHM that warps are brought to, pixel."""
    if configuration.target_fwhm is not None:
        return configuration.target_fwhm
    found = [
        float(record.quality["widest"])
        for record in store.records("warp_psf").values()
        if record.done and record.quality.get("widest") and record.block[v.VISIT] in visits
    ]
    if not found:
        raise StoreError(
            f"no warp of {store.url} has a point-spread function: give `psf.assumed` to the flow "
            "warps, or do without artifacts"
        )
    usual = np.array(found)[np.array(found) <= WIDE * np.median(found)]
    width = configuration.matching.min_ratio * float(usual.max())
    return float(np.ceil(10.0 * (width + MARGIN)) / 10.0)


def _matched_step(
    store: Store,
    configuration: CoaddsConfiguration,
    coadd_step: Step,
    pairs: frozenset[tuple[Label, Label]],
) -> Step:
    parameters = coadd_step.parameters
    assert isinstance(parameters, CoaddBlockParameters)
    pixels = coadd_step.sizes[v.Y] * coadd_step.sizes[v.X]
    return Step(
        matched_warp,
        MatchedWarpParameters(
            sky_map=parameters.sky_map,
            target_fwhm=parameters.target_fwhm,
            matching=configuration.matching,
        ),
        matched_warps_schema(store.schema("warps").variable("image").unit),
        {dim: coadd_step.labels[dim] for dim in (v.VISIT, v.PATCH)},
        (Same("warp", "warps"), Same("psf", "warp_psf"), PLACE),
        sizes={dim: coadd_step.sizes[dim] for dim in (v.Y, v.X)},
        memory_bytes=6 * 12 * pixels,
        read_bytes=16 * pixels,
        quality=match_psf_quality,
        only=pairs,
    )


def _match_input(patches: Labels) -> Lookup:
    tracts: dict[Label, Label] = {patch: int(str(patch).split("-")[0]) for patch in patches}
    return Lookup("match", "background_match", v.PATCH, v.TRACT, tracts)
