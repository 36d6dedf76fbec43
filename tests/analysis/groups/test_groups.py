"""Groups of samples: each is analysed as if there were no others."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.groups import analyze as module
from tsstore.analysis.groups import grouping
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import PlannedLayer
from tsstore.analysis.planning.run_plan import RunPlan
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import AnalysisError, MemoryTooSmallError, StoreError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading import conditions

MIB = 1 << 20


def make(path, sizes=(90, 2, 70), steps=None, repeats=False, positions=None, seed=0):
    """Write a run of some parts, with columns to group by."""
    rng = np.random.default_rng(seed)
    first = 0
    for number, size in enumerate(sizes):
        loss = rng.integers(0, 40, size) / 8
        loss[rng.random(size) < 0.1] = np.nan
        columns = {
            "id": rng.integers(0, 60, size) if repeats else np.arange(first, first + size),
            "label": rng.integers(0, 3, size),
            "prediction": rng.integers(0, 3, size),
            "split": np.array([f"s{n % 2}" for n in range(size)], object),
            "loss": loss,
        }
        first += size
        if positions is None:
            layers = {name: draw_layer(7 * number + w, size, w) for name, w in WIDTHS.items()}
        else:
            layers = {
                name: layer(rng.integers(0, 3, (size * positions, w)).astype(np.uint8), positions)
                for name, w in WIDTHS.items()
            }
        step = None if steps is None else steps[number]
        part = PartAttributes(number, len(sizes), step=step)
        store = write_layers(path, layers, columns=columns, part=part)
    return store


WIDTHS = {"a": 2, "b": 20}


def document(analysis):
    found = analysis.to_dict()
    del found["samples_where"]
    return found


def alone(store, by, values, **options):
    """Return what a view of each group gives, and of None what the run gives."""
    found = {value: tsstore.analyze(store.filter(**{by: value}), **options) for value in values}
    return found | {None: tsstore.analyze(store, **options)}


def check(grouped, store, **options):
    """Check that each group is what its view gives, and all together what the run gives."""
    compare(grouped, alone(store, grouped.by, grouped.values, **options))


def compare(grouped, expected):
    assert document(grouped.whole) == document(expected[None])
    assert [*grouped.values, None] == [*expected]
    for value, analysis in grouped.items():
        assert document(analysis) == document(expected[value])
        for name, found in analysis.items():
            assert found.spectrum == expected[value][name].spectrum
            assert found.changes == expected[value][name].changes
        assert analysis.dealt == expected[value].dealt
        assert analysis.chosen == expected[value].chosen


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


@pytest.fixture(scope="module", params=[None, 1, 4])
def run(request, tmp_path_factory):
    """A run that nobody changes, and what its groups give alone, on threads, which are quicker."""
    store = make(tmp_path_factory.mktemp("groups") / "run", positions=request.param)
    return store, alone(store, "label", range(3))


@pytest.mark.usefixtures("small_sizes")
def test_groups_are_what_their_samples_give_alone(tmp_path, run, scheduler):
    store, expected = run
    options = {"scheduler": scheduler, "scratch": tmp_path, "memory": 64 * MIB}
    compare(tsstore.analyze(store, by="label", **options), expected)


@pytest.mark.parametrize("intervals", [True, False])
def test_groups_are_counted_some_after_others_where_memory_is_short(
    tmp_path, intervals, monkeypatch
):
    planned = module.plan_groups
    monkeypatch.setattr(
        module, "plan_groups", lambda *of: [replace(plan, passes=2) for plan in planned(*of)]
    )
    store = make(tmp_path / "run", positions=4).select("b")
    options = {"intervals": intervals, "scheduler": "synchronous"}
    check(tsstore.analyze(store, by="label", **options), store, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"by": "label"},
        {"window": 50},
        {"by": "loss", "bins": 2},
        {"by": "label", "repeats": "each"},
    ],
)
def test_groups_are_planned_as_they_are_counted(tmp_path, options, monkeypatch):
    plans, planned = [], module.plan_groups
    monkeypatch.setattr(module, "plan_groups", lambda *of: plans.extend(planned(*of)) or plans)
    store = make(tmp_path / "run", positions=4, repeats="repeats" in options)
    found = tsstore.plan(store, **options)
    assert not plans
    groups = len(tsstore.analyze(store, **options))
    assert list(found.values()) == plans
    assert found.groups == found.to_dict()["sample_groups"] == groups
    assert f"{groups} groups and all samples together are counted in one pass" in str(found)
    assert found.projected_peak == max(plan.projected_peak for plan in plans)


def test_a_plan_says_which_layers_take_several_passes_and_an_error_what_one_group_takes():
    work = Work("a", 10**6, 8, 1, largest_sample=64, groups=32, sets=1000)
    few, many = (make_plan(work, memory * MIB, 2, True) for memory in (1024, 64))
    assert few.passes == 1 < many.passes
    assert many.projected_peak <= 64 * MIB
    layers = {"a": PlannedLayer(10**6, 8, many)}
    said = RunPlan("run.zarr", 64 * MIB, 2, True, layers, MIB, None, groups=1000)
    assert f"a: 1,000 groups are counted in up to {many.passes} passes over the rows" in str(said)
    with pytest.raises(MemoryTooSmallError) as error:
        make_plan(work, MIB, 2, True)
    enough = int(re.search(r"memory='(\d+)KiB'", str(error.value))[1]) << 10
    assert make_plan(work, enough, 2, True).passes >= 1000


@pytest.mark.parametrize(
    "options",
    [
        {"unique_by": "id"},
        {"repeats": "each"},
        {"repeats": "once"},
        {"dependent_by": "split"},
        {"intervals": False},
    ],
)
@pytest.mark.parametrize("repeats", [False, True])
def test_options_mean_of_a_group_what_they_mean_of_it_alone(tmp_path, options, repeats):
    store = make(tmp_path / "run", repeats=repeats)
    check(tsstore.analyze(store, "a", by="label", **options), store.select("a"), **options)


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    positions=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 99),
)
def test_groups_of_any_run_are_what_their_samples_give(sizes, positions, seed):
    with tempfile.TemporaryDirectory() as folder:
        store = make(folder, sizes, positions=positions or 1, seed=seed)
        check(tsstore.analyze(store, by="split"), store)


def test_a_view_is_grouped_as_well(tmp_path):
    view = make(tmp_path / "run", positions=3).filter(split="s1")
    grouped = tsstore.analyze(view, by="label")
    check(grouped, view)
    assert grouped.whole.samples == view.samples


def test_steps_are_groups_and_are_never_pooled(tmp_path):
    store = make(tmp_path / "run", steps=[1, 2, 2])
    with pytest.raises(AnalysisError, match=r'analyse each, tsstore.analyze\(store, by="step"\)'):
        tsstore.analyze(store, by="label")
    grouped = tsstore.analyze(store, by="step")
    assert grouped.values == (1, 2)
    for step, analysis in grouped.items():
        expected = tsstore.analyze(store.at_step(step))
        assert document(analysis) == document(expected)
        assert analysis.dealt == expected.dealt
    with pytest.raises(AnalysisError, match=r"as steps are not pooled; take one"):
        _ = grouped.whole
    assert json.loads(grouped.to_json())["whole"] is None
    # What comes back follows from the arguments alone.
    assert len(tsstore.analyze(store.at_step(1), by="step")) == 1


def test_windows_follow_the_order_of_the_run(tmp_path):
    store = make(tmp_path / "run", positions=2)
    grouped = tsstore.analyze(store, window=60)
    assert grouped.values == (0, 60, 120)
    for start, analysis in grouped.items():
        mask = (np.arange(162) // 60) * 60 == start
        assert document(analysis) == document(tsstore.analyze(store.filter(mask)))


def test_numbers_are_divided_by_bins(tmp_path):
    store = make(tmp_path / "run", positions=2)
    loss = store.column("loss")
    grouped = tsstore.analyze(store, by="loss", bins=[0, 1, 2.5])
    cut = pd.cut(loss, [0, 1, 2.5], include_lowest=True).codes
    assert [analysis.samples for _, analysis in grouped.items()] == np.bincount(
        cut[cut >= 0]
    ).tolist()
    assert grouped.sel(loss=2.5).samples == (cut == 1).sum()
    assert grouped.sel(loss=0).samples == grouped.sel(loss=1).samples == (cut == 0).sum()
    assert grouped.ungrouped == (cut < 0).sum()
    assert f"{grouped.ungrouped} samples in no group" in str(grouped)
    assert document(grouped.whole) == document(tsstore.analyze(store))
    assert [str(value) for value in grouped.values] == ["[0.0, 1.0]", "(1.0, 2.5]"]
    assert grouped.to_frame().shape[0] == 2 * len(store)
    grouped = tsstore.analyze(store, by="loss", bins=3)
    assert sum(analysis.samples for _, analysis in grouped.items()) == (~np.isnan(loss)).sum()


def test_an_edge_below_a_bin_does_not_select_it_where_it_is_not_the_lowest(tmp_path):
    rows = np.arange(8, dtype=np.uint8)[:, None]
    store = write_layers(
        tmp_path / "run", {"a": layer(rows)}, columns={"loss": np.repeat([1.5, 2.5], 4)}
    )
    grouped = tsstore.neurons(store, by="loss", bins=[0, 1, 2, 3])
    assert grouped.sel(loss=2)["a"].samples == 4
    with pytest.raises(AnalysisError, match="no group loss = 1"):
        grouped.sel(loss=1)


def test_what_makes_no_groups_is_refused(tmp_path):
    store = make(tmp_path / "run", positions=1)
    for options, error, why in [
        ({"by": "nothing"}, StoreError, "no sample column 'nothing'"),
        ({"by": "label", "window": 3}, AnalysisError, "expected by= or window="),
        ({"bins": 3}, AnalysisError, "expected by= or window="),
        ({"window": 0}, AnalysisError, "window is 0"),
        ({"by": "split", "bins": 3}, AnalysisError, "bins= divide numbers"),
        ({"by": "step", "bins": 3}, AnalysisError, "by= names none"),
        ({"by": "loss", "bins": [3]}, AnalysisError, "two or more ascending edges"),
        ({"by": "loss", "bins": ["a", "b"]}, AnalysisError, "two or more ascending edges"),
    ]:
        with pytest.raises(error, match=why):
            tsstore.analyze(store, **options)


def test_more_than_a_thousand_groups_are_an_error_that_counts_them(tmp_path):
    columns = {"id": np.arange(1_200), "one": np.zeros(1_200, int)}
    store = write_layers(tmp_path, {"a": draw_layer(0, 1_200, 1)}, columns=columns)
    with pytest.raises(AnalysisError, match=r"1,200 groups by id; expected 1,000 at most; divide"):
        tsstore.analyze(store, by="id")
    with pytest.raises(AnalysisError, match=r"1,200 groups by window"):
        tsstore.analyze(store, window=1)


def test_a_grouped_analysis_is_a_table_by_layer_and_group(tmp_path):
    store = make(tmp_path / "run", positions=3)
    grouped = tsstore.analyze(store, by="label")
    frame = grouped.to_frame()
    assert frame.index.names == ["layer", "label"]
    assert list(frame.index) == [(name, value) for name in WIDTHS for value in (0, 1, 2)]
    assert frame.loc[("b", 2), "distinct"] == grouped.sel(label=2)["b"].distinct
    fewest = min(analysis.samples for _, analysis in grouped.items())
    assert (frame["rarefied_samples"] == fewest).all()
    assert frame.loc[("a", 1), "rarefied_distinct"] == (
        grouped.sel(label=1)["a"].rarefied(fewest).distinct
    )
    assert len(grouped.cells()) == 2 * 4
    assert f"distinct at {fewest}" in str(grouped)
    assert "<table>" in grouped._repr_html_()
    with pytest.raises(AnalysisError, match="no group label = 7; there are 0, 1 and 2"):
        grouped.sel(label=7)
    with pytest.raises(AnalysisError, match="groups are by 'label'"):
        grouped.sel(split="s0")
    assert list(json.loads(grouped.to_json())["groups"]) == ["0", "1", "2"]


def test_of_many_groups_the_first_and_last_are_printed(tmp_path):
    columns = {"id": np.arange(600), "many": np.arange(600) % 30}
    store = write_layers(tmp_path, {"a": layer(np.zeros((600, 1), np.uint8))}, columns=columns)
    grouped = tsstore.analyze(store, by="many")
    assert len(grouped.cells()) == 21
    assert "30 groups, of which the first and the last ones are shown." in str(grouped)


@pytest.mark.parametrize("by", ["id", "split"])
def test_of_a_step_the_clusters_of_that_step_count(tmp_path, by):
    store = make(tmp_path / "run", steps=[1, 2, 2])
    for step, analysis in tsstore.analyze(store, "a", by="step", dependent_by=by).items():
        expected = tsstore.analyze(store.at_step(step), "a", dependent_by=by)
        assert analysis["a"].clusters == expected["a"].clusters
        assert document(analysis) == document(expected)


def test_infinite_edges_and_values_are_kept(tmp_path):
    columns = {"loss": np.repeat([-np.inf, 0.5, 2.0, np.inf], 10)}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 40, 2)}, columns=columns)
    for bins in (None, [-np.inf, 1.0, np.inf]):
        grouped = tsstore.analyze(store, by="loss", bins=bins, intervals=False)
        grouped.save(tmp_path / f"{bins is None}.zarr")
        loaded = tsstore.GroupedAnalysis.load(tmp_path / f"{bins is None}.zarr")
        assert loaded.values == grouped.values
        assert loaded.to_dict() == grouped.to_dict()


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("spread", [1, 1 << 40])
def test_whole_numbers_at_the_ends_of_their_type_are_groups(tmp_path, dtype, spread):
    if dtype == np.float64:
        values = np.array([-2.5, 7, 7, -2.5, 1e300] * 4)
    else:
        ends = np.iinfo(dtype)
        spread = min(spread, ends.max // 2)
        least, most = ends.min, ends.max
        values = np.array([least, least + spread, least, least + 3, least] * 4, dtype)
        if dtype != np.int8:
            values[5:10] = [most, most - spread, most, most - 2, most]
    store = write_layers(
        tmp_path / "run",
        {"a": layer(np.arange(20, dtype=np.uint8)[:, None])},
        columns={"n": values},
    )
    view = store.filter(np.arange(20) < 15)
    found = tsstore.neurons(view, by="n")
    known, counts = np.unique(values[:15], return_counts=True)
    assert found.values == tuple(known.tolist())
    assert [own["a"].samples for own in found.groups.values()] == counts.tolist()


@pytest.mark.parametrize("distinct", [40, 3_000])
def test_bins_hold_the_samples_between_their_edges(tmp_path, distinct, monkeypatch):
    monkeypatch.setattr(conditions, "PIECE_SAMPLES", 2_500)
    monkeypatch.setattr(grouping, "PIECE_SAMPLES", 2_500)
    values = np.random.default_rng(0).permutation(np.arange(3_000) % distinct) / 7
    values[::11] = np.nan
    rows = np.arange(3_000).view(np.uint8).reshape(3_000, 8)
    store = write_layers(tmp_path, {"a": layer(rows)}, columns={"x": values})
    kept = np.arange(3_000) % 5 > 0
    edges = [-1, 0, distinct / 30, distinct / 20, distinct]
    found = tsstore.neurons(store.filter(kept), by="x", bins=edges)
    places = pd.cut(values, edges, include_lowest=True).codes
    for code, own in enumerate(found.groups.values()):
        states = np.unpackbits(rows[kept & (places == code)], axis=1, bitorder="little")
        np.testing.assert_array_equal(own["a"].counted.counts[0], states.sum(axis=0))
    assert found.ungrouped == (kept & (places < 0)).sum()


def test_a_step_that_is_not_shown_is_no_group(tmp_path):
    store = make(tmp_path / "run", steps=[1, 2, 2])
    view = store.filter(store.samples_frame().index.get_level_values("step") == 2)
    grouped = tsstore.analyze(view, "a", by="step")
    assert grouped.values == (2,)
    assert document(grouped.sel(step=2)) == document(tsstore.analyze(store.at_step(2), "a"))


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ([np.arange(9) % 2, np.arange(9) % 2 / 2], (0.0, 0.5, 1.0)),
        ([np.arange(9) % 2, np.arange(9) % 2 + np.uint64(2)], (0, 1, 2, 3)),
        ([np.arange(9) % 2, np.arange(9) % 2 + np.uint64(2**60)], None),
        ([np.arange(9) + 2**60, np.arange(9) % 2 / 2], None),
        ([np.arange(9) % 2, np.array([*"abcabcabc"], object)], None),
    ],
)
def test_values_of_other_types_are_told_apart_or_refused(tmp_path, columns, values):
    for rank, own in enumerate(columns):
        part, layers = PartAttributes(rank, len(columns)), {"a": draw_layer(rank, 9, 2)}
        store = write_layers(tmp_path / "run", layers, columns={"k": own}, part=part)
    if values is None:
        with pytest.raises(StoreError, match="k cannot be compared from part to part: it is int64"):
            tsstore.analyze(store, by="k")
        return
    grouped = tsstore.analyze(store, by="k", intervals=False)
    assert grouped.values == values
    expected = [sum((own == value).sum() for own in columns) for value in values]
    assert [analysis.samples for analysis in grouped.groups.values()] == expected
