from __future__ import annotations

import gc
import mmap
import weakref
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
from helpers import draw_batch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tsstore.recording.background import arena as module
from tsstore.recording.background.arena import BLOCK_BYTES, SPARE_BYTES, Arena
from tsstore.store.writing.batch import Batch, LayerBatch


def batch_of(rows, **columns):
    positions = np.ones(len(rows), dtype=np.int64)
    return Batch(len(rows), {"layer": LayerBatch(rows, positions)}, columns)


def base_of(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_a_copy_is_equal_and_lies_in_a_block():
    batch = draw_batch(
        np.random.default_rng(0), 5, columns={"id": range(5), "name": list("abcde"), "x": [0.5] * 5}
    )
    copy = Arena().copy(batch)
    assert (copy.samples, copy.nbytes) == (batch.samples, batch.nbytes)
    found = []
    for name, layer in batch.layers.items():
        np.testing.assert_array_equal(copy.layers[name].rows, layer.rows)
        np.testing.assert_array_equal(copy.layers[name].positions, layer.positions)
        found += [copy.layers[name].rows, copy.layers[name].positions]
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(copy.columns[name], column)
        assert copy.columns[name].dtype == column.dtype
    found += [copy.columns["id"], copy.columns["x"]]
    assert copy.columns["name"] is batch.columns["name"]
    (block,) = {id(base_of(array)) for array in found}
    assert isinstance(base_of(found[0]), mmap.mmap)
    assert block


@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.uint8, np.bool_, np.float16, np.int64, np.float64]),
            st.tuples(st.integers(0, 9), st.integers(0, 9)),
        ),
        max_size=20,
    )
)
def test_copies_do_not_disturb_each_other(given):
    arena = Arena()
    copies = [arena.copied(array) for array in given]
    for array, copy in zip(given, copies, strict=True):
        assert copy.tobytes() == array.tobytes()
        assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
        assert copy.ctypes.data % array.itemsize == 0


def test_the_original_may_be_filled_again():
    rows = np.zeros((4, 8), dtype=np.uint8)
    copy = Arena().copy(batch_of(rows, flag=np.zeros(4, dtype=bool)))
    rows[:] = 255
    assert not copy.layers["layer"].rows.any()


def test_large_and_empty_arrays_stay_where_they_are():
    arena = Arena()
    for rows in (np.empty((BLOCK_BYTES + 1, 1), dtype=np.uint8), np.empty((0, 3), dtype=np.uint8)):
        assert arena.copy(batch_of(rows)).layers["layer"].rows is rows


def test_what_is_in_a_block_is_not_copied():
    arena = Arena()
    rows = arena.empty((2, 3, 4)).reshape(6, 4)
    batch = batch_of(rows, flag=np.zeros(6, dtype=bool))
    copy = arena.copy(batch)
    assert copy.layers["layer"].rows is rows
    assert copy.columns["flag"] is not batch.columns["flag"]
    elsewhere = Arena().copy(batch_of(rows.copy())).layers["layer"].rows
    assert arena.copy(batch_of(elsewhere)).layers["layer"].rows is elsewhere


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), max_size=30))
def test_rooms_have_their_shape_and_nothing_in_common(shapes):
    arena = Arena()
    rooms = [arena.empty(tuple(shape)) for shape in shapes]
    for number, room in enumerate(rooms):
        room[...] = number
    for number, (shape, room) in enumerate(zip(shapes, rooms, strict=True)):
        assert room.shape == tuple(shape)
        assert room.dtype == np.uint8
        assert (room == number).all()
        assert room.flags.c_contiguous


@pytest.fixture
def made(monkeypatch):
    """Weak references to all blocks that the system has given."""
    made = []

    class Block(mmap.mmap):
        def __new__(cls, *arguments, **options):
            block = super().__new__(cls, *arguments, **options)
            made.append(weakref.ref(block))
            return block

    monkeypatch.setattr(module.mmap, "mmap", Block)
    return made


QUARTER = np.ones((BLOCK_BYTES // 4, 1), dtype=np.uint8)


def test_a_block_is_filled_again_when_nothing_in_it_is_used_any_more(made):
    arena = Arena()
    copies = [arena.copied(QUARTER) for _ in range(6)]
    assert len(made) == 2
    del copies[1:]
    copies += [arena.copied(QUARTER * number) for number in (2, 3)]
    assert len(made) == 2
    assert [int(copy[0, 0]) for copy in copies] == [1, 2, 3]
    copies.append(arena.copied(QUARTER))
    assert len(made) == 3, "an array in the first block is still used"
    del copies[0]
    copies += [arena.copied(QUARTER * 4) for _ in range(4)]
    assert len(made) == 3
    assert [int(copy[0, 0]) for copy in copies] == [2, 3, 1, 4, 4, 4, 4]


def test_a_large_room_has_a_block_of_its_own_that_is_filled_again(made):
    arena = Arena()
    for size in (BLOCK_BYTES + 1, 2 * BLOCK_BYTES, BLOCK_BYTES + 77):
        large = arena.empty((size,))
        large[:] = 3
        small = arena.empty((5,))
        assert base_of(large) is not base_of(small)
        del large
    assert [len(block()) for block in made] == [2 * BLOCK_BYTES, BLOCK_BYTES]
    assert small.base is not None


def test_large_blocks_count_with_those_that_are_kept(made):
    arena = Arena()
    rooms = [arena.empty((SPARE_BYTES // 2 - 5,)) for _ in range(3)]
    del rooms
    gc.collect()
    assert sum(len(block()) for block in made if block() is not None) == SPARE_BYTES
    arena.empty((SPARE_BYTES + 1,)).fill(1)
    assert sum(len(block()) for block in made if block() is not None) == SPARE_BYTES


def test_a_few_blocks_are_kept_for_later_and_the_others_go_back_to_the_system(made):
    arena = Arena()
    count = SPARE_BYTES // BLOCK_BYTES + 5
    copies = [arena.copied(QUARTER) for _ in range(4 * count)]
    assert sum(block() is not None for block in made) == count
    del copies
    gc.collect()
    # The one that is being filled is no spare.
    assert sum(block() is not None for block in made) == SPARE_BYTES // BLOCK_BYTES + 1
    del arena
    gc.collect()
    assert sum(block() is not None for block in made) == 0


def test_blocks_are_let_go_of_on_another_thread(made):
    arena = Arena()
    queue = SimpleQueue()

    def write():
        while (copy := queue.get()) is not None:
            assert (copy[1] == copy[0]).all()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        for number in range(2000):
            original = np.full(BLOCK_BYTES // 64, number % 251, dtype=np.uint8)
            queue.put((number % 251, arena.copied(original)))
        queue.put(None)
        written.result(timeout=60)
    assert len(made) <= 2000 / 64 + 1
