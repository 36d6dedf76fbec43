"""Memory that block tasks use again."""

from __future__ import annotations

import pickle
import threading

import numpy as np

from tsstore.analysis.buffers import Buffers


def test_room_is_taken_once_and_grows_with_what_is_asked_for():
    buffers = Buffers()
    large, small = buffers.rows(100, 7), buffers.rows(20, 35)
    assert (large.shape, small.shape, large.dtype) == ((100, 7), (20, 35), np.uint8)
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, buffers.rows(101, 7))
    assert np.shares_memory(buffers.rows(1, 1), buffers.rows(101, 7))


def test_keys_are_contiguous_and_lie_elsewhere_than_rows():
    buffers = Buffers()
    keys, rows = buffers.keys(50, 2), buffers.rows(800, 1)
    assert (keys.shape, keys.dtype, keys.flags.c_contiguous) == ((50, 2), np.uint64, True)
    assert not np.shares_memory(keys, rows)
    assert np.shares_memory(keys, buffers.keys(100, 1))
    assert buffers.keys(0, 1).shape == (0, 1)


def test_each_thread_has_its_own():
    buffers, others = Buffers(), []
    own = buffers.keys(10, 1)
    own[:] = 7
    thread = threading.Thread(target=lambda: others.append(buffers.keys(10, 1)))
    thread.start()
    thread.join()
    others[0][:] = 9
    assert not np.shares_memory(own, others[0])
    assert (buffers.keys(10, 1) == 7).all()


def test_what_is_sent_elsewhere_is_empty():
    buffers = Buffers()
    keys = buffers.keys(10**6, 1)
    data = pickle.dumps(buffers)
    assert len(data) < 1000 < keys.nbytes
    again = pickle.loads(data)
    assert isinstance(again, Buffers)
    assert again.rows(3, 2).shape == (3, 2)
    assert not np.shares_memory(again.keys(10, 1), keys)
