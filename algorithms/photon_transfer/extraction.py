"""Means, variances and covariances of a pair of flats, per amplifier.

A pixel is used if it is unmasked and finite in **both** flats. The flats are scaled to their
common mean before they are subtracted, so a pair need not match to better than a few percent, and
everything measured on the difference is halved once: **all results are those of one flat.** What
cannot be measured is NaN with a `PairStatus` code; data never raise.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box
from skyloom.algorithms.detrend import DetrendParameters
from skyloom.algorithms.photon_transfer.detector import (
    check_lags,
    checked_images,
    checked_inputs,
    measure_amplifiers,
    measure_detector,
)
from skyloom.algorithms.photon_transfer.known_noise import (
    chosen_read_noise,
    header_noise,
    per_amplifier,
)
from skyloom.algorithms.photon_transfer.measurement import (
    GivenSignal,
    dark_pair_sums,
    flat_pair_sums,
)
from skyloom.algorithms.photon_transfer.pair_dataset import (
    noise_warning,
    pair_dataset,
    pair_label,
    pair_scalars,
    pair_warnings,
    vignetting_warning,
)
from skyloom.algorithms.photon_transfer.pair_kernels import keep_finite, keep_unmasked
from skyloom.algorithms.photon_transfer.parameters import ExtractParameters
from skyloom.algorithms.photon_transfer.quantities import dark_columns, pair_columns
from skyloom.algorithms.photon_transfer.regions import inside_edges, keep_slices
from skyloom.algorithms.pixel_arrays import native

__all__ = ["extract_dark_pair", "extract_detector", "extract_pair"]


def extract_pair(
    flat_1: xr.Dataset,
    flat_2: xr.Dataset,
    *,
    parameters: ExtractParameters | None = None,
    read_noise: float | None = None,
) -> xr.Dataset:
    """Measure one region, such as an amplifier, of a pair of detrended flats.

    Parameters
    ----------
    flat_1, flat_2 : Dataset
        ``image`` (y, x), adu, overscan and offset subtracted; optionally ``mask`` (y, x), integer
        bit planes with their legend. Scalar coordinates ``exposure``, ``exposure_time`` (s),
        ``mjd_start``, ``photodiode_charge``, ``overscan_median``, ``overscan_noise`` and
        ``amp_offset`` (adu) are used where they exist.
    parameters : ExtractParameters, optional
        ``region`` and the vignetting selection do not apply; edges are those of the images.
    read_noise : float, adu, optional
        Standard deviation without light. Without it the overscan noise of the flats is used.

    Returns
    -------
    Dataset, float64
        ``mean`` and ``mean_delta`` (second minus first; adu), ``variance`` and its error
        ``variance_sigma`` (adu²), ``covariance``, ``covariance_sigma`` (adu²) and
        ``covariance_count`` over (lag_y, lag_x), ``pair_gain``, ``pair_gain_sigma``
        (electron/adu), ``read_noise`` (adu) and its source, ``row_mean_variance`` (adu²),
        ``skewness``, ``kurtosis`` (in excess of that of a
        clipped Gaussian), ``ks_p``, ``histogram_variance`` (adu²),
        ``histogram_chi2_dof``, ``nonuniformity``, ``overscan_median``, ``amp_offset`` (adu),
        ``count`` of pixels used, ``saturated_fraction``, ``pair_status`` (`PairStatus`), and the
        scalars of the pair: ``exposure_1``, ``exposure_2``, ``exposure_time`` (s), ``pair_key``,
        ``mjd_start`` (d), ``photo_charge``, ``photo_charge_delta``, ``aux_<key>``.

    Raises
    ------
    ValueError
        If the shapes differ, the lags exceed half the region or the units are not adu.
    KeyError
        If a mask lacks one of the planes.
    TypeError
        If a mask is not of integers.

    Warns
    -----
    UserWarning
        One for each cause: a code that is not OK, a variance that disagrees with C_00.

    Notes
    -----
    With means μ1, μ2 and μ = (μ1 + μ2)/2 the scaled difference is D = (μ2 I1 - μ1 I2)/μ. Its
    clipped variance and the covariances of Astier et al. (2019), appendix A, are halved and undone
    for the clip. ``nonuniformity`` is <(I1 - μ1)(I2 - μ2)>/(μ1 μ2), <μ²>/<μ>² - 1 free of noise.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(1)
    >>> flats = [
    ...     xr.Dataset({"image": (("y", "x"), rng.poisson(4000.0, (200, 200)) / 2.0)})
    ...     for _ in range(2)
    ... ]
    >>> pair = extract_pair(*flats, parameters=ExtractParameters(lags=3), read_noise=0.0)
    >>> bool(abs(pair["pair_gain"] - 2.0) < 3 * pair["pair_gain_sigma"]), int(pair["pair_status"])
    (True, 0)
    """
    parameters = parameters or ExtractParameters()
    images = [
        np.ascontiguousarray(image, dtype=np.float32) for image in checked_images(flat_1, flat_2)
    ]
    shape = images[0].shape[0], images[0].shape[1]
    check_lags([("the region", shape)], parameters)
    good = np.ones(shape, np.bool_)
    saturated = []
    for flat, image in zip((flat_1, flat_2), images, strict=True):
        keep_finite(image.reshape(-1), good.reshape(-1).view(np.uint8))
        saturated.append(_keep_unmasked(flat, good, parameters.planes))
    whole = Box(0, shape[0], 0, shape[1])
    keep_slices(good, inside_edges(whole, parameters.edge, whole))
    sums = flat_pair_sums(
        GivenSignal(images[0]), GivenSignal(images[1]), good, parameters=parameters
    )
    both = {
        name: np.array([_nanmean([_scalar(flat, name) for flat in (flat_1, flat_2)])])
        for name in ("overscan_noise", "overscan_median", "amp_offset")
    }
    given = np.array([np.nan if read_noise is None else read_noise])
    noise, source = chosen_read_noise(header=given, overscan=both.pop("overscan_noise"))
    columns = pair_columns([sums], noise, parameters)
    columns |= {"read_noise_source": source, "saturated_fraction": np.array([np.mean(saturated)])}
    columns |= both
    scalars = pair_scalars(flat_1, flat_2, auxiliary_keys=parameters.auxiliary_keys)
    label = pair_label(scalars, flat_1)
    pair_warnings(columns, ["the region"], [good.size], parameters, label, stacklevel=3)
    noise_warning(columns, ["the region"], parameters, label, stacklevel=3)
    return pair_dataset(columns, scalars, None)


def extract_detector(
    raw_1: xr.Dataset,
    raw_2: xr.Dataset,
    amplifiers: xr.Dataset,
    *,
    parameters: ExtractParameters | None = None,
    detrend: DetrendParameters | None = None,
    offsets: xr.Dataset | None = None,
    header_read_noise: xr.DataArray | ArrayLike | None = None,
    focal_plane: ArrayLike | None = None,
    pair_key: float | None = None,
) -> xr.Dataset:
    """Measure all amplifiers of one detector on a pair of raw flats.

    Amplifiers are cut out, detrended and measured one after the other, so that no more than three
    float32 images of one amplifier exist besides the inputs (of the whole detector for
    ``region="DETECTOR"``, whose results every amplifier then gets).

    Parameters
    ----------
    raw_1, raw_2 : Dataset
        ``image`` (y, x), any real dtype, adu: the raw array of the detector; scalar coordinates as
        in `extract_pair`, and optionally ``header_read_noise`` (amp; adu).
    amplifiers : Dataset over ``amp``
        Boxes, nominal ``gain`` (electron/adu), ``read_noise`` (electron), ``saturation`` (adu).
    parameters : ExtractParameters, optional
    detrend : DetrendParameters, optional
    offsets : Dataset over ``amp``, optional
        ``offset`` (adu), subtracted after the overscan, and ``read_noise`` (adu), such as
        `dark_offset` returns. NaN offsets subtract nothing.
    header_read_noise : array_like or DataArray, (amp,), adu, optional
        Replaces what the exposures carry.
    focal_plane : array_like, (2, 3), optional
        Focal-plane x and y in m from the trimmed pixel, for the vignetting selection.
    pair_key : float, optional
        What the pair was matched on; the exposure time without it.

    Returns
    -------
    Dataset over ``amp``, ``lag_y``, ``lag_x``
        As from `extract_pair`. ``read_noise`` is the best one known, ``read_noise_source`` says
        which: HEADER, DARK_PAIRS, OVERSCAN (mean of the two residuals) or CAMERA (nominal). The
        attribute ``failed`` is 1 if no amplifier could be measured.

    Raises
    ------
    ValueError
        If the shapes differ, boxes do not fit, the units are not adu, the lags exceed half an
        amplifier, or a vignetting polynomial comes without ``focal_plane``; before any compute.

    Warns
    -----
    UserWarning
        One for each cause, naming the amplifiers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(1)
    >>> box = {"y_start": 0, "y_stop": 200, "x_start": 0, "x_stop": 200}
    >>> columns = box | {f"data_{name}": value for name, value in box.items()}
    >>> table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    >>> table = table.assign_coords(amp=["A"])
    >>> raws = [
    ...     xr.Dataset({"image": (("y", "x"), rng.poisson(4000.0, (200, 200)).astype("uint16"))})
    ...     for _ in range(2)
    ... ]
    >>> pair = extract_detector(*raws, table, parameters=ExtractParameters(lags=3))
    >>> pair["covariance"].dims, bool(abs(pair["variance"][0] / 4000.0 - 1.0) < 0.03)
    (('amp', 'lag_y', 'lag_x'), True)
    """
    parameters = parameters or ExtractParameters()
    rows, images = checked_inputs(raw_1, raw_2, amplifiers)
    check_lags([(row.name, row.data.shape) for row in rows], parameters)
    if parameters.vignetting and focal_plane is None:
        raise ValueError("parameters.vignetting needs focal_plane, the transform of the detector")
    names = [row.name for row in rows]
    offset = np.nan_to_num(per_amplifier(None if offsets is None else offsets.get("offset"), names))
    measure = measure_detector if parameters.region == "DETECTOR" else measure_amplifiers
    measured = measure(
        images, rows, offset, parameters, detrend or DetrendParameters(), focal_plane
    )
    noise, source = chosen_read_noise(
        header=header_noise(header_read_noise, (raw_1, raw_2), names),
        dark=per_amplifier(None if offsets is None else offsets.get("read_noise"), names),
        overscan=np.array([m.overscan_noise for m in measured]),
        camera=np.array([row.read_noise / row.gain for row in rows]),
    )
    columns = pair_columns([m.sums for m in measured], noise, parameters)
    columns["read_noise_source"] = source
    columns["overscan_median"] = np.array([m.overscan_median for m in measured])
    columns["amp_offset"] = offset
    columns["saturated_fraction"] = np.array([m.saturated_fraction for m in measured])
    scalars = pair_scalars(
        raw_1, raw_2, pair_key=pair_key, auxiliary_keys=parameters.auxiliary_keys
    )
    label = pair_label(scalars, raw_1)
    pair_warnings(columns, names, [m.size for m in measured], parameters, label, stacklevel=3)
    noise_warning(columns, names, parameters, label, stacklevel=3)
    vignetting_warning([m.vignetting_percent for m in measured], names, parameters, label)
    found = pair_dataset(columns, scalars, names)
    return found.assign_attrs(failed=int(not np.isfinite(columns["variance"]).any()))


def extract_dark_pair(
    raw_1: xr.Dataset,
    raw_2: xr.Dataset,
    amplifiers: xr.Dataset,
    *,
    parameters: ExtractParameters | None = None,
    detrend: DetrendParameters | None = None,
    pair_key: float | None = None,
) -> xr.Dataset:
    """Measure the level and the noise of all amplifiers on a pair of exposures without light.

    Parameters
    ----------
    raw_1, raw_2 : Dataset
        ``image`` (y, x), any real dtype, adu, with scalar coordinates as in `extract_pair`.
    amplifiers : Dataset over ``amp``
        As in `extract_detector`.
    parameters : ExtractParameters, optional
        Clip and minimum of pixels apply.
    detrend : DetrendParameters, optional
    pair_key : float, optional
        What the pair was matched on; the exposure time without it.

    Returns
    -------
    Dataset over ``amp``
        ``mean`` (above the overscan if there is one) and ``mean_delta`` (adu), ``variance`` of one
        exposure, half that of the plain difference, and ``variance_sigma`` (adu²), ``count``,
        ``pair_status``, and the scalars of the pair. Means may be negative; ILLEGAL_MEAN is one
        that is not finite.

    Raises
    ------
    ValueError
        If the shapes differ, boxes do not fit or the units are not adu.

    Warns
    -----
    UserWarning
        One for each code that is not OK.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(1)
    >>> box = {"y_start": 0, "y_stop": 200, "x_start": 0, "x_stop": 200}
    >>> columns = box | {f"data_{name}": value for name, value in box.items()}
    >>> table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    >>> raws = [
    ...     xr.Dataset({"image": (("y", "x"), rng.normal(30.0, 3.0, (200, 200)).round())})
    ...     for _ in range(2)
    ... ]
    >>> dark = extract_dark_pair(*raws, table)
    >>> bool(abs(dark["variance"][0] - 9.1) < 0.3)
    True
    """
    parameters = parameters or ExtractParameters()
    rows, images = checked_inputs(raw_1, raw_2, amplifiers)
    measured = measure_amplifiers(
        images,
        rows,
        np.zeros(len(rows)),
        parameters,
        detrend or DetrendParameters(),
        None,
        sums=dark_pair_sums,
    )
    names = [row.name for row in rows]
    columns = dark_columns([m.sums for m in measured], parameters)
    scalars = pair_scalars(raw_1, raw_2, pair_key=pair_key)
    label = pair_label(scalars, raw_1)
    pair_warnings(columns, names, [m.size for m in measured], parameters, label, stacklevel=3)
    return pair_dataset(columns, scalars, names)


def _scalar(exposure: xr.Dataset, name: str) -> float:
    return float(exposure[name].values) if name in exposure.variables else float("nan")


def _nanmean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _keep_unmasked(flat: xr.Dataset, good: NDArray[np.bool_], planes: tuple[str, ...]) -> float:
    """Clear ``good`` where one of the planes is set; return the fraction that is saturated."""
    if v.MASK not in flat:
        return 0.0
    mask = flat[v.MASK].transpose(v.Y, v.X)
    bits = v.plane_bits(planes, mask.attrs)
    if mask.dtype.kind not in "iu":
        raise TypeError(f"mask must hold integer bit planes, got dtype {mask.dtype}")
    values = native(mask.values)
    # compared in the dtype of the mask, whose last bit may be a plane too
    ignored = np.array([bits]).astype(values.dtype)
    keep_unmasked(values.reshape(-1), ignored, good.reshape(-1).view(np.uint8))
    try:
        saturated = np.array(v.plane_bits(["SAT"], mask.attrs)).astype(values.dtype)
    except KeyError:
        return 0.0
    return float(np.count_nonzero(values & saturated) / values.size)
