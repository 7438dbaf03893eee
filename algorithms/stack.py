"""Stacks: one statistic of every pixel over many inputs, with its variance, planes and counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.pixel_arrays import floating
from skyloom.algorithms.stack_arrays import Stacked, StackRule, stack_arrays
from skyloom.algorithms.stack_kernels import CLIPPED_MEAN, MEAN, MEDIAN
from skyloom.algorithms.tiles import in_memory, is_lazy, tiles
from skyloom.algorithms.units import squared_units

__all__ = ["Statistic", "stack"]

Statistic = Literal["clipped_mean", "mean", "median"]
Numbers = xr.DataArray | NDArray[Any] | Sequence[float]
CODES = {"mean": MEAN, "clipped_mean": CLIPPED_MEAN, "median": MEDIAN}
OUTPUTS = ("image", "variance", v.MASK, "count", "rejected_count")


def stack(
    images: xr.DataArray | xr.Dataset,
    masks: xr.DataArray | None = None,
    variances: xr.DataArray | None = None,
    weights: Numbers | Literal["inverse_variance"] | None = None,
    *,
    dim: Hashable = v.EXPOSURE,
    statistic: Statistic = "clipped_mean",
    clip: float = 3.0,
    iterations: int = 3,
    ignore: Iterable[str] = v.IGNORED_PLANES,
    scales: Numbers | None = None,
    error: Literal["sample", "input"] = "sample",
    joined: Mapping[str, str] | None = None,
) -> xr.Dataset:
    r"""Return the clipped mean, mean or median of images over one of their dimensions.

    A value is valid if it is finite, none of the ignored planes is set and its weight is a
    positive number. Pass 1 keeps the valid values within ``clip * 0.7413 IQR`` of their median,
    each later pass those within ``clip`` standard deviations of the mean of the pass before; every
    pass tests all valid values again. With weights :math:`w`, sums :math:`S = \sum w` and
    :math:`S_2 = \sum w^2`,

    .. math::

        m = \frac{\sum w v}{S}, \qquad
        s^2 = \left(\frac{\sum w v^2}{S} - m^2\right) \frac{S^2}{S^2 - S_2}, \qquad
        \mathrm{var}(m) = s^2 \frac{S_2}{S^2}
        \quad\text{or}\quad \frac{\sum w^2 \mathrm{var}(v)}{S^2}.

    The error of a median is :math:`\sqrt{\pi/2}` times that of the mean of the same values.

    Parameters
    ----------
    images : DataArray, (dim, ...), any real dtype, any unit, or Dataset
        A dataset holds them as ``image``, and ``mask`` and ``variance`` if it has these. Lazy
        images give a lazy result; lazily indexed ones are read tile by tile.
    masks : DataArray, integer bit planes with ``flag_masks`` and ``flag_meanings``, optional
        Has dimensions of the images; without ``dim`` it holds for all of them.
    variances : DataArray, same shape, unit squared, optional
    weights : DataArray or sequence over ``dim``, or DataArray like the images, optional
        Multiply the values in the mean; or "inverse_variance". Without them the result doesn't
        depend on the order of the images, not in the last bit.
    dim : name
        Dimension to stack over.
    statistic : {"clipped_mean", "mean", "median"}
    clip : float
        Clip in standard deviations; > 0.
    iterations : int
        Number of passes; >= 1.
    ignore : iterable of str
        Names of the mask planes whose pixels are left out.
    scales : DataArray or sequence over ``dim``, optional
        What each image is divided by (variances by its square); > 0.
    error : {"sample", "input"}
        Take the variance from the scatter of the values used, or from ``variances``. Where one
        value is used, it is always its own variance, and NaN without variances.
    joined : mapping of str to str, optional
        Planes to set in the result where any image has another, used or not: ``{"SAT": "SAT"}``.

    Returns
    -------
    Dataset, (...)
        ``image`` and ``variance`` (of the stacked value) in float32 where that holds the images
        exactly, else float64; ``mask``, int32, joins the planes of the values used, CLIPPED where
        valid values were clipped, ONE_INPUT where one was used, and is NO_DATA where none was: the
        value then is NaN; ``count`` of the values used and ``rejected_count`` of those clipped.

    Raises
    ------
    ValueError
        If there is nothing to stack, an option is unknown or out of range, a scale is not a
        positive number, or an error from variances is asked for without them.
    GeometryError
        If masks, variances or weights don't have the shape of the images.
    KeyError
        If a mask does not know a plane; the message lists those it knows.

    Notes
    -----
    The semantics are those of the LSST Science Pipelines' clipped statistics of floating-point
    images; where one input is left, they give no variance.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = np.array([[7.0, 1.0], [7.0, 2.0], [7.0, 3.0], [7.0, 4.0], [9.0, np.nan]])
    >>> images = xr.DataArray(values, dims=("exposure", "x"), attrs={"units": "adu"})
    >>> stacked = stack(images)
    >>> stacked["image"].values.tolist(), stacked["count"].values.tolist()
    ([7.0, 2.5], [4, 4])
    >>> stacked["rejected_count"].values.tolist()
    [1, 0]
    """
    if isinstance(images, xr.Dataset):
        masks = images.get(v.MASK) if masks is None else masks
        variances = images.get("variance") if variances is None else variances
        images = images["image"]
    _check_images(images, dim)
    _check_options(statistic, clip, iterations, error)
    inverse = isinstance(weights, str)
    if isinstance(weights, str):
        if weights != "inverse_variance":
            raise ValueError(f'weights must be numbers or "inverse_variance", got {weights!r}')
        weights = None
    if variances is None and (inverse or error == "input"):
        raise ValueError("inverse-variance weights and errors from the input need variances")
    if statistic == "median" and (inverse or weights is not None):
        raise ValueError("a median has no weights")
    input_weights, pixel_weights = None, None
    if weights is not None:
        if isinstance(weights, xr.DataArray) and weights.ndim > 1:
            pixel_weights = weights
        else:
            input_weights = _of_inputs(weights, images, dim, "weight", least=0.0)
    factors = np.ones(images.sizes[dim])
    if scales is not None:
        factors = 1.0 / _of_inputs(scales, images, dim, "scale")
    legend = v.mask_attributes() if masks is None else dict(masks.attrs)
    rule = _rule(statistic, clip, iterations, inverse, error, ignore, joined, masks is None, legend)
    kernel = partial(stack_arrays, factors=factors, input_weights=input_weights, rule=rule)
    inputs = [images, *_like(images, masks, variances, pixel_weights)]
    arrays = _lazily(kernel, inputs, dim) if _any_lazy(inputs) else _by_tiles(kernel, inputs, dim)
    units = str(images.attrs.get("units", v.DIMENSIONLESS))
    attrs: dict[str, dict[str, Any]] = {
        "image": {"units": units},
        "variance": {"units": squared_units(units)},
        v.MASK: v.mask_attributes() if "flag_meanings" not in legend else legend,
        "count": {"units": v.DIMENSIONLESS},
        "rejected_count": {"units": v.DIMENSIONLESS},
    }
    return xr.Dataset({name: arrays[name].assign_attrs(attrs[name]) for name in OUTPUTS})


def _check_images(images: xr.DataArray, dim: Hashable) -> None:
    if not isinstance(images, xr.DataArray):
        raise TypeError(
            f"images must be an xarray.DataArray, got {type(images).__name__}: name its dimensions,"
            " xarray.DataArray(images, dims=('exposure', 'y', 'x'))"
        )
    if dim not in images.dims:
        raise ValueError(f"dim {dim!r} must be among the dimensions of the images, {images.dims}")
    if images.sizes[dim] == 0:
        raise ValueError(f"no inputs: the images have size 0 along {dim!r}")


def _check_options(statistic: str, clip: float, iterations: int, error: str) -> None:
    if statistic not in CODES:
        raise ValueError(f"statistic must be one of {get_args(Statistic)}, got {statistic!r}")
    if not clip > 0:
        raise ValueError(f"clip must be > 0, got {clip}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
    if error not in ("sample", "input"):
        raise ValueError(f'error must be "sample" or "input", got {error!r}')


def _of_inputs(
    numbers: Numbers, images: xr.DataArray, dim: Hashable, name: str, least: float = np.nan
) -> NDArray[np.float64]:
    """Return one number for every image, matched by label where there are labels."""
    if isinstance(numbers, xr.DataArray) and dim in numbers.coords and dim in images.coords:
        numbers = numbers.sel({dim: images[dim]})
    values = np.asarray(numbers, np.float64)
    if values.shape != (images.sizes[dim],):
        raise GeometryError(
            f"{name}s have shape {values.shape}, there are {images.sizes[dim]} images along {dim!r}"
        )
    wrong = ~(np.isfinite(values) & ((values > 0) | (values == least)))
    if wrong.any():
        labels = images[dim].values[wrong].tolist()
        told = ", ".join(
            f"{dim} {label}: {value}" for label, value in zip(labels, values[wrong], strict=True)
        )
        raise ValueError(f"every {name} must be a positive number; {told}")
    return values


def _rule(
    statistic: str,
    clip: float,
    iterations: int,
    inverse: bool,
    error: str,
    ignore: Iterable[str],
    joined: Mapping[str, str] | None,
    unmasked: bool,
    legend: Mapping[str, Any],
) -> StackRule:
    """Return what the kernels do, its planes looked up in the legend of the mask."""
    known = str(legend.get("flag_meanings", " ".join(v.MASK_PLANES))).split()

    def bit_if_known(plane: str) -> int:
        return v.plane_bits([plane], legend) if plane in known else 0

    return StackRule(
        CODES[statistic],
        float(clip),
        int(iterations),
        inverse,
        error == "input",
        0 if unmasked else v.plane_bits(ignore, legend),
        bit_if_known("CLIPPED"),
        bit_if_known("ONE_INPUT"),
        v.plane_bits(["NO_DATA"], legend),
        tuple(
            (v.plane_bits([source], legend), v.plane_bits([target], legend))
            for source, target in (joined or {}).items()
        ),
    )


def _like(images: xr.DataArray, *others: xr.DataArray | None) -> list[xr.DataArray | None]:
    """Return arrays with the dimensions of the images, checked."""
    found: list[xr.DataArray | None] = []
    for name, other in zip(("masks", "variances", "weights"), others, strict=True):
        if other is not None:
            if name == "masks" and other.dtype.kind not in "iu":
                raise TypeError(f"masks must hold integer bit planes, got dtype {other.dtype}")
            if any(images.sizes.get(dim) != size for dim, size in other.sizes.items()):
                raise GeometryError(
                    f"{name} have shape {dict(other.sizes)}, the images {dict(images.sizes)}"
                )
            missing = {d: n for d, n in images.sizes.items() if d not in other.dims}
            if missing:
                other = other.drop_vars(missing, errors="ignore").expand_dims(missing)
            other = other.transpose(*images.dims)
        found.append(other)
    return found


def _any_lazy(arrays: Sequence[xr.DataArray | None]) -> bool:
    return any(array is not None and is_lazy(array) for array in arrays)


def _lazily(
    kernel: partial[Stacked], inputs: list[xr.DataArray | None], dim: Hashable
) -> dict[str, xr.DataArray]:
    """Return lazy results: the kernel on every Dask chunk, those along ``dim`` joined."""
    images = inputs[0]
    assert images is not None
    given = [
        array if array is None or not is_lazy(array) else array.chunk({dim: -1}) for array in inputs
    ]
    present = [array.drop_vars(list(array.coords)) for array in given if array is not None]
    places = [array is not None for array in given]
    dtype = floating(np.empty(0, images.dtype)).dtype

    def of_blocks(*blocks: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        moved = iter(np.moveaxis(block, -1, 0) for block in blocks)
        return tuple(kernel(*(next(moved) if here else None for here in places)))

    results = xr.apply_ufunc(
        of_blocks,
        *present,
        input_core_dims=[[dim]] * len(present),
        output_core_dims=[[]] * len(OUTPUTS),
        keep_attrs=False,
        dask="parallelized",
        output_dtypes=[dtype, dtype, np.int32, np.int32, np.int32],
    )
    coords = {name: c for name, c in images.coords.items() if dim not in c.dims}
    return {
        name: result.assign_coords(coords) for name, result in zip(OUTPUTS, results, strict=True)
    }


def _by_tiles(
    kernel: partial[Stacked], inputs: list[xr.DataArray | None], dim: Hashable
) -> dict[str, xr.DataArray]:
    """Return results in memory; what is not in memory or must be converted is read by tiles."""
    images = inputs[0]
    assert images is not None
    order = [dim, *(name for name in images.dims if name != dim)]
    arrays = [None if array is None else array.transpose(*order) for array in inputs]
    coords = {name: c for name, c in images.coords.items() if dim not in c.dims}
    dtype = floating(np.empty(0, images.dtype)).dtype
    shape = tuple(images.sizes[name] for name in order[1:])
    dtypes = (dtype, dtype, np.int32, np.int32, np.int32)
    if all(array is None or _is_ready(array) for array in arrays):
        whole = kernel(*(None if array is None else array.values for array in arrays))
        outputs: Sequence[NDArray[Any]] = whole
    else:
        outputs = [np.empty(shape, kind) for kind in dtypes]
        for tile in tiles(images, order[1:]):
            read = (None if a is None else a.isel(tile).values for a in arrays)
            for output, part in zip(outputs, kernel(*read), strict=True):
                output[tuple(tile[name] for name in order[1:])] = part
    return {
        name: xr.DataArray(output, dims=order[1:], coords=coords)
        for name, output in zip(OUTPUTS, outputs, strict=True)
    }


def _is_ready(array: xr.DataArray) -> bool:
    """Return whether the kernels take the values of an array as they are, without a copy."""
    if not in_memory(array):
        return False
    values = array.values
    return bool(
        values.flags.c_contiguous
        and values.dtype.isnative
        and values.dtype in (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int32))
    )
