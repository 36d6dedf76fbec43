"""The states that groups share, against sets of decoded states."""

from __future__ import annotations

import json
import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.planning import cost, fitting
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.analysis.states import distinct as gathering
from tsstore.errors import AnalysisError, MemoryTooSmallError


def check(store, column, groups, found):
    """Check what was counted of a layer against the states of the samples of each group."""
    positions = store["a"].read_positions()
    of_row = np.repeat(np.asarray(store.column(column)), positions)
    decoded = store["a"].decode()
    sets = [{row.tobytes() for row in decoded[of_row == value]} for value in groups]
    assert found.matrix.tolist() == [[len(one & other) for other in sets] for one in sets]
    everything = list(set(chain(*sets)))
    held_by = [sum(state in own for own in sets) for state in everything]
    assert found.by_groups.tolist() == np.bincount(held_by, minlength=len(sets) + 1)[1:].tolist()
    assert found.distinct == len(everything)


def draw_run(path, seeds, width, groups, distinct=40, largest=5):
    for seed in seeds:
        label = np.random.default_rng(seed).integers(0, groups, 30)
        own = {"a": draw_layer(seed, 30, width, distinct, largest)}
        # Equal states in all parts.
        own["a"].rows[::3] = np.arange(len(own["a"].rows[::3]))[:, None] % 7
        loss = np.where(label == 0, np.nan, label / 4)
        store = write_layers(path, own, columns={"label": label, "loss": loss})
    return store


@settings(max_examples=8)
@given(
    st.sampled_from([1, 8, 9, 17]),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.integers(1, 6),
    st.sampled_from([1, 5]),
)
def test_groups_share_what_their_sets_share(tmp_path_factory, width, seeds, groups, largest):
    path = tmp_path_factory.mktemp("shared") / "run"
    store = draw_run(path, seeds, width, groups, largest=largest)
    values = sorted(set(store.column("label").tolist()))
    positions = store["a"].read_positions()
    label = np.asarray(store.column("label"))
    if not all(positions[label == value].sum() for value in values):
        return
    found = tsstore.shared_states(store, by="label", scheduler="synchronous")
    assert found.groups == tuple(values)
    check(store, "label", values, found["a"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp("shared") / "run", (1, 2, 3), 9, 4, 400)


def test_samples_in_no_group_do_not_count(run):
    found = tsstore.shared_states(run, by="loss")
    assert found.groups == (0.25, 0.5, 0.75)
    check(run, "loss", found.groups, found["a"])
    assert found.samples.sum() < run.samples


def test_records_go_through_files_in_many_partitions_and_passes(run, monkeypatch, tmp_path):
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)
    monkeypatch.setattr(fitting, "PARTITION_RECORDS", {False: 32, True: 32})
    monkeypatch.setattr(fitting, "SUBPARTITION_RECORDS", 16)
    monkeypatch.setattr(cost, "MIN_TABLE_SLOTS", 16)
    monkeypatch.setattr(gathering, "gather", lambda *_: None)
    found = tsstore.shared_states(run, by="label", scratch=tmp_path)
    check(run, "label", range(4), found["a"])


def test_what_was_found_is_a_table_and_a_document(run):
    found = tsstore.shared_states(run, by="label")
    frame = found.to_frame()
    assert frame.loc[("a", 2), 3] == found["a"].matrix[2, 3]
    assert json.loads(found.to_json())["layers"]["a"]["shared"] == found["a"].matrix.tolist()
    assert "of one group alone" in repr(found)
    assert "of all groups" in found._repr_html_()
    assert "4 groups of" in repr(found)


def test_more_than_a_hundred_groups_are_refused(run):
    windows = tsstore.shared_states(run, window=1 + run.samples // 2)
    assert len(windows["a"].by_groups) == 2
    with pytest.raises(AnalysisError, match="101 groups by window; expected 100"):
        tsstore.shared_states(many(run), window=1)


def many(run):
    """Return a run of more than a hundred samples."""
    path = f"{run.path}-many"
    return write_layers(path, {"a": draw_layer(0, 101, 1)})


def test_the_memory_that_is_named_suffices(run):
    with pytest.raises(MemoryTooSmallError, match="memory of 1 MiB is too small") as error:
        tsstore.shared_states(run, by="label", memory="1MiB", scheduler="synchronous")
    least = int(re.search(r"give at least memory='(\d+)KiB'", str(error.value))[1])
    found = tsstore.shared_states(run, by="label", memory=f"{least}KiB", scheduler="synchronous")
    check(run, "label", range(4), found["a"])
    with pytest.raises(MemoryTooSmallError, match=f"'{least}KiB'"):
        tsstore.shared_states(run, by="label", memory=f"{least - 1}KiB", scheduler="synchronous")
