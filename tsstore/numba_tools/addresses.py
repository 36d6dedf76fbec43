"""Addresses in compiled functions: what lies there as an array, and asking memory for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype, carray

_FOR_READING: Final = (0, 3, 1)
"""Not for writing, into all caches, and data: as LLVM has it."""


def words_at(address: int, count: int, like: np.generic) -> npt.NDArray[Any]:
    """Return what lies at an address, as numbers of the type of `like`.

    Nothing is copied, and nothing checks that it is there or keeps it there.

    Parameters
    ----------
    address
        Of the first number.
    count
        How many there are.
    like
        Any number of their type.
    """
    memory = (ctypes.c_char * (count * like.itemsize)).from_address(address)
    return np.ndarray(count, like.dtype, memoryview(memory))


@overload(words_at, strict=False)
def _write_words_at(address: Any, count: Any, like: Any) -> Any:
    dtype = as_dtype(like)
    return lambda address, count, like: carray(_pointer(address), (count,), dtype)


def prefetch(words: npt.NDArray[Any], at: int) -> None:
    """Ask memory for a word that is going to be read soon; the processor goes on meanwhile."""


@overload(prefetch, strict=False)
def _write_prefetch(words: Any, at: Any) -> Any:
    return lambda words, at: _prefetch(words, at)


def _type_pointer(typing_context: Any, address: Any) -> Any:
    """Tell Numba the types of :data:`_pointer` and how to write its instruction."""
    return types.voidptr(address), _write_pointer


def _write_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.inttoptr(arguments[0], cgutils.voidptr_t)


def _type_prefetch(typing_context: Any, words: Any, at: Any) -> Any:
    """Tell Numba the types of :data:`_prefetch` and how to write its instruction."""
    return types.none(words, types.intp), _write_prefetch_of


def _write_prefetch_of(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    words, at = arguments
    array = context.make_array(signature.args[0])(context, builder, words)
    pointer = builder.bitcast(builder.gep(array.data, [at]), cgutils.voidptr_t)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[ir.IntType(32)] * 3])
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, "llvm.prefetch.p0"
    )
    builder.call(function, [pointer, *map(ir.IntType(32), _FOR_READING)])
    return context.get_dummy_value()


#: ``_pointer(address)`` is an integer as a pointer to anything. For compiled functions alone.
_pointer: Callable[[int], Any]
_pointer = intrinsic(_type_pointer)  # type: ignore[assignment]

#: ``_prefetch(words, at)`` is :func:`prefetch`. For compiled functions alone.
_prefetch: Callable[[npt.NDArray[Any], int], None]
_prefetch = intrinsic(_type_prefetch)  # type: ignore[assignment]
