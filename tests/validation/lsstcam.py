"""The solver on 338 measured pairs of an LSST Camera amplifier (R22_S11, C06)."""

from __future__ import annotations

import numpy as np

from skyloom.algorithms.photon_transfer.solve import solve
from skyloom.algorithms.photon_transfer.solve_parameters import (
    LinearityParameters,
    SolveParameters,
)
from skyloom.algorithms.vocabulary import PairStatus
from tests.real_data.measured import lsst_camera_pairs
from tests.validation.rows import Row, within


def measure() -> list[Row]:
    """Return the rows of this topic."""
    pairs = lsst_camera_pairs()
    low = SolveParameters(model="exp00", weights="relative", maximum_mean=50000.0)
    fit = solve(pairs, parameters=low).isel(amp=0)
    whole = SolveParameters(
        model="exp00",
        weights="relative",
        linearity=LinearityParameters(against="photo_charge"),
    )
    solved = solve(pairs, parameters=whole).isel(amp=0)
    status = solved["pair_status"].to_numpy()
    mean = pairs["mean"].isel(amp=0).to_numpy()
    saturated = status[mean > 106_700]
    codes = sorted({PairStatus(int(code)).name for code in saturated})
    outliers = np.flatnonzero(status == PairStatus.OUTLIER)
    named = ", ".join(f"{mean[index]:.1f} adu" for index in outliers)
    step = float(solved["turnoff_sampling_error"])
    return [
        within("`exp00`, mean < 50 000 adu: a_00", float(fit["a"][0, 0]), -3.015e-6, 0.04e-6,
               "1/electron", ".4g"),
        within("its error bar", float(fit["a_sigma"][0, 0]), 0.035e-6, 0.0035e-6, "1/electron"),
        within("gain", float(fit["gain"]), 1.4034, 0.002, "electron/adu"),
        within("noise", float(fit["noise"]), 5.17, 0.05, "electron"),
        within("robust turn-off (tolerance: its sampling step)", float(solved["turnoff"]),
               92_670, step, "adu", ".1f"),
        Row("saturated pairs (mean > 106 700 adu) rejected with a code", "23",
            f"{(saturated != PairStatus.OK).sum()}: {', '.join(codes)}",
            len(saturated) == 23 and bool((saturated != PairStatus.OK).all())),
        Row("the outlier, 2.3 % off the photodiode, rejected", "1 OUTLIER",
            f"{len(outliers)} OUTLIER: {named}", len(outliers) == 1),
    ]  # fmt: skip
