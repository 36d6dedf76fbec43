from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from helpers import NEURONS, draw_batch, rewrite_attributes, rows_of, start_part, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Tags

from tsstore.errors import (
    DamageError,
    FormatError,
    NotAStoreError,
    StoreError,
    TsstoreError,
    UnknownLayerError,
)
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import read_attributes
from tsstore.store.reading.layer import layer_cells
from tsstore.store.reading.store import open_store
from tsstore.store.run import create_run
from tsstore.store.writing.part import create_seal
from tsstore.text import printable


@contextmanager
def reads_of(monkeypatch) -> Iterator[list[str]]:
    """Give the keys of all files that are read in the block."""
    reads, read = [], LocalFiles.read

    def noted(files, key, *arguments, **keywords):
        data = read(files, key, *arguments, **keywords)
        reads.append(key)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "read", noted)
        yield reads


any_text = st.text(st.characters())


def columns(first: int) -> dict:
    return {
        "id": np.arange(first, first + 4),
        "loss": np.linspace(0, 1, 4, dtype=np.float32),
        "right": np.array([True, False, True, True]),
        "prompt": ["", "ü", "a\nb", str(first)],
    }


@pytest.fixture(scope="module")
def batches():
    return [draw_batch(np.random.default_rng(i), 4, columns=columns(10 * i)) for i in range(4)]


@pytest.fixture(scope="module")
def written(tmp_path_factory, batches):
    """A run of two parts, of the steps 7 and "last"."""
    path = tmp_path_factory.mktemp("written") / "run.zarr"
    write_run(path, batches[:3], part=PartAttributes(step=7))
    write_run(path, batches[3:], part=PartAttributes(step="last", rank=1))
    return path


@pytest.fixture
def path(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run.zarr")


def test_a_store_is_a_mapping_from_layers_to_states(path, batches):
    store = open_store(path)
    assert list(store) == ["conv_1", "fc.2"] == list(store.layers)
    assert len(store) == 2
    assert "conv_1" in store
    assert "conv_2" not in store
    assert store.path == str(path)
    for name, states in store.items():
        np.testing.assert_array_equal(states[:], rows_of(batches, name))


def test_columns_go_over_all_parts(path, batches):
    store = open_store(path)
    assert store.columns == ("id", "loss", "right", "prompt")
    assert store.samples == 16
    frame = store.samples_frame()
    for name in store.columns:
        expected = np.concatenate([batch.columns[name] for batch in batches])
        assert store.column(name).dtype == expected.dtype
        assert store.column(name).tolist() == expected.tolist() == frame[name].tolist()


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (np.array([-1, 2**53 + 1]), np.array([2**53 + 3, 5], np.uint64), np.int64),
        (np.array([1, 2**53 + 1]), np.array([2**64 - 1, 5], np.uint64), np.uint64),
        (np.array([-1, 2**53 + 1]), np.array([2**64 - 1, 5], np.uint64), object),
        (np.array([-(2**53) - 1, 1]), np.array([0.5, np.inf]), object),
        (np.array([-(2**53), 2**53]), np.array([0.5, -np.inf]), np.float64),
        (np.array([7, 200], np.uint8), np.array([-7, 2], np.int32), np.int32),
        (np.array([7, 200], np.uint8), np.array(["seven", ""], object), object),
    ],
)
def test_a_column_of_two_types_holds_each_value_as_it_was(tmp_path, first, second, dtype):
    for values in (first, second):
        rng = np.random.default_rng(0)
        write_run(tmp_path, [draw_batch(rng, 2, positions={"fc.2": 1}, columns={"id": values})])
    store, expected = open_store(tmp_path), [*first.tolist(), *second.tolist()]
    frame = store.samples_frame()
    assert store.column("id").dtype == dtype
    assert store.column("id").tolist() == frame["id"].tolist() == expected
    for number, value in enumerate(expected):
        assert np.flatnonzero(store.filter(frame["id"] == value).column("id") == value).size == 1
        state = store["fc.2"][number]
        assert value in store["fc.2"].samples_of(state)["id"].tolist()


def test_one_step_of_a_run(path, batches):
    store = open_store(path)
    assert store.steps == (7, "last")
    last = store.at_step("last")
    assert (last.samples, last.steps) == (4, ("last",))
    np.testing.assert_array_equal(last["fc.2"][:], batches[3].layers["fc.2"].rows)
    assert last.column("id").tolist() == [30, 31, 32, 33]
    with pytest.raises(StoreError, match=r"has no part of step 8; it has 7, 'last'"):
        store.at_step(8)


def test_a_run_is_finished_when_every_part_was_closed(tmp_path, batches):
    create_run(LocalFiles(tmp_path))
    assert not open_store(tmp_path).finished
    part = write_run(tmp_path, batches[:1], close=False)
    assert not open_store(tmp_path).finished
    part.seal()
    assert open_store(tmp_path).finished
    write_run(tmp_path, batches[:1], close=False)
    assert not open_store(tmp_path).finished


def test_a_handle_stays_right_while_the_run_goes_on(tmp_path, batches):
    part = write_run(tmp_path, batches[:1], close=False)
    handles = [open_store(tmp_path)]
    for batch in batches[1:]:
        part.append(batch)
        part.commit()
        handles.append(open_store(tmp_path))
    part.seal()
    for count, store in enumerate(handles, start=1):
        assert store.samples == 4 * count
        for name in store:
            np.testing.assert_array_equal(store[name][:], rows_of(batches[:count], name))
        expected = [text for batch in batches[:count] for text in batch.columns["prompt"]]
        assert store.column("prompt").tolist() == expected


def test_refresh_moves_on_and_what_was_handed_out_stays(tmp_path, batches):
    part = write_run(tmp_path, batches[:1], close=False)
    store = open_store(tmp_path)
    pinned, states, array = store.pinned(), store["fc.2"], store["fc.2"].to_dask()
    write_run(tmp_path, batches[1:2], part=PartAttributes(rank=1))
    assert (store.samples, store.layers) == (4, ("conv_1", "fc.2"))
    assert store.refresh() is store
    assert (store.samples, store["fc.2"].rows, len(store.column("id"))) == (8, 8, 8)
    part.append(batches[2])
    part.seal()
    assert store.refresh().samples == 12
    for held in (states[:], array.compute(scheduler="sync"), pinned["fc.2"][:]):
        np.testing.assert_array_equal(held, batches[0].layers["fc.2"].rows)
    assert pinned.samples == len(pinned.column("id")) == 4


def test_refresh_finds_layers_that_came_later(tmp_path, batches):
    files = LocalFiles(tmp_path)
    create_run(files)
    store = open_store(tmp_path)
    assert (store.layers, store.columns, store.samples) == ((), (), 0)
    write_run(tmp_path, batches)
    assert store.refresh().layers == ("conv_1", "fc.2")
    assert store.columns == ("id", "loss", "right", "prompt")


def test_refresh_opens_no_part_again_that_has_not_changed(path, batches, monkeypatch):
    write_run(path, batches[:1], part=PartAttributes(step=7, rank=2), close=False)
    store = open_store(path)
    before = store.parts
    with reads_of(monkeypatch) as reads:
        assert all(old is new for old, new in zip(before, store.refresh().parts, strict=True))
    assert reads == ["zarr.json", "part-00002-00000/commit/zarr.json"]


def test_of_one_layer_no_other_is_opened(path, monkeypatch):
    with reads_of(monkeypatch) as reads:
        assert open_store(path)["fc.2"].rows == 16
    assert not [key for key in reads if "conv_1" in key or "samples" in key or "checksums" in key]
    assert len([key for key in reads if "fc.2" in key]) == 4


def test_a_store_is_shown_without_opening_the_layers_of_all_parts(path, monkeypatch):
    shown = str(open_store(path))
    shutil.rmtree(path / "part-00001-00000" / "layers")
    with reads_of(monkeypatch) as reads:
        store = open_store(path)
        assert store.layers == ("conv_1", "fc.2")
        assert str(store) == shown
        assert "".join(store._repr_html_())
    assert len([key for key in reads if "layers" in key]) == 2
    with pytest.raises(DamageError, match=r"part-00001-00000/layers/0000-conv_1"):
        store["conv_1"]


LONG = "model.encoder.layers.0.blocks.0.attention.projection"


@pytest.mark.parametrize("names", [
    (f"{LONG}.query", f"{LONG}.value"), ("fc:before", "fc_before"), ("Fc", "fc"),
])  # fmt: skip
@pytest.mark.parametrize("missing", ["error", "empty"])
def test_names_that_their_directories_do_not_tell_apart_are_read(tmp_path, names, missing):
    """Each part has layers that lie in the same directories, but for one they are others."""
    for rank, name in enumerate((*names, names[0])):
        neurons = {"conv_1": 6, name: 13}
        batch = draw_batch(np.random.default_rng(rank), 3, neurons=neurons)
        part = PartAttributes(rank=rank, missing=missing)
        write_run(tmp_path, [batch], neurons=neurons, part=part)
    store = open_store(tmp_path)
    assert len({path.name for path in tmp_path.glob("part-*/layers/0001-*")}) == 1
    assert store.layers == ("conv_1", *names)
    if missing == "empty":
        assert [store[name].rows for name in store.layers] == [9, 6, 3]
        rows = [line.split()[3] for line in repr(store).splitlines()[3:]]
        assert rows == ["9", "6", "3"]
    else:
        for ask in (lambda: store[names[0]], lambda: repr(store)):
            with pytest.raises(DamageError, match="were captured with different layers"):
                ask()


def test_steps_may_have_other_layers(tmp_path):
    for step, name in enumerate(("fc_1", "fc_2")):
        batch = draw_batch(np.random.default_rng(step), 3, neurons={name: 6})
        part = PartAttributes(attempt=step, step=step)
        write_run(tmp_path, [batch], neurons={name: 6}, part=part)
    store = open_store(tmp_path)
    assert [line.split() for line in repr(store).splitlines()[3:]] == [
        [name, "6", "1", "3", "0", "float32"] for name in ("fc_1", "fc_2")
    ]
    for step, name in enumerate(store.layers):
        assert store.at_step(step)[name].rows == 3
        with pytest.raises(DamageError, match="different layers at different steps: a view of"):
            store[name]
        other = store.select(name).at_step(1 - step)
        assert name not in repr(other)
        with pytest.raises(UnknownLayerError, match=f"none of these samples has layer {name}"):
            other[name]


def test_a_layer_of_another_name_in_the_same_directory_is_noticed_when_it_is_opened(tmp_path):
    for rank, name in enumerate(("fc_before", "fc:before")):
        batch = draw_batch(np.random.default_rng(rank), 3, neurons={name: 6})
        write_run(tmp_path, [batch], neurons={name: 6}, part=PartAttributes(rank=rank))
    store = open_store(tmp_path)
    assert store.layers == ("fc_before",)
    for name in ("fc_before", "fc:before"):
        with pytest.raises(DamageError, match="were captured with different layers"):
            store[name]


@given(st.data())
def test_what_is_found_by_record_and_directory_is_what_is_found_by_opening_all(data):
    """Parts with any layers, in any order, and names that look alike."""
    alike = ["fc", "Fc", "fc:before", "fc_before", f"{LONG}.a", f"{LONG}.b", "conv"]
    with TemporaryDirectory() as path:
        parts = data.draw(st.lists(st.permutations(alike), min_size=1, max_size=4))
        for rank, names in enumerate(parts):
            neurons = dict.fromkeys(names[: data.draw(st.integers(1, 4))], 6)
            samples = data.draw(st.integers(0, 2))
            positions = {name: data.draw(st.integers(0, 2)) for name in neurons}
            batch = draw_batch(
                np.random.default_rng(rank), samples, neurons=neurons, positions=positions
            )
            missing = data.draw(st.sampled_from(["error", "empty"]))
            part = PartAttributes(rank=rank, step=data.draw(st.integers(0, 1)), missing=missing)
            write_run(path, [batch], neurons=neurons, part=part)
        store = open_store(path)
        everything = [
            (part, name, layer) for part in store.parts for name, layer in part.layers.items()
        ]
        told = all(part.attributes.missing == "empty" for part in store.parts)
        names = tuple(dict.fromkeys(name for _, name, _ in everything))
        if told:
            assert store.layers == names
        lines = {}
        for name in names:
            held = {part.directory for part, other, _ in everything if other == name}
            lacking = [part for part in store.parts if part.samples and part.directory not in held]
            if any(part.attributes.missing == "error" for part in lacking):
                with pytest.raises(DamageError):
                    store[name]
                continue
            states = store[name]
            rows = sum(layer.rows for _, other, layer in everything if other == name)
            assert states.rows == rows
            lines[name] = layer_cells(states.attributes, states.positions, rows)
        if len(lines) == len(names) and told:
            assert list(store.layer_lines()) == list(lines.values())


def test_refresh_of_one_step_stays_at_it(path, batches):
    store = open_store(path).at_step(7)
    write_run(path, batches[:1], part=PartAttributes(step=8, rank=2))
    write_run(path, batches[:1], part=PartAttributes(step=7, rank=2))
    assert store.refresh().steps == (7,)
    assert store.samples == 16
    assert open_store(path).samples == 24


def older_record(path: Path, part: str) -> None:
    """Put the record before the last one back."""
    record = read_attributes(LocalFiles(path), f"{part}/commit")
    rows = {"rows": 4, "digest": 0, "tail_rows": 4, "tail_checksum": 0}
    change = {
        "generation": record["generation"] - 1, "samples": 4, "columns": {},
        "layers": {"0001-fc.2": {"states": rows, "positions": None}},
    }  # fmt: skip
    rewrite_attributes(path, f"{part}/commit", change)


def test_a_record_that_goes_back_is_damage(tmp_path, batches):
    write_run(tmp_path, batches[:2], close=False)
    store = open_store(tmp_path)
    older_record(tmp_path, "part-00000-00000")
    with pytest.raises(DamageError, match="commit 1 does not go on from commit 2, which was"):
        store.refresh()
    assert store.samples == len(store.column("id")) == 8


@pytest.mark.parametrize("change", [
    {"samples": 7}, {"time": "another"}, {"layers": {}}, {"columns": {}},
    {"generation": 3, "layers": {}}, {"generation": 3, "columns": {}},
])  # fmt: skip
def test_a_record_that_contradicts_the_one_before_is_an_error(tmp_path, batches, change):
    write_run(tmp_path, batches[:2], close=False)
    store = open_store(tmp_path)
    rewrite_attributes(tmp_path, "part-00000-00000/commit", change)
    with pytest.raises((DamageError, FormatError), match="part-00000-00000"):
        store.refresh()


def test_a_seal_of_the_commit_before_is_no_damage(tmp_path, batches):
    """A writer that still lives may commit while another process seals what it has read."""
    part = write_run(tmp_path, batches[:1], close=False)
    sealed = part.record
    part.append(batches[1])
    part.commit()
    store = open_store(tmp_path)
    create_seal(LocalFiles(tmp_path), "part-00000-00000", sealed, "resumed", "another process")
    assert store.samples == 8
    assert store.refresh().samples == 4
    assert store.status == "cut off"
    assert store.refresh().samples == 4


def test_a_run_that_was_replaced_says_so(tmp_path, batches):
    write_run(tmp_path / "run.zarr", batches[:1])
    store = open_store(tmp_path / "run.zarr")
    shutil.rmtree(tmp_path / "run.zarr")
    write_run(tmp_path / "run.zarr", batches[:1])
    with pytest.raises(StoreError, match=r"is another run now: .*; open it again"):
        store.refresh()


def test_a_run_knows_whether_it_goes_on_and_since_when(tmp_path, batches):
    create_run(LocalFiles(tmp_path))
    store = open_store(tmp_path)
    assert (store.status, store.last_commit, store.finished) == ("live", None, False)
    before = datetime.now(UTC) - timedelta(seconds=1)
    part = write_run(tmp_path, batches[:1], close=False)
    assert store.refresh().status == "live"
    assert before < store.last_commit < datetime.now(UTC) + timedelta(seconds=1)
    part.seal()
    assert (store.refresh().status, store.finished) == ("finished", True)
    assert [str(status) for status in store.part_statuses] == ["finished"]


def test_repeated_samples_are_counted_anew_after_a_refresh(tmp_path, batches):
    write_run(tmp_path, batches[:1])
    store = open_store(tmp_path)
    assert store.repeated_samples == 0
    write_run(tmp_path, batches[:2])
    assert store.repeated_samples == 0
    assert store.refresh().repeated_samples == 4


def test_a_layer_that_a_live_part_has_not_yet_is_no_damage(path, batches):
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13})
    write_run(path, [batch], part=PartAttributes(rank=5), close=False)
    with pytest.raises(StoreError, match="other parts have it already: wait") as caught:
        open_store(path)["conv_1"]
    assert not isinstance(caught.value, DamageError)


def test_a_part_that_began_and_holds_nothing_is_passed_over(path, batches):
    write_run(path, batches[:1], part=PartAttributes(step=7, rank=2), close=False)
    start_part(path, batches[0], part=PartAttributes(step=8, rank=3))
    store = open_store(path)
    assert len(store.parts) == 4
    assert store.steps == (7, "last")
    assert store["fc.2"].samples == 20
    assert len(store.column("id")) == 20


@pytest.mark.parametrize(("name", "public"), [
    ("conv_1", "conv_1"), ("conv_1_post_states", "conv_1"), ("conv_1_states", "conv_1"),
    ("fc.2_pre_states", "fc.2:before"), ("fc.2:before", "fc.2:before"),
])  # fmt: skip
def test_names_of_the_tutorial_are_understood(tmp_path, name, public):
    neurons = {"conv_1": 6, "fc.2:before": 3}
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 3, neurons=neurons)], neurons=neurons)
    assert open_store(tmp_path)[name].name == public


def test_an_output_is_never_taken_for_an_input(tmp_path):
    neurons = {"fc:before": 3}
    write_run(tmp_path, [draw_batch(np.random.default_rng(0), 3, neurons=neurons)], neurons=neurons)
    for name in ("fc", "fc_states", "fc_post_states"):
        with pytest.raises(UnknownLayerError, match=f"has no layer '{name}'; it has fc:before"):
            open_store(tmp_path)[name]


def test_an_unknown_layer_names_those_that_there_are(path, tmp_path):
    with pytest.raises(UnknownLayerError, match=r"no layer 'fc'; it has conv_1, fc\.2"):
        open_store(path)["fc"]
    create_run(LocalFiles(tmp_path / "empty.zarr"))
    with pytest.raises(UnknownLayerError, match="it has no layers: nothing has been committed"):
        open_store(tmp_path / "empty.zarr")["fc"]


def test_an_unknown_column_names_those_that_there_are(path, tmp_path):
    with pytest.raises(StoreError, match=r"no sample column 'label'; it has id, loss, right, pro"):
        open_store(path).column("label")
    create_run(LocalFiles(tmp_path / "empty.zarr"))
    with pytest.raises(StoreError, match="no sample column 'label': no samples are committed"):
        open_store(tmp_path / "empty.zarr").column("label")


def test_a_part_with_other_layers_is_an_error(path):
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13})
    write_run(path, [batch], part=PartAttributes(rank=5))
    with pytest.raises(DamageError, match=r"layer conv_1 has no states in part-00005-00000"):
        open_store(path)["conv_1"]
    assert open_store(path)["fc.2"].samples == 18


@pytest.mark.parametrize("close", [True, False])
def test_a_layer_that_a_part_never_met_may_be_empty_there(path, batches, close):
    """Also in a part that is being written: it knows of all that it has committed."""
    met = open_store(path)["conv_1"]
    batch = draw_batch(np.random.default_rng(0), 3, neurons={"fc.2": 13}, columns={"id": [1, 2, 3]})
    never = PartAttributes(rank=0, missing="empty")
    write_run(path, [batch], part=never, close=close)
    store = open_store(path)
    states = store["conv_1"]
    assert [part.directory for part in states.parts] == [
        "part-00000-00000", "part-00000-00001", "part-00001-00000",
    ]  # fmt: skip
    assert (states.samples, states.rows) == (met.samples + 3, met.rows)
    positions = met.read_positions().tolist()
    first = met.parts[0].samples
    assert states.read_positions().tolist() == positions[:first] + [0] * 3 + positions[first:]
    np.testing.assert_array_equal(states[:], met[:])
    np.testing.assert_array_equal(states.to_dask().compute(scheduler="sync"), met[:])
    read = [states.read_block(block) for block in states.blocks(10)]
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in read]), met[:])
    assert store["fc.2"].samples == states.samples == len(store.column("id"))
    assert "conv_1" in str(store)


def test_a_layer_that_one_part_must_have_is_missed_there_only(path):
    batch = draw_batch(np.random.default_rng(0), 2, neurons={"fc.2": 13})
    write_run(path, [batch], part=PartAttributes(rank=5, missing="empty"))
    write_run(path, [batch], part=PartAttributes(rank=6))
    with pytest.raises(DamageError, match="conv_1 has no states in part-00006-00000, which"):
        open_store(path)["conv_1"]


@settings(deadline=None, max_examples=50)
@given(
    layers=st.lists(any_text, min_size=1, max_size=4, unique=True),
    names=st.lists(any_text, max_size=4, unique=True),
)
def test_names_of_any_kind_come_back(tmp_path_factory, layers, names):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    neurons = {name: 1 + index for index, name in enumerate(layers)}
    values = {name: np.arange(3) + index for index, name in enumerate(names)}
    batch = draw_batch(np.random.default_rng(0), 3, neurons=neurons, columns=values)
    write_run(path, [batch], neurons=neurons)
    store = open_store(path)
    assert store.layers == tuple(layers)
    assert store.columns == tuple(names)
    assert [store[name].neurons for name in layers] == list(neurons.values())
    assert [store.column(name)[0] for name in names] == list(range(len(names)))
    assert str(store).isprintable() or "\n" in str(store)
    assert "<script" not in store._repr_html_()


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.text(), min_size=1, max_size=30))
def test_text_of_any_kind_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    batch = draw_batch(np.random.default_rng(0), len(texts), columns={"text": texts})
    write_run(path, [batch])
    assert open_store(path).column("text").tolist() == texts


@pytest.mark.parametrize("dtype", [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
])  # fmt: skip
def test_numbers_of_every_dtype_come_back(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = np.frombuffer(rng.bytes(5 * 8), dtype=dtype)[:5]
    values = values != 0 if dtype == "bool" else values
    write_run(tmp_path, [draw_batch(rng, 5, columns={"x": values})])
    read = open_store(tmp_path).column("x")
    assert read.dtype == np.dtype(dtype)
    assert read.tobytes() == values.tobytes()


def test_more_samples_than_a_chunk_of_a_column_holds(tmp_path):
    samples = 40_000
    values = {"id": np.arange(samples), "text": [str(i) for i in range(samples)]}
    batch = draw_batch(np.random.default_rng(0), samples, neurons={"a": 2}, columns=values)
    write_run(tmp_path, [batch], neurons={"a": 2}, chunk_bytes=None)
    store = open_store(tmp_path)
    np.testing.assert_array_equal(store.column("id"), values["id"])
    assert store.column("text").tolist() == values["text"]


def test_a_store_is_read_on_in_another_process(path):
    store = pickle.loads(pickle.dumps(open_store(path)))
    assert store.layers == ("conv_1", "fc.2")
    assert store.column("id").tolist() == open_store(path).column("id").tolist()
    np.testing.assert_array_equal(store["fc.2"][:], open_store(path)["fc.2"][:])


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty directory", "a Zarr group"])
def test_what_is_no_run_is_refused(tmp_path, what):
    path = tmp_path / "run.zarr"
    if what == "a file":
        path.write_bytes(b"PK")
    elif what == "an empty directory":
        path.mkdir()
    elif what == "a Zarr group":
        zarr.create_group(path, attributes={"mine": 1})
    with pytest.raises(NotAStoreError, match=r"run\.zarr is .*no tsstore run: .*check the path"):
        open_store(path)


def test_a_newer_format_says_to_upgrade(path):
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["tsstore"] = {"format": 2, "all": "different"}
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"the store has format 2, this tsstore reads up to 1"):
        open_store(path)


def test_a_run_that_was_changed_is_damaged(path):
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace("created", "createc"))
    with pytest.raises(DamageError, match=r"run\.zarr/zarr\.json: the attributes do not match"):
        open_store(path)


def test_attributes_of_ones_own_may_be_added_with_zarr(path, batches):
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group["part-00000-00000"].attrs["note"] = "kept"
    group["part-00000-00000/samples/id"].attrs["unit"] = "1"
    group["part-00000-00000/layers/0001-fc.2/states"].attrs["unit"] = "bit"
    store = open_store(path)
    np.testing.assert_array_equal(store["fc.2"][:], rows_of(batches, "fc.2"))
    assert store.column("id").tolist()[:4] == [0, 1, 2, 3]


READS = [
    lambda states: states[:],
    lambda states: states[-1],
    lambda states: states[::-2],
    lambda states: states.decode(),
    lambda states: states.read_positions(),
    lambda states: states.read_block(next(states.blocks(10))),
    lambda states: states.to_dask()[-1:].compute(scheduler="sync"),
]


@pytest.mark.parametrize("node", ["commit", "sealed"])
@pytest.mark.parametrize("rows", [10**15, 2**53, 1])
def test_a_record_that_claims_other_rows_gives_an_error_and_no_number(path, rows, node):
    layer = {"rows": rows, "digest": 0, "tail_rows": rows % 32, "tail_checksum": 0}
    record = {
        "generation": 9, "batches": 9, "samples": rows, "time": "", "columns": {},
        "layers": {"0001-fc.2": {"states": layer, "positions": None}},
    }  # fmt: skip
    change = record if node == "commit" else {"record": record}
    if node == "commit":
        (path / "part-00000-00000" / "sealed" / "zarr.json").unlink()
    rewrite_attributes(path, f"part-00000-00000/{node}", change)
    store = open_store(path).at_step(7)
    assert (store.layers, store.samples) == (("fc.2",), rows)
    for read in READS if rows > 1 else READS[:4]:
        with pytest.raises(TsstoreError, match=r"fc\.2/(states|checksums).* is damaged"):
            read(store["fc.2"])


def test_the_helpers_neurons_are_those_of_the_store(path):
    assert {name: states.neurons for name, states in open_store(path).items()} == NEURONS


HOSTILE = "\x1b[2J<img src=x onerror='alert(1)'>&\r\n\u202e\ud800"


@pytest.fixture
def hostile(tmp_path):
    neurons = {HOSTILE: 3}
    batch = draw_batch(
        np.random.default_rng(0), 4, neurons=neurons, columns={HOSTILE: [1, 2, 3, 4]}
    )
    write_run(tmp_path, [batch], neurons=neurons, part=PartAttributes(step=HOSTILE))
    return open_store(tmp_path)


def test_a_store_in_text(tmp_path):
    rng = np.random.default_rng(0)
    batches = [draw_batch(rng, 1500, positions={"fc.2": rng.integers(0, 2, 1500).tolist()})]
    write_run(tmp_path / "run.zarr", batches, part=PartAttributes(step=3))
    lines = repr(open_store(tmp_path / "run.zarr")).splitlines()
    assert lines[0] == f"<StateStore {tmp_path / 'run.zarr'}>"
    assert lines[1] == "  1,500 samples · 1 part · steps 3 · finished, last commit 0 s ago"
    assert lines[2] == "  layer   neurons  positions   rows  threshold    dtype"
    assert lines[3] == "  conv_1        6          1  1,500          0  float32"
    assert lines[4].startswith("  fc.2         13    varying    ")
    assert len({len(line) for line in lines[2:]}) == 1


def test_an_empty_store_has_no_table(tmp_path):
    create_run(LocalFiles(tmp_path))
    summary = "  0 samples · 0 parts · live, nothing committed"
    assert repr(open_store(tmp_path)).splitlines()[1:] == [summary]
    assert "<td>" not in open_store(tmp_path)._repr_html_()


def test_hostile_names_do_nothing_to_a_terminal(hostile):
    for shown in (repr(hostile), repr(hostile[HOSTILE])):
        assert all(line.isprintable() for line in shown.split("\n"))
        assert shown.encode()
        assert "\\x1b[2J<img" in shown
    assert len(repr(hostile).split("\n")) == 4


def test_hostile_names_do_nothing_to_a_page(hostile):
    for page in (hostile._repr_html_(), hostile[HOSTILE]._repr_html_()):
        parsed = Tags(page)
        around = {"b", "code", "br", "div", "style", "details", "summary"}
        assert parsed.tags <= around | {"table", "thead", "tbody", "tr", "th", "td"}
        assert printable(HOSTILE) in " ".join(parsed.text)
        assert page.replace("\n", "").isprintable()


def test_a_run_says_why_it_was_cut_off(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 4)
    write_run(tmp_path, [batch], close=False).seal(HOSTILE)
    summary = repr(open_store(tmp_path)).splitlines()[1]
    assert summary.startswith(f"  4 samples · 1 part · cut off ({printable(HOSTILE)}), last commit")
