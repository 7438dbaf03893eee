"""Samples of a flat over the focal plane."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import bin_image
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.flats.gradient_parameters import FlatSampleParameters
from skyloom.algorithms.focal_plane import to_focal_plane

__all__ = ["sample_flat"]


def sample_flat(
    flat: xr.Dataset,
    transform: NDArray[np.float64],
    *,
    detector: str,
    detector_type: str = "",
    parameters: FlatSampleParameters | None = None,
) -> xr.Dataset:
    """Return the mean of a flat in bins, with their places in the focal plane.

    Parameters
    ----------
    flat : Dataset, (y, x)
        ``image``, dimensionless, in trimmed orientation; ``mask``, if it has one.
    transform : ndarray, (2, 3), mm
        Takes trimmed pixels to the focal plane, see `detector_transform`.
    detector, detector_type : str
        Name of the detector, and what kind it is; kinds differ by a factor in `fit_flat_gradients`.
    parameters : FlatSampleParameters, optional

    Returns
    -------
    Dataset over ``sample``
        ``level``, ``level_variance`` (of the mean, from the scatter of pixels), ``count``; and
        ``focal_x``, ``focal_y`` (mm) of the centre of the bin, ``detector``, ``detector_type``.
        `xarray.concat` joins those of several detectors.

    Raises
    ------
    GeometryError
        If the detector is smaller than a bin and its edges.

    Examples
    --------
    >>> flat = xr.Dataset({"image": (("y", "x"), np.ones((8, 6)))})
    >>> to_mm = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> parameters = FlatSampleParameters(bin_size=3, edge=1)
    >>> samples = sample_flat(flat, to_mm, detector="S0", parameters=parameters)
    >>> samples["focal_x"].values, samples["focal_y"].values
    (array([2., 2.]), array([2., 5.]))
    """
    parameters = parameters or FlatSampleParameters()
    image = flat["image"].transpose(v.Y, v.X)
    size, edge = parameters.bin_size, parameters.edge
    bins = [(length - 2 * edge) // size for length in image.shape]
    if min(bins) < 1:
        raise GeometryError(
            f"a detector of {image.shape} pixels has no bin of {size} pixels inside edges of {edge}"
        )
    edges_y, edges_x = (edge + size * np.arange(number + 1) for number in bins)
    mask, bits = None, 0
    if v.MASK in flat:
        mask = flat[v.MASK].transpose(v.Y, v.X).values
        bits = v.plane_bits(parameters.ignored_planes, flat[v.MASK].attrs)
    found = bin_image(image.values, mask, bits, edges_y, edges_x, statistic="mean")
    # the middle of pixels k ... k + size - 1
    y, x = (edges[:-1] + 0.5 * (size - 1) for edges in (edges_y, edges_x))
    focal_x, focal_y = to_focal_plane(transform, x[None, :], y[:, None])
    kept = (found.count >= parameters.smallest_fraction * size**2) & np.isfinite(found.level)
    number = int(kept.sum())
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    places = {"units": v.MILLIMETRE}
    return xr.Dataset(
        {
            "level": (v.SAMPLE, found.level[kept], {"units": units}),
            "level_variance": (v.SAMPLE, found.variance[kept], {"units": units}),
            "count": (v.SAMPLE, found.count[kept], {"units": v.DIMENSIONLESS}),
        },
        coords={
            v.FOCAL_X: (v.SAMPLE, np.broadcast_to(focal_x, kept.shape)[kept], places),
            v.FOCAL_Y: (v.SAMPLE, np.broadcast_to(focal_y, kept.shape)[kept], places),
            v.DETECTOR: (v.SAMPLE, np.full(number, detector)),
            "detector_type": (v.SAMPLE, np.full(number, detector_type)),
        },
    )
