"""The EMVA 1288 reference set of a 12-bit CCD, from PNG to FITS to the command line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from skyloom.algorithms.vocabulary import PairStatus
from tests.real_data.emva import run_command_line, standard_options
from tests.validation.rows import Row, within


def measure() -> list[Row]:
    """Return the rows of this topic."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        curve, _ = run_command_line(folder, *standard_options())
        exact, _ = run_command_line(folder)
    saturated = curve["saturated_fraction"].to_numpy() > 0.5
    codes = [PairStatus(int(code)).name for code in curve["pair_status"].to_numpy()[saturated]]
    flagged = [
        f"{pair} {code}" for pair, code in zip(curve["pair"].values[saturated], codes, strict=True)
    ]
    bend = float(np.sqrt(exact["chi2"] / exact["dof"]))
    return [
        within("gain, straight line to 70 % of saturation as in the standard",
               float(curve["gain"]), 3.57, 0.0357, "electron/adu", ".4f"),
        within("dark noise, from pairs of darks", float(curve["read_noise_median"]), 3.07,
               0.0614, "adu", ".3f"),
        Row("saturated pairs flagged by name", "all 4", ", ".join(flagged),
            len(flagged) == 4 and "OK" not in codes),
        Row("for comparison, default model `exact` on the whole curve: the camera's response "
            "bends by 1.7 %, which the model reads as a_00, so its gain is that at low signal",
            "no target",
            f"gain {float(exact['gain']):.4f} ± {float(exact['gain_sigma']):.4f} electron/adu, "
            f"sqrt(chi2/dof) {bend:.2f}", True),
    ]  # fmt: skip
