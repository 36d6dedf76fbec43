from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
from dask.base import tokenize
from helpers import draw_batch, rewrite_attributes, rows_of, start_part, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore import bits
from tsstore.errors import DamageError, FormatError, RowIndexError, StoreError
from tsstore.store.chunked.chunk import decode
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.paths import is_directory
from tsstore.store.format.record import ArrayCommit
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.store.reading.store import open_store
from tsstore.store.writing.batch import Batch

NEURONS = {"a": 11}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two parts, many small chunks, a layer of 3 positions and one of varying positions."""
    path, rng = tmp_path_factory.mktemp("written") / "run.zarr", np.random.default_rng(3)
    for rank in range(2):
        batches = [
            draw_batch(rng, 4, positions={"conv_1": 3, "fc.2": rng.integers(0, 4, 4).tolist()})
            for _ in range(3)
        ]
        part = PartAttributes(rank=rank, world_size=2)
        write_run(path, batches, part=part, chunk_bytes=12)
    return path


@pytest.fixture
def store(written, tmp_path):
    return open_store(shutil.copytree(written, tmp_path / "run.zarr"))


@st.composite
def histories(draw) -> tuple[list[list[Batch]], list[set[int]]]:
    """Return the batches of one or two parts, and after which of them there is a commit."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    parts, commits = [], []
    for _ in range(draw(st.integers(1, 2))):
        batches = []
        for samples in draw(st.lists(st.integers(0, 7), min_size=1, max_size=4)):
            positions = draw(st.integers(0, 3) | st.just(rng.integers(0, 4, samples).tolist()))
            batches.append(draw_batch(rng, samples, neurons=NEURONS, positions={"a": positions}))
        parts.append(batches)
        commits.append(draw(st.sets(st.integers(0, 3))))
    return parts, commits


bounds = st.none() | st.integers(-90, 90)
steps = st.none() | st.integers(-4, 4).filter(bool)


@settings(deadline=None, max_examples=50)
@given(history=histories(), keys=st.lists(st.builds(slice, bounds, bounds, steps), max_size=5))
def test_what_was_appended_is_read_whatever_the_batches_commits_and_slices(
    tmp_path_factory, history, keys
):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    for batches, commits in zip(*history, strict=True):
        part = start_part(path, batches[0], neurons=NEURONS, chunk_bytes=10)
        for number, batch in enumerate(batches):
            part.append(batch)
            if number in commits:
                part.commit()
        part.seal()
    every = [batch for batches in history[0] for batch in batches]
    rows, states = rows_of(every, "a"), open_store(path)["a"]
    assert states.shape == rows.shape
    assert states.read_positions().tolist() == [
        count for batch in every for count in batch.layers["a"].positions
    ]
    np.testing.assert_array_equal(states.decode(), bits.unpack(rows, 11))
    for key in keys:
        np.testing.assert_array_equal(states[key], rows[key])
    for index in range(-len(rows), len(rows)):
        np.testing.assert_array_equal(states[index], rows[index])


@pytest.mark.parametrize("key", [
    (3,), (-1, 0), (slice(None), 1), (slice(5, 1, -2), slice(None)), (slice(2, 9), -1),
    (4, slice(0, 1)), (slice(0, 0), slice(None)), slice(10, 2), np.int64(4), (slice(None), [1, 0]),
    [0, 1], [-1, 3, 3, 0], [], [[0, 5], [7, -2]], np.array([9, 2], dtype=np.uint64), np.array(3),
    ..., (), (..., 0), (3, ...), (..., slice(2, 4), 1), (slice(None), ...), slice(30, None, -7),
    ([0, 5, 2], [1, 0, 0]), ([4, 9], slice(None, None, -1)), ([[1], [3]], [0, 1]), ([1, 3], -1),
    (slice(2, 5), np.array([True, False])), range(3), torch.tensor([4, 1]), pd.Series([3, 1]),
], ids=repr)  # fmt: skip
def test_keys_mean_what_they_mean_to_numpy(store, key):
    rows = store["fc.2"][:]
    selected = store["fc.2"][key]
    np.testing.assert_array_equal(selected, rows[key])
    assert selected.shape == rows[key].shape
    assert selected.dtype == np.uint8


def test_masks_mean_what_they_mean_to_numpy(store):
    states, rows = store["fc.2"], store["fc.2"][:]
    mask = rows[:, 0] % 3 == 0
    for key in (
        mask,
        mask.tolist(),
        (mask, 1),
        (mask, ...),
        ~mask & mask,
        rows > 99,
        (..., mask)[1:],
    ):
        np.testing.assert_array_equal(states[key], rows[key])
    np.testing.assert_array_equal(states.decode(mask), bits.unpack(rows[mask], 13))


numbers = st.integers(-90, 90)


@settings(deadline=None, max_examples=60)
@given(key=st.lists(numbers) | st.lists(st.lists(numbers, min_size=2, max_size=2)) | numbers)
def test_any_row_numbers_mean_what_they_mean_to_numpy(any_store, key):
    states, rows = any_store["a"], np.asarray(any_store["a"])
    try:
        expected = rows[key]
    except IndexError:
        with pytest.raises(
            RowIndexError, match=r"layer a: there is no row -?\d+; expected one from"
        ):
            states[key]
        return
    np.testing.assert_array_equal(states[key], expected)
    assert states[key].shape == expected.shape
    np.testing.assert_array_equal(states.decode(key), bits.unpack(expected, 11))


@pytest.fixture(scope="module")
def any_store(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("any") / "run.zarr"
    for rank, samples in enumerate((31, 0, 29)):
        batch = draw_batch(rng, samples, neurons=NEURONS)
        write_run(path, [batch], neurons=NEURONS, part=PartAttributes(rank=rank), chunk_bytes=14)
    return open_store(path)


@pytest.mark.parametrize(("key", "message"), [
    (1000, "there is no row 1000; expected one from -72 to 71"),
    ([3, -1000], "there is no row -1000"),
    (np.array([2**63], dtype=np.uint64), "there is no row 9223372036854775808"),
    ((0, 1), "there is no byte 1; expected one from -1 to 0"),
    ("a", "'a' means no rows; expected an integer, a slice"),
    (1.5, "1.5 means no rows"), ([1.5], "means no rows"), (None, "None means no rows"),
    (True, "True means no rows"), (np.array(True), "means no rows"), ([[1], [2, 3]], "means no"),
    ([True, False], r"mask of shape \(2,\), expected \(72,\)"), ((..., ...), "two at most"),
    ((0, 0, 0), "found 3 indices for 3 axes"), ((slice(None), slice(None), 0), "two at most"),
    (np.ones((72, 2), np.bool_), r"mask of shape \(72, 2\), expected \(72, 1\)"),
    (np.ones((72, 1, 1), np.bool_), "expected two at most"), (slice("a", "b"), "means no rows"),
], ids=repr)  # fmt: skip
def test_keys_that_mean_nothing_are_refused_with_advice(store, key, message):
    with pytest.raises(RowIndexError, match=f"layer conv_1: .*{message}"):
        store["conv_1"][key]
    with pytest.raises(IndexError):
        store["conv_1"][key]


@pytest.fixture
def decoded(monkeypatch):
    """The chunks that were decoded, in order."""
    decoded = []

    def noting(spec, data, where, *rest, **options):
        if spec.dtype == "uint8":
            decoded.append(where)
        return decode(spec, data, where, *rest, **options)

    monkeypatch.setattr("tsstore.store.chunked.reader.decode", noting)
    return decoded


@pytest.mark.parametrize(("key", "rows"), [
    (slice(None), range(60)), (slice(None, None, 25), range(0, 60, 25)),
    (slice(50, 2, -20), [50, 30, 10]), ([59, 0, 1, 0, 59], [0, 59]), (-1, [59]),
    (slice(3, 5), [3, 4]), ([], []),
], ids=repr)  # fmt: skip
def test_each_chunk_that_an_index_needs_is_decoded_once_and_no_other(any_store, decoded, key, rows):
    states = any_store["a"]
    states[key]
    size = states.parts[0].states.spec.chunk_rows
    needed = {(row >= 31, (row - 31 * (row >= 31)) // size) for row in rows}
    assert len(decoded) == len(set(decoded)) == len(needed)


def test_numpy_and_loops_read_each_chunk_once(any_store, decoded):
    states = any_store["a"]
    count = sum(-(-part.rows // part.states.spec.chunk_rows) for part in states.parts)
    for read in (np.asarray, list, np.array, lambda states: [row.tobytes() for row in states]):
        decoded.clear()
        assert len(read(states)) == 60
        assert len(decoded) == len(set(decoded)) == count
    np.testing.assert_array_equal(np.stack(list(states)), states[:])


def test_numpy_takes_the_states_for_an_array(any_store):
    states = any_store["a"]
    assert np.asarray(states).dtype == np.uint8
    assert np.asarray(states, dtype=np.int32).dtype == np.int32
    assert np.array(states, copy=True).shape == np.shape(states) == (60, 2)
    assert (states.size, states.nbytes) == (120, 120)
    np.testing.assert_array_equal(np.bitwise_count(states), np.bitwise_count(states[:]))
    with pytest.raises(ValueError, match=r"layer a: .* makes a copy; pass copy=None"):
        np.asarray(states, copy=False)


@pytest.mark.parametrize("key", [(slice(None), 0), (3, 1), (..., [0])])
def test_some_bytes_of_rows_are_not_decoded(store, key):
    with pytest.raises(RowIndexError, match=r"layer fc.2: .* means bytes; decode whole rows"):
        store["fc.2"].decode(key)


def test_decoded_states(store):
    states = store["fc.2"]
    assert states.decode(0).shape == (13,)
    assert states.decode(slice(2, 5)).shape == (3, 13)
    assert states.decode().dtype == np.bool_
    np.testing.assert_array_equal(bits.pack(states.decode(slice(None, None, -1))), states[::-1])


def test_facts(store):
    states = store["conv_1"]
    assert (states.neurons, states.row_bytes, states.positions) == (6, 1, 3)
    assert (states.rows, states.samples, len(states)) == (72, 24, 72)
    assert (states.shape, states.ndim, states.dtype) == ((72, 1), 2, np.uint8)
    assert states.attributes.threshold == {"given": 0.0, "used": 0.0}
    assert store["fc.2"].positions is None


@settings(deadline=None, max_examples=50)
@given(target=st.integers(0, 60))
def test_blocks_cover_every_row_and_sample_once(target, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    rng = np.random.default_rng(target)
    counts = rng.integers(0, 9, 17).tolist()
    batch = draw_batch(rng, 17, positions={"conv_1": 4, "fc.2": counts})
    write_run(path, [batch], part=PartAttributes(rank=0))
    write_run(path, [batch], part=PartAttributes(rank=1))
    for name, largest in (("conv_1", 4), ("fc.2", 8)):
        states = open_store(path)[name]
        blocks = list(states.blocks(target))
        read = [states.read_block(block) for block in blocks]
        np.testing.assert_array_equal(np.concatenate([rows for rows, _ in read]), states[:])
        positions = np.concatenate([counts for _, counts in read])
        np.testing.assert_array_equal(positions, states.read_positions())
        assert all(len(rows) == counts.sum() for rows, counts in read)
        assert all(block.rows <= max(target, largest) for block in blocks)


def test_blocks_of_equal_positions_do_not_share_chunks(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 100, neurons={"a": 8}, positions={"a": 3})
    write_run(tmp_path, [batch], neurons={"a": 8}, chunk_bytes=30)
    states = open_store(tmp_path)["a"]
    assert states.parts[0].states.spec.chunk_rows == 30
    blocks = list(states.blocks(100))
    assert blocks[0] == Block(part=0, first_sample=0, samples=30, first_row=0, rows=90)
    assert {block.first_row % 30 for block in blocks} == {0}
    # And are as long as each other, but for a chunk.
    assert [block.rows for block in states.blocks(270)] == [150, 150]


def test_a_layer_without_rows_has_no_blocks(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 5, neurons=NEURONS, positions={"a": 0})
    write_run(tmp_path, [batch], neurons=NEURONS)
    states = open_store(tmp_path)["a"]
    assert (states.rows, states.samples, states.positions) == (0, 5, 0)
    assert list(states.blocks(10)) == []
    assert states[:].shape == (0, 2)
    assert states.decode().shape == (0, 11)
    assert states.to_dask().compute().shape == (0, 2)


def test_a_dask_array_has_the_same_rows_in_the_stored_chunks(store):
    for name in ("conv_1", "fc.2"):
        array = store[name].to_dask()
        assert isinstance(array, da.Array)
        assert array.dtype == np.uint8
        assert len(array.chunks[0]) > 2
        np.testing.assert_array_equal(array.compute(scheduler="threads"), store[name][:])
    assert array[::-3].compute(scheduler="sync").tolist() == store["fc.2"][::-3].tolist()


def test_a_dask_array_is_named_after_what_is_committed(tmp_path):
    rng = np.random.default_rng(0)
    part = write_run(tmp_path, [draw_batch(rng, 5)], close=False)
    first = open_store(tmp_path)
    assert tokenize(first["fc.2"]) == tokenize(open_store(tmp_path)["fc.2"])
    assert tokenize(first["fc.2"]) != tokenize(first["conv_1"])
    part.append(draw_batch(rng, 5))
    part.commit()
    assert tokenize(first["fc.2"]) != tokenize(open_store(tmp_path)["fc.2"])


def test_states_are_read_on_in_another_process(store):
    states = pickle.loads(pickle.dumps(store["fc.2"]))
    np.testing.assert_array_equal(states[:], store["fc.2"][:])
    assert states.attributes == store["fc.2"].attributes
    for block in states.blocks(7):
        rows, _ = pickle.loads(pickle.dumps(states)).read_block(pickle.loads(pickle.dumps(block)))
        np.testing.assert_array_equal(rows, store["fc.2"].read_block(block)[0])


def test_what_is_sent_to_another_process_does_not_grow_with_other_layers(store):
    states = store["fc.2"]
    sent = pickle.dumps(states)
    assert b"conv_1" not in sent
    with pytest.raises(StoreError, match="here without its samples; open the run here"):
        pickle.loads(sent).samples_of(states[0])


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"neurons": {"conv_1": 5, "fc.2": 13}}])
def test_parts_that_disagree_are_not_pooled(store, options):
    rng = np.random.default_rng(0)
    batch = draw_batch(rng, 2, neurons=options.get("neurons", {"conv_1": 6, "fc.2": 13}))
    write_run(store.path, [batch], part=PartAttributes(rank=2), **options)
    with pytest.raises(FormatError, match=r"layer conv_1 has .* in part-00002-00000, but 6, "):
        open_store(store.path)["conv_1"]


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        ({"positions": 4, "seed": 1}, {"positions": 4, "seed": 2, "max_bytes": 9}, True),
        ({"every": 2}, None, True),
        ({"positions": 4, "seed": 1}, {"positions": 5, "seed": 1}, False),
        ({"positions": 0.5, "seed": 1}, None, False),
        ({"positions": 4}, {"every": 2}, False),
    ],
)
def test_parts_that_chose_positions_otherwise_are_not_pooled(tmp_path, first, second, right):
    for sampling in (first, second):
        batch = draw_batch(np.random.default_rng(0), 3, positions={"fc.2": 4})
        part = write_run(tmp_path, [batch]).directory
        changed = {"sampling": sampling, "position_shape": [2, 7]}
        rewrite_attributes(tmp_path, f"{part}/layers/0001-fc.2", changed)
    if right:
        assert open_store(tmp_path)["fc.2"].rows == 24
        return
    with pytest.raises(FormatError, match=r"positions=.* in part-.* and positions=.* in part-"):
        open_store(tmp_path)["fc.2"]


def test_a_slice_reads_no_part_but_its_own(store, tmp_path):
    chunks = tmp_path / "run.zarr" / "part-00001-00000" / "layers" / "0000-conv_1" / "states" / "c"
    expected = store["conv_1"][:36]
    for chunk in chunks.rglob("0"):
        if chunk.is_file():
            chunk.unlink()
    np.testing.assert_array_equal(open_store(store.path)["conv_1"][:36], expected)
    with pytest.raises(DamageError, match="part-00001-00000/layers/0000-conv_1/states/c/2/0"):
        open_store(store.path)["conv_1"][:]


def with_rows(store, rows: int) -> LayerStates:
    """Return a layer whose record claims so many rows, and whose last chunk is there."""
    part = store["fc.2"].parts[0]
    spec = part.states.spec
    key = spec.chunk_key(part.states.paths.values, (rows - 1) // spec.chunk_rows)
    part.states.files.write(key, b"a chunk")
    states = replace(part.states, commit=ArrayCommit(rows))
    return LayerStates("run", "fc.2", (replace(part, states=states, positions=None),))


def test_more_rows_than_there_is_memory_are_an_error_with_advice(store):
    states = with_rows(store, 1 << 50)
    for read in (lambda: states[:], states.decode, lambda: states[::-1]):
        with pytest.raises(
            StoreError,
            match=rf"run: layer fc\.2: .* takes {1 << 51:,} bytes, .*"
            "read slices or blocks of it, or count its states by tsstore.analyze",
        ):
            read()  # fmt: skip
    with pytest.raises(StoreError, match=rf"0001-fc\.2/states: .* takes {1 << 51:,} bytes"):
        states.parts[0].states.read(0, 1 << 50)
    with pytest.raises(StoreError, match=r"/states: .* takes .* bytes"):
        with_rows(store, 1 << 62).parts[0].states.read(0, 1 << 62)


def test_booleans_for_which_there_is_no_memory_are_an_error_with_advice(store, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("tsstore.bits.unpack", fail)
    for key, rows in ((slice(None), store["fc.2"].rows), (3, 1)):
        with pytest.raises(StoreError, match=rf"layer fc\.2: .* takes {13 * rows:,} bytes"):
            store["fc.2"].decode(key)


def test_names_in_a_repr_are_fit_for_a_terminal(tmp_path):
    name = "\x1b[31m<b>\n"
    batch = draw_batch(np.random.default_rng(0), 5, neurons={name: 3})
    write_run(tmp_path, [batch], neurons={name: 3})
    states = open_store(tmp_path)[name]
    assert repr(states) == (
        "<LayerStates \\x1b[31m<b>\\n: 5 rows of 3 neurons, 5 samples × 1 position>"
    )
    assert "<b>" not in states._repr_html_()
    assert is_directory(states.parts[0].directory)
