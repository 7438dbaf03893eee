"""Raw frames with known truth: what the demo, the tests and the tutorials start from."""

from skyloom.algorithms.simulate.amplifiers import amplifier_grid
from skyloom.algorithms.simulate.chromatic import (
    ChromaticParameters,
    SimulatedChromatic,
    chromatic_coadd,
    chromatic_conditions,
    chromatic_images,
    chromatic_scene,
    chromatic_warps,
    simulate_chromatic,
)
from skyloom.algorithms.simulate.dispersion import band_fractions, black_body
from skyloom.algorithms.simulate.fields import correlated_field, flat_covariance
from skyloom.algorithms.simulate.flats import (
    flat_plan,
    simulate_exposure,
    simulate_flats,
)
from skyloom.algorithms.simulate.frames import simulate_flat_frame
from skyloom.algorithms.simulate.light import exposure_plane, light_gradient
from skyloom.algorithms.simulate.night import (
    night_exposure_truth,
    simulate_night,
    simulate_night_exposure,
)
from skyloom.algorithms.simulate.night_parameters import (
    CameraParameters,
    NightParameters,
    PassBand,
    PlanParameters,
    SceneParameters,
    SiteParameters,
)
from skyloom.algorithms.simulate.night_plan import night_plan
from skyloom.algorithms.simulate.night_truth import Defect, night_truth, sky_pattern
from skyloom.algorithms.simulate.parameters import FrameParameters, TruthParameters
from skyloom.algorithms.simulate.scene import night_scene, sky_scene
from skyloom.algorithms.simulate.schedule import schedule_plan
from skyloom.algorithms.simulate.tract import SimulatedTract, TractParameters, simulate_tract
from skyloom.algorithms.simulate.truth import TYPICAL_A, flat_truth
from skyloom.algorithms.simulate.visits import SimulatedVisits, VisitParameters, simulate_visits

__all__ = [
    "TYPICAL_A",
    "CameraParameters",
    "ChromaticParameters",
    "Defect",
    "FrameParameters",
    "NightParameters",
    "PassBand",
    "PlanParameters",
    "SceneParameters",
    "SimulatedChromatic",
    "SimulatedTract",
    "SimulatedVisits",
    "SiteParameters",
    "TractParameters",
    "TruthParameters",
    "VisitParameters",
    "amplifier_grid",
    "band_fractions",
    "black_body",
    "chromatic_coadd",
    "chromatic_conditions",
    "chromatic_images",
    "chromatic_scene",
    "chromatic_warps",
    "correlated_field",
    "exposure_plane",
    "flat_covariance",
    "flat_plan",
    "flat_truth",
    "light_gradient",
    "night_exposure_truth",
    "night_plan",
    "night_scene",
    "night_truth",
    "schedule_plan",
    "simulate_chromatic",
    "simulate_exposure",
    "simulate_flat_frame",
    "simulate_flats",
    "simulate_night",
    "simulate_night_exposure",
    "simulate_tract",
    "simulate_visits",
    "sky_pattern",
    "sky_scene",
]
