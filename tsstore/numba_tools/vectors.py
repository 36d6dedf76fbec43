"""What intrinsics make of LLVM's vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils


def element(context: Any, builder: Any, kind: Any, array: Any, at: Any, target: Any = None) -> Any:
    """Return a pointer at an element of an array, of a target's type if one is given; no check."""
    place = builder.gep(context.make_array(kind)(context, builder, array).data, [at])
    return place if target is None else builder.bitcast(place, target.as_pointer())


def shuffled(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    """Return those lanes of two vectors, the second one's after the first one's, in an order."""
    lanes = ir.Constant(ir.VectorType(cgutils.int32_t, len(order)), order)
    return builder.shuffle_vector(first, second, lanes)


def repeated(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one value in so many lanes."""
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    single = builder.insert_element(nothing, value, cgutils.int32_t(0))
    return shuffled(builder, single, nothing, [0] * lanes)


def with_bytes_swapped(builder: Any, pair: Any) -> Any:
    """Return the 16 bytes of two words, those of each in the other order."""
    return shuffled(builder, pair, pair, [*range(7, -1, -1), *range(15, 7, -1)])
