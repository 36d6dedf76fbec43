"""One operation on 128-bit integers, which neither NumPy nor Numba offers.

LLVM knows integers of 128 bits, and turns the product below into two multiplications of the
machine. All that this module does is to hand it the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD: Final = ir.IntType(64)
_DOUBLE: Final = ir.IntType(128)
_WORD_BITS: Final = ir.Constant(_DOUBLE, 64)

_Word = np.uint64


def _type_multiply_add(
    typing_context: Any, high: Any, low: Any, key_high: Any, key_low: Any, word: Any
) -> Any:
    """Tell Numba the types of :data:`multiply_add` and how to write its instructions."""
    pair = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]
    return pair(*[types.uint64] * 5), _write_multiply_add


def _write_multiply_add(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    high, low, key_high, key_low, word = arguments
    product = builder.mul(_join(builder, key_high, key_low), builder.zext(word, _DOUBLE))
    total = builder.add(_join(builder, high, low), product)
    upper = builder.trunc(builder.lshr(total, _WORD_BITS), _WORD)
    return context.make_tuple(builder, signature.return_type, [upper, builder.trunc(total, _WORD)])


def _join(builder: Any, high: Any, low: Any) -> Any:
    shifted = builder.shl(builder.zext(high, _DOUBLE), _WORD_BITS)
    return builder.or_(shifted, builder.zext(low, _DOUBLE))


#: ``multiply_add(high, low, key_high, key_low, word)`` is ``sum + key * word`` modulo 2**128 as
#: two uint64, the high one first, for ``sum = 2**64 * high + low`` and
#: ``key = 2**64 * key_high + key_low``. For compiled functions alone.
multiply_add: Callable[[_Word, _Word, _Word, _Word, _Word], tuple[_Word, _Word]]
multiply_add = intrinsic(_type_multiply_add)  # type: ignore[assignment]
