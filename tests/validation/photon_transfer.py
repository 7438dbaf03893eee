"""Identities, stated values and closed loops of photon transfer, as numbers."""

from __future__ import annotations

from tests.validation.by_test import rows_of_tests
from tests.validation.curves import closed_loop, kernels, mock_solves, series_bias, turnoffs
from tests.validation.identities import covariance_identities, model_identities
from tests.validation.pairs import clips, gains, mock_flats, robustness, simulated_covariances
from tests.validation.rows import Row

EXACT = (
    "tests/algorithms/photon_transfer/test_pairing.py",
    "tests/storage/test_store.py::test_a_block_comes_back_as_it_was_written",
    "tests/storage/test_store.py::test_every_product_can_be_written_and_read",
    "tests/algorithms/photon_transfer/test_covariance.py::"
    "test_covariances_of_white_noise_scatter_as_the_formula_says",
)
"""What is true or not, without a number: pairing in any order, what is written is read."""


def measure() -> list[Row]:
    """Return the rows of this topic."""
    return [
        *covariance_identities(),
        *model_identities(),
        *clips(),
        *closed_loop(),
        *turnoffs(),
        *mock_flats(),
        *mock_solves(),
        *kernels(),
        *series_bias(),
        *gains(),
        *robustness(),
        *simulated_covariances(),
        *rows_of_tests(*EXACT, jobs=1),
    ]
