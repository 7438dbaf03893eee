"""What the detectors of a simulated mosaic really are.

A truth is a dataset per detector, in trimmed orientation:

``gain`` (electron/adu), ``noise`` (electron), ``full_well`` (electron), ``bias_level`` (adu) and
``nonlinearity`` (1/electron) over ``amp``; ``crosstalk`` (amp, source_amp);
``bias_image`` (y, x), adu above the overscan; ``dark_image`` (y, x), electron/s;
``flat`` (physical_filter, y, x), the charge that uniform light of one electron gives: response of
detector, amplifier and pixel, vignetting, defects; ``defects`` (y, x), flags of `Defect`;
the sky pattern's waves (physical_filter, wave), see `sky_pattern`; ``transform`` to the focal plane
(mm) and ``plate_scale`` (arcsec/mm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Amplifier, amplifier_rows, trimmed_shape
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate.night_parameters import CameraParameters
from skyloom.algorithms.simulate.parameters import TruthParameters
from skyloom.algorithms.simulate.patterns import Waves, column_piece, draw_waves, glow
from skyloom.algorithms.simulate.truth import flat_truth, generator

__all__ = ["Defect", "night_truth", "sky_pattern"]

Floats = NDArray[np.float64]

WAVE: Final = "wave"
SOURCE_AMP: Final = "source_amp"
WAVES: Final[Mapping[str, str]] = {
    "wave_amplitude": v.DIMENSIONLESS,
    "wave_frequency_y": "1/pixel",
    "wave_frequency_x": "1/pixel",
    "wave_phase": "rad",
}
STRUCTURE_WAVES: Final = 5
STARTUP: Final = 0.02
"""Part of an amplifier's columns over which its bias settles."""


class Defect(IntFlag):
    """What is wrong with a pixel."""

    DEAD = 1
    HOT = 2
    WARM_COLUMN = 4
    TRAP = 8


def night_truth(
    amplifiers: Mapping[str, xr.Dataset],
    transforms: Mapping[str, ArrayLike],
    filters: Sequence[str] = ("r",),
    *,
    seed: int = 0,
    parameters: CameraParameters | None = None,
    amplifier_parameters: TruthParameters | None = None,
) -> dict[str, xr.Dataset]:
    """Draw the truth of the detectors of a camera.

    Parameters
    ----------
    amplifiers : mapping of str to Dataset, (amp)
        Amplifier table of each detector by its name.
    transforms : mapping of str to array_like, (2, 3), mm
        From trimmed pixels of each detector to the focal plane, see
        `skyloom.algorithms.focal_plane`.
    filters : sequence of str
        Physical filters.
    seed : int
        Seed of the whole simulation. A detector's truth depends on it and the detector's name
        only, not on other detectors; that of a filter on no other filter.
    parameters : CameraParameters, optional
        Patterns, response and defects.
    amplifier_parameters : TruthParameters, optional
        How gains, noises and bias levels scatter.

    Returns
    -------
    dict of str to Dataset
        A truth of each detector, see the module.

    Raises
    ------
    KeyError
        If a detector has no transform.
    ValueError
        If there is no detector, filters repeat, or as `flat_truth`.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> transform = detector_transform((64, 64), pixel_size=0.015)
    >>> truth = night_truth({"A": amplifier_grid("A", (1, 2), (64, 32))}, {"A": transform})
    >>> truth["A"].flat.dims, truth["A"].dark_image.attrs["units"]
    (('physical_filter', 'y', 'x'), 'electron/s')
    """
    parameters = parameters or CameraParameters()
    if not amplifiers:
        raise ValueError("amplifiers holds no detector")
    if isinstance(filters, str) or len(set(filters)) < len(filters):
        raise ValueError(f"filters must be different names, got {filters!r}")
    missing = [name for name in amplifiers if name not in transforms]
    if missing:
        raise KeyError(f"no transform for the detectors {', '.join(missing)}")
    return {
        name: _detector_truth(
            table.assign_attrs({v.DETECTOR: name}),
            np.asarray(transforms[name], dtype=np.float64),
            filters,
            seed,
            parameters,
            amplifier_parameters,
        )
        for name, table in amplifiers.items()
    }


def _detector_truth(
    amplifiers: xr.Dataset,
    transform: Floats,
    filters: Sequence[str],
    seed: int,
    parameters: CameraParameters,
    amplifier_parameters: TruthParameters | None,
) -> xr.Dataset:
    detector = str(amplifiers.attrs[v.DETECTOR])
    rows = amplifier_rows(amplifiers)
    shape = trimmed_shape(rows)
    table = flat_truth(amplifiers, seed=seed, parameters=amplifier_parameters)
    table = table.drop_dims([v.LAG_Y, v.LAG_X]).drop_vars("pattern_seed")

    def rng(*keys: str) -> np.random.Generator:
        return generator(seed, "night", detector, *keys)

    defects = np.zeros(shape, dtype=np.uint8)
    dark = _dark_image(rng("dark"), shape, defects, parameters)
    response = _pixel_response(rng("pixels"), rows, shape, transform, defects, parameters)
    own = parameters.detector_response * rng("response").standard_normal()
    flats, waves = [], []
    for name in filters:
        light = rng("filter", name)
        colour = parameters.colour_response * light.standard_normal()
        smooth = draw_waves(
            light, shape, number=STRUCTURE_WAVES, cycles=(0.3, 4.0), rms=parameters.flat_structure
        )
        flats.append(response * (1 + own + colour) * (1 + smooth.grid(shape)))
        waves.append(_sky_waves(light, shape, parameters, parameters.fringes.get(name, 0.0)))
    number = len(rows)
    talk = parameters.crosstalk * rng("crosstalk").standard_normal((number, number))
    np.fill_diagonal(talk, 0.0)
    of_filters = np.array(waves, dtype=np.float64).reshape(len(filters), len(WAVES), -1)
    images: dict[str, Any] = {
        "bias_image": ((v.Y, v.X), _bias_image(rng("bias"), rows, shape, parameters), v.ADU),
        "dark_image": ((v.Y, v.X), dark, v.ELECTRON_PER_SECOND),
        "flat": (
            (v.FILTER, v.Y, v.X),
            np.array(flats).reshape(len(filters), *shape),
            v.DIMENSIONLESS,
        ),
    }
    return table.assign(
        {
            **{
                name: (dims, values.astype(np.float32), {"units": unit})
                for name, (dims, values, unit) in images.items()
            },
            "defects": ((v.Y, v.X), defects, v.flag_attributes(Defect)),
            "nonlinearity": parameters.nonlinearity
            / table["full_well"].assign_attrs(units=v.PER_ELECTRON),
            "crosstalk": ((v.AMP, SOURCE_AMP), talk, {"units": v.DIMENSIONLESS}),
            **{
                name: ((v.FILTER, WAVE), of_filters[:, index], {"units": unit})
                for index, (name, unit) in enumerate(WAVES.items())
            },
            "transform": (("focal_axis", "pixel_axis"), transform, {"units": v.MILLIMETRE}),
            "plate_scale": ((), parameters.plate_scale, {"units": "arcsec/mm"}),
        }
    ).assign_coords({v.FILTER: np.array(filters, dtype=str), SOURCE_AMP: table[v.AMP].to_numpy()})


def _bias_image(
    rng: np.random.Generator,
    rows: Sequence[Amplifier],
    shape: tuple[int, int],
    parameters: CameraParameters,
) -> Floats:
    """Return what amplifiers add to the bias level, adu: drawn in the order of read-out."""
    image = np.zeros(shape)
    for row in rows:
        height, width = row.data.shape
        slope_y, slope_x, start = rng.standard_normal(3)
        y, x = np.arange(height)[:, None] / height, np.arange(width) / width
        section = parameters.bias_gradient * (
            slope_y * (y - 0.5) + slope_x * (x - 0.5) + start * np.exp(-x / STARTUP)
        )
        section = section + parameters.bias_columns * rng.standard_normal(width)
        section += parameters.bias_pixels * rng.standard_normal((height, width))
        image[row.trimmed.slices] = section[row.turn]
    return image


def _dark_image(
    rng: np.random.Generator,
    shape: tuple[int, int],
    defects: NDArray[np.uint8],
    parameters: CameraParameters,
) -> Floats:
    """Return the dark current, electron/s, and note its defects."""
    dark = parameters.dark_current * np.exp(parameters.dark_spread * rng.standard_normal(shape))
    dark += glow(shape, parameters.glow, parameters.glow_scale)
    hot = rng.random(shape) < parameters.hot_pixel_fraction
    number = np.count_nonzero(hot)
    dark[hot] += parameters.hot_pixel_current * np.exp(0.7 * rng.standard_normal(number))
    defects[hot] |= np.uint8(Defect.HOT)
    for _ in range(parameters.warm_columns):
        piece = column_piece(rng, shape, 0.3)
        dark[piece] += parameters.warm_column_current
        defects[piece] |= np.uint8(Defect.WARM_COLUMN)
    return dark


def _pixel_response(
    rng: np.random.Generator,
    rows: Sequence[Amplifier],
    shape: tuple[int, int],
    transform: Floats,
    defects: NDArray[np.uint8],
    parameters: CameraParameters,
) -> Floats:
    """Return the response that all filters share, and note its defects."""
    x, y = to_focal_plane(transform, np.arange(shape[1]), np.arange(shape[0])[:, None])
    distance = (x**2 + y**2) / parameters.field_radius**2
    response = 1 - parameters.vignetting * distance
    for row in rows:
        response[row.trimmed.slices] *= 1 + parameters.amplifier_response * rng.standard_normal()
    response *= 1 + parameters.pixel_response * rng.standard_normal(shape)
    for _ in range(parameters.traps):
        piece = column_piece(rng, shape, 0.1)
        response[piece] *= parameters.trap_response
        defects[piece] |= np.uint8(Defect.TRAP)
    for _ in range(parameters.dead_columns):
        piece = column_piece(rng, shape, 0.3)
        response[piece] = 0.0
        defects[piece] |= np.uint8(Defect.DEAD)
    return np.maximum(response, 0.0)


def _sky_waves(
    rng: np.random.Generator, shape: tuple[int, int], parameters: CameraParameters, fringes: float
) -> Waves:
    cycles = parameters.lowest_wave, parameters.highest_wave
    smooth = draw_waves(
        rng, shape, number=parameters.sky_waves, cycles=cycles, rms=parameters.sky_pattern
    )
    near = parameters.fringe_cycles * np.array([0.8, 1.2])
    fine = draw_waves(rng, shape, number=3, cycles=(near[0], near[1]), rms=fringes)
    return Waves(*(np.concatenate(pair) for pair in zip(smooth, fine, strict=True)))


def sky_pattern(
    truth: xr.Dataset, y: ArrayLike, x: ArrayLike, physical_filter: str | None = None
) -> Floats:
    """Return the sky frame's truth at positions on a detector.

    The sky of an exposure, after division by the flat, is its level times (1 + gradients over the
    focal plane + this pattern).

    Parameters
    ----------
    truth : Dataset
        Truth of a detector by `night_truth`.
    y, x : array_like, pixel
        Positions in trimmed pixels that broadcast against each other.
    physical_filter : str, optional
        The filter; may be left out if the truth has one.

    Returns
    -------
    ndarray, float64

    Raises
    ------
    KeyError
        If the truth does not know the filter, or several and none is given.

    Examples
    --------
    >>> from skyloom.algorithms.focal_plane import detector_transform
    >>> from skyloom.algorithms.simulate import amplifier_grid
    >>> transform = detector_transform((64, 64), pixel_size=0.015)
    >>> truth = night_truth({"A": amplifier_grid("A", (1, 2), (64, 32))}, {"A": transform})
    >>> pattern = sky_pattern(truth["A"], np.arange(64)[:, None], np.arange(64))
    >>> pattern.shape, round(float(np.sqrt(np.mean(pattern**2))), 6)
    ((64, 64), 0.01)
    """
    known = [str(name) for name in truth[v.FILTER].to_numpy()]
    if physical_filter is None and len(known) == 1:
        physical_filter = known[0]
    if physical_filter not in known:
        raise KeyError(f"no filter {physical_filter!r} in the truth; it has {', '.join(known)}")
    index = known.index(str(physical_filter))
    waves = Waves(*(truth[name].transpose(v.FILTER, WAVE).to_numpy()[index] for name in WAVES))
    return waves.at(y, x)
