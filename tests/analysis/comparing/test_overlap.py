"""The states that two runs share, and what is new in one, against plain NumPy on decoded states."""

from __future__ import annotations

import json
import re
from itertools import combinations

import numpy as np
import pytest
from clusters import workers
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.analysis import request as requests
from tsstore.analysis.planning import cost, fitting
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.analysis.states import distinct as gathering
from tsstore.commands.app import app
from tsstore.errors import MemoryTooSmallError
from tsstore.store.format.attributes import PartAttributes


def states_of(store, name="a"):
    """Return the decoded rows of a layer, and the sample of each."""
    positions = store[name].read_positions()
    return store[name].decode(), np.repeat(np.arange(len(positions)), positions)


def as_set(rows):
    return {row.tobytes() for row in rows}


def check(first, second, found):
    """Check all that is counted; distances where all new states are drawn."""
    (rows, samples), (others, other_samples) = states_of(first), states_of(second)
    known, shown = as_set(rows), as_set(others)
    assert found.distinct == (len(known), len(shown))
    assert found.distinct_in_both == len(known & shown)
    is_new = np.array([row.tobytes() not in known for row in others])
    assert found.new_rows == pytest.approx(is_new.mean())
    assert found.shared[1].rows == np.count_nonzero(~is_new)
    assert found.new_samples == len(set(other_samples[is_new].tolist()))
    assert found.samples == (first["a"].samples, second["a"].samples)
    single = [row for row in rows if len(set(samples[(rows == row).all(axis=1)].tolist())) == 1]
    assert found.expected_new_rows == pytest.approx(len(single) / len(rows))
    new = np.unique(others[is_new], axis=0)
    if len(new) <= 200:
        apart = (new[:, None] != rows[None]).sum(axis=2).min(axis=1)
        assert found.distances.tolist() == sorted(apart.tolist())
    else:
        assert len(found.distances) == 200


def overlap(first, second, **options):
    return tsstore.compare(first, second, efficiency=False, novelty=True, **options).overlap["a"]


def draw_run(path, seeds, width, distinct, largest):
    """Write a run, a part for each seed, whose states are partly those of other seeds."""
    parts = []
    for seed in seeds:
        own = draw_layer(seed, 12, width, distinct, largest)
        own.rows[::2] = np.arange(len(own.rows[::2]))[:, None] % 5
        parts.append({"a": own})
    return write_layers(path, *parts, {"a": layer(np.zeros((2, width), np.uint8))})


@settings(max_examples=10)
@given(
    st.sampled_from([1, 3, 8, 9, 17, 40]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.integers(1, 60),
    st.sampled_from([1, 7]),
)
def test_states_of_both_and_new_ones_are_those_that_numpy_finds(
    tmp_path_factory, width, one, other, distinct, largest
):
    folder = tmp_path_factory.mktemp("overlap")
    first = draw_run(folder / "first", one, width, distinct, largest)
    second = draw_run(folder / "second", other, width, distinct, largest)
    check(first, second, overlap(first, second, scheduler="synchronous"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with ids, in other orders, of other lengths of samples, in one part and two."""
    folder = tmp_path_factory.mktemp("overlaps")
    stores = []
    for name, seeds in (("first", (0, 1)), ("second", (1, 2, 3))):
        for seed in seeds:
            own = {"a": draw_layer(seed, 40, 20, 90, 5)}
            ids = np.random.default_rng(seed).permutation(40) + 40 * seed
            store = write_layers(folder / name, own, columns={"id": ids})
        stores.append(store)
    return stores


def test_a_run_shares_all_states_with_itself(runs):
    found = overlap(runs[0], runs[0])
    check(runs[0], runs[0], found)
    assert found.jaccard == 1
    assert found.median_distance is None
    assert found.new_samples_limits()[0] == 0


def test_views_share_what_they_show(runs):
    odd = runs[0].filter(runs[0].samples_frame()["id"] % 2 == 1)
    even = runs[0].filter(runs[0].samples_frame()["id"] % 2 == 0)
    check(odd, even, overlap(odd, even))


def test_steps_of_one_run_are_compared(tmp_path):
    for step in (1, 2):
        part = PartAttributes(attempt=step, step=step)
        both = write_layers(tmp_path / "run", {"a": draw_layer(step, 30, 2, 40)}, part=part)
    steps = [both.at_step(step) for step in both.steps]
    check(*steps, overlap(*steps))


def test_copies_of_samples_count_once_as_they_do_in_an_analysis(runs, tmp_path):
    for attempt in (0, 1):
        part = PartAttributes(attempt=attempt)
        own = {"a": draw_layer(7, 40, 20, 30)}
        copied = write_layers(tmp_path / "run", own, columns={"id": np.arange(40)}, part=part)
    once = write_layers(tmp_path / "once", own, columns={"id": np.arange(40)})
    assert copied.samples == 80
    for pair in ((runs[0], copied), (copied, runs[0])):
        found = overlap(*pair).to_dict()
        assert found == overlap(*(once if store is copied else store for store in pair)).to_dict()
    assert overlap(runs[0], copied).samples[1] == tsstore.analyze(copied)["a"].samples == 40


def test_records_go_through_files_in_many_partitions_and_passes(runs, monkeypatch, tmp_path):
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)
    monkeypatch.setattr(fitting, "PARTITION_RECORDS", {False: 32, True: 32})
    monkeypatch.setattr(fitting, "SUBPARTITION_RECORDS", 16)
    found = overlap(*runs, scratch=tmp_path)
    check(*runs, found)
    assert list(tmp_path.iterdir()) == []
    # No partition fits: each is counted in several passes over its records.
    monkeypatch.setattr(cost, "MIN_TABLE_SLOTS", 16)
    monkeypatch.setattr(gathering, "gather", lambda *_: None)
    assert found.to_dict() == overlap(*runs, scratch=tmp_path).to_dict()
    monkeypatch.undo()
    assert found.to_dict() == overlap(*runs).to_dict()


def test_workers_of_a_cluster_find_the_same(runs, tmp_path):
    with workers(1) as client:
        found = overlap(*runs, scheduler=client, scratch=tmp_path)
    check(*runs, found)
    assert found.to_dict() == overlap(*runs).to_dict()


def test_new_states_are_drawn_by_a_seed(tmp_path):
    stores = [
        write_layers(tmp_path / str(seed), {"a": draw_layer(seed, 200, 9, 900)}) for seed in (0, 1)
    ]
    found = [overlap(*stores, seed=seed).distances.tolist() for seed in (0, 0, 1)]
    check(*stores, overlap(*stores))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_runs_are_compared_at_equal_numbers_of_samples(tmp_path):
    first = write_layers(tmp_path / "first", {"a": draw_layer(0, 8, 1, 30, 5)})
    second = write_layers(tmp_path / "second", {"a": draw_layer(0, 5, 1, 30, 5)})
    (rows, samples), (others, _) = states_of(first), states_of(second)
    shown, both, either = as_set(others), [], []
    for chosen in combinations(range(8), 5):
        known = as_set(rows[np.isin(samples, chosen)])
        both.append(len(known & shown))
        either.append(len(known | shown))
    for found in (overlap(first, second), overlap(second, first)):
        assert found.equal_samples == 5
        assert found.jaccard == pytest.approx(np.mean(both) / np.mean(either))


def test_too_few_samples_are_told_and_little_memory_is_an_error(tmp_path):
    stores = []
    for seed in (0, 1):
        rows = np.random.default_rng(seed).integers(0, 256, (50, 8), np.uint8)
        stores.append(write_layers(tmp_path / str(seed), {"a": layer(rows)}))
    found = tsstore.compare(*stores, efficiency=False, novelty=True)
    assert found.overlap["a"].sample_limited
    assert found.overlap["a"].jaccard == 0
    assert "a: sample-limited: so many states" in repr(found)
    with pytest.raises(MemoryTooSmallError, match="too small"):
        overlap(*stores, memory="1MiB")


def test_a_plan_says_what_new_states_would_take(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (300, 8), np.uint8)
    first = write_layers(tmp_path / "first", {"a": layer(rows), "b": layer(rows)})
    second = write_layers(tmp_path / "second", {"a": layer(rows[:100])})
    plan = tsstore.plan(first, novelty=second, memory="64MiB")
    (own,) = plan.novelty.values()
    assert (own.rows, own.rows_compared, own.scratch_bytes) == (400, 300, 0)
    assert own.projected_peak <= plan.memory
    assert plan.to_dict()["novelty"]["a"]["tasks"] == own.tasks
    assert "400 rows of both runs are read, their records stay in memory; then 300 rows" in str(
        plan
    )
    assert tsstore.plan(first).novelty == {}


def test_a_plan_refuses_as_the_search_for_new_states_does(tmp_path):
    # A sample is in memory as a whole: of so many rows it takes more than to compare them does.
    rows = np.random.default_rng(0).integers(0, 256, (400_000, 8), np.uint8)
    first = write_layers(tmp_path / "first", {"a": layer(rows, 200_000)})
    second = write_layers(tmp_path / "second", {"a": layer(rows[:10], 5)})
    with pytest.raises(MemoryTooSmallError) as planned:
        tsstore.plan(first, "a", novelty=second, memory="1MiB", intervals=False)
    with pytest.raises(MemoryTooSmallError) as counted:
        overlap(first, second, memory="1MiB")
    assert str(planned.value) == str(counted.value)
    with pytest.raises(MemoryTooSmallError) as both:
        tsstore.plan(first, "a", novelty=second, memory="1MiB")
    assert both.value.needed >= counted.value.needed


def test_each_thread_marks_the_samples_with_new_states_in_memory_of_its_own(tmp_path, monkeypatch):
    """The same rows are of 65,536 samples, and of half as many; a mark is a byte."""
    monkeypatch.setattr(requests, "processors", lambda: 6)
    more = []
    for scheduler in ("synchronous", "threads"):
        least = []
        for rows in (2, 1):
            own = {"a": layer(np.zeros((1 << 16, 1), np.uint8), rows)}
            store = write_layers(tmp_path / f"{scheduler}-{rows}", own)
            with pytest.raises(MemoryTooSmallError) as error:
                tsstore.plan(
                    store, novelty=store, memory="1MiB", intervals=False, scheduler=scheduler
                )
            least.append(int(re.search(r"give at least memory='(\d+)KiB'", str(error.value))[1]))
        more.append(least[1] - least[0])
    assert more[1] - more[0] == pytest.approx(5 * (1 << 15) / 1024, abs=1)


def test_other_lengths_of_samples_are_told(tmp_path):
    stores = [
        write_layers(tmp_path / str(rows), {"a": layer(np.zeros((6 * rows, 2), np.uint8), rows)})
        for rows in (2, 3)
    ]
    found = tsstore.compare(*stores, efficiency=False, novelty=True)
    assert found.warnings[0].startswith("a: a sample has 2 and 3 rows on average")
    assert found.overlap["a"].jaccard == 1


def test_what_was_found_is_a_table_a_document_and_a_picture(runs):
    found = tsstore.compare(*runs, efficiency=False, novelty=True)
    frame = found.overlap.to_frame()
    document = json.loads(found.to_json())["overlap"]["layers"]["a"]
    assert (
        frame.loc["a", "new_samples"] == document["new_samples"] == found.overlap["a"].new_samples
    )
    assert document["new_samples_share_lower"] <= document["new_samples_share"]
    assert "states of first" in repr(found)
    assert "on average over all ways" in found._repr_html_()
    assert "does not show" in found.overlap.plot().get_xlabel()
    assert tsstore.compare(*runs, efficiency=False).overlap is None


def test_the_command_prints_what_is_new(runs):
    paths = [store.path for store in runs]
    shown = CliRunner().invoke(app, ["compare", *paths, "--no-efficiency", "--novelty"])
    assert shown.exit_code == 0, shown.output
    assert "of both" in shown.stdout
    assert "more samples like the first's" in shown.stdout
    arguments = ["compare", *paths, "--no-efficiency", "--novelty", "--json"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert document["overlap"]["layers"]["a"]["new_states_drawn"]
