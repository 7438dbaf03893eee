"""Every name that datasets are made of: dimensions, mask planes, units, status codes.

Nothing else in skyloom spells these as strings of its own. Arrays are ``(..., y, x)``, pixel
centres are integers, boxes are half-open ``[start, stop)``. Masks are int32 bit planes that
carry their own legend in the CF attributes ``flag_masks`` and ``flag_meanings``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np

# Dimensions -----------------------------------------------------------------------------------
EXPOSURE: Final = "exposure"
DETECTOR: Final = "detector"
AMP: Final = "amp"
Y: Final = "y"
X: Final = "x"
PAIR: Final = "pair"
LAG_Y: Final = "lag_y"
LAG_X: Final = "lag_x"
KERNEL_Y: Final = "kernel_y"
KERNEL_X: Final = "kernel_x"
PARAMETER: Final = "parameter"
COEFFICIENT: Final = "coefficient"
BIN_Y: Final = "bin_y"
BIN_X: Final = "bin_x"
FOCAL_Y: Final = "focal_y"
FOCAL_X: Final = "focal_x"
SAMPLE: Final = "sample"
LAYER: Final = "layer"
OBJECT: Final = "object"
SOURCE_AMP: Final = "source_amp"
KNOT: Final = "knot"
DEFECT: Final = "defect"
LEVEL_CELL: Final = "level_cell"
INPUT: Final = "input"
PERCENT: Final = "percent"
FILTER: Final = "physical_filter"
VISIT: Final = "visit"
TRACT: Final = "tract"
PATCH: Final = "patch"
TRACT_Y: Final = "tract_y"
TRACT_X: Final = "tract_x"
POINT: Final = "point"
PSF_Y: Final = "psf_y"
PSF_X: Final = "psf_x"
REALIZATION: Final = "realization"
WCS: Final = "wcs"
"""Coordinate of a frame that keeps the FITS keys of its projection, as JSON text."""
COMPONENT: Final = "component"
SUBFILTER: Final = "subfilter"
HALF: Final = "half"
BAND_EDGE: Final = "band_edge"
NOISE_LEVEL: Final = "noise_level"
COVERAGE_GROUP: Final = "coverage_group"

# Units, as astropy reads them -----------------------------------------------------------------
ADU: Final = "adu"
ADU2: Final = "adu2"
ELECTRON: Final = "electron"
ELECTRON2: Final = "electron2"
PER_ELECTRON: Final = "1/electron"
PER_ELECTRON2: Final = "1/electron2"
ELECTRON_PER_ADU: Final = "electron/adu"
ADU_PER_SECOND: Final = "adu/s"
ELECTRON_PER_SECOND: Final = "electron/s"
SECOND: Final = "s"
DAY: Final = "d"
MILLIMETRE: Final = "mm"
PER_MILLIMETRE: Final = "1/mm"
PER_MILLIMETRE2: Final = "1/mm2"
DEGREE: Final = "deg"
ARCSECOND: Final = "arcsec"
PIXEL: Final = "pixel"
PIXEL2: Final = "pixel2"
MAGNITUDE: Final = "mag"
CELSIUS: Final = "deg_C"
KELVIN: Final = "K"
PASCAL: Final = "Pa"
PERCENTAGE: Final = "%"
METRE: Final = "m"
NANOMETRE: Final = "nm"
NANOJANSKY: Final = "nJy"
NANOJANSKY2: Final = "nJy2"
DIMENSIONLESS: Final = ""

# Mask planes ----------------------------------------------------------------------------------
MASK: Final = "mask"
MASK_PLANES: Final[Mapping[str, int]] = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "BAD",
            "SAT",
            "INTERPOLATED",
            "COSMIC_RAY",
            "EDGE",
            "DETECTED",
            "DETECTED_NEGATIVE",
            "SUSPECT",
            "NO_DATA",
            "CLIPPED",
            "VIGNETTED",
            "PARTLY_VIGNETTED",
            "CROSSTALK",
            "ONE_INPUT",
            "SENSOR_EDGE",
            "REJECTED",
            "INEXACT_PSF",
            "BRIGHT_OBJECT",
        )
    )
}
"""Bit value of each plane in masks that skyloom makes; read others by their own legend."""

IGNORED_PLANES: Final = ("BAD", "SAT", "SUSPECT", "NO_DATA")
"""Mask planes whose pixels no statistic uses unless told otherwise."""


def mask_attributes() -> dict[str, Any]:
    """Return the CF attributes that every mask array carries.

    Examples
    --------
    >>> mask_attributes()["flag_meanings"].split()[:2]
    ['BAD', 'SAT']
    """
    return {
        "flag_masks": [int(bit) for bit in MASK_PLANES.values()],
        "flag_meanings": " ".join(MASK_PLANES),
    }


def plane_bits(planes: Iterable[str], attributes: Mapping[str, Any] | None = None) -> int:
    """Return the bits of named mask planes, by the legend a mask carries.

    Parameters
    ----------
    planes : iterable of str
        Names of the planes.
    attributes : mapping, optional
        Attributes of the mask array. Without ``flag_meanings`` skyloom's own legend holds.

    Raises
    ------
    KeyError
        If a plane is not in the legend; the message lists those that are.

    Examples
    --------
    >>> plane_bits(["BAD", "SAT"])
    3
    >>> plane_bits(["HOT"], {"flag_masks": [4], "flag_meanings": "HOT"})
    4
    """
    legend: Mapping[str, int] = MASK_PLANES
    if attributes and "flag_meanings" in attributes:
        values = np.atleast_1d(attributes["flag_masks"])
        names = str(attributes["flag_meanings"]).split()
        legend = {name: int(value) for name, value in zip(names, values, strict=True)}
    bits = 0
    for plane in planes:
        if plane not in legend:
            raise KeyError(f"unknown mask plane {plane!r}; the mask knows {', '.join(legend)}")
        bits |= legend[plane]
    return bits


# Status codes ---------------------------------------------------------------------------------
class PairStatus(IntEnum):
    """Why a (pair, amplifier) is used or not; 1 to 3 concern exposures."""

    OK = 0
    UNPAIRED = 1
    NONFINITE_KEY = 2
    EXTRA = 3
    ILLEGAL_MEAN = 4
    TOO_FEW_PIXELS = 5
    EMPTY_LAG = 6
    NONFINITE_STAT = 7
    NON_GAUSSIAN = 8
    MEAN_MISMATCH = 9
    MEAN_OUT_OF_RANGE = 10
    OUTLIER = 11
    ABOVE_TURNOFF = 12
    AMP_BAD = 13
    NOT_MEASURED = 255


class AmplifierFlag(IntFlag):
    """What the solve found wrong with an amplifier; 0 means nothing."""

    GOOD = 0
    NO_DATA = 1
    TOO_FEW_PAIRS = 2
    NOT_CONVERGED = 4
    NEGATIVE_NOISE = 8
    ROLLOFF_FAILED = 16
    NOISE_MISMATCH = 32
    BAD = 64


class BinFlag(IntFlag):
    """What is to be known of a bin of a background or sky frame; 0 means measured and good."""

    GOOD = 0
    EMPTY = 1
    LOW_COUNT = 2
    FILLED = 4
    EXTRAPOLATED = 8
    SMOOTHED = 16
    CLIPPED = 32
    BAD_VARIANCE = 64


class CellStatus(IntEnum):
    """Why the level of a (detector or amplifier, exposure) enters a solution of scales or not."""

    OK = 0
    MISSING = 1
    NONFINITE = 2
    NONPOSITIVE = 3
    OUTLIER = 4
    NOT_MEASURED = 255


class ScaleStatus(IntEnum):
    """What is to be known of the scale of a sky frame in an exposure."""

    OK = 0
    NO_DATA = 1
    FEW_SAMPLES = 2
    DEGENERATE = 3
    FROM_PRIOR = 4
    NOT_CONVERGED = 5
    NOT_MEASURED = 255


class SkyLevelStatus(IntEnum):
    """Why the sky level of an exposure is good for a sky frame or not."""

    OK = 0
    NONFINITE = 1
    NONPOSITIVE = 2
    INSIGNIFICANT = 3
    NOT_MEASURED = 255


class InputStatus(IntEnum):
    """Why a warp contributes to a coadd or not."""

    OK = 0
    NO_DATA = 1
    BAD_VARIANCE = 2
    NO_WEIGHT = 3
    NO_MATCHED_WARP = 4
    NO_OFFSET = 5


class MatchStatus(IntEnum):
    """What is to be known of an image that was to be brought to another point-spread function."""

    OK = 0
    NO_PSF = 1
    TARGET_TOO_NARROW = 2
    POOR_KERNEL = 3
    NOT_MEASURED = 255


class PsfStatus(IntEnum):
    """Where a point-spread function comes from, or why there is none."""

    OK = 0
    TOO_FEW_STARS = 1
    ASSUMED = 2
    NEIGHBOURS = 3
    POOR_FIT = 4
    NOT_MEASURED = 255


class RejectedInput(IntFlag):
    """Why a detector is not among the inputs of a patch; 0 means that it is."""

    NONE = 0
    EXCLUDED = 1
    BAD_WCS = 2
    NO_OVERLAP = 4
    NO_CALIBRATION = 8
    NO_PSF = 16
    NO_APERTURE_CORRECTION = 32
    SEEING = 64
    ELLIPTICITY_RESIDUAL = 128
    SIZE_SCATTER = 256
    TRACE_RADIUS_RANGE = 512
    APERTURE_FLUX_RANGE = 1024
    APERTURE_CORRECTION_RANGE = 2048
    FEW_STARS = 4096
    STAR_ELLIPTICITY = 8192
    UNNORMALIZED_ELLIPTICITY = 16384


class OffsetStatus(IntEnum):
    """What is to be known of the background of a visit that was matched to others."""

    OK = 0
    SINGLE = 1
    ISOLATED = 2
    REDUCED = 3
    NO_DATA = 4
    BAD_VARIANCE = 5
    NO_REFERENCE_OVERLAP = 6
    NOT_MEASURED = 255


class WarpStatus(IntEnum):
    """Whether an exposure gave a warp, and why not."""

    OK = 0
    NO_OVERLAP = 1
    NO_GOOD_PIXEL = 2
    NOT_MEASURED = 255


class ConditionFlag(IntFlag):
    """What is to be known of the observing conditions of an exposure; 0 means as recorded."""

    GOOD = 0
    NOT_COMPUTED = 1
    TEMPERATURE_DEFAULTED = 2
    PRESSURE_DEFAULTED = 4
    HUMIDITY_DEFAULTED = 8
    PRESSURE_UNIT_CORRECTED = 16
    LONGITUDE_SIGN_CORRECTED = 32
    SITE_DIFFERS = 64
    ALTITUDE_INCONSISTENT = 128
    HOUR_ANGLE_INCONSISTENT = 256


class VarianceScaling(IntEnum):
    """Where the factor on the variance of an image comes from."""

    PIXELS = 0
    IMAGE = 1
    KEPT = 2
    TOO_FEW_PIXELS = 3


class DcrStatus(IntEnum):
    """How a solution for the sub-bands of a patch ended."""

    CONVERGED = 0
    NOT_CONVERGED = 1
    NO_LEVERAGE = 2
    NO_SOURCES = 3
    NO_VALID_PIXELS = 4
    DIVERGED = 5
    BAD_FIT = 6
    NOT_MEASURED = 255


def flag_attributes(codes: type[IntEnum] | type[IntFlag]) -> dict[str, Any]:
    """Return the CF attributes of a variable that holds these codes.

    Examples
    --------
    >>> flag_attributes(AmplifierFlag)["flag_meanings"].split()[0]
    'NO_DATA'
    """
    members = [code for code in codes if issubclass(codes, IntEnum) or code.value]
    key = "flag_values" if issubclass(codes, IntEnum) else "flag_masks"
    return {
        key: [int(code.value) for code in members],
        "flag_meanings": " ".join(str(code.name) for code in members),
    }


# Observation types ----------------------------------------------------------------------------
BIAS: Final = "bias"
DARK: Final = "dark"
FLAT: Final = "flat"
SCIENCE: Final = "science"
OTHER: Final = "other"
OBSERVATION_TYPES: Final = (BIAS, DARK, FLAT, SCIENCE, OTHER)


class ReadNoiseSource(IntEnum):
    """Where the read noise of a pair comes from, the best first."""

    NONE = 0
    HEADER = 1
    DARK_PAIRS = 2
    OVERSCAN = 3
    CAMERA = 4
