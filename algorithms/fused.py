"""A product and a sum with one rounding, the same bits on every processor and in every loop.

Left to a compiler, whether a product and a sum are fused depends on the processor, on the loop
around them and on flags; written out, it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

__all__ = ["fused"]


def fused(a: Any, b: Any, c: Any) -> Any:
    """Return a b + c of float32, rounded once; inside compiled kernels too.

    Examples
    --------
    >>> one, tiny = np.float32(1.0), np.float32(2.0**-13)
    >>> float(fused(one + tiny, one - tiny, -one)) == -(2.0**-26)
    True
    """
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@intrinsic
def _fused(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), emit


@overload(fused)
def _overloaded(a: Any, b: Any, c: Any) -> Any:
    def emitted(a: Any, b: Any, c: Any) -> Any:
        return _fused(a, b, c)

    return emitted
