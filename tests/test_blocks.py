from __future__ import annotations

import gc
import mmap
import weakref

import numpy as np
from helpers import draw_batch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tsstore.recording import blocks as module
from tsstore.recording.blocks import BLOCK_BYTES, Blocks
from tsstore.store.batch import Batch, LayerBatch


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
    copy = Blocks().copy(batch)
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
    assert isinstance(base_of(found[0]).obj, mmap.mmap)
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
    blocks = Blocks()
    copies = [blocks._copy(array) for array in given]
    for array, copy in zip(given, copies, strict=True):
        assert copy.tobytes() == array.tobytes()
        assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
        assert copy.ctypes.data % array.itemsize == 0


def test_the_original_may_be_filled_again():
    rows = np.zeros((4, 8), dtype=np.uint8)
    copy = Blocks().copy(batch_of(rows, flag=np.zeros(4, dtype=bool)))
    rows[:] = 255
    assert not copy.layers["layer"].rows.any()


def test_large_and_empty_arrays_stay_where_they_are():
    blocks = Blocks()
    for rows in (np.empty((BLOCK_BYTES + 1, 1), dtype=np.uint8), np.empty((0, 3), dtype=np.uint8)):
        assert blocks.copy(batch_of(rows)).layers["layer"].rows is rows


def test_a_block_ends_with_the_last_array_in_it(monkeypatch):
    made = []

    class Block(mmap.mmap):
        def __new__(cls, *arguments, **options):
            block = super().__new__(cls, *arguments, **options)
            made.append(weakref.ref(block))
            return block

    monkeypatch.setattr(module.mmap, "mmap", Block)
    blocks = Blocks()
    rows = np.ones((BLOCK_BYTES // 4, 1), dtype=np.uint8)
    copies = [blocks._copy(rows) for _ in range(6)]
    assert len(made) == 2
    first = made[0]
    del copies[1:]
    gc.collect()
    assert first() is not None
    assert copies[0].all()
    copies.clear()
    gc.collect()
    assert first() is None
