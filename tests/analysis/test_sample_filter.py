from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import column
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import count, draw_layer, found, layer, write_layers

import tsstore
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import build_graph
from tsstore.analysis.layers import count_layer
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import GROUPS, RandomGroups
from tsstore.analysis.repeats import find_same_ids, leave_out_repeated
from tsstore.analysis.request import Request
from tsstore.analysis.results.network import notes
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.counting.keys import KeyScheme
from tsstore.errors import (
    AnalysisError,
    CountingError,
    DamageError,
    EmptyStoreError,
    MemoryTooSmallError,
    StoreError,
)
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.maintenance.compact import compact
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.reading.store import open_store
from tsstore.store.writing.batch import LayerBatch

MIB = 1 << 20
RANKS = (1, 0, 1, 1)
"""Of the parts, in the order in which they are written; those of one rank are attempts."""
DIRECTORIES = ("part-00001-00000", "part-00000-00000", "part-00001-00001", "part-00001-00002")

Ids = Iterable[Any]


class Run:
    """A run of several parts whose ids repeat, and what stays of it."""

    def __init__(self, path: Path, *ids: Ids, width: int = 9, positions: int | None = None) -> None:
        self.ids = [list(part) for part in ids]
        self.layers: list[LayerBatch] = []
        self.columns: list[dict[str, np.ndarray]] = []
        for number, values in enumerate(self.ids):
            drawn = np.random.default_rng(number).integers(0, 3, (3, len(values)))
            self.layers.append(_draw(number, len(values), width, positions))
            names = ("label", "prediction", "patient")
            self.columns.append(dict(zip(names, drawn, strict=True)))
            self.store = write_layers(
                path,
                {"a": self.layers[-1]},
                columns={"id": column(values), **self.columns[-1]},
                part=PartAttributes(RANKS[number], 2),
            )

    def in_order(self) -> list[int]:
        """Return the numbers of the parts by attempt, then by rank."""
        return sorted(range(len(self.ids)), key=lambda part: DIRECTORIES[part].split("-")[::-1])

    def kept(self) -> list[np.ndarray]:
        """Return which samples of each part stay, found one by one."""
        seen: set[Any] = set()
        kept = [np.ones(len(part), bool) for part in self.ids]
        for part in self.in_order():
            for sample, name in enumerate(self.ids[part]):
                kept[part][sample] = name not in seen
                seen.add(name)
        return kept

    def expected(self) -> list[LayerBatch]:
        return [samples_of(*pair) for pair in zip(self.layers, self.kept(), strict=True)]

    def sample_filter(self) -> SampleFilter:
        return leave_out_repeated(self.store, "id", MIB)


def _draw(seed: int, samples: int, width: int, positions: int | None) -> LayerBatch:
    if positions is None:
        return draw_layer(seed, samples, width)
    rows = np.random.default_rng(seed).integers(0, 3, (samples * positions, width))
    return layer(rows.astype(np.uint8), [positions] * samples)


def samples_of(part: LayerBatch, kept: np.ndarray) -> LayerBatch:
    return layer(part.rows[np.repeat(kept, part.positions)], part.positions[kept])


def draw_ids(seed: int, make: type = int, parts: int = 3) -> list[list[Any]]:
    rng = np.random.default_rng(seed)
    return [list(map(make, rng.integers(0, 90, 70).tolist())) for _ in range(parts)]


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("positions", [None, 1, 4])
@pytest.mark.parametrize("make", [int, str])
def test_each_id_is_counted_once_by_every_scheduler(tmp_path, scheduler, make, positions):
    run = Run(tmp_path / "run", *draw_ids(1, make), positions=positions)
    options = {"unique_by": "id", "scheduler": scheduler, "scratch": tmp_path}
    analysis = tsstore.analyze(run.store, **options)
    assert found(analysis["a"]) == count(*run.expected())
    unique = len({name for part in run.ids for name in part})
    assert analysis["a"].samples == analysis.samples == unique
    assert analysis.samples_left_out == 210 - unique == run.store.repeated_samples > 100
    without = tsstore.analyze(run.store, intervals=False, **options)
    assert found(without["a"]) == count(*run.expected())
    assert (without["a"].changes, without["a"].samples) == (None, unique)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("width", [1, 8, 17, 40])
@pytest.mark.parametrize("cluster", [None, "patient"])
def test_groups_hold_only_samples_that_stay(tmp_path, width, cluster):
    run = Run(tmp_path / "run", *draw_ids(2), width=width)
    analysis = tsstore.analyze(run.store, unique_by="id", dependent_by=cluster)
    # Without clusters, they are dealt by their ids.
    result, groups = analysis["a"], RandomGroups.of_parts(run.store.parts, cluster or "id")
    samples, rows = np.zeros((2, GROUPS), np.int64)
    spectra = [[] for _ in range(GROUPS)]
    for number, kept in enumerate(run.kept()):
        dealt = groups.of_samples(DIRECTORIES[number], 0, len(kept))
        np.add.at(samples, dealt[kept], 1)
        np.add.at(rows, dealt[kept], run.layers[number].positions[kept])
        for group, parts in enumerate(spectra):
            parts.append(samples_of(run.layers[number], kept & (dealt != group)))
    assert result.changes.samples.tolist() == samples.tolist()
    assert result.changes.rows.tolist() == rows.tolist()
    for group, parts in enumerate(spectra):
        assert result.changes.without(result.spectrum, group) == count(*parts).spectrum
    assert analysis.accuracy_by_group.samples.tolist() == samples.tolist()


def test_the_accuracy_is_that_of_samples_that_stay(tmp_path):
    run = Run(tmp_path / "run", *draw_ids(3))
    right = [
        (columns["label"] == columns["prediction"])[kept]
        for columns, kept in zip(run.columns, run.kept(), strict=True)
    ]
    analysis = tsstore.analyze(run.store, unique_by="id")
    assert analysis.accuracy == pytest.approx(np.concatenate(right).mean())
    assert analysis.accuracy_by_group.right.sum() == np.concatenate(right).sum()
    assert tsstore.analyze(run.store).accuracy != pytest.approx(analysis.accuracy)


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 12), max_size=25), min_size=1, max_size=4),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([0, 1, 32]),
    st.booleans(),
)
def test_any_small_run_is_counted_exactly_once(ids, positions, number_of_groups, as_text):
    names = [list(map(str, part)) if as_text else part for part in ids]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", *names, positions=positions)
        if not run.store.samples:
            return
        sample_filter, states = run.sample_filter(), run.store["a"]
        expected = run.expected()
        assert sample_filter.kept_samples(states) == sum(len(part.positions) for part in expected)
        assert sample_filter.kept_rows(states) == sum(len(part.rows) for part in expected)
        groups = RandomGroups(number_of_groups) if number_of_groups else None
        counts = count_layer(
            states, Request(64 * MIB), LocalScheduler(1), Samples(sample_filter, groups)
        )
        assert found(counts) == count(*expected)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("positions", [None, 4])
def test_parts_may_stay_whole_or_be_left_out_whole(tmp_path, positions):
    ids = list(range(150))
    run = Run(tmp_path / "run", ids, range(150, 200), ids[::-1], [], positions=positions)
    assert list(run.sample_filter().left_out) == ["part-00001-00001"]
    analysis = tsstore.analyze(run.store, unique_by="id")
    assert found(analysis["a"]) == count(*run.layers[:2])
    assert (analysis.samples, analysis.samples_left_out) == (200, 150)
    without = tsstore.analyze(run.store, unique_by="id", intervals=False)
    assert found(without["a"]) == count(*run.layers[:2])


def test_where_no_id_repeats_nothing_is_left_out(tmp_path):
    run = Run(tmp_path / "run", range(60), range(60, 90))
    analysis = tsstore.analyze(run.store, unique_by="id")
    assert found(analysis["a"]) == found(tsstore.analyze(run.store)["a"]) == count(*run.layers)
    assert (analysis.samples_left_out, analysis.repeated_samples) == (0, 0)
    assert run.sample_filter().left_out == {}
    assert notes(analysis) == []


def test_a_compacted_run_gives_the_same(tmp_path):
    run = Run(tmp_path / "run", *draw_ids(4, parts=4))
    options = {"unique_by": "id", "intervals": False}
    one = tsstore.analyze(run.store, **options)
    other = tsstore.analyze(compact(run.store, tmp_path / "out"), **options)
    assert found(one["a"]) == found(other["a"]) == count(*run.expected())
    assert one.samples_left_out == other.samples_left_out > 0
    assert one.accuracy == other.accuracy


def test_samples_that_a_layer_never_met_are_left_out_as_well(tmp_path):
    layers = [draw_layer(1, 60, 2), layer(np.zeros((0, 2), np.uint8), [0] * 60)]
    for number, part in enumerate(layers):
        options = {"part": PartAttributes(number, missing="empty")}
        store = write_layers(
            tmp_path / "run", {"a": part, "b": layers[0]}, columns={"id": np.arange(60)}, **options
        )
    result = tsstore.analyze(store, "a", unique_by="id")["a"]
    assert (result.samples, result.changes.samples.sum()) == (60, 60)
    assert found(result) == count(layers[0])


def test_a_layer_of_which_no_row_stays_is_refused(tmp_path):
    for rows in (0, 1):
        states = layer(np.zeros((2 * rows, 1), np.uint8), [rows, rows])
        store = write_layers(tmp_path / "run", {"a": states}, columns={"id": np.array([1, 2])})
    assert tsstore.analyze(store)["a"].rows == 2
    with pytest.raises(EmptyStoreError, match="layer a has no rows to analyse"):
        tsstore.analyze(store, unique_by="id")


def test_clusters_are_those_of_samples_that_stay(tmp_path):
    ids, patients = np.arange(20), np.repeat([7, 8], 10)
    for first, shift in ((0, 0), (10, 5)):
        columns = {"id": ids + first, "patient": np.where(ids < 10, patients + shift, 8)}
        store = write_layers(tmp_path / "run", {"a": draw_layer(1, 20, 2)}, columns=columns)
    # Patient 12 has only samples whose ids were there before, as patient 8's.
    each = tsstore.analyze(store, dependent_by="patient", repeats="each")
    assert each["a"].clusters == 3
    assert tsstore.analyze(store, dependent_by="patient")["a"].clusters == 2
    assert tsstore.analyze(store, dependent_by="patient", unique_by="id")["a"].clusters == 2


def test_the_analysis_says_how_many_samples_repeat_others(tmp_path):
    run = Run(tmp_path / "run", [1, 2, 3], [3, 2, 1])
    analysis = tsstore.analyze(run.store, repeats="each")
    assert (analysis.samples, analysis.samples_left_out, analysis.repeated_samples) == (6, 0, 3)
    assert "3 samples repeat others, and each counts as a draw of its own" in repr(analysis)
    once = tsstore.analyze(run.store, unique_by="id")
    assert (once.samples, once.samples_left_out, once.repeated_samples) == (3, 3, 0)
    assert "3 samples repeat others (left out)." in repr(once)


@pytest.mark.parametrize(
    ("columns", "repeated"),
    [
        ([{}, {}], None),
        ([{"id": [1, 1]}, {}], None),
        ([{"id": [1, 1]}, {"id": ["1", "1"]}], None),
        ([{"id": [0.5, 0.5]}, {"id": [0.5, 0.5]}], None),
        ([{"id": [1, 2]}, {"id": [3, 4]}], 0),
        ([{"id": [1, 2]}, {"id": [2, 2]}], 2),
    ],
    ids=["none", "of one part", "of two types", "fractions", "unique", "repeated"],
)
def test_repeats_are_counted_where_there_are_ids(tmp_path, columns, repeated):
    for values in columns:
        arrays = {name: column(entries) for name, entries in values.items()}
        store = write_layers(tmp_path / "run", {"a": draw_layer(1, 2, 1)}, columns=arrays)
    found = find_same_ids(store, MIB)
    analysis = tsstore.analyze(store)
    if repeated is not None:
        assert found.repeats == repeated == analysis.repeated_samples + analysis.samples_left_out
    else:
        assert analysis.repeated_samples is None
        assert found == analysis.not_compared
        assert bool(found) == ("id" in store.columns)
        with pytest.raises(StoreError, match="'id'"):
            leave_out_repeated(store, "id", MIB)


@pytest.mark.parametrize("make", [int, str])
def test_ids_that_do_not_fit_into_the_memory_are_not_compared(tmp_path, make):
    run = Run(tmp_path / "run", list(map(make, range(50))), list(map(make, range(50))))
    with pytest.raises(MemoryTooSmallError, match="the ids of 100 samples; give") as error:
        leave_out_repeated(run.store, "id", 100)
    enough = int(re.search(r"memory='(\d+)KiB'", str(error.value))[1]) << 10
    assert leave_out_repeated(run.store, "id", enough).samples == 50
    found = find_same_ids(run.store, 100)
    assert re.fullmatch(r"it takes .*, and memory is 100 bytes", found)
    assert find_same_ids(run.store, enough).repeats == 50


def test_a_column_that_is_not_there_is_refused(tmp_path):
    run = Run(tmp_path / "run", [1, 2])
    with pytest.raises(StoreError, match=r"has no sample column 'name'; it has .*id"):
        tsstore.analyze(run.store, unique_by="name")


def test_steps_are_not_pooled_whatever_is_unique(tmp_path):
    for step in (1, 2):
        write_layers(
            tmp_path / "run",
            {"a": draw_layer(1, 40, 1)},
            columns={"id": np.arange(40) // 2},
            part=PartAttributes(step=step),
        )
    store = open_store(tmp_path / "run")
    with pytest.raises(AnalysisError, match="holds the steps 1, 2, which are not pooled"):
        tsstore.analyze(store, unique_by="id")
    assert tsstore.analyze(store.at_step(2), unique_by="id").samples == 20


@pytest.mark.parametrize("unique_by", [None, "id"])
def test_damaged_ids_are_an_error(tmp_path, unique_by):
    run = Run(tmp_path / "run", range(40))
    next((tmp_path / "run").rglob("samples/id/c/0")).write_bytes(b"damage" * 9)
    with pytest.raises(DamageError, match="id"):
        tsstore.analyze(run.store, unique_by=unique_by)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("intervals", [False, True])
def test_a_sample_too_few_or_too_many_is_an_error(tmp_path, monkeypatch, intervals):
    run = Run(tmp_path / "run", *draw_ids(5), positions=2)
    kept = SampleFilter.kept

    def one_more(self, directory, first_sample, samples):
        stay = kept(self, directory, first_sample, samples)
        if stay is not None:
            stay[np.flatnonzero(~stay)[0]] = True
        return stay

    monkeypatch.setattr(SampleFilter, "kept", one_more)
    with pytest.raises(CountingError, match="the blocks hold"):
        tsstore.analyze(run.store, unique_by="id", intervals=intervals)


def test_a_refresh_in_between_mixes_no_commits(tmp_path):
    run = Run(tmp_path / "run", [1, 2, 3, 3])

    def refresh(*_: object) -> None:
        if len(run.store.parts) == 1:
            columns = {"id": np.arange(4), "label": np.arange(4), "prediction": np.arange(4)}
            write_layers(tmp_path / "run", {"a": draw_layer(1, 4, 9)}, columns=columns)
            run.store.refresh()

    analysis = tsstore.analyze(run.store, progress=refresh, scheduler="synchronous")
    assert (len(run.store.parts), run.store.samples) == (2, 8)
    assert (analysis.samples, analysis.repeated_samples) == (4, 1)
    assert analysis.accuracy_by_group.samples.sum() == 4


def test_nothing_is_copied_where_nothing_is_left_out(tmp_path):
    states = Run(tmp_path / "run", range(30), range(10)).store["a"]
    values = np.arange(5)
    sample_filter = SampleFilter({DIRECTORIES[0]: np.array([7, 9])})
    assert sample_filter.select(values, DIRECTORIES[0], 2) is values
    assert sample_filter.select(values, DIRECTORIES[0], 10) is values
    assert sample_filter.select(values, DIRECTORIES[1], 5) is values
    assert sample_filter.select(values, DIRECTORIES[0], 5).tolist() == [0, 1, 3]
    assert sample_filter.kept(DIRECTORIES[0], 9, 2).tolist() == [False, True]
    assert sample_filter.kept_samples(states) == 38
    assert ALL_SAMPLES.kept_rows(states) == states.rows
    assert ALL_SAMPLES.samples == 0


def test_rows_that_stay_are_known_from_pieces_of_the_positions(tmp_path, monkeypatch):
    run = Run(tmp_path / "run", *draw_ids(6))
    monkeypatch.setattr("tsstore.store.reading.layer_part.PIECE_SAMPLES", 7)
    rows = sum(len(part.rows) for part in run.expected())
    assert run.sample_filter().kept_rows(run.store["a"]) == rows
    assert run.store.repeated_samples == run.sample_filter().samples


def test_what_is_left_out_is_sent_once_and_not_with_each_task(tmp_path):
    run = Run(tmp_path / "run", range(2000), range(2000), width=8)
    states, sample_filter = run.store["a"], run.sample_filter()
    plan = layer_plan(states, MIB << 6, LocalScheduler(1), left_out=sample_filter.samples)
    graph, _ = build_graph(LayerJob(states, KeyScheme.create(8), plan, "", Samples(sample_filter)))
    (constant,) = [value for value in graph.values() if isinstance(value, LayerJob)]
    tasks = [value for value in graph.values() if isinstance(value, tuple)]
    assert len(pickle.dumps(constant)) > 16_000 > max(len(pickle.dumps(task)) for task in tasks)
    assert pickle.loads(pickle.dumps(constant)).samples.sample_filter.samples == 2000
