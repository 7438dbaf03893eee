"""Raw frames with known truth: what the demo, the tests and the tutorials start from."""

from skyloom.algorithms.simulate.amplifiers import amplifier_grid
from skyloom.algorithms.simulate.fields import correlated_field, flat_covariance
from skyloom.algorithms.simulate.flats import (
    flat_plan,
    simulate_exposure,
    simulate_flats,
)
from skyloom.algorithms.simulate.frames import simulate_flat_frame
from skyloom.algorithms.simulate.parameters import FrameParameters, TruthParameters
from skyloom.algorithms.simulate.truth import TYPICAL_A, flat_truth

__all__ = [
    "TYPICAL_A",
    "FrameParameters",
    "TruthParameters",
    "amplifier_grid",
    "correlated_field",
    "flat_covariance",
    "flat_plan",
    "flat_truth",
    "simulate_exposure",
    "simulate_flat_frame",
    "simulate_flats",
]
