"""The flow ``warps``: detrended exposures of the sky onto the pixels of patches.

``warps`` (visit, patch): a task reads the detectors of an exposure that touch a patch, one after
the other, and writes their merged warp. Which these are is known from the corners that ingest
keeps, without reading any pixel. ``psf`` (exposure, detector) measures the point-spread function
of each frame on its stars, ``warp_psf`` (visit, patch) brings it to the pixels of the tract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.psf import PsfMeasurementParameters
from skyloom.algorithms.skymap import SkyMapParameters
from skyloom.algorithms.warp import WarpParameters
from skyloom.flows.flow import Flow
from skyloom.flows.frame_blocks import trimmed_sizes
from skyloom.flows.patches import PLACE, Touched, patch_sizes, touched_patches
from skyloom.flows.psf_blocks import (
    NUMBERS,
    WarpPsfParameters,
    measured_psf,
    psf_quality,
    warp_psf_quality,
    warped_psf,
)
from skyloom.flows.selection import (
    SelectionParameters,
    configured,
    selected_detectors,
    selected_exposures,
)
from skyloom.flows.step import Labels, Reduction, Same, Step
from skyloom.flows.warp_blocks import WarpBlockParameters, warp_quality, warped_visit
from skyloom.storage.warp_schemas import CORNER, psf_schema, warp_psf_schema, warps_schema

if TYPE_CHECKING:
    import xarray as xr

    from skyloom.storage.store import Store

__all__ = ["WarpsConfiguration", "warps"]

Source = Literal["auto", "sky_subtracted", "detrended"]
Units = Literal["nJy", "electron/s"]
PRODUCTS = ("sky_subtracted", "detrended")


class WarpsConfiguration(Parameters):
    """Everything that can be chosen about warps."""

    selection: SelectionParameters = Field(
        SelectionParameters(), description="which exposures and detectors are used"
    )
    frames: Source = Field(
        "auto", description="which exposures are warped; auto: without their sky if there are any"
    )
    sky_map: SkyMapParameters = Field(
        SkyMapParameters(), description="how the sky is divided into tracts and patches"
    )
    tracts: tuple[int, ...] = Field((), description="tracts that are made; all touched if empty")
    units: Literal["auto", "nJy", "electron/s"] = Field(
        "auto", description="unit of the warps; auto: nJy if every exposure has a zero point"
    )
    warp: WarpParameters = Field(WarpParameters(), description="how pixels are resampled")
    psf: PsfMeasurementParameters | None = Field(
        PsfMeasurementParameters(),
        description="how point-spread functions are measured; null: they are not",
    )


def warps(
    store: Store, configuration: WarpsConfiguration | Mapping[str, Any] | None = None
) -> Flow:
    """Return the flow that warps exposures of a store onto patches.

    Parameters
    ----------
    store : Store
        With detrended exposures that have world coordinate systems.
    configuration : WarpsConfiguration or mapping, optional
        What differs from the defaults.

    Raises
    ------
    StoreError
        If nothing was detrended, or no exposure touches a patch.
    ConfigurationError
        If the configuration is wrong, or a zero point is missing that its unit needs.

    Examples
    --------
    >>> from skyloom.storage.store import create_store
    >>> warps(create_store("memory://doctest-warps-flow", "generic"))
    Traceback (most recent call last):
        ...
    skyloom.algorithms.errors.StoreError: memory://doctest-warps-flow holds no exposures: \
ingest exposures first (skyloom ingest)
    """
    configuration = configured(WarpsConfiguration, configuration)
    table = selected_exposures(store, configuration.selection)
    detectors = selected_detectors(store, configuration.selection)
    product = _product(store, configuration.frames)
    frames = _frames(store, product, table, detectors)
    touched, notes = touched_patches(
        store.sky_corners(), configuration.sky_map, frames, configuration.tracts
    )
    if not touched:
        raise StoreError(
            f"no exposure of {store.url} touches a patch: look at `sky_map` and `tracts`"
            + "".join(f"; {note}" for note in notes)
        )
    exposures = tuple(sorted({exposure for exposure, _ in frames}))
    units = _units(table, exposures, configuration.units)
    step = _step(store, configuration, product, units, touched, detectors)
    steps: tuple[Step, ...] = (step,)
    if configuration.psf is not None:
        steps += _psf_steps(store, configuration, product, step, touched, frames)
    return Flow("warps", store, steps, configuration, notes)


def _product(store: Store, wanted: Source) -> str:
    names = PRODUCTS if wanted == "auto" else (wanted,)
    for name in names:
        if name in store:
            if store.schema(name).variable("image").unit != v.ELECTRON:
                raise ConfigurationError(f"warps are made of {name} in electron, not adu")
            return name
    raise StoreError(
        f"{store.url} has no product {names[-1]!r}: run the flow detrend first "
        "(skyloom run STORE detrend)"
    )


def _frames(
    store: Store, product: str, table: xr.Dataset, detectors: Labels
) -> list[tuple[int, str]]:
    """Return the exposures and detectors among those chosen of which there are frames.

    Raises
    ------
    StoreError
        If there are none.
    """
    exposures = {int(exposure) for exposure in table[v.EXPOSURE].values}
    frames = [
        (int(record.block[v.EXPOSURE]), str(record.block[v.DETECTOR]))
        for record in store.records(product).values()
        if record.done
    ]
    chosen = [pair for pair in frames if pair[0] in exposures and pair[1] in detectors]
    if not chosen:
        raise StoreError(f"{store.url} has no {product} exposures among those selected")
    return chosen


def _units(
    table: xr.Dataset, exposures: Labels, wanted: Literal["auto", "nJy", "electron/s"]
) -> Units:
    chosen = table.sel({v.EXPOSURE: list(exposures)})
    unknown = list(exposures)
    if "zero_point" in chosen.coords:
        unknown = chosen[v.EXPOSURE].values[np.isnan(chosen["zero_point"].values)].tolist()
    if wanted == "auto":
        return "electron/s" if unknown else "nJy"
    if wanted == v.NANOJANSKY and unknown:
        raise ConfigurationError(
            f"units: nJy needs the zero point of every exposure; {len(unknown)} have none, such as "
            f"{unknown[0]}: let the camera's header.zero_point say where it is, or use electron/s"
        )
    return wanted


def _step(
    store: Store,
    configuration: WarpsConfiguration,
    product: str,
    units: Units,
    touched: Touched,
    detectors: Labels,
) -> Step:
    visits = tuple(dict.fromkeys(visit for visit, _ in touched))
    patches = tuple(sorted({patch for _, patch in touched}, key=_order))
    sizes = patch_sizes(configuration.sky_map, patches)
    frame = trimmed_sizes(store, detectors)
    pixels, own = sizes[v.Y] * sizes[v.X], frame[v.Y] * frame[v.X]
    most = max(map(len, touched.values()))
    return Step(
        warped_visit,
        WarpBlockParameters(sky_map=configuration.sky_map, warp=configuration.warp, units=units),
        warps_schema(units),
        {v.VISIT: visits, v.PATCH: patches},
        (
            Reduction(
                "frames",
                product,
                v.DETECTOR,
                among=((v.VISIT, v.PATCH), touched),
                lazy=True,
                at=(v.VISIT, v.EXPOSURE, {visit: visit for visit in visits}),
            ),
            PLACE,
        ),
        sizes=sizes,
        attrs={"sky_map": configuration.sky_map.model_dump(mode="json")},
        # What detectors are merged into, the warp of one of them at a time, and its frame with what
        # is made of it on the way.
        memory_bytes=34 * pixels + 40 * own,
        read_bytes=12 * own * most,
        quality=warp_quality,
        only=frozenset(touched),
    )


def _psf_steps(
    store: Store,
    configuration: WarpsConfiguration,
    product: str,
    warps_step: Step,
    touched: Touched,
    frames: list[tuple[int, str]],
) -> tuple[Step, Step]:
    """Return the steps that measure point-spread functions and bring them to the tract."""
    parameters = configuration.psf
    assert parameters is not None  # there are no steps then
    wanted = {(visit, name) for (visit, _), names in touched.items() for name in names}
    chosen = [pair for pair in sorted(frames) if pair in wanted]
    detectors = tuple(dict.fromkeys(name for _, name in chosen))
    frame = trimmed_sizes(store, detectors)
    pixels = frame[v.Y] * frame[v.X]
    rows, columns = parameters.cells
    side = {v.PSF_Y: parameters.size, v.PSF_X: parameters.size}
    measured = Step(
        measured_psf,
        parameters,
        psf_schema(),
        {
            v.EXPOSURE: tuple(dict.fromkeys(exposure for exposure, _ in chosen)),
            v.DETECTOR: detectors,
        },
        (Same("frame", product),),
        sizes={v.POINT: rows * columns, **side},
        memory_bytes=12 * pixels + 40 * pixels,
        read_bytes=12 * pixels,
        quality=psf_quality,
        only=frozenset(chosen),
    )
    visits = warps_step.labels[v.VISIT]
    points = rows * columns * max(map(len, touched.values()))
    return measured, Step(
        warped_psf,
        WarpPsfParameters(
            sky_map=configuration.sky_map, kernel=configuration.warp.kernel, points=points
        ),
        warp_psf_schema(),
        {dim: warps_step.labels[dim] for dim in (v.VISIT, v.PATCH)},
        (
            Reduction(
                "psf",
                "psf",
                v.DETECTOR,
                among=((v.VISIT, v.PATCH), touched),
                at=(v.VISIT, v.EXPOSURE, {visit: visit for visit in visits}),
            ),
            PLACE,
            NUMBERS,
        ),
        sizes={v.POINT: points, **side, CORNER: 4},
        memory_bytes=8 * 16 * points * parameters.size**2,
        read_bytes=4 * points * parameters.size**2,
        quality=warp_psf_quality,
        only=frozenset(touched),
    )


def _order(label: Any) -> tuple[int, ...]:
    return tuple(map(int, str(label).split("-")))
