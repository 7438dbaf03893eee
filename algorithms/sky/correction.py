"""The sky of a visit corrected: what was subtracted detector by detector is put back, and the sky
of the whole focal plane is taken off instead.

Pixels are read once, into bins; sky frame and smooth sky are fitted to the bins of all detectors
at once. The result is a list of layers for each detector, no images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background
from skyloom.algorithms.background.geometry import bin_edges, box_of_background
from skyloom.algorithms.background.interpolation import Style
from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.sky.focal_plane_background import (
    focal_plane_background,
    focal_plane_on_detector,
)
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters
from skyloom.algorithms.sky.layers import Layer, layer_in_bins, scaled_layer, subtract_layers
from skyloom.algorithms.sky.quality import sky_quality
from skyloom.algorithms.sky.scale_parameters import SAMPLE_IGNORED_PLANES, SolveScaleParameters
from skyloom.algorithms.sky.subtraction import fit_layers, group_of
from skyloom.algorithms.sky.visit_fit import common_detectors, fit_visit_background

__all__ = [
    "SkyCorrection",
    "SkyCorrectionParameters",
    "apply_ratio",
    "bins_of_exposure",
    "corrected_exposure",
    "sky_correction",
]

Floats = NDArray[np.float64]
Layers = Sequence[Layer | tuple[xr.Dataset, str]]


class SkyCorrectionParameters(Parameters):
    """How the sky of a visit is corrected, `sky_correction`."""

    apply_ratio: bool = Field(
        False, description="multiply images by the ratio of the flats for background and stars"
    )
    use_sky_frame: bool = Field(True, description="fit and subtract the sky frame")
    undo_smooth: bool = Field(
        False,
        description="leave the smooth sky of the fit in the images: it is fitted, so that the sky "
        "frame is scaled right, and not subtracted",
    )
    second: FocalPlaneParameters | None = Field(
        None,
        description="cells of a second smooth sky, made of what the fit leaves and subtracted too; "
        "it takes the light of everything larger than a few cells",
    )
    bin_size: tuple[int, int] = Field((32, 32), description="size of a bin along y and x, pixel")
    ignored_planes: tuple[str, ...] = Field(
        SAMPLE_IGNORED_PLANES, description="mask planes whose pixels are left out"
    )
    minimum_fraction: float = Field(
        0.25, ge=0, le=1, description="bins with a smaller part of valid pixels are left out"
    )
    interpolation: Style = Field(
        "natural_spline", description="interpolation between the bins of the sky frame"
    )
    fit: SolveScaleParameters = Field(
        SolveScaleParameters(order=2), description="the fit to the bins of all detectors"
    )


class SkyCorrection(NamedTuple):
    """The sky of a visit.

    ``fit`` as of `fit_visit_background`; ``layers`` of each detector: first the negatives of what
    was subtracted before, then the scaled sky frame and the smooth sky, so that an image less its
    layers is corrected; ``quality`` along ``stage`` ("before", "after"), see `sky_quality`;
    ``second`` the second smooth sky, see `focal_plane_background`, whose layer is the last.
    """

    fit: xr.Dataset
    layers: dict[Any, tuple[Layer, ...]]
    quality: xr.Dataset
    second: xr.Dataset | None = None


def sky_correction(
    exposures: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    sky_frames: Mapping[Any, xr.Dataset] | None = None,
    backgrounds: Mapping[Any, Layers] | None = None,
    ratios: Mapping[Any, xr.DataArray | float] | None = None,
    detector_types: Mapping[Any, str] | None = None,
    focal_box: Sequence[float] | None = None,
    level: float | None = None,
    parameters: SkyCorrectionParameters | None = None,
) -> SkyCorrection:
    """Fit the sky of all detectors of one exposure at once, and return what to subtract.

    Parameters
    ----------
    exposures : mapping from detector to Dataset, (y, x)
        ``image`` (any linear unit) and ``mask``, in which objects are marked.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    sky_frames : mapping from detector to Dataset, (bin_y, bin_x), optional
        Needed unless the parameters say to do without.
    backgrounds : mapping from detector to layers, optional
        What was subtracted from the images before; it is added again.
    ratios : mapping from detector to DataArray (y, x) or float, optional
        Factors of the image, needed if the parameters say to apply them.
    detector_types, focal_box, level
        As in `solve_scales`.
    parameters : SkyCorrectionParameters, optional

    Returns
    -------
    SkyCorrection
        `corrected_exposure` applies it.

    Raises
    ------
    ConfigurationError
        If there are no exposures, or sky frames or ratios are missing that were asked for, or
        nothing is left to subtract: neither the sky frame, nor the smooth sky, nor a second one.
    NoUsableDataError
        If no detector has all inputs, or no cell of the second smooth sky has enough data.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> image = rng.normal(500.0, 5.0, (128, 128)).astype("float32")
    >>> exposure = xr.Dataset({"image": (("y", "x"), image, {"units": "electron"})})
    >>> transforms = {1: np.array([[0.01, 0.0, 0.0], [0.0, 0.01, 0.0]])}
    >>> parameters = SkyCorrectionParameters(use_sky_frame=False)
    >>> correction = sky_correction({1: exposure}, transforms, parameters=parameters)
    >>> corrected = corrected_exposure(exposure, correction.layers[1])
    >>> bool(abs(corrected["image"].mean()) < 0.3)
    True
    """
    parameters = SkyCorrectionParameters() if parameters is None else parameters
    detectors = check_inputs(exposures, transforms, sky_frames, backgrounds, ratios, parameters)
    binned = {
        name: bins_of_exposure(
            exposures[name],
            layers=() if backgrounds is None else backgrounds[name],
            ratio=ratios[name] if parameters.apply_ratio and ratios is not None else None,
            parameters=parameters,
        )
        for name in detectors
    }
    frames = sky_frames if parameters.use_sky_frame else None
    fit = fit_visit_background(
        binned,
        {name: transforms[name] for name in detectors},
        sky_frames=None if frames is None else {name: frames[name] for name in detectors},
        detector_types=detector_types,
        focal_box=focal_box,
        level=level,
        minimum_fraction=parameters.minimum_fraction,
        interpolation=parameters.interpolation,
        parameters=parameters.fit,
    )
    layers: dict[Any, tuple[Layer, ...]] = {}
    residual: dict[Any, xr.Dataset] = {}
    for name in detectors:
        group = group_of(fit, name, detector_types)
        made = fit_layers(
            fit,
            units=str(binned[name]["level"].attrs.get("units", "")),
            sky_frame=None if frames is None else frames[name],
            transform=transforms[name],
            group=group,
            interpolation=parameters.interpolation,
            smooth=not parameters.undo_smooth,
        )
        before = () if backgrounds is None else backgrounds[name]
        layers[name] = (*(scaled_layer(layer, -1.0) for layer in before), *made)
        residual[name] = _less_in_bins(binned[name], made)
    second = None
    if parameters.second is not None:
        second = focal_plane_background(
            residual,
            {name: transforms[name] for name in detectors},
            parameters=parameters.second,
            detector_types=detector_types,
        )
        for name, layer in _second_layers(second, residual, transforms, detector_types).items():
            layers[name] = (*layers[name], layer)
            residual[name] = _less_in_bins(residual[name], [layer])
    stages = [sky_quality(bins, transforms, fit=fit, level=level) for bins in (binned, residual)]
    quality = xr.concat(
        stages, dim=xr.DataArray(["before", "after"], dims="stage", name="stage"),
        combine_attrs="override",
    )  # fmt: skip
    return SkyCorrection(fit, layers, quality, second)


def _second_layers(
    model: xr.Dataset,
    residual: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    detector_types: Mapping[Any, str] | None,
) -> dict[Any, Layer]:
    """Return the second smooth sky in the bins of each detector."""
    own = model.sizes.get(v.DETECTOR, 0) > 0
    steps = model[v.DETECTOR].values.tolist() if own else []
    made = {}
    for name, bins in residual.items():
        group = name if name in steps or detector_types is None else detector_types.get(name)
        on_detector = focal_plane_on_detector(model, transforms[name], bins, detector=group)
        made[name] = Layer(on_detector, "natural_spline")
    return made


def check_inputs(
    exposures: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    sky_frames: Mapping[Any, xr.Dataset] | None,
    backgrounds: Mapping[Any, Layers] | None,
    ratios: Mapping[Any, xr.DataArray | float] | None,
    parameters: SkyCorrectionParameters,
) -> list[Any]:
    """Return the detectors that have all that the parameters ask for.

    Raises
    ------
    ConfigurationError
        If something was asked for and not given.
    """
    if not exposures:
        raise ConfigurationError("exposures is empty: there is no sky to correct")
    if parameters.undo_smooth and not parameters.use_sky_frame and parameters.second is None:
        raise ConfigurationError(
            "undo_smooth is set with neither use_sky_frame nor second: nothing would be subtracted"
        )
    given: list[Mapping[Any, Any]] = [exposures, transforms]
    if parameters.use_sky_frame:
        if sky_frames is None:
            raise ConfigurationError("use_sky_frame is set, but sky_frames are not given")
        given.append(sky_frames)
    if backgrounds is not None:
        given.append(backgrounds)
    if parameters.apply_ratio:
        missing = sorted(str(name) for name in exposures if name not in (ratios or {}))
        if missing:
            raise ConfigurationError(
                f"apply_ratio is set, but the detectors {', '.join(missing)} have no ratio"
            )
    return common_detectors(given)


def bins_of_exposure(
    exposure: xr.Dataset,
    *,
    layers: Layers = (),
    ratio: xr.DataArray | float | None = None,
    parameters: SkyCorrectionParameters | None = None,
) -> xr.Dataset:
    """Return the bins of an image to which what was subtracted is added again.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        ``image`` and ``mask``.
    layers : sequence of (Dataset, interpolation)
        What was subtracted before.
    ratio : DataArray (y, x) or float, optional
        Factor of the image.
    parameters : SkyCorrectionParameters, optional

    Returns
    -------
    Dataset, (bin_y, bin_x)
        As of `measure_background`.

    Examples
    --------
    >>> image = xr.DataArray(np.full((32, 64), 4.0, "float32"), dims=("y", "x"))
    >>> bins_of_exposure(image.to_dataset(name="image"), ratio=2.0)["level"].values
    array([[8., 8.]], dtype=float32)
    """
    parameters = SkyCorrectionParameters() if parameters is None else parameters
    restored = exposure if ratio is None else apply_ratio(exposure, ratio)
    restored = subtract_layers(restored, [scaled_layer(layer, -1.0) for layer in layers])
    return measure_background(
        restored, bin_size=parameters.bin_size, reject=parameters.ignored_planes, debias=True
    )


def apply_ratio(exposure: xr.Dataset, ratio: xr.DataArray | float) -> xr.Dataset:
    """Return an exposure with its image times a ratio, and its variance times the square.

    Examples
    --------
    >>> image = xr.DataArray([[3.0]], dims=("y", "x"), attrs={"units": "electron"})
    >>> more = apply_ratio(xr.Dataset({"image": image, "variance": image}), 1.5)
    >>> float(more["image"][0, 0]), float(more["variance"][0, 0])
    (4.5, 6.75)
    """
    changed = {"image": exposure["image"] * ratio}
    if "variance" in exposure:
        changed["variance"] = exposure["variance"] * (ratio * ratio)
    return exposure.assign(
        {
            name: values.astype(exposure[name].dtype).assign_attrs(exposure[name].attrs)
            for name, values in changed.items()
        }
    )


def corrected_exposure(
    exposure: xr.Dataset, layers: Layers, *, ratio: xr.DataArray | float | None = None
) -> xr.Dataset:
    """Return an exposure with its corrected sky: times the ratio, less the layers.

    Parameters
    ----------
    exposure : Dataset, (y, x)
        May be lazy; the result then is.
    layers : sequence of (Dataset, interpolation)
        Of `sky_correction`.
    ratio : DataArray (y, x) or float, optional
        Factor that `sky_correction` was given.

    Examples
    --------
    >>> image = xr.DataArray([[3.0]], dims=("y", "x"))
    >>> corrected_exposure(image.to_dataset(name="image"), (), ratio=2.0)["image"].values
    array([[6.]])
    """
    scaled = exposure if ratio is None else apply_ratio(exposure, ratio)
    result: xr.Dataset = subtract_layers(scaled, layers)
    return result


def _less_in_bins(binned: xr.Dataset, layers: Layers) -> xr.Dataset:
    """Return bins less the means of layers over them."""
    box = box_of_background(binned)
    level = binned["level"].transpose(v.BIN_Y, v.BIN_X)
    edges = [bin_edges(size, n) for size, n in zip(box.shape, level.shape, strict=True)]
    values = np.asarray(level, np.float64)
    for layer in layers:
        values = values - layer_in_bins(layer, box, *edges)
    return binned.assign(level=level.copy(data=values.astype(level.dtype)))
