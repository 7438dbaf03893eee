"""Products that hold pixels of trimmed detectors: frames of exposures, and frames combined of them.

Pixels without data are NaN, with the plane NO_DATA; rows lie in tiles, so that stacks read them
strip by strip.
"""

from __future__ import annotations

from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.units import squared_units
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = [
    "BIAS",
    "BIAS_FRAMES",
    "DARK",
    "DARK_FRAMES",
    "DETRENDED",
    "FLAT",
    "FLAT_FRAMES",
    "FRAME_SCHEMAS",
    "calibration_schema",
    "frame_schema",
]

TILE: Final = 512
"""Rows of a tile."""
_AMPLIFIER_FIGURES: Final = (
    ("overscan_level", v.ADU, "median level of the overscan"),
    ("overscan_noise", v.ADU, "standard deviation of the overscan about the row levels"),
    ("saturation", v.ADU, "level from which pixels count as saturated"),
    ("gain", v.ELECTRON_PER_ADU, "gain that was used"),
    ("read_noise", v.ELECTRON, "read noise that was used"),
)


def _planes(dims: tuple[str, ...], unit: str, what: str) -> tuple[Variable, ...]:
    return (
        Variable("image", dims, "float32", unit, description=what, codec="image"),
        Variable(
            "variance",
            dims,
            "float32",
            squared_units(unit),
            description=f"variance of the {what}",
            codec="image",
        ),
        Variable(
            v.MASK,
            dims,
            "int32",
            fill=v.MASK_PLANES["NO_DATA"],
            description="mask planes",
            codec="image",
            flags=v.mask_attributes(),
        ),
    )


def frame_schema(name: str, unit: str, description: str) -> ProductSchema:
    """Return the schema of frames, one block per exposure and detector.

    Parameters
    ----------
    name : str
        Name of the product.
    unit : str
        Unit of the pixels.
    description : str
        One line for the documentation.

    Examples
    --------
    >>> frame_schema("detrended", "electron", "frames").variable("variance").unit
    'electron2'
    """
    block = (v.EXPOSURE, v.DETECTOR)
    figures = tuple(
        Variable(figure, (*block, v.AMP), unit=figure_unit, description=text, optional=True)
        for figure, figure_unit, text in _AMPLIFIER_FIGURES
    )
    return ProductSchema(
        name,
        (*block, v.Y, v.X, v.AMP),
        block,
        _planes((*block, v.Y, v.X), unit, "signal") + figures,
        scalar_coords=True,
        description=description,
        tile={v.Y: TILE},
    )


def calibration_schema(
    name: str, unit: str, description: str, *, block: tuple[str, ...] = (v.DETECTOR,)
) -> ProductSchema:
    """Return the schema of a combined frame, one block per detector.

    Parameters
    ----------
    name : str
        Name of the product.
    unit : str
        Unit of the pixels.
    description : str
        One line for the documentation.
    block : tuple of str
        Block dimensions; the filter comes first for flats.

    Examples
    --------
    >>> calibration_schema("dark", "adu/s", "darks").variable("variance").unit
    'adu2/s2'
    """
    dims = (*block, v.Y, v.X)
    counts = tuple(
        Variable(count, dims, "int16", fill=0, description=text, codec="image")
        for count, text in (
            ("count", "frames that were used"),
            ("rejected_count", "frames that were clipped"),
        )
    )
    return ProductSchema(
        name,
        dims,
        block,
        _planes(dims, unit, "level") + counts,
        scalar_coords=True,
        description=description,
        tile={v.Y: TILE},
    )


BIAS_FRAMES: Final = frame_schema("bias_frames", v.ADU, "biases less their overscan, trimmed")
DARK_FRAMES: Final = frame_schema("dark_frames", v.ADU, "darks less overscan and bias, trimmed")
DETRENDED: Final = frame_schema("detrended", v.ELECTRON, "exposures fit for science")
BIAS: Final = calibration_schema("bias", v.ADU, "combined bias of each detector")
DARK: Final = calibration_schema(
    "dark", v.ADU_PER_SECOND, "combined dark of each detector, per second of dark time"
)
FLAT_FRAMES: Final = frame_schema("flat_frames", v.ELECTRON, "flats less bias and dark, trimmed")
FLAT: Final = calibration_schema(
    "flat",
    v.DIMENSIONLESS,
    "combined flat of each filter and detector",
    block=(v.FILTER, v.DETECTOR),
)
FRAME_SCHEMAS: Final = (
    BIAS_FRAMES,
    BIAS,
    DARK_FRAMES,
    DARK,
    FLAT_FRAMES,
    FLAT,
    DETRENDED,
)
"""Products of pixels, in the order they are made."""
