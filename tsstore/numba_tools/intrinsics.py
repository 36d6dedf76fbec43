"""Operations that neither NumPy nor Numba offers, as LLVM's instructions for compiled functions."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype, carray

from tsstore.numba_tools.vectors import element, repeated, shuffled, with_bytes_swapped

_WORD: Final = ir.IntType(64)
_LANES: Final = 8
_BUCKET: Final = ir.VectorType(_WORD, _LANES)
_PAIR: Final = ir.VectorType(ir.IntType(8), 16)
_LITTLE_ENDIAN: Final = sys.byteorder == "little"

_Word = np.uint64
_Whole = int | np.signedinteger[Any]


def words_at(address: int, count: int, like: np.generic) -> npt.NDArray[Any]:
    """Return what lies at an address, as `count` numbers of the type of `like`.

    Nothing is copied, and nothing checks that it is there or keeps it there.
    """
    memory = (ctypes.c_char * (count * like.itemsize)).from_address(address)
    return np.ndarray(count, like.dtype, memoryview(memory))


@overload(words_at, strict=False)
def _write_words_at(address: Any, count: Any, like: Any) -> Any:
    dtype = as_dtype(like)
    return lambda address, count, like: carray(_pointer(address), (count,), dtype)


def _type_pointer(typing_context: Any, address: Any) -> Any:
    return types.voidptr(address), _write_pointer


def _write_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.inttoptr(arguments[0], cgutils.voidptr_t)


def _type_load_word(typing_context: Any, data: Any, at: Any) -> Any:
    return types.uint64(data, types.intp), _write_load_word


def _write_load_word(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Load eight bytes from anywhere.

    Numba takes an array of numbers to begin at a multiple of their size, which rows need not do,
    and makes eight loads of eight bytes. LLVM knows loads that may begin anywhere, and processors
    have them.
    """
    data, at = arguments
    word = builder.load(element(context, builder, signature.args[0], data, at, _WORD), align=1)
    return word if _LITTLE_ENDIAN else builder.bswap(word)


def _type_sum_products(
    typing_context: Any, data: Any, at: Any, row_bytes: Any, addends: Any, pairs: Any
) -> Any:
    sums = types.UniTuple(types.uint64, 4)  # type: ignore[no-untyped-call]
    return sums(data, types.intp, types.intp, addends, types.intp), _write_sum_products


def _write_sum_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Multiply the halves of two words in four lanes at once.

    In a loop over lanes, or over words with a sum for each lane, LLVM finds no vectors.
    """
    data, at, row_bytes, addends, pairs = arguments
    halves, none = ir.VectorType(ir.IntType(32), 2 * _LANES), ir.Constant(_BUCKET, [0] * _LANES)
    # Of each lane those of the first words of pairs, and those of the second ones.
    products = cgutils.alloca_once_value(builder, none)  # type: ignore[no-untyped-call]
    last = builder.sub(row_bytes, ir.Constant(_WORD, 16))
    with cgutils.for_range(builder, pairs, intp=_WORD) as loop:
        begin = builder.mul(loop.index, ir.Constant(_WORD, 16))
        begin = builder.select(builder.icmp_signed("<", begin, last), begin, last)
        place = element(context, builder, signature.args[0], data, builder.add(at, begin), _PAIR)
        pair = builder.load(place, align=1)
        if not _LITTLE_ENDIAN:
            pair = with_bytes_swapped(builder, pair)
        words = builder.bitcast(pair, ir.VectorType(_WORD, 2))
        words = shuffled(builder, words, words, [0, 1] * (_LANES // 2))
        own = builder.mul(loop.index, ir.Constant(_WORD, 2))
        place = element(context, builder, signature.args[3], addends, own, halves)
        secrets = builder.load(place, align=8)
        added = builder.bitcast(builder.add(builder.bitcast(words, halves), secrets), _BUCKET)
        lower = builder.and_(added, ir.Constant(_BUCKET, [2**32 - 1] * _LANES))
        upper = builder.lshr(added, ir.Constant(_BUCKET, [32] * _LANES))
        total = builder.add(builder.load(products), builder.mul(lower, upper))
        builder.store(total, products)
    total = builder.load(products)
    # In this order of lanes, vectors of the machine need not be shuffled once more.
    even, odd = (shuffled(builder, total, total, [0 + by, 4 + by, 2 + by, 6 + by]) for by in (0, 1))
    sums = builder.add(even, odd)
    lanes = [builder.extract_element(sums, ir.Constant(_WORD, lane)) for lane in range(4)]
    return context.make_tuple(builder, signature.return_type, lanes)


def _type_compare_bucket(typing_context: Any, words: Any, at: Any, word: Any) -> Any:
    masks = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]
    return masks(words, types.uint64, types.uint64), _write_compare_bucket


def _write_compare_bucket(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Compare a vector of words: LLVM has an instruction of each processor for that, or several."""
    words, at, word = arguments
    loaded = builder.load(element(context, builder, signature.args[0], words, at, _BUCKET), align=8)
    wanted, zeros = repeated(builder, word, _LANES), ir.Constant(_BUCKET, [0] * _LANES)
    masks = [
        builder.zext(
            builder.bitcast(builder.icmp_unsigned("==", loaded, other), ir.IntType(_LANES)), _WORD
        )
        for other in (wanted, zeros)
    ]
    return context.make_tuple(builder, signature.return_type, masks)


def _type_copy_from(typing_context: Any, address: Any, array: Any, at: Any, count: Any) -> Any:
    return types.void(types.intp, array, types.intp, types.intp), _write_copy_from


def _write_copy_from(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    address, array, at, count = arguments
    to = element(context, builder, signature.args[1], array, at)
    source = builder.inttoptr(address, to.type)
    size = context.get_abi_sizeof(to.type.pointee)
    cgutils.raw_memcpy(builder, to, source, count, size)  # type: ignore[no-untyped-call]
    return context.get_dummy_value()


def _type_array_at(typing_context: Any, address: Any, like: Any) -> Any:
    return like(types.intp, like), _write_array_at


def _write_array_at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    address, like = arguments
    kind = context.make_array(signature.return_type)
    array = kind(context, builder, like)
    array.data = builder.inttoptr(address, array.data.type)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)  # type: ignore[no-untyped-call]
    return array._getvalue()


def _type_item_at(typing_context: Any, address: Any, at: Any, like: Any) -> Any:
    return like.dtype(types.intp, types.intp, like), _write_item_at


def _write_item_at(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    address, at, like = arguments
    data = context.make_array(signature.args[2])(context, builder, like).data
    return builder.load(builder.gep(builder.inttoptr(address, data.type), [at]))


def _type_count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    return types.uint64(types.uint64), _write_count_trailing_zeros


def _write_count_trailing_zeros(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))


#: ``_pointer(address)`` is an integer as a pointer to anything.
_pointer: Callable[[int], Any]
_pointer = intrinsic(_type_pointer)  # type: ignore[assignment]

#: ``load_word(data, at)`` is the little-endian number in ``data[at : at + 8]``, as a uint64, for
#: ``data`` a C-contiguous uint8 (bytes,). Nothing checks that the bytes are there. For compiled
#: functions alone.
load_word: Callable[[npt.NDArray[np.uint8], int], _Word]
load_word = intrinsic(_type_load_word)  # type: ignore[assignment]

#: ``sum_products(data, at, row_bytes, addends, pairs)`` is a uint64 for each of the lanes 0, 2, 1
#: and 3, in this order. The row ``data[at : at + row_bytes]``, of at least 16 bytes, is so many
#: pairs of little-endian words of 64 bits, one after another; the last pair is its last 16 bytes.
#: To the lower and the upper half of each word of pair p, lane i adds those of the same word of
#: pair p + i of ``addends``, a uint64 (words,), modulo 2**32, and sums their products up modulo
#: 2**64. Nothing checks that the bytes and words are there. For compiled functions alone.
sum_products: Callable[
    [npt.NDArray[np.uint8], int, int, npt.NDArray[np.uint64], int],
    tuple[_Word, _Word, _Word, _Word],
]
sum_products = intrinsic(_type_sum_products)  # type: ignore[assignment]

#: ``compare_bucket(words, at, word)`` compares ``words[at : at + 8]``, for ``words`` a uint64
#: (words,), with a word and with 0: two uint64 whose bits say which are equal. Nothing checks that
#: the words are there. For compiled functions alone.
compare_bucket: Callable[[npt.NDArray[np.uint64], _Word, _Word], tuple[_Word, _Word]]
compare_bucket = intrinsic(_type_compare_bucket)  # type: ignore[assignment]

#: ``count_trailing_zeros(word)`` is the number of the lowest bit that is set in a uint64, as one;
#: 64 of 0. For compiled functions alone.
count_trailing_zeros: Callable[[_Word], _Word]
count_trailing_zeros = intrinsic(_type_count_trailing_zeros)  # type: ignore[assignment]

#: ``copy_from(address, array, at, count)`` copies so many items of the array, C-contiguous, from an
#: address to where its item number ``at`` is. Nothing checks that they are there. For compiled
#: functions alone.
copy_from: Callable[[_Whole, npt.NDArray[Any], _Whole, _Whole], None]
copy_from = intrinsic(_type_copy_from)  # type: ignore[assignment]

#: ``item_at(address, at, like)`` is item number ``at``, of the type of the array ``like``, of those
#: at an address. Nothing checks that it is there. For compiled functions alone.
item_at: Callable[[_Whole, _Whole, npt.NDArray[Any]], Any]
item_at = intrinsic(_type_item_at)  # type: ignore[assignment]

#: ``array_at(address, like)`` is an array of the shape and the type of another one, C-contiguous,
#: whose items are at an address. Nothing checks that they are there. For compiled functions alone.
array_at: Callable[[_Whole, npt.NDArray[Any]], npt.NDArray[Any]]
array_at = intrinsic(_type_array_at)  # type: ignore[assignment]
