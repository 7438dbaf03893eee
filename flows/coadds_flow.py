"""The flow ``coadds``: the warps of each patch and filter averaged.

One step, ``coadd`` (filter, patch), which reads its warps tile by tile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import ArtifactParameters, CoaddParameters
from skyloom.algorithms.errors import StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.flow import Flow
from skyloom.flows.patches import PLACE, patch_sizes, stored_warps
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    selected_exposures,
)
from skyloom.flows.step import Labels, Lookup, Reduction, Step
from skyloom.flows.warp_blocks import CoaddBlockParameters, coadd_quality, coadded_patch
from skyloom.storage.warp_schemas import coadd_schema

if TYPE_CHECKING:
    from skyloom.storage.records import Label
    from skyloom.storage.store import Store

__all__ = ["CoaddsConfiguration", "coadds"]

ROWS_AT_A_TIME = 512


class CoaddsConfiguration(Parameters):
    """Everything that can be chosen about coadds."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures are used; all detectors are"
    )
    coadd: CoaddParameters = Field(
        CoaddParameters(statistic="clipped_mean"), description="how warps are averaged"
    )
    artifacts: ArtifactParameters | None = Field(
        None,
        description="how artifacts are found that few visits show; none by default, for warps "
        "whose stars differ in width are not compared well",
    )
    seeing: float = Field(4.0, gt=0, description="FWHM of stars in the warps, pixel")
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
    step = _step(store, configuration, exposures_by_filter(table, visits), done, matched)
    return Flow("coadds", store, (step,), configuration, notes)


def _step(
    store: Store,
    configuration: CoaddsConfiguration,
    filters: Mapping[str, Labels],
    done: list[tuple[Label, Label]],
    matched: bool,
) -> Step:
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
    tile = min(ROWS_AT_A_TIME, sizes[v.Y]) * sizes[v.X]
    return Step(
        coadded_patch,
        CoaddBlockParameters(
            sky_map=sky_map,
            coadd=configuration.coadd,
            artifacts=configuration.artifacts,
            seeing=configuration.seeing,
        ),
        coadd_schema(units),
        {v.FILTER: tuple(filters), v.PATCH: patches, v.VISIT: tuple(sorted(filter_of, key=str))},
        (
            Reduction(
                "warps",
                "warps",
                v.VISIT,
                configuration.minimum,
                among=((v.FILTER, v.PATCH), touched),
                lazy=True,
            ),
            PLACE,
            *((_match_input(patches),) if matched else ()),
        ),
        sizes=sizes,
        attrs={"sky_map": sky_map.model_dump(mode="json")},
        memory_bytes=3 * 12 * tile * most + 40 * pixels + 4 * pixels * most,
        read_bytes=12 * pixels * most,
        quality=coadd_quality,
        only=frozenset(touched),
    )


def _match_input(patches: Labels) -> Lookup:
    tracts: dict[Label, Label] = {patch: int(str(patch).split("-")[0]) for patch in patches}
    return Lookup("match", "background_match", v.PATCH, v.TRACT, tracts)
