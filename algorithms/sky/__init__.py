"""Sky frames: measured, combined, scaled to exposures and subtracted."""

from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales

__all__ = ["SolveScaleParameters", "solve_scales"]
