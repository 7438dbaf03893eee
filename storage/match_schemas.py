"""Products of background matching: levels of visits in bins of a tract, and what matches them."""

from __future__ import annotations

from typing import Final

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.units import inverse_units, squared_units
from skyloom.storage.dataset_schema import ProductSchema, Variable

__all__ = ["MATCH_SCHEMAS", "SUITABILITY", "background_match_schema", "tract_levels_schema"]

MEASURES: Final = {
    "bin_noise": (True, "noise of a bin"),
    "overlap_rms_before": (True, "rms of visits about the sky they share, before"),
    "overlap_rms_after": (True, "the same, matched"),
    "overlap_ratio_after": (False, "the same over the noise of the bins"),
    "pair_difference_95_before": (True, "mean difference that 95 % of pairs of visits are below"),
    "pair_difference_95_after": (True, "the same, matched"),
    "seam_step": (False, "rms step of the sky where visits begin or end, its noise"),
    "inner_step": (False, "the same where none does"),
    "chi2": (False, "of the joint solution"),
    "dof": (False, "its degrees of freedom"),
    "condition": (False, "condition of its equations"),
    "effective_parameters": (False, "parameters that its fields took from the levels"),
}
SUITABILITY: Final = {
    "cost": "of a visit as a reference; the smallest is best",
    "coverage": "fraction of the bins of all visits that it has",
    "complexity": "robust chi2 per degree of freedom of a plane",
    "noise": "median variance of its bins",
    "rank_coverage": "visits that cover more",
    "rank_complexity": "visits that are more like a plane",
    "rank_noise": "visits with less noise",
}
"""What makes a visit a good reference, `choose_reference_visit`."""


def tract_levels_schema(unit: str) -> ProductSchema:
    """Return the schema of levels of visits, one block per visit and tract.

    Parameters
    ----------
    unit : str
        Unit of the warps.

    Examples
    --------
    >>> tract_levels_schema("nJy").variable("level").dims
    ('visit', 'tract', 'tract_y', 'tract_x')
    """
    block = (v.VISIT, v.TRACT)
    dims = (*block, v.TRACT_Y, v.TRACT_X)
    return ProductSchema(
        "tract_levels",
        dims,
        block,
        (
            Variable("level", dims, "float32", unit, description="clipped mean of a bin"),
            Variable(
                "variance", dims, "float32", squared_units(unit), description="variance of that"
            ),
            Variable("count", dims, "int32", fill=0, description="valid pixels of the bin"),
            Variable("count_used", dims, "int32", fill=0, description="those after clipping"),
            Variable(
                "flags",
                dims,
                "uint8",
                fill=int(v.BinFlag.EMPTY),
                description="what is to be known of the bin",
                flags=v.flag_attributes(v.BinFlag),
            ),
        ),
        description="levels of the warps of each visit in bins of a tract",
    )


def background_match_schema(unit: str) -> ProductSchema:
    """Return the schema of matched backgrounds, one block per filter and tract.

    Parameters
    ----------
    unit : str
        Unit of the warps.

    Examples
    --------
    >>> background_match_schema("nJy").variable("coefficients").dims
    ('physical_filter', 'tract', 'visit', 'coefficient')
    """
    block = (v.FILTER, v.TRACT)
    visits, bins = (*block, v.VISIT), (*block, v.TRACT_Y, v.TRACT_X)
    terms, second = (*visits, v.COEFFICIENT), f"{v.COEFFICIENT}_2"
    square = squared_units(unit)
    return ProductSchema(
        "background_match",
        (*terms, second, v.TRACT_Y, v.TRACT_X),
        block,
        (
            Variable("coefficients", terms, unit=unit, description="field to be subtracted"),
            Variable(
                "coefficient_covariance", (*terms, second), unit=square, description="their errors"
            ),
            Variable("offset_error", visits, unit=unit, description="rms error of the field"),
            Variable("mean_residual", visits, description="mean residual, standard deviations"),
            Variable(
                "status",
                visits,
                "uint8",
                fill=int(v.OffsetStatus.NOT_MEASURED),
                description="whether the visit was matched",
                flags=v.flag_attributes(v.OffsetStatus),
            ),
            *(
                Variable(name, visits, "int32", fill=-1, description=text)
                for name, text in (
                    ("component", "group of visits that overlap"),
                    ("terms_used", "terms of the field that were free"),
                    ("bins_used", "bins with data"),
                )
            ),
            *(
                Variable(
                    f"reference_{name}",
                    visits,
                    unit=square if name == "noise" else "",
                    description=text,
                )
                for name, text in SUITABILITY.items()
            ),
            Variable(
                "reference_visit",
                block,
                "int64",
                fill=-1,
                description="visit that the others were matched to; -1 is none",
            ),
            Variable("sky", bins, unit=unit, description="what matched visits share"),
            Variable("sky_weight", bins, unit=inverse_units(square), description="its weight"),
            Variable(
                "visit_count", bins, "int32", fill=0, description="visits with data in the bin"
            ),
            *(
                Variable(name, block, unit=unit if has_unit else "", description=text)
                for name, (has_unit, text) in MEASURES.items()
            ),
        ),
        growable=(v.VISIT,),
        description="fields that match the visits of each filter on a tract",
    )


MATCH_SCHEMAS: Final = (
    tract_levels_schema(v.NANOJANSKY),
    background_match_schema(v.NANOJANSKY),
)
"""Products of background matching, in the order they are made."""
