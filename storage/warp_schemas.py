"""Products on the grid of the sky: warps of visits, coadds of patches.

Pixels without data are NaN with an infinite variance and the plane NO_DATA. A patch is named by
its tract and its index in it: ``9813-24``.
"""

from __future__ import annotations

from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.units import inverse_units, squared_units
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = ["COADD", "WARPS", "WARP_SCHEMAS", "coadd_schema", "warps_schema"]

_TILE: Final = 512
_NOTHING: Final = v.MASK_PLANES["NO_DATA"]


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
            fill=_NOTHING,
            description="mask planes",
            codec="image",
            flags=v.mask_attributes(),
        ),
    )


def warps_schema(unit: str) -> ProductSchema:
    """Return the schema of warps, one block per visit and patch.

    Parameters
    ----------
    unit : str
        Unit of the pixels.

    Examples
    --------
    >>> warps_schema("nJy").variable("variance").unit
    'nJy2'
    """
    block = (v.VISIT, v.PATCH)
    dims = (*block, v.Y, v.X)
    return ProductSchema(
        "warps",
        dims,
        block,
        (
            *_planes(dims, unit, "flux"),
            Variable(
                "masked_fraction",
                dims,
                "float32",
                description="fraction of a pixel that is masked in the exposure",
                codec="image",
            ),
            Variable(
                "status",
                block,
                "uint8",
                fill=int(v.WarpStatus.NOT_MEASURED),
                description="whether the exposure has data in the patch",
                flags=v.flag_attributes(v.WarpStatus),
            ),
            Variable("good_count", block, "int64", v.PIXEL, fill=0, description="pixels with data"),
        ),
        scalar_coords=True,
        description="exposures of the sky on the pixels of a patch",
        tile={v.Y: _TILE},
    )


def coadd_schema(unit: str) -> ProductSchema:
    """Return the schema of coadds, one block per filter and patch.

    Parameters
    ----------
    unit : str
        Unit of the pixels.

    Examples
    --------
    >>> coadd_schema("nJy").variable("n_image").dims
    ('physical_filter', 'patch', 'y', 'x')
    """
    block = (v.FILTER, v.PATCH)
    dims, visits = (*block, v.Y, v.X), (*block, v.VISIT)
    weight = inverse_units(squared_units(unit))
    return ProductSchema(
        "coadd",
        (*dims, v.VISIT),
        block,
        (
            *_planes(dims, unit, "flux"),
            Variable(
                "n_image",
                dims,
                "int16",
                fill=0,
                description="visits with a good value, before clipping",
                codec="image",
            ),
            Variable(
                "weight_sum", dims, "float32", weight, description="weight used", codec="image"
            ),
            Variable("input_weight", visits, unit=weight, description="weight of the visit"),
            Variable(
                "input_mean_variance",
                visits,
                unit=squared_units(unit),
                description="clipped mean of the variance of its warp",
            ),
            Variable(
                "input_good_count",
                visits,
                "int64",
                v.PIXEL,
                fill=0,
                description="good pixels of its warp",
            ),
            Variable(
                "input_status",
                visits,
                "uint8",
                fill=255,
                description="whether the visit contributes",
                flags=v.flag_attributes(v.InputStatus),
            ),
        ),
        growable=(v.VISIT,),
        scalar_coords=True,
        description="mean of the warps of each filter and patch",
        tile={v.Y: _TILE},
    )


WARPS: Final = warps_schema(v.NANOJANSKY)
COADD: Final = coadd_schema(v.NANOJANSKY)
WARP_SCHEMAS: Final = (WARPS, COADD)
"""Products on the grid of the sky, in the order they are made."""
