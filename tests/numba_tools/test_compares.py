from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from tsstore.numba_tools.compares import LANES, add_plane, on_byte, on_word, turn_lines


# Not cached, so that each run of the tests writes the instructions anew.
@njit
def compiled_add(joined, to, words, at, bit, first, more, ahead):
    add_plane(joined, to, words, at, bit, first, more, ahead)


@njit
def compiled_word(words, at, first, more):
    return on_word(words, at, first, more)


@njit
def compiled_byte(words, at, first, more):
    return on_byte(words, at, first, more)


@njit
def compiled_turn(lines, at, turned):
    turn_lines(lines, at, turned)


def on_by_arithmetic(words, first, more):
    """Whether each word is `first` or one of those that follow it, without wrapping anything."""
    size = 1 << 8 * words.itemsize
    return [(int(word) - int(first)) % size <= int(more) for word in words]


@st.composite
def cases(draw):
    """Words, most of them at the ends of what is on, and these ends."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "u4", "u8"])))
    highest = int(np.iinfo(dtype).max)
    first, more = draw(st.integers(0, highest)), draw(st.integers(0, highest))
    near = [first - 1, first, first + more, first + more + 1, 0, highest]
    pool = [value % (highest + 1) for value in near]
    some = np.random.default_rng(draw(st.integers(0, 99)))
    words = np.array(pool, dtype)[some.integers(0, len(pool), 300)]
    return words, dtype.type(first), dtype.type(more)


@given(cases(), st.integers(0, 300 - 64))
@pytest.mark.parametrize(
    ("ask", "count"),
    [(on_word, 64), (compiled_word, 64), (on_byte, 8), (compiled_byte, 8)],
)
def test_bits_say_which_words_are_on(ask, count, case, at):
    words, first, more = case
    with np.errstate(over="ignore"):  # words before the first one wrap around
        bits = int(ask(words, at, first, more))
    expected = on_by_arithmetic(words[at : at + count], first, more)
    assert [bool(bits >> bit & 1) for bit in range(count)] == expected


@given(
    cases(),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 40),
    st.integers(1, 8),
    st.sampled_from([0, 16, 300, 1 << 40]),
)
@pytest.mark.parametrize("add", [add_plane, compiled_add])
def test_planes_become_bits_of_bytes(add, case, to, at, step, planes, ahead):
    words, first, more = case
    words = np.concatenate((words, words))
    joined = np.full(30, 77, np.uint8)
    with np.errstate(over="ignore"):
        for plane in range(planes):
            add(joined, to, words, at + plane * step, plane, first, more, ahead)
    expected = [77] * 30
    for lane in range(LANES):
        on = on_by_arithmetic(words[at + lane :: step or 1][:planes], first, more)
        if not step:
            on = on_by_arithmetic(words[at + lane : at + lane + 1], first, more) * planes
        expected[to + lane] = sum(bit << plane for plane, bit in enumerate(on))
    assert joined.tolist() == expected


@pytest.mark.parametrize("turn", [turn_lines, compiled_turn])
@pytest.mark.parametrize("at", [0, 16, 48])
def test_lines_become_the_bytes_of_words(turn, at):
    lines = np.random.default_rng(at).integers(0, 256, (8, 64), dtype=np.uint8)
    turned = np.full(64, 5, np.uint64)
    turn(lines, at, turned)
    for index, word in enumerate(turned.tolist()):
        column = lines[:, index].tolist()
        is_turned = at <= index < at + LANES
        assert word == (int.from_bytes(column, "little") if is_turned else 5)
