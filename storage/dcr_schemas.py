"""Products of chromatic coadds: sub-band models, and broad-band coadds.

Sub-bands run from blue to red; their sum is the flux of the whole band, without refraction.
"""

from __future__ import annotations

from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.units import inverse_units, squared_units
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = [
    "DCR_SCHEMAS",
    "OF_PATCHES",
    "OF_VISITS",
    "dcr_coadd_schema",
    "dcr_schema",
    "dcr_scores_schema",
]

_TILE: Final = 512
_NOTHING: Final = v.MASK_PLANES["NO_DATA"]
SECOND: Final = f"{v.SUBFILTER}_2"

OF_VISITS: Final = (
    ("chi2", v.DIMENSIONLESS, "chi-square per pixel in detected regions"),
    ("rejected_fraction", v.DIMENSIONLESS, "part of the pixels of objects that was rejected"),
    ("flux_scale", v.DIMENSIONLESS, "flux of objects over that in the other visits; divided out"),
    ("airmass", v.DIMENSIONLESS, "airmass at the centre of the patch"),
    ("altitude", v.DEGREE, "altitude at the centre of the patch"),
    ("parallactic_angle", v.DEGREE, "parallactic angle there"),
    ("temperature", v.CELSIUS, "temperature of the air"),
    ("pressure", v.PASCAL, "air pressure"),
    ("humidity", v.PERCENTAGE, "relative humidity"),
    ("latitude", v.DEGREE, "latitude of the observatory"),
    ("height", v.METRE, "its height above sea level"),
    ("dispersion_y", v.PIXEL, "displacement of the blue end of the band from its red end, along y"),
    ("dispersion_x", v.PIXEL, "the same along x"),
    (
        "offset_y",
        v.PIXEL,
        "how far the visit lies from where it should, along y; fitted if it "
        "disagrees with the others",
    ),
    ("offset_x", v.PIXEL, "the same along x"),
    ("psf_fwhm", v.PIXEL, "FWHM of stars in the warp"),
)
"""What is kept of each visit: name, unit, meaning."""
OF_PATCHES: Final = (
    ("residual", "relative residual at which a linear solution ended"),
    ("convergence_first", "convergence metric before the first iteration of an iterative one"),
    ("convergence_last", "the same after the last one; of the worst tile"),
    ("chi2_total", "chi-square per pixel of objects, all visits"),
    ("adherence", "prior on the difference to the coadd, over the weight of the data"),
    ("spread", "trace of the scatter of the dispersion vectors of visits, pixel2"),
    ("largest_spread", "its larger eigenvalue, pixel2"),
    ("smallest_spread", "its smaller eigenvalue, pixel2"),
    ("colour_error", "expected error of the first spectral moment of a star of S/N 100"),
    (
        "condition_number",
        "how much better visits determine the best known mix of sub-bands than the worst, at twice "
        "the width of a star, without priors; infinite if they leave one open",
    ),
    (
        "geometry_angle",
        "angle by which displacements would have to be turned, from x to y, to describe the "
        "brightest objects best, degree",
    ),
    ("geometry_angle_error", "its error as far as noise goes, degree"),
    ("geometry_mirrored", "1 if they would have to be mirrored along x first, else 0"),
    ("geometry_gain", "by how much chi-square of these objects falls so"),
    (
        "geometry_contrast",
        "by how much it rises for any geometry that is quite another one; below 25 the objects do "
        "not tell",
    ),
)
"""Figures of a patch: name, meaning."""


def dcr_schema(unit: str) -> ProductSchema:
    """Return the schema of sub-band models, one block per filter and patch.

    Parameters
    ----------
    unit : str
        Unit of the warps.

    Examples
    --------
    >>> dcr_schema("nJy").variable("model").dims
    ('physical_filter', 'patch', 'subfilter', 'y', 'x')
    """
    block = (v.FILTER, v.PATCH)
    square = squared_units(unit)
    bands, pixels, visits = (*block, v.SUBFILTER), (*block, v.Y, v.X), (*block, v.VISIT)
    planes = (*bands, v.Y, v.X)
    return ProductSchema(
        "dcr",
        (*planes, v.VISIT, v.BAND_EDGE, v.COVERAGE_GROUP, v.NOISE_LEVEL, SECOND, v.PSF_Y, v.PSF_X,
         v.LAG_Y, v.LAG_X),
        block,
        (
            Variable("model", planes, "float32", unit, description="flux of a sub-band",
                     codec="image"),
            Variable("variance", planes, "float32", square, description="its variance",
                     codec="image"),
            Variable("n_image", pixels, "int16", fill=0, description="visits with a good value",
                     codec="image"),
            Variable(
                v.MASK,
                pixels,
                "int32",
                fill=_NOTHING,
                description="mask planes",
                codec="image",
                flags=v.mask_attributes(),
            ),
            Variable("plane_count", planes, "int16", fill=0, codec="image", optional=True,
                     description="visits that reach a sub-band, of an iterative solution"),
            Variable("model_weight", pixels, "float32", codec="image",
                     description="1 at sources, whose colours are solved for, 0 far from them"),
            Variable("noise_place", pixels, "float32", codec="image", optional=True,
                     description="which covariance holds: 0 at sources, 8 far from them, 9 where "
                     "sub-bands are equal parts of the coadd; of a linear solution"),
            Variable("coverage", pixels, "uint8", fill=0, codec="image", optional=True,
                     description="group of pixels that the same visits cover; of a linear "
                     "solution"),
            Variable("weight_sum", pixels, "float32", inverse_units(square), codec="image",
                     description="sum of the inverse variances of visits"),
            Variable("wavelength_edges", (*bands, v.BAND_EDGE), unit=v.NANOMETRE,
                     description="limits of a sub-band"),
            Variable("covariance", (*bands, SECOND), unit=square,
                     description="covariance of sub-bands in a pixel of mean weight, at sources"),
            Variable("level_covariance",
                     (*block, v.COVERAGE_GROUP, v.NOISE_LEVEL, v.SUBFILTER, SECOND), unit=square,
                     optional=True,
                     description="the same for each coverage and noise_place 0, 1, ... 9, the "
                     "first that at sources; infinite for a coverage that no pixel has; of a "
                     "linear solution"),
            Variable("coverage_weight", (*block, v.COVERAGE_GROUP, v.VISIT),
                     unit=inverse_units(square), optional=True,
                     description="mean inverse variance over the pixels of each coverage; of a "
                     "linear solution"),
            Variable("psf", (*block, v.PSF_Y, v.PSF_X),
                     description="point-spread function of the planes"),
            Variable("visit_psf", (*visits, v.PSF_Y, v.PSF_X), "float32", optional=True,
                     description="point-spread functions that a linear solution was made with"),
            Variable("noise_covariance", (*visits, v.LAG_Y, v.LAG_X), "float32", optional=True,
                     description="covariance between pixels of a visit over their variance, of a "
                     "linear solution"),
            *(Variable(name, visits, unit=given, description=text)
              for name, given, text in OF_VISITS),
            Variable("mean_weight", visits, unit=inverse_units(square),
                     description="mean inverse variance over the patch"),
            Variable("pixel_count", visits, "int64", v.PIXEL, fill=0,
                     description="pixels of objects"),
            Variable("rejected", visits, "int64", v.PIXEL, fill=0,
                     description="pixels rejected, which few visits show"),
            Variable("condition_flags", visits, "int32", fill=0,
                     description="what is to be known of the conditions of the visit",
                     flags=v.flag_attributes(v.ConditionFlag)),
            Variable("varying", visits, "int64", fill=0,
                     description="sources that the visit alone shows otherwise"),
            Variable("used", visits, "bool", fill=False,
                     description="whether the visit is part of the model"),
            *(Variable(name, block, description=text) for name, text in OF_PATCHES),
            Variable("sky_level", block, unit=unit,
                     description="level that the warps were solved without; the planes have it"),
            Variable("iterations", block, "int32", fill=-1, description="iterations of the solver"),
            Variable(
                "status",
                block,
                "uint8",
                fill=int(v.DcrStatus.NOT_MEASURED),
                description="how the solution ended",
                flags=v.flag_attributes(v.DcrStatus),
            ),
        ),
        growable=(v.VISIT,),
        description="sub-band images without refraction, and how well visits agree with them",
        tile={v.Y: _TILE},
    )  # fmt: skip


def dcr_coadd_schema(unit: str) -> ProductSchema:
    """Return the schema of broad-band coadds without refraction, one block per filter and patch.

    Parameters
    ----------
    unit : str
        Unit of the warps.

    Examples
    --------
    >>> dcr_coadd_schema("nJy").variable("image").dims
    ('physical_filter', 'patch', 'y', 'x')
    """
    block = (v.FILTER, v.PATCH)
    pixels = (*block, v.Y, v.X)
    return ProductSchema(
        "dcr_coadd",
        pixels,
        block,
        (
            Variable("image", pixels, "float32", unit, description="flux of the band",
                     codec="image"),
            Variable("variance", pixels, "float32", squared_units(unit),
                     description="its variance", codec="image"),
            Variable(
                v.MASK,
                pixels,
                "int32",
                fill=_NOTHING,
                description="mask planes",
                codec="image",
                flags=v.mask_attributes(),
            ),
            Variable("n_image", pixels, "int16", fill=0, description="visits with a good value",
                     codec="image"),
        ),
        description="sums of sub-bands: coadds without refraction",
        tile={v.Y: _TILE},
    )  # fmt: skip


def dcr_scores_schema(unit: str) -> ProductSchema:
    """Return the schema of what templates leave of visits that were held out.

    Parameters
    ----------
    unit : str
        Unit of the warps.

    Examples
    --------
    >>> dcr_scores_schema("nJy").variable("residual_coadd").unit
    'nJy'
    """
    block = (v.VISIT, v.PATCH)
    return ProductSchema(
        "dcr_scores",
        block,
        block,
        (
            *(
                Variable(f"{name}_{of}", block, unit=given, description=f"{text}, of the {what}")
                for name, given, text in (
                    ("residual", unit, "rms of the difference near objects, without noise"),
                    ("dipole", v.PIXEL, "rms dipole of objects along the vertical"),
                )
                for of, what in (("template", "template"), ("coadd", "plain coadd"))
            ),
            *(
                Variable(f"detections_{of}", block, "int32", fill=-1,
                         description=f"groups of pixels beyond 5 sigma, of the {what}")
                for of, what in (("template", "template"), ("coadd", "plain coadd"))
            ),
            Variable("ratio", block, description="residual of the template over that of the coadd"),
            Variable("compared_fwhm", block, unit=v.PIXEL,
                     description="FWHM at which visit, template and coadd are compared: that of "
                     "the visit or of the coadd, whichever is larger"),
            Variable("objects", block, "int32", fill=-1, description="objects that count"),
            Variable("pixels", block, "int64", v.PIXEL, fill=0, description="pixels near objects"),
            *(
                Variable(name, block, unit=given, description=text)
                for name, given, text in OF_VISITS
                if name in ("airmass", "altitude", "parallactic_angle", "psf_fwhm")
            ),
        ),
        scalar_coords=True,
        description="what templates and plain coadds leave of visits that no model is made of",
    )  # fmt: skip


DCR_SCHEMAS: Final = (
    dcr_schema(v.NANOJANSKY),
    dcr_coadd_schema(v.NANOJANSKY),
    dcr_scores_schema(v.NANOJANSKY),
)
"""Products of chromatic coadds, in the order they are made."""
