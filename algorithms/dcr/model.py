"""Sub-band models of the sky: their start, their mean, their sum.

A model has dimensions (subfilter, y, x), blue to red. A plane holds the flux of its sub-band, so
that the broad-band image is the sum of planes.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.uncertainty import variance_by_level

__all__ = ["finalize_planes", "init_model", "reference_plane", "stack_planes"]


def init_model(template: xr.Dataset, band: Band, subfilters: int = 3) -> xr.Dataset:
    """Return a model whose planes are equal parts of a coadd.

    Parameters
    ----------
    template : Dataset, (y, x)
        Coadd with ``image``, ``variance`` and ``mask``.
    band : Band
    subfilters : int
        Number N of sub-bands.

    Returns
    -------
    Dataset, (subfilter, y, x)
        ``model``, a part in N of the image, 0 where the coadd has no data; ``variance``, a part
        in N of the variance; ``mask`` (y, x), NO_DATA there; and ``wavelength_edges``
        (subfilter, band_edge; nm). Coordinates and attributes are those of the coadd.

    Raises
    ------
    ValueError
        If there is not at least one sub-band.

    Examples
    --------
    >>> import numpy as np
    >>> planes = {name: (("y", "x"), np.full((1, 2), value, "f4"))
    ...           for name, value in (("image", 6.0), ("variance", 3.0))}
    >>> template = xr.Dataset(planes | {"mask": (("y", "x"), np.zeros((1, 2), "i4"))})
    >>> model = init_model(template, Band.from_effective("g", 476.31, 147.0))
    >>> model["model"].dims, float(model["model"][0, 0, 0]), float(model["variance"][2, 0, 1])
    (('subfilter', 'y', 'x'), 2.0, 1.0)
    """
    edges = subband_edges(band, subfilters)
    image, variance = template["image"], template["variance"]
    # Also where the variance is 0: nothing was measured there.
    good = np.isfinite(image) & (variance > 0) & np.isfinite(variance)
    no_data = np.int32(v.MASK_PLANES["NO_DATA"])
    mask = template[v.MASK].where(good, template[v.MASK] | no_data)
    planes = {
        "model": _repeat(image.where(good, 0.0) / subfilters, subfilters, image),
        "variance": _repeat(variance.where(good, np.inf) / subfilters, subfilters, variance),
        v.MASK: mask.astype(np.int32).assign_attrs(template[v.MASK].attrs),
        "wavelength_edges": (
            (v.SUBFILTER, v.BAND_EDGE),
            np.stack([edges[:-1], edges[1:]], axis=1),
            {"units": v.NANOMETRE},
        ),
    }
    attrs = template.attrs | {"band": band.name, "lambda_ref": band.lambda_ref}
    return xr.Dataset(planes, template.coords, attrs)


def _repeat(plane: xr.DataArray, subfilters: int, like: xr.DataArray) -> xr.DataArray:
    whole = plane.astype(np.float32).expand_dims({v.SUBFILTER: subfilters}).copy()
    return whole.transpose(v.SUBFILTER, v.Y, v.X).assign_attrs(like.attrs)


def reference_plane(model: xr.DataArray) -> xr.DataArray:
    """Return the mean of the planes, what a source without colour would have in each.

    Examples
    --------
    >>> planes = xr.DataArray([[[1.0]], [[2.0]], [[6.0]]], dims=("subfilter", "y", "x"))
    >>> reference_plane(planes).item()
    3.0
    """
    return model.mean(v.SUBFILTER, dtype=np.float64).astype(model.dtype)


def finalize_planes(model: xr.DataArray, amplification: float) -> xr.DataArray:
    """Return planes whose differences from their mean are amplified, once.

    Parameters
    ----------
    model : DataArray, (subfilter, y, x)
        As an iteration with amplified differences keeps it.
    amplification : float
        Factor on the differences; the sum of planes stays.

    Examples
    --------
    >>> planes = xr.DataArray([[[1.0]], [[2.0]], [[3.0]]], dims=("subfilter", "y", "x"))
    >>> finalize_planes(planes, 3.0).values.ravel().tolist()
    [-1.0, 2.0, 5.0]
    """
    mean = reference_plane(model)
    found = mean + amplification * (model - mean)
    return found.astype(model.dtype).transpose(*model.dims).assign_attrs(model.attrs)


def stack_planes(model: xr.Dataset) -> xr.Dataset:
    """Return the broad-band image of a model: the sum of its planes.

    Parameters
    ----------
    model : Dataset, (subfilter, y, x)
        With ``model``, ``variance``, ``mask`` (y, x); if it was fitted with ``level_covariance``,
        ``noise_place``, ``weight_sum``, ``coverage`` and ``coverage_weight``, or with
        ``covariance`` (subfilter, subfilter_2).

    Returns
    -------
    Dataset, (y, x)
        ``image``, ``variance`` and ``mask``. Planes of a fit are correlated: the variance of the
        sum follows from their covariances, if the model has them, else from the sum of
        variances. ``n_image`` (y, x) where the model has it.

    Examples
    --------
    >>> import numpy as np
    >>> planes = xr.DataArray(np.ones((3, 1, 1), "f4"), dims=("subfilter", "y", "x"))
    >>> mask = xr.DataArray(np.zeros((1, 1), "i4"), dims=("y", "x"))
    >>> whole = stack_planes(xr.Dataset({"model": planes, "variance": planes, "mask": mask}))
    >>> whole["image"].item(), whole["variance"].item()
    (3.0, 3.0)
    """
    variance = model["variance"].sum(v.SUBFILTER, dtype=np.float64)
    both = (v.SUBFILTER, f"{v.SUBFILTER}_2")
    if "level_covariance" in model and not bool(np.isnan(model["level_covariance"]).any()):
        levels = model["level_covariance"].sum(both).transpose(v.COVERAGE_GROUP, v.NOISE_LEVEL)
        of_groups = levels.to_numpy()
        totals = model["coverage_weight"].sum(v.VISIT).to_numpy()
        variance = xr.apply_ufunc(
            lambda *pixels: variance_by_level(of_groups, totals, *pixels),
            model["coverage"],
            model["noise_place"],
            model["weight_sum"],
            dask="parallelized",
            output_dtypes=[np.float32],
        ).where(np.isfinite(variance), np.inf)
    elif "covariance" in model:
        table = model["covariance"].to_numpy()
        total = float(table.sum() / np.trace(table)) if np.trace(table) > 0 else 1.0
        variance = variance * total
    found = {
        "image": model["model"].sum(v.SUBFILTER, dtype=np.float64).astype(np.float32),
        "variance": variance.astype(np.float32),
        v.MASK: model[v.MASK],
    }
    found["image"].attrs = dict(model["model"].attrs)
    found["variance"].attrs = dict(model["variance"].attrs)
    if "n_image" in model:
        found["n_image"] = (
            model["n_image"].max(v.SUBFILTER)
            if (v.SUBFILTER in model["n_image"].dims)
            else model["n_image"]
        )
    kept = {name: at for name, at in model.coords.items() if v.SUBFILTER not in at.dims}
    return xr.Dataset(found, kept, dict(model.attrs))
