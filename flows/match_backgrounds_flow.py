"""The flow ``match_backgrounds``: fields that bring the backgrounds of all visits together.

``tract_levels`` (visit, tract) bins the warps of a visit, ``background_match`` (filter, tract)
matches all visits at once. Warps stay as they are: the flow ``coadds`` adds the offsets as it reads
them. A new visit bins its own pixels only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.matching import MatchParameters, TractBackgroundParameters
from skyloom.algorithms.matching.fields import PolynomialBasis, SplineBasis
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.flows.flow import Flow
from skyloom.flows.match_blocks import (
    MatchBlockParameters,
    TractLevelsParameters,
    grid_of,
    levels_quality,
    match_quality,
    matched_tract,
    visit_levels,
)
from skyloom.flows.patches import TRACT_PLACE, patch_sizes, stored_warps
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    exposures_by_filter,
    selected_exposures,
)
from skyloom.flows.step import Labels, Reduction, Step
from skyloom.storage.match_schemas import background_match_schema, tract_levels_schema

if TYPE_CHECKING:
    from skyloom.storage.records import Label
    from skyloom.storage.store import Store

__all__ = ["MatchBackgroundsConfiguration", "match_backgrounds"]


class MatchBackgroundsConfiguration(Parameters):
    """Everything that can be chosen about background matching."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures are used; all detectors are"
    )
    bin_size: int | None = Field(
        None,
        ge=1,
        description="side of a bin, pixel; the divisor of the inner size of patches that is "
        "nearest to 150 by default",
    )
    levels: TractBackgroundParameters = Field(
        TractBackgroundParameters(), description="how pixels become levels"
    )
    match: MatchParameters = Field(MatchParameters(), description="how visits are matched")
    minimum: int = Field(1, ge=1, description="fewest visits that are matched")


def match_backgrounds(
    store: Store, configuration: MatchBackgroundsConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that matches the backgrounds of the warps of a store.

    Parameters
    ----------
    store : Store
        With warps: the flow `warps` makes them.
    configuration : MatchBackgroundsConfiguration or mapping, optional
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
    >>> match_backgrounds(create_store("memory://doctest-match-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-match-flow holds no exposures: \
ingest exposures first (skyloom ingest)
    """
    configuration = configured(MatchBackgroundsConfiguration, configuration)
    if configuration.match.mode == "reference_bins":
        raise ConfigurationError("match.mode: the flow matches by fields: joint or reference")
    table = selected_exposures(store, configuration.selection)
    visits, done = stored_warps(store, table)
    filters = exposures_by_filter(table, visits)
    patches: dict[tuple[Label, Label], list[Label]] = defaultdict(list)
    for visit, patch in done:
        patches[visit, int(str(patch).split("-")[0])].append(patch)
    touched = {key: tuple(found) for key, found in patches.items()}
    levels = _levels_step(store, configuration, visits, touched)
    return Flow(
        "match_backgrounds",
        store,
        (levels, _match_step(configuration, filters, levels)),
        configuration,
    )


def _levels_step(
    store: Store,
    configuration: MatchBackgroundsConfiguration,
    visits: Labels,
    touched: Mapping[tuple[Label, Label], Labels],
) -> Step:
    sky_map = SkyMapParameters.model_validate(store.attrs("warps")["sky_map"])
    unit = store.schema("warps").variable("image").unit
    tracts = tuple(sorted({int(tract) for _, tract in touched}))
    shapes = [grid_of(sky_map, tract, configuration.bin_size).bins for tract in tracts]
    sizes = patch_sizes(sky_map, tuple(store.labels("warps")[v.PATCH]))
    pixels = sizes[v.Y] * sizes[v.X]
    return Step(
        visit_levels,
        TractLevelsParameters(
            sky_map=sky_map, bin_size=configuration.bin_size, levels=configuration.levels
        ),
        tract_levels_schema(unit),
        {v.VISIT: visits, v.TRACT: tracts},
        (
            Reduction("warps", "warps", v.PATCH, among=((v.VISIT, v.TRACT), touched), lazy=True),
            TRACT_PLACE,
        ),
        sizes={
            v.TRACT_Y: max(rows for rows, _ in shapes),
            v.TRACT_X: max(columns for _, columns in shapes),
        },
        memory_bytes=30 * pixels,
        read_bytes=12 * pixels * max(map(len, touched.values())),
        quality=levels_quality,
        only=frozenset(touched),
    )


def _match_step(
    configuration: MatchBackgroundsConfiguration, filters: Mapping[str, Labels], levels: Step
) -> Step:
    assert levels.only is not None  # it is made of the warps there are
    filter_of = {visit: name for name, members in filters.items() for visit in members}
    members: dict[tuple[Label, Label], list[Label]] = defaultdict(list)
    for visit, tract in sorted(levels.only, key=str):
        members[filter_of[int(visit)], tract].append(visit)
    touched = {key: tuple(found) for key, found in members.items()}
    most, bins = max(map(len, touched.values())), levels.sizes[v.TRACT_Y] * levels.sizes[v.TRACT_X]
    chosen = configuration.match
    basis = (
        SplineBasis((1, 1), chosen.knots)
        if chosen.basis == "spline"
        else PolynomialBasis((1, 1), chosen.order)
    )
    terms = len(basis.terms)
    # What the fields are made of, as products keep it.
    attrs = {"basis": chosen.basis, "order": chosen.order, "knots": list(chosen.knots)}
    assert isinstance(levels.parameters, TractLevelsParameters)
    return Step(
        matched_tract,
        MatchBlockParameters(
            sky_map=levels.parameters.sky_map, bin_size=configuration.bin_size, match=chosen
        ),
        background_match_schema(levels.schema.variable("level").unit),
        {
            v.FILTER: tuple(filters),
            v.TRACT: levels.labels[v.TRACT],
            v.VISIT: levels.labels[v.VISIT],
        },
        (
            Reduction(
                "levels",
                "tract_levels",
                v.VISIT,
                configuration.minimum,
                among=((v.FILTER, v.TRACT), touched),
            ),
            TRACT_PLACE,
        ),
        sizes={
            **levels.sizes,
            v.COEFFICIENT: terms,
            f"{v.COEFFICIENT}_2": terms,
        },
        attrs=attrs,
        memory_bytes=70 * most * bins + 24 * (most * terms) ** 2,
        read_bytes=17 * most * bins,
        quality=match_quality,
        only=frozenset(touched),
    )
