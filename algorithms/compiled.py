"""How every kernel is compiled: without the interpreter lock, cached, on one thread.

Dask's threads are the parallelism, so kernels never start threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled", "compiled_fast"]

Function = TypeVar("Function", bound=Callable[..., Any])

compiled: Callable[[Function], Function] = numba.njit(nogil=True, cache=True)
"""Compile a kernel with strict IEEE arithmetic: NaN and infinities mean what they say."""

compiled_fast: Callable[[Function], Function] = numba.njit(
    nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}
)
"""Compile a kernel whose sums may be reordered, so that they vectorise; NaN still propagates."""
