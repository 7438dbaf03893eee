"""Products of the sky: binned backgrounds, the sky across the focal plane, sky frames, their fits.

A background's box, in parent pixels, and the numbers of its bins are kept as scalars beside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = [
    "BOX",
    "FOCAL_BOX",
    "SKY_BINS",
    "SKY_FRAME",
    "SKY_SCHEMAS",
    "first_of",
    "focal_plane_sky_schema",
    "sky_fit_schema",
]

BOX: Final = ("y_start", "y_stop", "x_start", "x_stop")
BINS: Final = ("bins_y", "bins_x")
_BIN_FLAGS: Final = v.flag_attributes(v.BinFlag)


def _box(block: tuple[str, ...]) -> tuple[Variable, ...]:
    edges = tuple(
        Variable(name, block, "int32", v.PIXEL, -1, "edge of the box that the bins tile")
        for name in BOX
    )
    numbers = tuple(
        Variable(name, block, "int32", fill=0, description=f"number of bins along {name[-1]}")
        for name in BINS
    )
    return edges + numbers


def _background(block: tuple[str, ...], unit: str, squared: str) -> tuple[Variable, ...]:
    dims = (*block, v.BIN_Y, v.BIN_X)
    return (
        Variable("level", dims, "float32", unit, description="level of the background in a bin"),
        Variable("variance", dims, "float32", squared, description="variance of the level"),
        Variable(
            "flags",
            dims,
            "uint8",
            fill=int(v.BinFlag.EMPTY),
            description="what is to be known of the bin",
            flags=_BIN_FLAGS,
        ),
    )


def _counts(block: tuple[str, ...]) -> tuple[Variable, ...]:
    dims = (*block, v.BIN_Y, v.BIN_X)
    return tuple(
        Variable(name, dims, "int32", fill=0, description=text)
        for name, text in (
            ("count", "valid pixels of the bin"),
            ("count_used", "pixels of the bin after clipping"),
        )
    )


_FRAME: Final = (v.EXPOSURE, v.DETECTOR)
_FILTER: Final = (v.FILTER, v.DETECTOR)

SKY_BINS: Final = ProductSchema(
    "sky_bins",
    (*_FRAME, v.BIN_Y, v.BIN_X),
    _FRAME,
    _background(_FRAME, v.ELECTRON, v.ELECTRON2) + _counts(_FRAME) + _box(_FRAME),
    scalar_coords=True,
    description="background of each exposure and detector without its objects, in bins",
)
FOCAL_BOX: Final = ("focal_x_start", "focal_x_stop", "focal_y_start", "focal_y_stop")
_EXPOSURE: Final = (v.EXPOSURE,)
_TERMS: Final = (v.EXPOSURE, v.COEFFICIENT)
_CELL: Final = (v.FOCAL_Y, v.FOCAL_X)


def _polynomials(*, steps: bool) -> tuple[Variable, ...]:
    """Return what states the smooth functions of exposures."""
    found = (
        *(
            Variable(name, _EXPOSURE, unit=v.MILLIMETRE, description="box of the smooth functions")
            for name in FOCAL_BOX
        ),
        Variable(
            "coefficients", _TERMS, unit=v.ELECTRON, description="of the Chebyshev polynomials"
        ),
        *(
            Variable(f"degree_{axis}", _TERMS, "int16", fill=-1, description=f"degree along {axis}")
            for axis in "xy"
        ),
    )
    if not steps:
        return found
    return (
        *found,
        Variable(
            "step",
            (v.EXPOSURE, v.DETECTOR),
            unit=v.ELECTRON,
            description="offset of the detector",
        ),
    )


def _cells() -> tuple[Variable, ...]:
    """Return what states the level of the sky in cells of the focal plane."""
    dims = (*_EXPOSURE, *_CELL)
    return (
        Variable(
            "level",
            dims,
            unit=v.ELECTRON,
            description="level of the sky in a cell",
        ),
        Variable("variance", dims, unit=v.ELECTRON2, description="variance of the level"),
        Variable(
            "flags",
            dims,
            "uint8",
            fill=int(v.BinFlag.EMPTY),
            description="what is to be known of the cell",
            flags=_BIN_FLAGS,
        ),
    )


def focal_plane_sky_schema(*, cells: bool = False, steps: bool = False) -> ProductSchema:
    """Return the schema of smooth skies of exposures.

    Parameters
    ----------
    cells : bool
        Whether they are levels in cells of the focal plane instead of polynomials.
    steps : bool
        Whether polynomials have offsets of detectors beside them.

    Examples
    --------
    >>> focal_plane_sky_schema().variable("coefficients").dims
    ('exposure', 'coefficient')
    >>> focal_plane_sky_schema(cells=True).dims
    ('exposure', 'focal_y', 'focal_x')
    """
    inner = _CELL if cells else (v.COEFFICIENT,)
    if steps and not cells:
        inner = (*inner, v.DETECTOR)
    return ProductSchema(
        "focal_plane_sky",
        (*_EXPOSURE, *inner),
        _EXPOSURE,
        (
            *(_cells() if cells else _polynomials(steps=steps)),
            Variable("scale", _EXPOSURE, unit=v.ELECTRON, description="sky level of the exposure"),
            Variable(
                "scale_sigma", _EXPOSURE, unit=v.ELECTRON, description="error of the sky level"
            ),
        ),
        growable=(v.DETECTOR,) if v.DETECTOR in inner else (),
        description="smooth sky of each exposure across the focal plane",
    )


SKY_FRAME: Final = ProductSchema(
    "sky_frame",
    (*_FILTER, v.BIN_Y, v.BIN_X),
    _FILTER,
    (
        *_background(_FILTER, v.DIMENSIONLESS, v.DIMENSIONLESS),
        Variable(
            "exposure_count",
            (*_FILTER, v.BIN_Y, v.BIN_X),
            "int16",
            fill=0,
            description="exposures that the bin was measured in",
        ),
        *_box(_FILTER),
    ),
    scalar_coords=True,
    description="response of each detector to the sky of a filter, less its smooth part",
)


def first_of(schema: ProductSchema) -> ProductSchema:
    """Return the schema of what is made the same way of a first look for objects.

    Examples
    --------
    >>> first_of(SKY_FRAME).name
    'first_sky_frame'
    """
    description = f"{schema.description}; of objects found beside no sky frame"
    return replace(schema, name=f"first_{schema.name}", description=description)


_FIT: Final = (
    ("scale", v.ELECTRON, "scale of the sky frame"),
    ("scale_sigma", v.ELECTRON, "standard error of the scale"),
    ("scale_sigma_sandwich", v.ELECTRON, "standard error of the scale from residuals alone"),
    ("level", v.ELECTRON, "sky level of the exposure"),
    ("chi2", v.DIMENSIONLESS, "chi-squared of the fit"),
    ("rms", v.ELECTRON, "rms of the residuals used"),
    ("rms_before", v.ELECTRON, "rms of the bins about the smooth sky alone"),
    ("extra_scatter", v.ELECTRON, "scatter beyond the variances"),
    ("collinearity", v.DIMENSIONLESS, "share of the sky frame that smooth functions explain"),
    ("condition", v.DIMENSIONLESS, "condition number of the fit"),
)
_FIT_COUNTS: Final = (
    ("dof", "degrees of freedom"),
    ("used_count", "bins used"),
    ("rejected_count", "bins rejected"),
    ("dropped_count", "bins without level or variance"),
    ("iterations", "solutions until the scale stood still"),
)


def sky_fit_schema(*, steps: bool = False) -> ProductSchema:
    """Return the schema of fits of the sky to exposures.

    Parameters
    ----------
    steps : bool
        Whether offsets of detectors are fitted.

    Examples
    --------
    >>> sky_fit_schema().variable("coefficients").dims
    ('exposure', 'coefficient')
    """
    block = (v.EXPOSURE,)
    terms, second = (*block, v.COEFFICIENT), f"{v.COEFFICIENT}_2"
    detectors = (*block, v.DETECTOR)
    variables = (
        *(Variable(name, block, unit=unit, description=text) for name, unit, text in _FIT),
        *(Variable(n, block, "int64", fill=-1, description=text) for n, text in _FIT_COUNTS),
        *_polynomials(steps=steps),
        Variable(
            "status",
            block,
            "uint8",
            fill=255,
            description="whether the scale can be trusted",
            flags=v.flag_attributes(v.ScaleStatus),
        ),
        Variable(
            "coefficient_covariance",
            (*terms, second),
            unit=v.ELECTRON2,
            description="covariance of the coefficients",
        ),
        Variable(
            "residual_mean", detectors, unit=v.ELECTRON, description="mean residual of a detector"
        ),
        Variable("residual_pull", detectors, description="that in units of its error"),
    )
    return ProductSchema(
        "sky_fit",
        (*terms, second, v.DETECTOR),
        block,
        variables,
        growable=(v.DETECTOR,),
        description="sky frame and smooth sky fitted to each exposure",
    )


SKY_SCHEMAS: Final = (
    first_of(SKY_BINS),
    first_of(focal_plane_sky_schema()),
    first_of(SKY_FRAME),
    SKY_BINS,
    focal_plane_sky_schema(),
    SKY_FRAME,
    sky_fit_schema(),
)
"""Products of the sky, in the order they are made."""
