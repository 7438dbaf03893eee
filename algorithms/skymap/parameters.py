"""The parameters of a sky map."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters

__all__ = ["DiscreteTract", "SkyMapParameters"]

Pixels = Annotated[int, Field(ge=1)]


class DiscreteTract(Parameters):
    """One tract of a discrete map."""

    right_ascension: float = Field(ge=0, lt=360, description="Right ascension of its centre, deg.")
    declination: float = Field(ge=-90, le=90, description="Declination of its centre, deg.")
    radius: float = Field(gt=0, lt=45, description="Half its size without overlap, deg.")


class SkyMapParameters(Parameters):
    """How the sky is divided into tracts, and tracts into patches.

    With ``rings`` the sky is divided into rings of equal height between two polar caps, and each
    ring into tracts; with ``discrete`` the tracts are named one by one. With ``legacy`` patches the
    outer box is the inner one grown by ``patch_border`` within the tract; with ``cells`` the inner
    box is ``cells_per_patch`` cells wide, and the outer one grows by ``border_cells`` cells and
    ``cell_border`` pixels, also beyond the tract.
    """

    kind: Literal["rings", "discrete"] = Field(
        default="rings", description="Rings over the whole sky, or tracts named one by one."
    )
    rings: int = Field(default=120, ge=1, description="Number of rings between the polar caps.")
    first_right_ascension: float = Field(
        default=0.0, ge=0, lt=360, description="Centre of the first tract of every ring, deg."
    )
    tracts: tuple[DiscreteTract, ...] = Field(
        default=(), description="Tracts of a discrete map, in the order of their indices."
    )
    pixel_scale: float = Field(default=0.2, gt=0, description="Size of a pixel, arcsec.")
    tract_overlap: float = Field(
        default=1 / 60, ge=0, lt=45, description="By how much a tract is larger on a side, deg."
    )
    rotation: float = Field(
        default=0.0,
        ge=-360,
        le=360,
        description="Angle of the y axis from north towards east, deg.",
    )
    sizing: Literal["covering", "four_points"] = Field(
        default="covering",
        description="Whether a tract covers all positions that belong to it, or only the box of "
        "the four points at its half size north, south, east and west of its centre.",
    )
    patches: Literal["legacy", "cells"] = Field(
        default="legacy", description="How tracts are divided into patches."
    )
    patch_shape: tuple[Pixels, Pixels] = Field(
        default=(4000, 4000), description="Inner (height, width) of legacy patches, pixel."
    )
    patch_border: int = Field(
        default=100, ge=0, description="By how much legacy patches reach out, pixel."
    )
    cell_size: Pixels = Field(default=150, description="Side of a cell, pixel.")
    cells_per_patch: Pixels = Field(default=20, description="Cells along a patch's inner side.")
    border_cells: int = Field(default=1, ge=0, description="Cells that a patch reaches out.")
    cell_border: int = Field(default=50, ge=0, description="Pixels that a cell reaches out.")

    @property
    def inner_shape(self) -> tuple[int, int]:
        """Return (height, width) of the inner box of a patch, pixel."""
        if self.patches == "legacy":
            return self.patch_shape
        side = self.cell_size * self.cells_per_patch
        return side, side

    @property
    def border(self) -> int:
        """Return by how much the outer box of a patch is larger on a side, pixel."""
        if self.patches == "legacy":
            return self.patch_border
        return self.cell_size * self.border_cells + self.cell_border

    @model_validator(mode="after")
    def _tracts_belong_to_discrete_maps(self) -> SkyMapParameters:
        if (self.kind == "discrete") != bool(self.tracts):
            raise ValueError(
                "tracts must be given for a discrete map, and for that alone; "
                f"got {len(self.tracts)} with kind={self.kind!r}"
            )
        return self
