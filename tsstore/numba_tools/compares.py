"""Compares of many words at once that give bits: LLVM makes the processor's own instructions.

A word is on where it is `first` or one of `following` words after it, which wrap around. LLVM finds
no such instructions in a loop: it widens each outcome to the size of what was compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from tsstore.numba_tools.vectors import element, repeated, shuffled, with_bytes_swapped

LANES: Final = 16
"""Positions that are joined at once."""

_Words = npt.NDArray[np.unsignedinteger[Any]]
_Bytes = npt.NDArray[np.uint8]
_BYTE: Final = ir.IntType(8)
_INDEX: Final = ir.IntType(64)
_LITTLE_ENDIAN: Final = sys.byteorder == "little"


def add_plane(
    joined: _Bytes, to: int, words: _Words, at: int, bit: int, first: Any, more: Any, ahead: int
) -> None:
    """Write to `joined`, as a bit of 16 bytes, whether each of the words from `at` on is on.

    Bit 0 begins them anew. `more` words follow `first`. What lies `ahead` words further on is
    fetched from memory meanwhile, if there is something.
    """
    before = joined[to : to + LANES] if bit else 0
    on = _are_on(words[at : at + LANES], first, more).astype(np.uint8)
    joined[to : to + LANES] = before | on << np.uint8(bit)


def turn_lines(lines: _Bytes, at: int, turned: npt.NDArray[np.uint64]) -> None:
    """Write 16 words to `turned` from `at` on: byte i of each is that of line i, of 8, there."""
    turned[at : at + LANES] = lines[:, at : at + LANES].T.copy().view("<u8")[:, 0]


def on_word(words: _Words, at: int, first: Any, more: Any) -> np.uint64:
    """Return 64 bits: whether each of the words from `at` on is on."""
    packed = np.packbits(_are_on(words[at : at + 64], first, more), bitorder="little")
    return np.uint64(packed.view("<u8")[0])


def on_byte(words: _Words, at: int, first: Any, more: Any) -> np.uint8:
    """Return 8 bits: whether each of the words from `at` on is on."""
    return np.uint8(np.packbits(_are_on(words[at : at + 8], first, more), bitorder="little")[0])


def _are_on(words: _Words, first: Any, more: Any) -> Any:
    return words - first <= more


def _type_add(
    typing: Any,
    joined: Any,
    to: Any,
    words: Any,
    at: Any,
    bit: Any,
    first: Any,
    more: Any,
    ahead: Any,
) -> Any:
    index = types.int64
    return types.none(joined, index, words, index, index, first, more, index), _write_add


def _write_add(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    joined, to, words, at, bit, first, more, ahead = arguments
    kind, vector = signature.args[2], ir.VectorType(_BYTE, LANES)
    none = ir.Constant(vector, [0] * LANES)
    _write_fetch(builder, element(context, builder, kind, words, builder.add(at, ahead), _BYTE))
    on = _write_compare(context, builder, kind, words, at, first, more, LANES)
    bits = builder.shl(ir.Constant(_BYTE, 1), builder.trunc(bit, _BYTE))
    place = element(context, builder, signature.args[0], joined, to, vector)
    is_first = builder.icmp_unsigned("==", bit, ir.Constant(_INDEX, 0))
    before = builder.select(is_first, none, builder.load(place, align=1))
    found = builder.select(on, repeated(builder, bits, LANES), none)
    builder.store(builder.or_(before, found), place, align=1)
    return context.get_dummy_value()


def _write_fetch(builder: Any, place: Any) -> None:
    """Ask for what is at a place, to be read soon: a hint, which never fails."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, *[number] * 3])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
    builder.call(fetch, [place, number(0), number(3), number(1)])


def _type_turn(typing: Any, lines: Any, at: Any, turned: Any) -> Any:
    return types.none(lines, types.int64, turned), _write_turn


def _write_turn(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Interleave lines by halves: first those 4 apart, then 2, then neighbours."""
    lines, at, turned = arguments
    bytes_type = ir.VectorType(_BYTE, LANES)
    array = context.make_array(signature.args[0])(context, builder, lines)
    width = builder.extract_value(array.shape, 1)
    vectors = []
    for line in range(8):
        begin = builder.add(at, builder.mul(ir.Constant(_INDEX, line), width))
        place = element(context, builder, signature.args[0], lines, begin, bytes_type)
        vectors.append(builder.load(place, align=1))
    for _ in range(3):
        pairs = zip(vectors[:4], vectors[4:], strict=True)
        vectors = [_interleaved(builder, *pair, half) for pair in pairs for half in (0, 1)]
    for number, vector in enumerate(vectors):
        if not _LITTLE_ENDIAN:
            vector = with_bytes_swapped(builder, vector)
        word = builder.add(at, ir.Constant(_INDEX, 2 * number))
        place = element(context, builder, signature.args[2], turned, word, bytes_type)
        builder.store(vector, place, align=8)
    return context.get_dummy_value()


def _interleaved(builder: Any, first: Any, second: Any, half: int) -> Any:
    begin = half * LANES // 2
    order = [lane for each in range(begin, begin + LANES // 2) for lane in (each, LANES + each)]
    return shuffled(builder, first, second, order)


def _type_word(typing: Any, words: Any, at: Any, first: Any, more: Any) -> Any:
    return types.uint64(words, types.int64, first, more), partial(_write_on, 64)


def _type_byte(typing: Any, words: Any, at: Any, first: Any, more: Any) -> Any:
    return types.uint8(words, types.int64, first, more), partial(_write_on, 8)


def _write_on(lanes: int, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    words, at, first, more = arguments
    compared = _write_compare(context, builder, signature.args[0], words, at, first, more, lanes)
    bits = builder.bitcast(compared, ir.IntType(lanes))
    return bits if _LITTLE_ENDIAN else builder.bitreverse(bits)


def _write_compare(
    context: Any, builder: Any, kind: Any, words: Any, at: Any, first: Any, more: Any, lanes: int
) -> Any:
    """Compare words that follow each other: words before the first one wrap around."""
    vector = ir.VectorType(first.type, lanes)
    place = element(context, builder, kind, words, at, vector)
    found = builder.load(place, align=first.type.width // 8)
    distance = builder.sub(found, repeated(builder, first, lanes))
    return builder.icmp_unsigned("<=", distance, repeated(builder, more, lanes))


_add_plane: Callable[..., Any] = intrinsic(_type_add)
_turn_lines: Callable[..., Any] = intrinsic(_type_turn)
_on_word: Callable[..., Any] = intrinsic(_type_word)
_on_byte: Callable[..., Any] = intrinsic(_type_byte)


@overload(add_plane, strict=False)
def _compile_add(
    joined: Any, to: Any, words: Any, at: Any, bit: Any, first: Any, more: Any, ahead: Any
) -> Any:
    return lambda joined, to, words, at, bit, first, more, ahead: _add_plane(
        joined, to, words, at, bit, first, more, ahead
    )


@overload(turn_lines, strict=False)
def _compile_turn(lines: Any, at: Any, turned: Any) -> Any:
    return lambda lines, at, turned: _turn_lines(lines, at, turned)


@overload(on_word, strict=False)
def _compile_on_word(words: Any, at: Any, first: Any, more: Any) -> Any:
    return lambda words, at, first, more: _on_word(words, at, first, more)


@overload(on_byte, strict=False)
def _compile_on_byte(words: Any, at: Any, first: Any, more: Any) -> Any:
    return lambda words, at, first, more: _on_byte(words, at, first, more)
