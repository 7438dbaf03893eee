"""Measured covariances of other sensors."""

from __future__ import annotations

from skyloom.algorithms.photon_transfer.lattice import even_sum
from tests.real_data.measured import itl_covariances
from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row, within


def measure() -> list[Row]:
    """Return the rows of this topic."""
    values, _ = itl_covariances()
    return [
        within("ITL STA3800: sum over all lags with symmetry weights 1, 2, 4",
               float(even_sum(values)), 0.0, 1.5e-6, form=".2g"),
        within("ITL STA3800: C_01 (neighbour in y) / C_10 (neighbour in x)",
               float(values[1, 0] / values[0, 1]), 0.00593 / 0.01411, 0.001),
        *rows_of_tests("tests/algorithms/photon_transfer/test_turnoff.py", jobs=1),
    ]  # fmt: skip
