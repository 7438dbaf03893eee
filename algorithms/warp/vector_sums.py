"""Weighted sums of the pixels around a position, in vectors that the compiler would not find.

One row of a stencil is one vector: rows are weighed and added lane by lane, then lanes are
weighed and added pairwise. Products are rounded before they are added, so that the bits are the
same on every processor. Sums are float32: over so few terms they are good to 3e-7 of the largest.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from skyloom.algorithms.warp.resampling import LANES

__all__: list[str] = []  # kernels for the modules of this package

FLOAT = ir.FloatType()
INDEX, BYTE = ir.IntType(32), ir.IntType(8)


class Vectors:
    """Vector instructions of one stencil, written into the code under construction."""

    def __init__(self, context: Any, builder: Any, taps: int) -> None:
        self.context, self.builder, self.taps = context, builder, taps
        self.lanes = LANES[taps]
        self.type = ir.VectorType(FLOAT, self.lanes)

    def pick(self, vector: Any, lanes: list[int]) -> Any:
        """Return the named lanes of a vector."""
        order = ir.Constant(ir.VectorType(INDEX, len(lanes)), lanes)
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)

    def pointer(self, array_type: Any, array: Any) -> Any:
        """Return where the numbers of an array begin."""
        return cgutils.create_struct_proxy(array_type)(self.context, self.builder, array).data

    def load(self, base: Any, index: Any) -> Any:
        """Return the numbers of an array from an index on."""
        place = self.builder.bitcast(self.builder.gep(base, [index]), self.type.as_pointer())
        return self.builder.load(place, align=4)

    def load_flags(self, base: Any, index: Any) -> Any:
        """Return 1 where the lowest bit of bytes is set from an index on, else 0."""
        kind = ir.VectorType(BYTE, self.lanes)
        place = self.builder.bitcast(self.builder.gep(base, [index]), kind.as_pointer())
        bits = self.builder.and_(
            self.builder.load(place, align=1), ir.Constant(kind, [1] * self.lanes)
        )
        return self.builder.uitofp(bits, self.type)

    def weights(self, base: Any, phase: Any, rest: Any) -> Any:
        """Return the weights of a phase of the table, linear to the next."""
        step = ir.Constant(phase.type, self.lanes)
        at = self.builder.mul(phase, step)
        low, high = self.load(base, at), self.load(base, self.builder.add(at, step))
        one = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), rest, INDEX(0))
        between = self.builder.fmul(self.pick(one, [0] * self.lanes), self.builder.fsub(high, low))
        return self.builder.fadd(low, between)

    def total(
        self, load: Any, base: Any, start: Any, stride: Any, along_x: Any, along_y: Any
    ) -> Any:
        """Return the weighted sum of the stencil whose first pixel is ``start``."""
        builder, at, rows = self.builder, start, None
        for tap in range(self.taps):
            row = builder.fmul(self.pick(along_y, [tap] * self.lanes), load(base, at))
            rows = row if rows is None else builder.fadd(rows, row)
            at = builder.add(at, stride)
        found = builder.fmul(rows, along_x)
        half = self.lanes // 2
        while half:
            low, high = list(range(half)), list(range(half, 2 * half))
            found = builder.fadd(self.pick(found, low), self.pick(found, high))
            half //= 2
        return builder.extract_element(found, INDEX(0))


@intrinsic(prefer_literal=True)
def stencil_sums(  # type: ignore[no-untyped-def]
    typing_context, table, phase_x, rest_x, phase_y, rest_y, image, variance, start, stride, taps
):
    """Return the sum of an image by the weights and of its variance by their squares.

    Positions are a phase of the table and the rest to the next, 0 to 1; ``start`` is the index of
    the first pixel of the stencil in the flat planes, ``stride`` the length of their rows,
    ``taps`` a literal.
    """
    place, pixel = (types.intp, types.float32), types.UniTuple(types.float32, 2)
    signature = pixel(table, *place, *place, image, variance, types.intp, types.intp, taps)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        vectors = Vectors(context, builder, signature.args[-1].literal_value)
        base = vectors.pointer(signature.args[0], values[0])
        along_x = vectors.weights(base, values[1], values[2])
        along_y = vectors.weights(base, values[3], values[4])
        start, stride = values[7:9]
        sums = [
            vectors.total(
                vectors.load,
                vectors.pointer(signature.args[5], values[5]),
                start,
                stride,
                along_x,
                along_y,
            ),
            vectors.total(
                vectors.load,
                vectors.pointer(signature.args[6], values[6]),
                start,
                stride,
                builder.fmul(along_x, along_x),
                builder.fmul(along_y, along_y),
            ),
        ]
        return context.make_tuple(builder, signature.return_type, sums)

    return signature, generate


@intrinsic(prefer_literal=True)
def excluded_sum(  # type: ignore[no-untyped-def]
    typing_context, table, phase_x, rest_x, phase_y, rest_y, marks, start, stride, taps
):
    """Return the weight of pixels whose mark has bit 1; arguments as of `stencil_sums`."""
    place = (types.intp, types.float32)
    signature = types.float32(table, *place, *place, marks, types.intp, types.intp, taps)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        vectors = Vectors(context, builder, signature.args[-1].literal_value)
        base = vectors.pointer(signature.args[0], values[0])
        return vectors.total(
            vectors.load_flags,
            vectors.pointer(signature.args[5], values[5]),
            values[6],
            values[7],
            vectors.weights(base, values[1], values[2]),
            vectors.weights(base, values[3], values[4]),
        )

    return signature, generate
