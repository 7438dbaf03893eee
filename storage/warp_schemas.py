"""Products on the grid of the sky: warps of visits, coadds of patches.

Pixels without data are NaN with an infinite variance and the plane NO_DATA. A patch is named by
its tract and its index in it: ``9813-24``.
"""

from __future__ import annotations

from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.units import inverse_units, squared_units
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = [
    "COADD",
    "CORNER",
    "MATCHED_WARPS",
    "PSF",
    "WARPS",
    "WARP_PART",
    "WARP_PSF",
    "WARP_SCHEMAS",
    "coadd_schema",
    "matched_warps_schema",
    "psf_schema",
    "warp_psf_schema",
    "warps_schema",
]

CORNER: Final = "corner"
"""Dimension of the corners of detectors, once around."""
_TILE: Final = 512
WARP_PART: Final = 32
"""Rows that a coadd can read at a time: of hundreds of warps, no more fits into memory."""
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
            Variable(
                "noise_correlation",
                block,
                optional=True,
                description="sum of the autocorrelation of the noise of pixels over all lags: "
                "factor on the variance of means of many",
            ),
        ),
        scalar_coords=True,
        description="exposures of the sky on the pixels of a patch",
        tile={v.Y: _TILE},
        part={v.Y: WARP_PART},
    )


def _psf_variables(block: tuple[str, ...]) -> tuple[Variable, ...]:
    """Return images of point-spread functions and where they hold."""
    points = (*block, v.POINT)
    return (
        Variable(
            "psf",
            (*points, v.PSF_Y, v.PSF_X),
            "float32",
            description="point-spread function, sum 1",
            codec="image",
        ),
        Variable("point_x", points, unit=v.PIXEL, description="where it holds, along x"),
        Variable("point_y", points, unit=v.PIXEL, description="and along y"),
        Variable("fwhm", points, unit=v.PIXEL, description="its full width at half maximum"),
    )


def psf_schema() -> ProductSchema:
    """Return the schema of measured point-spread functions, one block per frame.

    Examples
    --------
    >>> psf_schema().variable("psf").dims
    ('exposure', 'detector', 'point', 'psf_y', 'psf_x')
    """
    block = (v.EXPOSURE, v.DETECTOR)
    points = (*block, v.POINT)
    return ProductSchema(
        "psf",
        (*points, v.PSF_Y, v.PSF_X),
        block,
        (
            *_psf_variables(block),
            Variable("beta", points, description="exponent of its Moffat profile"),
            Variable("axis_ratio", points, description="minor over major axis"),
            Variable("psf_residual", points, description="rms of stars about it, of their peaks"),
            Variable("star_count", points, "int32", fill=0, description="stars it is fitted to"),
            Variable("row_count", block, "int32", v.PIXEL, fill=0, description="rows of the frame"),
            Variable("column_count", block, "int32", v.PIXEL, fill=0, description="its columns"),
            Variable(
                "psf_status",
                points,
                "uint8",
                fill=int(v.PsfStatus.NOT_MEASURED),
                description="where it comes from",
                flags=v.flag_attributes(v.PsfStatus),
            ),
        ),
        scalar_coords=True,
        description="point-spread functions of frames, in their pixels",
    )


def warp_psf_schema() -> ProductSchema:
    """Return the schema of the point-spread functions of warps, one block per visit and patch.

    Examples
    --------
    >>> warp_psf_schema().variable("corner_x").dims
    ('visit', 'patch', 'point', 'corner')
    """
    block = (v.VISIT, v.PATCH)
    points = (*block, v.POINT)
    return ProductSchema(
        "warp_psf",
        (*points, v.PSF_Y, v.PSF_X, CORNER),
        block,
        (
            *_psf_variables(block),
            Variable(
                "corner_x",
                (*points, CORNER),
                unit=v.PIXEL,
                description="corners of the detector that the point is on, along x",
            ),
            Variable("corner_y", (*points, CORNER), unit=v.PIXEL, description="the same along y"),
            Variable(
                "detector_number",
                points,
                "int32",
                fill=-1,
                description="place of the detector among those of the camera",
            ),
            Variable(
                "psf_status",
                points,
                "uint8",
                fill=int(v.PsfStatus.NOT_MEASURED),
                description="where it comes from",
                flags=v.flag_attributes(v.PsfStatus),
            ),
        ),
        description="point-spread functions of warps, in pixels of the tract",
    )


def matched_warps_schema(unit: str) -> ProductSchema:
    """Return the schema of warps with one point-spread function, one block per visit and patch.

    Parameters
    ----------
    unit : str
        Unit of the pixels.

    Examples
    --------
    >>> matched_warps_schema("nJy").variable("image").dims
    ('visit', 'patch', 'y', 'x')
    """
    block = (v.VISIT, v.PATCH)
    dims = (*block, v.Y, v.X)
    return ProductSchema(
        "matched_warps",
        dims,
        block,
        (
            *_planes(dims, unit, "flux"),
            Variable(
                "match_status",
                block,
                "uint8",
                fill=int(v.MatchStatus.NOT_MEASURED),
                description="the worst of the detectors",
                flags=v.flag_attributes(v.MatchStatus),
            ),
            Variable("input_fwhm", block, unit=v.PIXEL, description="the widest of the detectors"),
            Variable("target_fwhm", block, unit=v.PIXEL, description="width of the target"),
            Variable("match_residual", block, description="relative rms error of the match"),
        ),
        description="warps brought to one point-spread function",
        tile={v.Y: _TILE},
        part={v.Y: WARP_PART},
    )


def coadd_schema(unit: str, *, psf: bool = False) -> ProductSchema:
    """Return the schema of coadds, one block per filter and patch.

    Parameters
    ----------
    unit : str
        Unit of the pixels.
    psf : bool
        Whether the point-spread functions of the warps are known.

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
        (*dims, v.VISIT, *((v.POINT, v.PSF_Y, v.PSF_X) if psf else ())),
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
            Variable(
                "artifact_count",
                visits,
                "int32",
                fill=0,
                description="artifacts found in the visit",
            ),
            Variable(
                "artifact_pixels", visits, "int64", v.PIXEL, fill=0, description="their pixels"
            ),
            *(_coadd_psf_variables(block) if psf else ()),
        ),
        growable=(v.VISIT,),
        scalar_coords=True,
        description="mean of the warps of each filter and patch",
        tile={v.Y: _TILE},
    )


def _coadd_psf_variables(block: tuple[str, ...]) -> tuple[Variable, ...]:
    return (
        *_psf_variables(block),
        Variable(
            "psf_input_count",
            (*block, v.POINT),
            "int32",
            fill=0,
            description="detectors whose mean it is",
        ),
    )


WARPS: Final = warps_schema(v.NANOJANSKY)
PSF: Final = psf_schema()
WARP_PSF: Final = warp_psf_schema()
MATCHED_WARPS: Final = matched_warps_schema(v.NANOJANSKY)
COADD: Final = coadd_schema(v.NANOJANSKY, psf=True)
WARP_SCHEMAS: Final = (WARPS, PSF, WARP_PSF, MATCHED_WARPS, COADD)
"""Products on the grid of the sky, in the order they are made."""
