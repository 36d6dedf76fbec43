"""One load that neither NumPy nor Numba offers: eight bytes from anywhere as a number.

Numba takes an array of numbers to begin at a multiple of their size, which rows need not do, and
makes eight loads of eight bytes. LLVM knows loads that may begin anywhere, and processors have
them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD: Final = ir.IntType(64)
_LITTLE_ENDIAN: Final = sys.byteorder == "little"


def _type_load_word(typing_context: Any, data: Any, at: Any) -> Any:
    """Tell Numba the types of :data:`load_word` and how to write its instructions."""
    return types.uint64(data, types.intp), _write_load_word


def _write_load_word(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data, at = arguments
    array = context.make_array(signature.args[0])(context, builder, data)
    pointer = builder.bitcast(builder.gep(array.data, [at]), _WORD.as_pointer())
    word = builder.load(pointer, align=1)
    return word if _LITTLE_ENDIAN else builder.bswap(word)


#: ``load_word(data, at)`` is the little-endian number in ``data[at : at + 8]``, as a uint64, for
#: ``data`` a C-contiguous uint8 (bytes,). Nothing checks that the bytes are there. For compiled
#: functions alone.
load_word: Callable[[NDArray[np.uint8], int], np.uint64]
load_word = intrinsic(_type_load_word)  # type: ignore[assignment]
