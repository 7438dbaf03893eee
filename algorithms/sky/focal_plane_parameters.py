"""Parameters of backgrounds across the focal plane."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.statistics import IGNORED_PLANES

__all__ = ["FocalPlaneParameters"]

Positive = Annotated[float, Field(gt=0)]


class FocalPlaneParameters(Parameters):
    """How one smooth sky is made of the bins of all detectors, `focal_plane_background`."""

    cell_size: tuple[Positive, Positive] = Field(
        description="size of the cells along y and x of the focal plane, mm"
    )
    alignment: Literal["centered", "edge"] = Field(
        "centered",
        description="centered: the cells tile the camera with equal margins; edge: the first cell "
        "is centred on the camera's edge, as in the survey pipeline",
    )
    minimum_fraction: float = Field(
        0.1, ge=0, le=1, description="cells with a smaller part of their area measured are filled"
    )
    clip: float = Field(
        3.0, gt=0, description="bins further from the model than this many sigma of their cell go"
    )
    iterations: int = Field(3, ge=0, description="passes of clipping over all detectors; 0: none")
    smoothing: float = Field(
        0.0, ge=0, description="sigma of the Gaussian that cells are smoothed with, cells; 0: none"
    )
    interpolation: Literal["cubic", "linear"] = Field(
        "cubic", description="interpolation between the centres of cells"
    )
    steps: Literal["none", "detector", "type"] = Field(
        "none", description="offsets fitted besides: of each detector, or of each detector type"
    )
    scale_statistic: Literal["median", "mean"] = Field(
        "median", description="the exposure's sky level: of the measured cells, mean by weight"
    )
    ignored_planes: tuple[str, ...] = Field(
        (*IGNORED_PLANES, "INTERPOLATED", "DETECTED", "DETECTED_NEGATIVE", "EDGE"),
        description="mask planes whose pixels are left out where pixels are accumulated",
    )
