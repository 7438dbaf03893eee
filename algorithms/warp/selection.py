"""Which detectors of which visits a patch is made of, and why the others are not among them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import RejectedInput
from skyloom.algorithms.warp.positions import sky_pixels

__all__ = ["SelectionParameters", "select_inputs"]

Limit = float | None
CORNERS: Final = ("corner_right_ascension", "corner_declination")
NEEDED: Final = {
    "calibration": RejectedInput.NO_CALIBRATION,
    "psf_fwhm": RejectedInput.NO_PSF,
    "aperture_correction": RejectedInput.NO_APERTURE_CORRECTION,
}
HIGHEST: Final = {
    "psf_fwhm": RejectedInput.SEEING,
    "ellipticity_residual": RejectedInput.ELLIPTICITY_RESIDUAL,
    "size_scatter": RejectedInput.SIZE_SCATTER,
    "trace_radius_range": RejectedInput.TRACE_RADIUS_RANGE,
    "aperture_flux_range": RejectedInput.APERTURE_FLUX_RANGE,
    "aperture_correction_range": RejectedInput.APERTURE_CORRECTION_RANGE,
    "star_ellipticity": RejectedInput.STAR_ELLIPTICITY,
    "unnormalized_ellipticity": RejectedInput.UNNORMALIZED_ELLIPTICITY,
}


class SelectionParameters(Parameters):
    """What a detector must be like to be an input; None asks for nothing."""

    psf_fwhm: Limit = Field(1.8, description="highest PSF FWHM, arcsec", gt=0)
    ellipticity_residual: Limit = Field(
        0.007, description="highest median residual of PSF ellipticity", gt=0
    )
    size_scatter: Limit = Field(0.019, description="highest scaled scatter of PSF size", gt=0)
    trace_radius_range: Limit = Field(
        0.7, description="highest range of the PSF trace radius over the detector, pixel", gt=0
    )
    aperture_flux_range: Limit = Field(
        0.24, description="highest range of the PSF flux in an aperture over the detector", gt=0
    )
    aperture_correction_range: Limit = Field(
        0.22, description="highest scaled range of the aperture correction", gt=0
    )
    star_count: int | None = Field(6, description="least number of stars of the PSF model", ge=1)
    star_ellipticity: Limit = Field(0.4, description="highest median ellipticity of stars", gt=0)
    unnormalized_ellipticity: Limit = Field(
        2.8, description="highest median ellipticity of stars, unnormalised, pixel2", gt=0
    )
    needed: tuple[str, ...] = Field(
        ("calibration", "psf_fwhm", "aperture_correction"),
        description="columns that must hold a finite number",
    )


def select_inputs(
    table: xr.Dataset,
    *,
    target: Any = None,
    box: Any = None,
    excluded: Iterable[Hashable] = (),
    parameters: SelectionParameters | None = None,
) -> xr.Dataset:
    """Judge which detectors are inputs of a patch, and record each reason against one.

    Parameters
    ----------
    table : Dataset, (input)
        A row per visit and detector. Columns named as the limits of the parameters; finite
        ``calibration`` (nJy/unit), ``aperture_correction``; ``detector``; and, with a target,
        ``corner_right_ascension``, ``corner_declination`` (input, corner), degree, of which those
        without a WCS are NaN.
    target : Tract, TangentPlane or WCS, optional
        The grid of the patch. Without it the overlap is not judged.
    box : Patch or (int, int, int, int), optional
        ``(y_start, y_stop, x_start, x_stop)``, pixels of the target.
    excluded : iterable of labels
        Detectors to leave out.
    parameters : SelectionParameters, optional

    Returns
    -------
    Dataset, (input)
        ``selected`` (bool), ``rejected`` (int32, bits of
        `skyloom.algorithms.vocabulary.RejectedInput`, all that apply) and ``reason`` (text, with
        the number and its limit), on the coordinates of the table.

    Raises
    ------
    KeyError
        If a column that is asked for is missing; all that are missing are named.
    ValueError
        If only one of target and box is given, or the table has no dimension ``input``.

    Notes
    -----
    A number that is not finite never passes. Footprints are convex hulls of corners; in the plane
    of the target great circles are straight, so two of them are apart exactly if an edge of
    one has the other on its far side.

    Examples
    --------
    >>> table = xr.Dataset(
    ...     {"psf_fwhm": ("input", [0.8, 2.0, np.nan]), "detector": ("input", ["A", "B", "C"])}
    ... )
    >>> only_seeing = SelectionParameters(
    ...     **dict.fromkeys(set(HIGHEST) - {"psf_fwhm"}), star_count=None, needed=()
    ... )
    >>> found = select_inputs(table, parameters=only_seeing)
    >>> found["selected"].values.tolist(), str(found["reason"].values[1])
    ([True, False, False], 'psf_fwhm 2 is above 1.8')
    """
    parameters = parameters or SelectionParameters()
    if v.INPUT not in table.dims:
        raise ValueError(f"the table needs the dimension input, it has {dict(table.sizes)}")
    if (target is None) != (box is None):
        raise ValueError("target and box belong together: only one of them is given")
    out = frozenset(excluded)
    _check_columns(table, parameters, overlap=target is not None, excluded=bool(out))
    size = table.sizes[v.INPUT]
    rejected = np.zeros(size, np.int32)
    reasons: list[list[str]] = [[] for _ in range(size)]

    def reject(where: NDArray[np.bool_], code: RejectedInput, texts: list[str]) -> None:
        rejected[where] |= np.int32(code)
        for row in np.flatnonzero(where):
            reasons[row].append(texts[row])

    if out:
        labels = table[v.DETECTOR].values.tolist()
        reject(
            np.array([label in out for label in labels], bool),
            RejectedInput.EXCLUDED,
            [f"detector {label} is excluded" for label in labels],
        )
    if target is not None:
        unknown, apart = _footprints(table, target, box)
        reject(unknown, RejectedInput.BAD_WCS, ["it has no usable WCS"] * size)
        reject(apart, RejectedInput.NO_OVERLAP, ["it does not overlap the patch"] * size)
    for name in parameters.needed:
        values = _column(table, name)
        code = NEEDED.get(name, RejectedInput.NO_CALIBRATION)
        reject(~np.isfinite(values), code, [f"{name} is {value:g}" for value in values])
    for name, code in HIGHEST.items():
        limit = getattr(parameters, name)
        if limit is not None:
            values = _column(table, name)
            texts = [f"{name} {value:g} is above {limit:g}" for value in values]
            reject(~(values <= limit), code, _nan_named(texts, values, name))
    if parameters.star_count is not None:
        values = _column(table, "star_count")
        texts = [f"star_count {value:g} is below {parameters.star_count}" for value in values]
        reject(
            ~(values >= parameters.star_count),
            RejectedInput.FEW_STARS,
            _nan_named(texts, values, "star_count"),
        )
    found = xr.Dataset(
        {
            "selected": (v.INPUT, rejected == 0),
            "rejected": (v.INPUT, rejected, v.flag_attributes(RejectedInput)),
            "reason": (v.INPUT, np.array(["; ".join(dict.fromkeys(r)) for r in reasons], str)),
        },
        coords={
            name: value.variable
            for name, value in table.coords.items()
            if set(value.dims) <= {v.INPUT}
        },
    )
    for name in (v.VISIT, v.DETECTOR):
        if name in table and name not in found.coords:
            found = found.assign_coords({name: (v.INPUT, table[name].values)})
    return found


def _nan_named(texts: list[str], values: NDArray[np.float64], name: str) -> list[str]:
    return [
        text if np.isfinite(value) else f"{name} is {value:g}"
        for text, value in zip(texts, values, strict=True)
    ]


def _column(table: xr.Dataset, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].values, np.float64)


def _check_columns(
    table: xr.Dataset, parameters: SelectionParameters, *, overlap: bool, excluded: bool
) -> None:
    wanted = [*parameters.needed]
    wanted += [name for name in (*HIGHEST, "star_count") if getattr(parameters, name) is not None]
    wanted += list(CORNERS) if overlap else []
    wanted += [v.DETECTOR] if excluded else []
    missing = [name for name in dict.fromkeys(wanted) if name not in table]
    if missing:
        raise KeyError(
            f"the table of inputs lacks {', '.join(missing)}; a limit of None asks for no column"
        )


def _footprints(
    table: xr.Dataset, target: Any, box: Any
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which footprints are unknown, and which lie apart from the patch."""
    limits = [int(value) for value in getattr(box, "outer", box)]
    pixels = sky_pixels(getattr(target, "plane", target), name="target")
    ra, dec = (
        np.asarray(table[name].transpose(v.INPUT, ...).values, np.float64) for name in CORNERS
    )
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    unknown = np.asarray(~known.all(axis=1))
    low, high = np.array([limits[2], limits[0]]) - 0.5, np.array([limits[3], limits[1]]) - 0.5
    patch = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    apart = np.zeros(len(ra), bool)
    for row in np.flatnonzero(~unknown):
        corners = np.stack(pixels.to_pixels(ra[row], dec[row]), axis=1)
        # corners behind the horizon of the target belong to no detector that meets the patch
        apart[row] = not np.isfinite(corners).all() or _apart(corners, patch)
    return unknown, apart


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Return whether the convex hulls of two sets of points have no point in common."""
    for first, second in ((one, other), (other, one)):
        steps = first[:, None, :] - first[None, :, :]
        normals = np.stack([-steps[..., 1], steps[..., 0]], axis=-1).reshape(-1, 2)
        # along an edge all points of its own polygon lie on one side; other lines do no harm
        own, theirs = normals @ first.T, normals @ second.T
        if np.any(own.max(axis=1) < theirs.min(axis=1)):
            return True
    return False
