"""Memory that tasks use again."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from tsstore.counting.records import Buffers


def test_room_of_a_name_is_taken_once_and_grows_with_what_is_asked_for():
    buffers = Buffers()
    large = buffers.array("rows", (100, 7), np.uint8)
    small = buffers.array("rows", (5, 20), np.uint32)
    assert (large.shape, small.shape) == ((100, 7), (5, 20))
    assert (large.dtype, small.dtype) == (np.uint8, np.uint32)
    assert small.flags.carray
    assert np.shares_memory(large, small)
    larger = buffers.array("rows", (200, 7), np.uint8)
    assert not np.shares_memory(large, larger)
    assert np.shares_memory(buffers.array("rows", (1, 1), np.uint8), larger)
    assert buffers.array("rows", (0, 3), np.uint64).shape == (0, 3)


def test_what_is_a_little_larger_than_before_needs_no_new_room():
    buffers = Buffers()
    first = buffers.array("keys", (1000,), np.uint64)
    assert np.shares_memory(first, buffers.array("keys", (1060,), np.uint64))
    assert np.shares_memory(first, buffers.array("keys", (8000 + 8000 // 16,), np.uint8))


def test_names_have_memory_of_their_own():
    buffers = Buffers()
    keys, rows = buffers.array("keys", (50, 2), np.uint64), buffers.array("rows", (800,), np.uint8)
    assert not np.shares_memory(keys, rows)


@pytest.mark.parametrize("words", [1, 3])
def test_records_have_the_columns_that_were_asked_for(words):
    bare = Buffers().records("a", 10, words, True, False)
    assert bare.is_bare
    assert (len(bare), bare.words, bare.group) == (10, words, None)
    counted = Buffers().records("a", 10, words, False, True)
    assert not counted.is_bare
    assert [column.dtype for column in counted.arrays()] == ["u8", "u4", "u4", "u1"]
    columns = list(counted.arrays())
    for number, column in enumerate(columns):
        column[:] = number
    assert [int(column.max()) for column in columns] == [0, 1, 2, 3]


def test_what_is_kept_is_made_once():
    buffers, made = Buffers(), []

    def make() -> list:
        made.append([])
        return made[-1]

    buffers.kept("a", make).append(7)
    assert buffers.kept("a", make) == [7]
    assert buffers.kept("b", make) == []
    assert len(made) == 2


def test_each_thread_has_its_own():
    buffers, others = Buffers(), []

    def array() -> np.ndarray:
        return buffers.array("a", (10,), np.uint8)

    own, kept = array(), buffers.kept("a", object)
    own[:] = 7
    thread = threading.Thread(target=lambda: others.extend([array(), buffers.kept("a", object)]))
    thread.start()
    thread.join()
    others[0][:] = 9
    assert not np.shares_memory(own, others[0])
    assert (own == 7).all()
    assert others[1] is not kept
    assert buffers.kept("a", object) is kept


def test_what_is_sent_elsewhere_is_empty():
    buffers = Buffers()
    keys = buffers.array("keys", (10**6,), np.uint64)
    buffers.kept("a", lambda: [1])
    data = pickle.dumps(buffers)
    assert len(data) < 1000 < keys.nbytes
    again = pickle.loads(data)
    assert type(again) is Buffers
    assert not np.shares_memory(again.array("keys", (10,), np.uint64), keys)
    assert again.kept("a", list) == []
