"""From the raw array of a detector to its trimmed image: sections, overscan, saturation."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.detrend.chain import few_types, never_read
from skyloom.algorithms.detrend.levels import amplifier_levels, check_boxes
from skyloom.algorithms.detrend.parameters import OverscanParameters, SaturationParameters
from skyloom.algorithms.detrend.saturation import grow_saturation, saturation_level

__all__ = ["assemble", "flag_saturation", "subtract_overscan"]

RAW = ("raw_y", "raw_x")


def _raw_frames(raw: xr.Dataset, rows: list[Amplifier]) -> xr.DataArray:
    """Return the raw frames (..., raw_y, raw_x), checked, in one chunk each if they are lazy."""
    if "image" not in raw:
        raise KeyError("raw has no variable 'image'")
    image = raw["image"]
    if image.dtype.kind not in "iuf":
        raise TypeError(f"raw pixels must be real numbers, got dtype {image.dtype}")
    for row in rows:
        check_boxes(row, (image.sizes[v.Y], image.sizes[v.X]))
    image = image.transpose(..., v.Y, v.X).rename({v.Y: RAW[0], v.X: RAW[1]})
    image = image.drop_vars([*image.coords])
    return image if image.chunks is None else image.chunk(dict.fromkeys(RAW, -1))


def _kept(raw: xr.Dataset) -> dict[Any, xr.DataArray]:
    return {
        name: coordinate
        for name, coordinate in raw.coords.items()
        if not {v.Y, v.X, v.AMP} & set(coordinate.dims) and name != v.AMP
    }


def assemble(raw: xr.Dataset, amplifiers: xr.Dataset) -> xr.DataArray:
    """Put the data sections where they belong on the trimmed detector, turned as they must be.

    Parameters
    ----------
    raw : Dataset
        ``image`` (..., y, x), any real dtype: the raw array of the detector. May be lazy.
    amplifiers : Dataset, (amp)
        Amplifier table.

    Returns
    -------
    DataArray, (..., y, x)
        In the dtype of the raw image, with its attributes; 0 where no amplifier lies.

    Raises
    ------
    ValueError
        If a box reaches beyond the image.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 2), (1, 2), overscan=1)
    >>> table["flip_x"][1] = True
    >>> raw = xr.Dataset({"image": (("y", "x"), [[1, 2, 9, 4, 3, 9]])})
    >>> assemble(raw, table).values.tolist()
    [[1, 2, 3, 4]]
    """
    rows = amplifier_rows(amplifiers)
    image = _raw_frames(raw, rows)
    shape = trimmed_shape(rows)
    found: xr.DataArray = xr.apply_ufunc(
        _assembled,
        image,
        kwargs={"rows": rows, "shape": shape},
        input_core_dims=[list(RAW)],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[image.dtype],
        dask_gufunc_kwargs={"output_sizes": {v.Y: shape[0], v.X: shape[1]}},
    )
    return found.assign_coords(_kept(raw)).assign_attrs(raw["image"].attrs)


def _assembled(raw: NDArray[Any], rows: list[Amplifier], shape: tuple[int, int]) -> NDArray[Any]:
    out = np.zeros((*raw.shape[:-2], *shape), raw.dtype)
    for row in rows:
        section = raw[(..., *row.data.slices)]
        out[(..., *row.trimmed.slices)] = section[(..., *row.turn)]
    return out


def subtract_overscan(
    raw: xr.Dataset, amplifiers: xr.Dataset, *, parameters: OverscanParameters | None = None
) -> xr.Dataset:
    """Subtract the overscan of each amplifier, trim, and assemble.

    Parameters
    ----------
    raw : Dataset
        ``image`` (..., y, x), any real dtype, adu: the raw array of the detector. May be lazy.
    amplifiers : Dataset, (amp)
        Amplifier table.
    parameters : OverscanParameters, optional
        What is subtracted.

    Returns
    -------
    Dataset, (..., y, x)
        ``image`` float32, adu, and ``mask`` int32 with NO_DATA where nothing was read, NaN in the
        image; over ``amp`` ``overscan_level`` (median) and ``overscan_noise`` (standard deviation
        about the levels), adu, NaN without overscan.

    Raises
    ------
    ValueError
        If a box reaches beyond the image.
    KeyError
        If ``raw`` has no ``image``.
    TypeError
        If raw pixels are no real numbers.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 1), (2, 2), overscan=2)
    >>> image = np.array([[15, 16, 10, 10], [27, 28, 20, 20]], np.uint16)
    >>> found = subtract_overscan(xr.Dataset({"image": (("y", "x"), image)}), table)
    >>> found.image.values.tolist(), float(found.overscan_level[0])
    ([[5.0, 6.0], [7.0, 8.0]], 15.0)
    """
    parameters = parameters or OverscanParameters()
    rows = amplifier_rows(amplifiers)
    image = _raw_frames(raw, rows)
    shape = trimmed_shape(rows)
    found = xr.apply_ufunc(
        _above_overscan,
        image,
        kwargs={"rows": rows, "shape": shape, "parameters": parameters},
        input_core_dims=[list(RAW)],
        output_core_dims=[[v.Y, v.X], [v.Y, v.X], [v.AMP], [v.AMP]],
        dask="parallelized",
        output_dtypes=[np.float32, np.int32, np.float64, np.float64],
        dask_gufunc_kwargs={"output_sizes": {v.Y: shape[0], v.X: shape[1], v.AMP: len(rows)}},
    )
    adu = {"units": v.ADU}
    attributes = (adu, v.mask_attributes(), adu, adu)
    names = ("image", v.MASK, "overscan_level", "overscan_noise")
    return xr.Dataset(
        {
            name: array.assign_attrs(attrs)
            for name, array, attrs in zip(names, found, attributes, strict=True)
        },
        coords={**_kept(raw), v.AMP: [row.name for row in rows]},
        attrs=dict(raw.attrs),
    )


def _above_overscan(
    raw: NDArray[Any], rows: list[Amplifier], shape: tuple[int, int], parameters: OverscanParameters
) -> tuple[NDArray[Any], ...]:
    leading = raw.shape[:-2]
    image = np.full((*leading, *shape), np.nan, np.float32)
    numbers = np.empty((2, *leading, len(rows)))
    lowest = never_read(raw.dtype)
    for index in np.ndindex(*leading):
        frame = few_types(raw[index])
        for place, row in enumerate(rows):
            levels = amplifier_levels(frame, row, parameters)
            section = frame[row.data.slices].astype(np.float64)
            read = (section > lowest) & (section < np.inf)
            signal = np.where(read, section, np.nan) - levels.rows[:, None]
            if levels.columns.size:
                signal -= levels.columns
            image[index][row.trimmed.slices] = signal[row.turn]
            numbers[(slice(None), *index, place)] = levels.median, levels.noise
    mask = np.where(np.isfinite(image), np.int32(0), np.int32(v.MASK_PLANES["NO_DATA"]))
    return image, mask, numbers[0], numbers[1]


def flag_saturation(
    raw: xr.Dataset, amplifiers: xr.Dataset, *, parameters: SaturationParameters | None = None
) -> xr.DataArray:
    """Return the mask of saturated and suspect pixels of raw frames, trimmed.

    Parameters
    ----------
    raw : Dataset
        ``image`` (..., y, x), any real dtype, adu: the raw array of the detector. May be lazy.
    amplifiers : Dataset, (amp)
        Amplifier table, with ``saturation`` (adu; NaN: found from the pile-up).
    parameters : SaturationParameters, optional
        What is suspect, and how regions grow.

    Returns
    -------
    DataArray, (..., y, x), int32
        With SAT and SUSPECT.

    Raises
    ------
    ValueError
        If a box reaches beyond the image.

    Examples
    --------
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> table = amplifier_grid("R0", (1, 1), (1, 3), overscan=1, saturation=100.0)
    >>> raw = xr.Dataset({"image": (("y", "x"), [[70, 90, 100, 5]])})
    >>> flag_saturation(raw, table, parameters=SaturationParameters(suspect_fraction=0.8)).values
    array([[  0, 128, 130]], dtype=int32)
    """
    parameters = parameters or SaturationParameters()
    rows = amplifier_rows(amplifiers)
    shape = trimmed_shape(rows)
    found: xr.DataArray = xr.apply_ufunc(
        _saturated,
        _raw_frames(raw, rows),
        kwargs={"rows": rows, "shape": shape, "parameters": parameters},
        input_core_dims=[list(RAW)],
        output_core_dims=[[v.Y, v.X]],
        dask="parallelized",
        output_dtypes=[np.int32],
        dask_gufunc_kwargs={"output_sizes": {v.Y: shape[0], v.X: shape[1]}},
    )
    return found.assign_coords(_kept(raw)).assign_attrs(v.mask_attributes())


def _saturated(
    raw: NDArray[Any],
    rows: list[Amplifier],
    shape: tuple[int, int],
    parameters: SaturationParameters,
) -> NDArray[np.int32]:
    mask = np.zeros((*raw.shape[:-2], *shape), np.int32)
    for index in np.ndindex(*raw.shape[:-2]):
        frame = few_types(raw[index])
        for row in rows:
            level = row.saturation
            if not np.isfinite(level):
                level = saturation_level(frame, row.data) if parameters.pile_up else np.inf
            section = frame[row.data.slices][row.turn]
            own = mask[index][row.trimmed.slices]
            finite = section < np.inf
            own[finite & (section >= level)] |= np.int32(v.MASK_PLANES["SAT"])
            if parameters.suspect_fraction is not None:
                suspect = finite & (section >= parameters.suspect_fraction * level)
                own[suspect] |= np.int32(v.MASK_PLANES["SUSPECT"])
        grow_saturation(mask[index], parameters)
    return mask
