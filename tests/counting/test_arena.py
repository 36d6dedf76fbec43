"""Memory that is lent, and comes back when nothing refers to it any more."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.arena import LEAST_BYTES, Arena
from tsstore.counting.records import Buffers, Records

WORDS = LEAST_BYTES // 8


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int64])
@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), (LEAST_BYTES,), (3, LEAST_BYTES, 2)])
def test_an_array_has_the_shape_and_kind_that_was_asked_for(shape, dtype) -> None:
    arena = Arena()
    for _ in range(2):  # new memory, and such that was used before
        array = arena.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[:] = 7
        assert (array == 7).all()
        del array


def test_what_nothing_refers_to_any_more_is_used_again() -> None:
    arena = Arena()
    array = arena.empty((WORDS,), np.uint64)
    place, size = address(array), array.nbytes
    assert arena.free_bytes == 0
    del array
    assert arena.free_bytes == size
    again = arena.empty((WORDS, 2), np.uint32)
    assert address(again) == place
    assert arena.free_bytes == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[3:9],
        lambda array: array.reshape(-1, 2)[1],
        lambda array: array.view(np.uint8)[:1],
        lambda array: array[:4].view(np.int64)[2:],
        lambda array: memoryview(array),
        lambda array: Records(array[: 2 * (len(array) // 2)].reshape(-1, 2))[5:6].keys,
        lambda array: np.frombuffer(array[1:2], np.uint8),
        lambda array: np.asarray(array).T,
    ],
)
def test_what_is_lent_is_not_lent_again_while_any_view_of_it_lives(view) -> None:
    arena = Arena()
    array = arena.empty((WORDS,), np.uint64)
    array[:] = 5
    place, kept = address(array), view(array)
    before = bytes(kept)
    del array
    assert arena.free_bytes == 0
    other = arena.empty((WORDS,), np.uint64)
    assert address(other) != place
    other[:] = 9
    assert bytes(kept) == before
    del kept
    assert arena.free_bytes == LEAST_BYTES
    assert address(arena.empty((WORDS,), np.uint64)) == place


def test_small_arrays_are_left_to_the_allocator() -> None:
    arena = Arena()
    arena.empty((LEAST_BYTES - 1,), np.uint8)
    assert arena.free_bytes == 0
    arena.empty((LEAST_BYTES,), np.uint8)
    assert arena.free_bytes == LEAST_BYTES


def test_what_fits_best_is_taken_and_nothing_far_larger() -> None:
    arena = Arena()
    arena.trim(10**6)
    sizes = [100_000, 105_000, 120_000, 200_000]
    places = {}
    arrays = [arena.empty((size,), np.uint8) for size in sizes]
    for size, array in zip(sizes, arrays, strict=True):
        places[address(array)] = size
    arrays.clear()
    del array
    wanted, found = [101_000, 101_000, 101_000, 90_000], []
    for size in wanted:
        arrays.append(arena.empty((size,), np.uint8))
        found.append(places.get(address(arrays[-1])))
    assert found == [105_000, 120_000, None, 100_000]
    assert arena.free_bytes == 200_000


@given(st.lists(st.tuples(st.booleans(), st.integers(LEAST_BYTES, 3 * LEAST_BYTES)), max_size=30))
def test_no_two_arrays_that_live_share_memory(steps) -> None:
    arena, held = Arena(), []
    for number, (lets_go, size) in enumerate(steps):
        if lets_go and held:
            held.pop(size % len(held))
        array = arena.empty((size,), np.uint8)
        array[:] = number
        held.append((number, array))
        del array
    assert all((array == number).all() for number, array in held)


def test_zeros_are_zeros_in_memory_that_was_used_and_in_new() -> None:
    arena = Arena()
    for size in (LEAST_BYTES - 8, LEAST_BYTES, LEAST_BYTES + 8):
        for _ in range(2):
            array = arena.zeros((size // 8,), np.int64)
            assert array.shape == (size // 8,)
            assert not array.any()
            array[:] = -1
            del array
    assert arena.zeros((3, 4), np.uint16).tolist() == [[0] * 4] * 3


def test_trimming_gives_memory_back_and_keeps_what_was_freed_last() -> None:
    arena = Arena()
    arrays = [arena.empty((size,), np.uint8) for size in (100_000, 200_000, 400_000)]
    while arrays:
        arrays.pop(0)
    assert arena.free_bytes == 700_000
    arena.trim(10**9)
    assert arena.free_bytes == 700_000
    arena.trim(600_000)
    assert arena.free_bytes == 600_000
    arena.trim(599_999)
    assert arena.free_bytes == 400_000
    lent = arena.empty((400_000,), np.uint8)
    arena.trim()
    assert arena.free_bytes == 0
    lent[:] = 3
    del lent
    assert arena.free_bytes == 400_000
    arena.trim()
    assert arena.free_bytes == 0


def test_new_memory_takes_the_place_of_what_is_kept_but_for_what_may_be() -> None:
    arena = Arena()
    arrays = [arena.empty((100_000,), np.uint8) for _ in range(8)]
    arrays.clear()
    assert arena.free_bytes == 800_000
    large = arena.empty((300_000,), np.uint8)
    assert arena.free_bytes == 500_000
    larger = arena.empty((2_000_000,), np.uint8)
    assert arena.free_bytes == 0
    del large, larger
    arena.trim(2_050_000)
    assert arena.free_bytes == 2_000_000
    small = arena.empty((70_000,), np.uint8)
    assert arena.free_bytes == 0
    del small
    arena.trim(200_000)
    small = arena.empty((100_000,), np.uint8)
    assert small.nbytes + arena.free_bytes <= 200_000


def test_an_array_outlives_its_arena() -> None:
    arena = Arena()
    array = arena.empty((WORDS,), np.uint64)
    array[:] = 3
    del arena
    assert (array == 3).all()


def test_threads_lend_and_give_back_at_once() -> None:
    arena, barrier = Arena(), threading.Barrier(4)

    def work(own: int) -> bool:
        barrier.wait()
        is_right = True
        for step in range(200):
            one = arena.empty((LEAST_BYTES + 8 * (step % 5),), np.uint8)
            one[:] = own
            other = arena.empty((LEAST_BYTES,), np.uint8)
            other[:] = own + 100
            is_right &= bool((one == own).all() and (other == own + 100).all())
            if step % 50 == 49:
                arena.trim(LEAST_BYTES)
        return is_right

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4
    assert arena.free_bytes <= 8 * (LEAST_BYTES + 32)


def test_what_one_thread_lends_another_one_may_give_back() -> None:
    arena = Arena()
    arrays = [arena.empty((WORDS,), np.uint64) for _ in range(3)]
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join()
    assert arena.free_bytes == 3 * LEAST_BYTES


def test_an_arena_that_is_sent_elsewhere_is_empty_there() -> None:
    arena = Arena()
    arena.empty((10**6,), np.uint8)
    assert arena.free_bytes == 10**6
    data = pickle.dumps(arena)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert type(again) is Arena
    assert again.free_bytes == 0
    again.empty((10**6,), np.uint8)
    assert (arena.free_bytes, again.free_bytes) == (10**6, 10**6)


def test_what_is_lent_is_sent_elsewhere_as_any_array() -> None:
    array = Arena().empty((WORDS,), np.uint64)
    array[:] = np.arange(WORDS)
    assert np.array_equal(pickle.loads(pickle.dumps(array)), array)
    assert np.array_equal(pickle.loads(pickle.dumps(array[3:], protocol=5)), array[3:])


def test_records_and_buffers_take_their_memory_from_it() -> None:
    arena = Arena()
    arena.trim(10**8)
    records = Records.empty(2, bare=False, group_bytes=1, count=1 << 16, empty=arena.empty)
    size = records.nbytes
    assert arena.free_bytes == 0
    del records
    assert arena.free_bytes == size
    buffers = Buffers(arena)
    held = buffers.array("keys", (1 << 16, 2), np.uint64)
    del buffers
    assert arena.free_bytes == size
    del held
    assert arena.free_bytes == size + (17 << 16)
