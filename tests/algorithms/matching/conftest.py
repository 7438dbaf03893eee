"""One thread for linear algebra: small systems wait for threads of a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep the libraries on one thread, as workers do."""
    with threadpool_limits(1):
        yield
