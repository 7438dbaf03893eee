"""Master biases, darks and flats: calibration frames from many exposures of one detector.

Exposures are a dataset over ``exposure``, or a sequence of datasets: ``image`` (y, x) in adu or
electron, perhaps ``mask`` and ``variance``, trimmed. They may be lazy or read as they are indexed:
tiles of all exposures are read one after the other, and the result is the same for any tiling and
any order of the exposures, but for the last bits of sums.

A frame has ``image``, ``variance``, ``mask``, ``count`` (exposures used) and ``rejected_count``
over (y, x); over ``input`` the exposures it is made of, with ``input_scale``,
``input_exposure_time`` and more; over ``amp`` ``percentiles`` and ``bad_count``. Its coordinates
say detector, camera and filter as the exposures do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows
from skyloom.algorithms.combine.core import combined_frame
from skyloom.algorithms.combine.inputs import Exposures, exposures_of
from skyloom.algorithms.combine.parameters import CombineParameters
from skyloom.algorithms.combine.planes import own_planes
from skyloom.algorithms.combine.product import product_of
from skyloom.algorithms.combine.scales import (
    Scales,
    dark_times_of,
    exposure_times_of,
    matched_scales,
    usable_scales,
)
from skyloom.algorithms.dark_times import OVERHEAD
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.statistics import clipped_statistics

__all__ = ["combine_bias", "combine_dark", "combine_flats"]

LEVEL_PLANES = ("DETECTED", "BAD", "NO_DATA")
FlatSource = Literal["DOME", "TWILIGHT", "PSEUDO", "SKY"]


def combine_bias(
    exposures: xr.Dataset | Sequence[xr.Dataset],
    *,
    amplifiers: xr.Dataset | None = None,
    parameters: CombineParameters | None = None,
) -> xr.Dataset:
    """Return the master bias of one detector.

    Per pixel, values that are masked, not finite or implausible are left out: one after the other
    those that differ from the mean of the others by more than ``model_clip`` times the noise of
    both, so that exposures may differ much in noise. If it can't be told which of two values is
    wrong, the higher one is. The rest is averaged. The noise is that of the variances of the
    exposures, with the photons of the level for those of the value itself; without variances it
    is that of gain and read noise.

    Parameters
    ----------
    exposures : Dataset over ``exposure``, or sequence of Dataset (y, x)
        Biases after subtraction of the overscan; see the module.
    amplifiers : Dataset over ``amp``, optional
        Amplifier table with ``gain`` (electron/adu) and ``read_noise`` (electron), which the noise
        is predicted from where exposures have no variances.
    parameters : CombineParameters, optional

    Returns
    -------
    Dataset
        In the unit of the exposures; see the module. Pixels without any usable value are BAD and
        filled from their amplifier; pixels outside of all amplifiers BAD and NaN.

    Raises
    ------
    ValueError
        If there are no exposures, they don't belong together, or the noise is not known.
    NoUsableDataError
        If pixels are NO_DATA in every exposure and ``no_data`` is not "keep".

    Warns
    -----
    NoiseMismatchWarning
        If the exposures of an amplifier scatter far more or less than their noise explains.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = np.full((3, 2, 2), 5.0, "float32")
    >>> values[1, 0, 0] = 900.0  # a cosmic ray
    >>> biases = xr.Dataset({"image": (("exposure", "y", "x"), values, {"units": "adu"})})
    >>> biases = biases.assign(variance=xr.full_like(biases["image"], 16.0))
    >>> bias = combine_bias(biases.assign_coords(exposure=[11, 12, 13]))
    >>> float(bias["image"][0, 0]), int(bias["count"][0, 0]), int(bias["rejected_count"][0, 0])
    (5.0, 2, 1)
    >>> float(bias["variance"][0, 0]), bias["input"].values.tolist()
    (8.0, [11, 12, 13])
    """
    found, rows, parameters = _prepared(exposures, amplifiers, parameters)
    scales = np.ones((found.labels.size, 1))
    frame = combined_frame(found, scales, rows, parameters)
    return product_of(frame, found, scales, rows, kind=v.BIAS, units=found.units, exposure_time=0.0)


def combine_dark(
    exposures: xr.Dataset | Sequence[xr.Dataset],
    *,
    amplifiers: xr.Dataset | None = None,
    times: Scales | None = None,
    overhead: float = 0.0,
    parameters: CombineParameters | None = None,
) -> xr.Dataset:
    """Return the master dark of one detector, per second of dark time.

    As `combine_bias`, with each exposure divided by its dark time.

    Parameters
    ----------
    exposures : Dataset over ``exposure``, or sequence of Dataset (y, x)
        Darks after subtraction of the bias. The coordinate ``dark_time`` (s) is their dark time;
        where it is not known, ``exposure_time`` and the overhead.
    amplifiers : Dataset over ``amp``, optional
        See `combine_bias`.
    times : DataArray or sequence over ``exposure``, s, optional
        Dark times that hold instead.
    overhead : float, s
        Dark time beyond the exposure time, where no dark time is known.
    parameters : CombineParameters, optional

    Returns
    -------
    Dataset
        In adu/s or electron/s; see `combine_bias`. The coordinate ``dark_overhead`` keeps the
        overhead, which `detrend` then scales the dark with.

    Raises
    ------
    ValueError
        As `combine_bias`, and if a dark time is missing or not a positive number, naming exposure
        and time; with ``skip_bad_scales`` such an exposure is left out with a warning.
    NoUsableDataError
        As `combine_bias`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> times = np.array([10.0, 20.0, 40.0])
    >>> values = np.ones((3, 2, 2), "float32") * times[:, None, None].astype("float32")
    >>> darks = xr.Dataset({"image": (("exposure", "y", "x"), values, {"units": "electron"})})
    >>> darks = darks.assign(variance=xr.full_like(darks["image"], 16.0))
    >>> darks = darks.assign_coords(exposure=[21, 22, 23], dark_time=("exposure", times))
    >>> dark = combine_dark(darks)
    >>> float(dark["image"][0, 0]), dark["image"].units, dark["input_scale"].values.tolist()
    (1.0, 'electron/s', [10.0, 20.0, 40.0])
    """
    found, rows, parameters = _prepared(exposures, amplifiers, parameters)
    found, scales = matched_scales(
        found, dark_times_of(found, overhead) if times is None else times, rows
    )
    found, scales = usable_scales(found, scales, rows, skip=parameters.skip_bad_scales)
    frame = combined_frame(found, scales, rows, parameters)
    units = f"{found.units}/{v.SECOND}"
    dark = product_of(frame, found, scales, rows, kind=v.DARK, units=units, exposure_time=1.0)
    return dark.assign_coords({OVERHEAD: ((), float(overhead), {"units": v.SECOND})})


def combine_flats(
    exposures: xr.Dataset | Sequence[xr.Dataset],
    scales: Scales | Literal["own_mean", "exposure_time"],
    *,
    amplifiers: xr.Dataset | None = None,
    vignetting: xr.DataArray | None = None,
    source: FlatSource | None = None,
    parameters: CombineParameters | None = None,
) -> xr.Dataset:
    """Return the combined flat of one detector: each flat divided by its scale, and averaged.

    With the exposure scales of `solve_flat_scales` the mean of the result is the response of the
    detector relative to the others, which stays in the flat. See `combine_bias` for what is left
    out; the noise that values may have is that of the photons and the read-out, and the part
    ``pattern`` of the level.

    Parameters
    ----------
    exposures : Dataset over ``exposure``, or sequence of Dataset (y, x)
        Flats after bias and dark.
    scales : DataArray over ``exposure`` [, ``detector``] [, ``amp``], or sequence
        What each exposure is divided by, in the unit of the images; matched by label, an
        exposure without a scale is left out with a warning. "own_mean" divides by the clipped mean
        of each image (of its pixels without DETECTED, BAD and NO_DATA), "exposure_time" by seconds.
    amplifiers : Dataset over ``amp``, optional
        See `combine_bias`; needed for scales per amplifier.
    vignetting : DataArray, (y, x), integer bit planes, optional
        Where it is VIGNETTED, the flat is set to 0 and marked VIGNETTED and NO_DATA; where it is
        PARTLY_VIGNETTED, it is marked so.
    source : {"DOME", "TWILIGHT", "PSEUDO", "SKY"}, optional
        What lit the flats; kept as attribute ``flat_source``.
    parameters : CombineParameters, optional

    Returns
    -------
    Dataset
        Dimensionless (or per second); see `combine_bias`.

    Raises
    ------
    ValueError
        As `combine_bias`; and if a scale is not a positive number, naming exposure and scale (with
        ``skip_bad_scales`` such an exposure is left out with a warning), no exposure has a scale,
        the exposures are of several filters, or the source is unknown.
    NoUsableDataError
        As `combine_bias`, but for pixels that are VIGNETTED.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> level = xr.DataArray([1000.0, 2000.0, 4000.0], coords={"exposure": [1, 2, 3]})
    >>> pixels = level * xr.DataArray([[1.02, 0.98]], dims=("y", "x"))
    >>> flats = xr.Dataset({"image": pixels.astype("float32").assign_attrs(units="electron")})
    >>> flat = combine_flats(flats.assign(variance=pixels.astype("float32")), level)
    >>> flat["image"].values.round(4).tolist(), int(flat["count"][0, 0])
    ([[1.0199999809265137, 0.9800000190734863]], 3)
    """
    sources = ("DOME", "TWILIGHT", "PSEUDO", "SKY")
    if source is not None and source not in sources:
        raise ValueError(f"source must be one of {', '.join(sources)}, got {source!r}")
    found, rows, parameters = _prepared(exposures, amplifiers, parameters)
    if v.FILTER in found.about.coords:
        names = sorted(set(map(str, found.about[v.FILTER].values)))
        if len(names) > 1:
            raise ValueError(f"flats are of several filters: {', '.join(names)}")
    units = v.DIMENSIONLESS
    if isinstance(scales, str):
        if scales == "own_mean":
            scales = _levels(found)
        elif scales == "exposure_time":
            scales, units = exposure_times_of(found), f"{found.units}/{v.SECOND}"
        else:
            raise ValueError(
                f'scales must be numbers, "own_mean" or "exposure_time", got {scales!r}'
            )
    found, values = matched_scales(found, scales, rows)
    found, values = usable_scales(found, values, rows, skip=parameters.skip_bad_scales)
    dark_corners = None if vignetting is None else _vignetting_planes(vignetting, found.shape)
    frame = combined_frame(found, values, rows, parameters, dark_corners)
    product = product_of(frame, found, values, rows, kind=v.FLAT, units=units, exposure_time=1.0)
    return product if source is None else product.assign_attrs(flat_source=source)


def _prepared(
    exposures: xr.Dataset | Sequence[xr.Dataset],
    amplifiers: xr.Dataset | None,
    parameters: CombineParameters | None,
) -> tuple[Exposures, list[Amplifier], CombineParameters]:
    rows = [] if amplifiers is None else amplifier_rows(amplifiers)
    return exposures_of(exposures), rows, parameters or CombineParameters()


def _levels(exposures: Exposures) -> NDArray[np.float64]:
    """Return the clipped mean of every exposure, of which one is in memory at a time."""
    levels = np.empty(exposures.labels.size)
    for i in range(levels.size):
        each = exposures.data[0].isel({v.EXPOSURE: i}) if exposures.stacked else exposures.data[i]
        mask = each[v.MASK].compute() if v.MASK in each else None
        known = () if mask is None else str(exposures.legend["flag_meanings"]).split()
        ignore = [plane for plane in LEVEL_PLANES if plane in known]
        levels[i] = clipped_statistics(each["image"].compute(), mask, ignore=ignore)["mean"]
    return levels


def _vignetting_planes(mask: xr.DataArray, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return the planes of vignetting by skyloom's own legend."""
    mask = mask.transpose(v.Y, v.X)
    if mask.shape != shape:
        raise GeometryError(f"vignetting has shape {mask.shape}, the exposures {shape}")
    legend = dict(mask.attrs) if "flag_meanings" in mask.attrs else v.mask_attributes()
    planes = own_planes(mask.values, legend)
    return planes & v.plane_bits(["VIGNETTED", "PARTLY_VIGNETTED"])
