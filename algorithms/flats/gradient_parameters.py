"""Parameters of the illumination of a combined flat over the focal plane."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from skyloom.algorithms.flats.parameters import FLAT_IGNORED_PLANES
from skyloom.algorithms.parameters import Parameters

__all__ = ["FlatGradientParameters", "FlatSampleParameters"]

NODES = (0.0, 100.0, 200.0, 250.0, 275.0, 290.0, 300.0, 310.0)
EDGE_NODES = (315.0, 317.0, 320.0, 325.0, 333.0, 340.0, 350.0)


class FlatSampleParameters(Parameters):
    """How a flat is sampled, `sample_flat`."""

    bin_size: int = Field(128, ge=1, description="side of a bin, pixel; incomplete bins are cut")
    edge: int = Field(10, ge=0, description="pixels at each edge of the detector left out, pixel")
    ignored_planes: tuple[str, ...] = Field(
        FLAT_IGNORED_PLANES, description="mask planes whose pixels are left out"
    )
    smallest_fraction: float = Field(
        0.5, gt=0, le=1, description="part of a bin that must be valid for it to be a sample"
    )


class FlatGradientParameters(Parameters):
    """The model of a flat over the focal plane and its fit, `fit_flat_gradients`."""

    nodes: tuple[float, ...] = Field(
        (*NODES, *EDGE_NODES),
        min_length=5,
        description="radii at which the radial profile is free, ascending, mm",
    )
    interpolation: Literal["akima", "natural_spline"] = Field(
        "akima", description="interpolation of the profile between nodes"
    )
    centre_radius: float = Field(
        25.0, gt=0, description="the median inside is the normalization, mm"
    )
    smallest_value: float = Field(
        0.05, description="samples below this part of the normalization are left out"
    )
    largest_value: float = Field(
        1.5, description="samples above this part of the normalization are left out"
    )
    fit_shift: bool = Field(True, description="fit the centre of the profile")
    fit_plane: bool = Field(True, description="fit a plane")
    last_node_zero: bool = Field(False, description="hold the profile at 0 at the last node")
    base_type: str | None = Field(
        None, description="type of detectors that others are relative to; None: the most frequent"
    )
    transition: float = Field(
        1.5, gt=0, description="residual from which a sample pulls less, standard deviations"
    )
    iterations: int = Field(100, ge=1, description="most steps of the fit")
    tolerance: float = Field(1e-10, gt=0, description="relative change of the cost that ends it")

    @model_validator(mode="after")
    def _nodes_ascend(self) -> Self:
        pairs = zip(self.nodes, self.nodes[1:], strict=False)
        if self.nodes[0] < 0 or any(b <= a for a, b in pairs):
            raise ValueError(f"nodes must be >= 0 and ascend, got {self.nodes}")
        return self
