"""Products of flats beside their pixels: levels of exposures, and scales made of them."""

from __future__ import annotations

from typing import Final, Literal

from skyloom.algorithms import vocabulary as v
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = [
    "FLAT_LEVELS",
    "FLAT_SCHEMAS",
    "FLAT_STATISTICS",
    "LEVEL_COLUMNS",
    "TERM",
    "flat_scales_schema",
]

TERM: Final = "term"
LEVEL_COLUMNS: Final = ("mean", "sigma", "count_used")
"""What a solution of scales is made of."""

_NUMBERS: Final = (
    ("mean", "clipped mean of the pixels"),
    ("median", "median of all valid pixels"),
    ("sigma", "scatter of the pixels, with what the clip took away"),
    ("clipped_sigma", "scatter of the pixels that the clip left"),
    ("clip_limit", "half width of the last clip"),
)
_COUNTS: Final = (
    ("count", "valid pixels before the clip"),
    ("count_used", "pixels after the clip"),
)


def _statistics(block: tuple[str, ...], detector: tuple[str, ...]) -> tuple[Variable, ...]:
    """Return all statistics of detectors, then of their amplifiers."""
    found = []
    for prefix, dims in (("", detector), ("amp_", (*detector, v.AMP))):
        of = " of the amplifier" if prefix else ""
        found += [
            Variable(f"{prefix}{name}", (*block, *dims), unit=v.ELECTRON, description=text + of)
            for name, text in _NUMBERS
        ]
        found += [
            Variable(f"{prefix}{name}", (*block, *dims), "int64", fill=0, description=text + of)
            for name, text in _COUNTS
        ]
    return tuple(found)


def _levels() -> tuple[Variable, ...]:
    block = (v.EXPOSURE,)
    found = []
    for each in _statistics(block, (v.DETECTOR,)):
        if each.name.removeprefix("amp_") in LEVEL_COLUMNS:
            # A count of 0 was measured; -1 says that the detector was not.
            fill = -1 if each.dtype == "int64" else each.fill
            found.append(
                Variable(each.name, each.dims, each.dtype, each.unit, fill, each.description)
            )
    return tuple(found)


FLAT_STATISTICS: Final = ProductSchema(
    "flat_statistics",
    (v.EXPOSURE, v.DETECTOR, v.AMP),
    (v.EXPOSURE, v.DETECTOR),
    _statistics((v.EXPOSURE, v.DETECTOR), ()),
    scalar_coords=True,
    description="level of each flat, of the detector and of its amplifiers",
)
FLAT_LEVELS: Final = ProductSchema(
    "flat_levels",
    (v.EXPOSURE, v.DETECTOR, v.AMP),
    (v.EXPOSURE,),
    _levels(),
    growable=(v.DETECTOR,),
    description="levels of all detectors in each flat",
)

_SCALARS: Final = (
    ("chi2", "chi-squared of the solution"),
    ("systematic", "scatter of levels beyond their noise, relative, as used"),
    ("systematic_sigma", "error of that scatter, 0 if it was given"),
    ("link_strength", "how well exposures link the detectors, 0 to 1"),
)
_GRADIENT_SCALARS: Final = (
    ("gradient_radius", v.MILLIMETRE, "distance from the centre that gradients refer to"),
    ("gradient_centre_x", v.MILLIMETRE, "centre of the gradients in the focal plane"),
    ("gradient_centre_y", v.MILLIMETRE, "centre of the gradients in the focal plane"),
    ("gradient_f", v.DIMENSIONLESS, "F of gradients against uniform illumination"),
    ("gradient_p_value", v.DIMENSIONLESS, "probability of a larger F without gradients"),
)


def flat_scales_schema(
    level: Literal["DETECTOR", "AMP"] = "DETECTOR", *, gradients: bool = False
) -> ProductSchema:
    """Return the schema of scales of exposures and detectors.

    Parameters
    ----------
    level : {"DETECTOR", "AMP"}
        What has a scale.
    gradients : bool
        Whether gradients of illumination are fitted.

    Examples
    --------
    >>> flat_scales_schema("AMP").variable("residual").dims
    ('physical_filter', 'detector', 'amp', 'exposure')
    """
    block = (v.FILTER,)
    channel = (*block, v.DETECTOR) if level == "DETECTOR" else (*block, v.DETECTOR, v.AMP)
    exposure, cell = (*block, v.EXPOSURE), (*channel, v.EXPOSURE)
    status = v.flag_attributes(v.CellStatus)
    variables = [
        Variable("exposure_scale", exposure, unit=v.ELECTRON, description="scale of the exposure"),
        Variable(
            "exposure_scale_sigma", exposure, unit=v.ELECTRON, description="error of that scale"
        ),
        Variable("detector_scale", channel, description="response relative to the others"),
        Variable("detector_scale_sigma", channel, description="error of that response"),
        Variable("model", cell, unit=v.ELECTRON, description="level by the solution"),
        Variable("residual", cell, description="level over model, less 1"),
        Variable("pull", cell, description="residual over its expected scatter"),
    ]
    for name, dims in (
        ("cell_status", cell),
        ("exposure_status", exposure),
        ("detector_status", channel),
    ):
        text = "whether it enters the solution, and why not"
        code = int(v.CellStatus.NOT_MEASURED)
        variables.append(Variable(name, dims, "uint8", fill=code, description=text, flags=status))
    for side, dims in (("exposure", exposure), ("detector", channel)):
        variables += [
            Variable(f"{side}_cell_count", dims, "int64", fill=0, description="levels used"),
            Variable(
                f"{side}_component", dims, "int64", fill=-1, description="connected set, -1: none"
            ),
        ]
    variables += [Variable(name, block, description=text) for name, text in _SCALARS]
    variables.append(Variable("dof", block, "int64", fill=-1, description="degrees of freedom"))
    dims = (*channel, v.EXPOSURE)
    if gradients:
        dims += (TERM,)
        variables += [
            Variable(
                "gradient", (*exposure, TERM), description="change of light over gradient_radius"
            ),
            Variable("gradient_sigma", (*exposure, TERM), description="error of that change"),
        ]
        variables += [
            Variable(name, block, unit=unit, description=text)
            for name, unit, text in _GRADIENT_SCALARS
        ]
    return ProductSchema(
        "flat_scales",
        dims,
        block,
        tuple(variables),
        growable=(v.DETECTOR, v.EXPOSURE),
        description="scale of each exposure and response of each detector, from levels of flats",
    )


FLAT_SCHEMAS: Final = (FLAT_STATISTICS, FLAT_LEVELS, flat_scales_schema())
"""Products of flats beside their pixels, in the order they are made."""
