from __future__ import annotations

import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import draw_batch, write_run
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis import digests
from tsstore.analysis import runs as module
from tsstore.analysis.groups import analyze as groups
from tsstore.errors import AnalysisError, TsstoreWarning


@pytest.fixture
def counted(monkeypatch):
    """The layers that were counted, not found."""
    names, count = [], module.analyze_layers

    def watched(layers, *arguments):
        names.extend(states.name for states, _ in layers)
        return count(layers, *arguments)

    monkeypatch.setattr(module, "analyze_layers", watched)
    return names


@pytest.fixture
def store(tmp_path):
    columns = {"label": np.arange(60) % 3}
    return write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 2)}, columns=columns)


def test_the_same_question_is_answered_at_once(store, tmp_path, counted):
    cache = tmp_path / "cache"
    first = tsstore.analyze(store, cache=cache)
    inside = sorted((tmp_path / "run").rglob("*"))
    for again in (
        tsstore.analyze(store, cache=cache),
        tsstore.analyze(tmp_path / "run", cache=str(cache), memory="1GiB", seed=3),
        tsstore.analyze(store, "a", cache=cache, scheduler="synchronous"),
    ):
        assert again.to_dict() == first.to_dict()
    assert counted == ["a"]
    assert sorted((tmp_path / "run").rglob("*")) == inside
    assert len(os.listdir(cache)) == 1


def test_another_question_is_counted(store, tmp_path, counted):
    cache = tmp_path / "cache"
    questions = [
        lambda: tsstore.analyze(store, cache=cache),
        lambda: tsstore.analyze(store, cache=cache, intervals=False),
        lambda: tsstore.analyze(store, cache=cache, repeats="each"),
        lambda: tsstore.analyze(store.filter(label=1), cache=cache),
        lambda: tsstore.analyze(store.filter(label=2), cache=cache),
    ]
    answers = [ask().to_dict() for ask in questions]
    assert len(counted) == len(questions)
    assert [ask().to_dict() for ask in questions] == answers
    assert len(counted) == len(questions)


def test_what_is_committed_later_is_another_question(tmp_path, counted):
    batch = draw_batch(np.random.default_rng(1), 40)
    write_run(tmp_path / "run", [batch])
    before = tsstore.analyze(tmp_path / "run", cache=tmp_path / "cache")
    write_run(tmp_path / "run", [batch])
    after = tsstore.analyze(tmp_path / "run", cache=tmp_path / "cache")
    assert (before.samples, after.samples) == (40, 80)
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    moved = tsstore.analyze(tmp_path / "moved", cache=tmp_path / "cache")
    assert moved.run == str(tmp_path / "moved")
    assert moved.to_dict() | {"run": ""} == after.to_dict() | {"run": ""}
    assert len(counted) == 4


@pytest.mark.parametrize("damage", ["cut", "gone", "file", "other"])
def test_a_damaged_entry_is_counted_anew_with_a_warning(store, tmp_path, counted, damage):
    cache = tmp_path / "cache"
    first = tsstore.analyze(store, cache=cache)
    (entry,) = cache.iterdir()
    if damage == "cut":
        chunk = entry / "spectrum" / "c" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:-3])
    elif damage == "gone":
        (entry / "zarr.json").unlink()
    elif damage == "file":
        shutil.rmtree(entry)
        entry.write_text("x")
    else:
        shutil.rmtree(entry)
        tsstore.analyze(store, intervals=False).save(entry)
    with pytest.warns(TsstoreWarning, match="is of no use .*counted anew and replaced"):
        again = tsstore.analyze(store, cache=cache)
    assert again.to_dict() == first.to_dict()
    assert len(os.listdir(cache)) == 1
    before = len(counted)
    assert tsstore.analyze(store, cache=cache).to_dict() == first.to_dict()
    assert len(counted) == before


def test_processes_that_ask_at_once_all_get_the_answer(store, tmp_path):
    def ask(_):
        return tsstore.analyze(store, cache=tmp_path / "cache", scheduler="synchronous").to_dict()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_an_answer_that_another_process_keeps_first_is_no_failure(store, tmp_path, monkeypatch):
    rename = os.rename

    def rename_late(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr("tsstore.analysis.keeping.arrays.os.rename", rename_late)
    kept = tsstore.analyze(store, cache=tmp_path / "cache")
    assert tsstore.analyze(store, cache=tmp_path / "cache").to_dict() == kept.to_dict()
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_a_folder_that_cannot_be_used_is_an_error_or_a_warning(store, tmp_path, monkeypatch):
    with pytest.raises(AnalysisError, match="within the run"):
        tsstore.analyze(store, cache=tmp_path / "run" / "cache")
    with pytest.raises(AnalysisError, match="expected a local folder"):
        tsstore.analyze(store, cache="s3://bucket/cache")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AnalysisError, match="cannot be used"):
        tsstore.analyze(store, cache=tmp_path / "file")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tsstore.analysis.keeping.arrays.os.rename", fail)
    with pytest.warns(TsstoreWarning, match="is not kept: .*No space left"):
        assert tsstore.analyze(store, cache=tmp_path / "cache").samples == 60
    assert os.listdir(tmp_path / "cache") == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.undo()
        tsstore.analyze(store, cache=tmp_path / "cache")


def test_analyses_of_groups_are_kept_as_well(store, tmp_path, monkeypatch):
    passes, count = [], groups.count_groups

    def watched(*arguments):
        passes.append(arguments[0].name)
        return count(*arguments)

    monkeypatch.setattr(groups, "count_groups", watched)
    cache = tmp_path / "cache"
    first = tsstore.analyze(store, by="label", cache=cache)
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    again = tsstore.analyze(tmp_path / "moved", by="label", cache=cache)
    assert again.run == str(tmp_path / "moved")
    assert again.sel(label=1).to_dict() | {"run": ""} == first.sel(label=1).to_dict() | {"run": ""}
    assert passes == ["a"]
    tsstore.analyze(store, by="label", bins=2, cache=cache)
    tsstore.analyze(store, by="label", bins=[0, 1, 3], cache=cache)
    tsstore.analyze(store, window=30, cache=cache)
    assert len(passes) == 4
    with pytest.raises(AnalysisError):
        tsstore.analyze(store, by="label", bins=2.5, cache=cache)


def test_edges_that_print_alike_are_other_questions(tmp_path):
    columns = {"loss": np.arange(60) % 6 / 60}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 2)}, columns=columns)
    edges = [np.array([0.0, 0.05, 0.1], np.float32), [0.0, 0.05, 0.1]]
    for own in edges:
        found = tsstore.analyze(store, by="loss", bins=own, cache=tmp_path / "cache")
        expected = tsstore.analyze(store, by="loss", bins=own)
        assert found.values == expected.values
    assert len(os.listdir(tmp_path / "cache")) == 2


def test_numbers_of_numpy_ask_the_same(store, tmp_path):
    cache = tmp_path / "cache"
    for window in (20, np.int64(20)):
        assert len(tsstore.analyze(store, window=window, cache=cache)) == 3
    assert len(os.listdir(cache)) == 1


def test_what_more_memory_would_tell_is_not_kept(tmp_path, monkeypatch):
    columns = {"id": np.repeat(np.arange(30), 2)}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 20)}, columns=columns)
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(digests, "SAMPLE_BYTES", 1 << 60)
        assert tsstore.analyze(store, cache=cache).not_compared
    assert not os.listdir(cache)
    assert not tsstore.analyze(store, cache=cache).not_compared
    assert len(os.listdir(cache)) == 1


def test_where_ids_cannot_be_compared_the_analysis_is_kept(tmp_path, counted):
    columns = {"id": np.arange(60.0)}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 2)}, columns=columns)
    for _ in range(2):
        assert "float64" in tsstore.analyze(store, cache=tmp_path / "cache").not_compared
    assert counted == ["a"]
