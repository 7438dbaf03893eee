"""The whole chain from raw frames to frames fit for science, fused into one pass over the pixels.

In order: flags of saturated, suspect and never-read pixels; overscan; crosstalk; trim and assembly
in the orientation of the detector; bias; linearity; gain; variance from photons and read noise;
brighter-fatter effect; dark; flat; planes of calibrations and defects; growth of saturated regions;
cosmic rays; filling of small gaps; fringes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend.calibrations import (
    calibration_id,
    check_calibrations,
    own_planes,
    pixels,
    told,
)
from skyloom.algorithms.detrend.chain import (
    FLOATING,
    PER_AMPLIFIER,
    Plan,
    detrend_frames,
    never_read,
)
from skyloom.algorithms.detrend.channels import Gains, given_gains
from skyloom.algorithms.detrend.correction_kernels import correction_kernels
from skyloom.algorithms.detrend.crosstalk import crosstalk_shares
from skyloom.algorithms.detrend.defects import defect_planes
from skyloom.algorithms.detrend.levels import check_boxes
from skyloom.algorithms.detrend.linearity import linearity_pieces
from skyloom.algorithms.detrend.parameters import ScienceDetrendParameters
from skyloom.algorithms.detrend.steps import frame_dark_time

__all__ = ["detrend"]

RAW = ("raw_y", "raw_x")


def detrend(
    raw: xr.Dataset,
    amplifiers: xr.Dataset,
    *,
    parameters: ScienceDetrendParameters | None = None,
    bias: xr.Dataset | None = None,
    dark: xr.Dataset | None = None,
    flat: xr.Dataset | None = None,
    linearity: xr.Dataset | None = None,
    crosstalk: xr.Dataset | xr.DataArray | None = None,
    defects: xr.Dataset | xr.DataArray | None = None,
    brighter_fatter: xr.Dataset | xr.DataArray | None = None,
    gain: Gains | None = None,
    fringe: xr.Dataset | None = None,
    fringe_scale: float | xr.DataArray = 1.0,
) -> xr.Dataset:
    """Turn raw frames of one detector into frames fit for science.

    Parameters
    ----------
    raw : Dataset
        ``image`` (..., y, x), any real dtype, adu: the detector's raw array; may be lazy. The
        coordinate ``dark_time`` or else ``exposure_time`` (s) scales a dark. ``detector``,
        ``camera`` and ``physical_filter``, as scalar coordinates or attributes, are compared with
        those of the calibrations.
    amplifiers : Dataset, (amp)
        Amplifier table: see `amplifier_rows`.
    parameters : ScienceDetrendParameters, optional
        One model for each step.
    bias : Dataset, (y, x), adu, optional
        Trimmed; ``image`` and perhaps ``variance`` (adu2) and ``mask``.
    dark : Dataset, (y, x), adu/s or electron/s, optional
        Likewise, for a second of dark time.
    flat : Dataset, (y, x), dimensionless, optional
        Likewise; the image is divided by it.
    linearity : Dataset, (amp), optional
        See `correct_linearity`.
    crosstalk : Dataset or DataArray, (amp, source_amp), optional
        See `correct_crosstalk`.
    defects : Dataset or DataArray, optional
        A mask of int32 planes or bool (y, x), or boxes ``y_start`` ... ``x_stop`` over ``defect``,
        half-open in trimmed pixels.
    brighter_fatter : Dataset or DataArray, (kernel_y, kernel_x), 1/electron, optional
        What `brighter_fatter_kernel` returns, or one kernel.
    gain : float, DataArray or Dataset, optional
        electron/adu: one, or over ``amp``, or a solved photon transfer with ``gain`` and ``noise``
        (electron). Without it the gains of the table hold. An amplifier whose gain was not
        measured gets that of the table and the plane BAD.
    fringe : Dataset, (y, x), optional
        Fringes, or any pattern of the sky, dimensionless or in the unit of the result.
    fringe_scale : float or DataArray over leading dimensions
        What the fringe is multiplied by before it is subtracted.

    Returns
    -------
    Dataset, (..., y, x)
        Trimmed: ``image`` float32 (electron, or adu), ``variance`` float32 (its square), ``mask``
        int32; over ``amp``: ``overscan_level``, ``overscan_noise``, ``saturation`` (adu),
        ``gain`` (electron/adu), ``read_noise`` (electron). Coordinates of the exposure are kept.
        ``attrs["applied"]`` lists the steps in order, each with the id of its calibration.
        Never-read pixels have NO_DATA, pixels that the calibrations leave without a number have
        BAD; both are NaN in image and variance.

    Raises
    ------
    ValueError
        If a calibration is of another detector, camera, filter, shape or unit, a box reaches
        beyond the image, a dark time is missing, no gain is known, or linearity, crosstalk or
        kernel are not as they have to be.
    KeyError
        If ``raw`` has no ``image``.
    TypeError
        If raw pixels are no real numbers, or a mask holds no integers.

    Warns
    -----
    UserWarning
        If a gain was given that was not measured of all amplifiers.

    Notes
    -----
    With signal s (adu), gain g and read noise r (electron) the variance is max(g s, 0) + r^2, of
    all charge, dark current among it, plus that of the levels of the overscan; then that of the
    calibrations is added, g^2 Var(bias) + t^2 Var(dark), and all is divided by flat^2, with
    (image / flat)^2 Var(flat) added.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 2), (4, 4), overscan=4, gain=2.0, read_noise=3.0)
    >>> image = np.full((4, 16), 1000, np.uint16)
    >>> image[:, [0, 1, 2, 3, 8, 9, 10, 11]] += 50
    >>> raw = xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})
    >>> parameters = ScienceDetrendParameters.model_validate({"variance": {"read_noise": "camera"}})
    >>> frame = detrend(raw, table, parameters=parameters)
    >>> frame.image.shape, float(frame.image[0, 0]), float(frame.variance[0, 0])
    ((4, 8), 100.0, 109.0)
    >>> frame.attrs["applied"]
    ['overscan: row_mean', 'gain: camera', 'variance: camera']
    """
    parameters = parameters or ScienceDetrendParameters()
    if "image" not in raw:
        raise KeyError("raw has no variable 'image'")
    rows = amplifier_rows(amplifiers)
    shape = trimmed_shape(rows)
    detector = told(raw, v.DETECTOR) or told(amplifiers, v.DETECTOR)
    frames = dict(zip(FLOATING, (bias, dark, flat, fringe), strict=True))
    given = {name: frame for name, frame in frames.items() if frame is not None}
    _check(raw, amplifiers, rows, given, shape, parameters.units)
    gains, noises, unmeasured, source = given_gains(gain, rows, detector)
    image = raw["image"].transpose(..., v.Y, v.X).rename({v.Y: RAW[0], v.X: RAW[1]})
    if image.dtype.kind not in "iuf":
        raise TypeError(f"raw pixels must be real numbers, got dtype {image.dtype}")
    knots, pieces = linearity_pieces(linearity, rows, detector)
    plan = Plan(
        rows=tuple(rows),
        shape=shape,
        parameters=parameters,
        gains=gains,
        noises=noises,
        unmeasured=unmeasured,
        dark_units="" if dark is None else dark["image"].attrs.get("units", v.ADU_PER_SECOND),
        lowest=never_read(image.dtype),
        crosstalk=crosstalk_shares(crosstalk, rows, detector),
        knots=knots,
        pieces=pieces,
        kernels=correction_kernels(
            brighter_fatter, rows, detector, parameters.brighter_fatter.level
        ),
    )
    arrays = [
        *(pixels(frame, name) for frame in frames.values() for name in ("image", "variance")),
        *(own_planes(None if frame is None else frame.get(v.MASK)) for frame in frames.values()),
        defect_planes(defects, shape, detector),
    ]
    present = [array for array in arrays if array is not None]
    leading = [
        xr.DataArray(0.0) if dark is None else frame_dark_time(raw, dark, parameters.dark.overhead),
        _scale(fringe_scale),
    ]
    found: tuple[xr.DataArray, ...] = xr.apply_ufunc(
        detrend_frames,
        _whole(image, RAW),
        *leading,
        *(_whole(array, array.dims) for array in present),
        kwargs={"plan": plan, "present": tuple(array is not None for array in arrays)},
        input_core_dims=[list(RAW), [], [], *([[v.Y, v.X]] * len(present))],
        output_core_dims=[[v.Y, v.X]] * 3 + [[v.AMP]] * len(PER_AMPLIFIER),
        keep_attrs=False,  # those of the raw image are not those of the planes
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int32] + [np.float64] * len(PER_AMPLIFIER),
        dask_gufunc_kwargs={
            "output_sizes": {v.Y: shape[0], v.X: shape[1], v.AMP: len(rows)},
        },
    )
    names = {kind: calibration_id(calibration) for kind, calibration in given.items()}
    others = {
        "linearity": linearity,
        "crosstalk": crosstalk,
        "defects": defects,
        "brighter_fatter": brighter_fatter,
    }
    names |= {kind: calibration_id(data) for kind, data in others.items() if data is not None}
    return _dataset(raw, rows, found, _applied(parameters, names, source), parameters.units)


def _check(
    raw: xr.Dataset,
    amplifiers: xr.Dataset,
    rows: list[Amplifier],
    given: Mapping[str, xr.Dataset],
    shape: tuple[int, int],
    units: str,
) -> None:
    """Raise one ValueError that tells all that does not fit together."""
    detector, table = told(raw, v.DETECTOR), told(amplifiers, v.DETECTOR)
    problems = []
    if detector and table and detector != table:
        problems.append(f"the amplifier table is of detector {table!r}, the frame of {detector!r}")
    if raw["image"].attrs.get("units", v.ADU) != v.ADU:
        problems.append(f"raw has units {raw['image'].attrs['units']!r}, needs 'adu'")
    check_calibrations(
        raw,
        given,
        shape,
        detector=table,
        fringe_units=(v.DIMENSIONLESS, units),
        problems=problems,
    )
    for row in rows:
        check_boxes(row, (raw["image"].sizes[v.Y], raw["image"].sizes[v.X]))


def _scale(fringe_scale: float | xr.DataArray) -> xr.DataArray:
    scale = xr.DataArray(fringe_scale)
    if not np.isfinite(scale).all():
        raise ValueError(f"fringe_scale must be finite, got {fringe_scale}")
    return scale.drop_vars([*scale.coords])


def _whole(array: xr.DataArray, dims: Iterable[Hashable]) -> xr.DataArray:
    """Return an array without coordinates, and in one chunk along some dimensions if it is lazy."""
    bare = array.drop_vars([*array.coords])
    return bare if bare.chunks is None else bare.chunk(dict.fromkeys(dims, -1))


def _applied(
    parameters: ScienceDetrendParameters, names: Mapping[str, str], gains: str
) -> list[str]:
    """Return what was done, in order."""
    overscan = f"overscan: {parameters.overscan.serial}"
    if parameters.overscan.parallel != "none":
        overscan += f", parallel {parameters.overscan.parallel}"
    unused = "" if parameters.units == v.ELECTRON else ", not applied"
    done = {
        "overscan": overscan,
        **{kind: f"{kind}: {names[kind]}" for kind in names},
        "gain": f"gain: {gains}{unused}",
        "variance": f"variance: {parameters.variance.read_noise}",
    }
    saturation = parameters.saturation
    if saturation.grow or saturation.bleed:
        done["saturation"] = f"saturation: grown {saturation.grow}, bleed {saturation.bleed}"
    if parameters.cosmic_rays.reject:
        done["cosmic_rays"] = f"cosmic_rays: {parameters.cosmic_rays.clip:g} sigma"
    if parameters.interpolation.planes:
        done["interpolation"] = f"interpolation: {', '.join(parameters.interpolation.planes)}"
    order = (
        "overscan",
        "crosstalk",
        "bias",
        "linearity",
        "gain",
        "variance",
        "brighter_fatter",
        "dark",
        "flat",
        "defects",
        "saturation",
        "cosmic_rays",
        "interpolation",
        "fringe",
    )
    return [done[step] for step in order if step in done]


def _dataset(
    raw: xr.Dataset,
    rows: list[Amplifier],
    found: tuple[xr.DataArray, ...],
    applied: list[str],
    units: str,
) -> xr.Dataset:
    image, variance, mask, *numbers = found
    squared = v.ELECTRON2 if units == v.ELECTRON else v.ADU2
    units_of = (v.ADU, v.ADU, v.ELECTRON_PER_ADU, v.ELECTRON, v.ADU)
    kept = {
        name: coordinate
        for name, coordinate in raw.coords.items()
        if not {v.Y, v.X, v.AMP} & set(coordinate.dims) and name != v.AMP
    }
    return xr.Dataset(
        {
            "image": image.assign_attrs(units=units),
            "variance": variance.assign_attrs(units=squared),
            v.MASK: mask.assign_attrs(v.mask_attributes()),
            **{
                name: values.assign_attrs(units=unit)
                for name, values, unit in zip(PER_AMPLIFIER, numbers, units_of, strict=True)
            },
        },
        coords={**kept, v.AMP: [row.name for row in rows]},
        attrs={**raw.attrs, "applied": applied},
    )
