"""States and neurons counted in one pass are those that are counted apart, from rows read once."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from reads import chunks_of, open_noted, take_reads
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.execution import reduction
from tsstore.analysis.groups import analyze as grouped
from tsstore.analysis.neurons.count import analyze_with_neurons
from tsstore.analysis.request import Request
from tsstore.errors import DamageError, MemoryTooSmallError
from tsstore.store.format.attributes import PartAttributes

WIDTHS = {"narrow": 2, "middle": 9, "wide": 40}
SIZES = (320, 64, 128)

pytestmark = pytest.mark.usefixtures("small_sizes")


def make(path, positions=None, repeats=False, steps=(None,)):
    """Write a run of several parts; of so many positions each sample, or of several numbers."""
    first, parts = 0, [(step, size) for step in steps for size in SIZES]
    for number, (step, size) in enumerate(parts):
        rng = np.random.default_rng(number)
        ids = np.arange(first, first + size)
        if repeats:
            # Copies, and samples of one id that differ.
            ids = ids // 2
        layers = {}
        for name, width in WIDTHS.items():
            if positions is None:
                layers[name] = draw_layer(7 * number + width, size, width)
            else:
                rows = rng.integers(0, 3, (size * positions, width)).astype(np.uint8)
                layers[name] = layer(rows, positions)
            if repeats and positions is not None:
                # Every fourth sample is a copy of the one before.
                by_sample = layers[name].rows.reshape(size, positions, width)
                by_sample[1::4] = by_sample[::4]
        columns = {"id": ids, "label": np.arange(size) % 3}
        part = PartAttributes(number, len(parts), step=step)
        write_layers(path, layers, columns=columns, part=part, chunk_bytes=320)
        first += size
    return open_noted(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose chunks hold whole samples: no block ends within one."""
    return make(tmp_path_factory.mktemp("once") / "run", positions=4)


def by_group(analysis):
    """Return the analyses of all groups, and that of all samples together, by group."""
    if isinstance(analysis, tsstore.Analysis):
        return {None: analysis}
    return {**dict(analysis.items()), None: analysis.whole}


def check(found, expected):
    """Check that analysis and neurons are what was found of them apart."""
    (analysis, neurons), (alone, others) = found, expected
    assert analysis.to_json() == alone.to_json()
    for group, own in by_group(alone).items():
        for name, result in own.items():
            one = by_group(analysis)[group][name]
            assert (one.spectrum, one.changes) == (result.spectrum, result.changes)
    assert list(neurons) == list(others)
    for name, one in neurons.items():
        other = others[name]
        assert np.array_equal(one.counted.counts, other.counted.counts)
        assert np.array_equal(one.counted.totals, other.counted.totals)
        assert one.identical == other.identical
        assert one.to_dict() == other.to_dict()


def apart(store, **asked):
    """Return what is found by a pass for each."""
    return tsstore.analyze(store, **asked), tsstore.neurons(store)


@pytest.mark.parametrize(
    "asked",
    [{}, {"by": "label"}, pytest.param({"window": 200}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_report_reads_every_chunk_once(run, tmp_path, place, asked):
    take_reads(run)
    tsstore.report(run, tmp_path / "page.html", **place, **asked)
    assert take_reads(run) == chunks_of(run)
    assert len(chunks_of(run)) > 3 * reduction.FAN_IN


@pytest.fixture(scope="module", params=[(4, False), (None, False), (4, True)], ids=str)
def data(request, tmp_path_factory):
    """A run of samples of one length or of several, and one in which samples repeat others."""
    return make(tmp_path_factory.mktemp("data") / "run", *request.param)


@pytest.mark.parametrize(
    "asked", [{}, {"by": "label"}, {"unique_by": "id"}, {"intervals": False}], ids=str
)
def test_numbers_are_those_that_are_counted_apart(data, asked):
    found = analyze_with_neurons(data, Request(scheduler="threads", **asked))
    check(found, apart(data, **asked))


@pytest.mark.parametrize("asked", [{}, {"window": 200}], ids=str)
def test_they_are_so_on_all_schedulers(varied, place, asked):
    request = Request(**place, **asked)
    check(analyze_with_neurons(varied[0], request), varied[1][str(asked)])


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A run of samples of several lengths, and what is found in it apart, by what is asked."""
    store = make(tmp_path_factory.mktemp("varied") / "run")
    return store, {str(asked): apart(store, **asked) for asked in ({}, {"window": 200})}


def test_views_are_read_as_far_as_they_go(tmp_path):
    store = make(tmp_path / "run", 4, steps=(1, 2))
    view = store.at_step(2).filter(label=2).select("middle", "wide")
    expected = apart(view)
    take_reads(store)
    check(analyze_with_neurons(view, Request()), expected)
    reads = take_reads(store)
    assert set(reads.values()) == {1}
    assert len(reads) < len(chunks_of(store)) / 2


def test_an_analysis_that_is_there_takes_one_pass_for_the_neurons(run, tmp_path):
    analysis = tsstore.analyze(run)
    take_reads(run)
    tsstore.report(run, tmp_path / "page.html", analysis=analysis)
    assert take_reads(run) == chunks_of(run)


def test_what_the_memory_does_not_hold_at_once_is_read_twice(run, tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 200)
    # Memory that is too small for both in these layers is not in a narrow one.
    chunks = Counter({file: 1 for file in chunks_of(run) if "-narrow/" not in file})
    run = run.select("middle", "wide")
    asked = {"scheduler": "synchronous", "scratch": tmp_path}
    asked["memory"] = tsstore.plan(run, **asked).smallest_memory
    planned = tsstore.plan(run, **asked)
    assert planned.report.read_again == run.layers
    assert planned.brief[0].endswith("; a report reads them once more.")
    assert "are read once more for them" in planned.report.sentence
    expected = apart(run)
    take_reads(run)
    check(analyze_with_neurons(run, Request(**asked)), expected)
    reads = take_reads(run)
    assert set(reads) == set(chunks)
    assert min(reads.values()) == 2
    # A little more memory, and one pass gives both.
    asked["memory"] += 2 << 20
    planned = tsstore.plan(run, **asked)
    assert planned.report.read_again == ()
    assert planned.projected_peak < planned.report.projected_peak <= asked["memory"]
    assert planned.brief[0].endswith("; a report reads them as often.")
    check(analyze_with_neurons(run, Request(**asked)), expected)
    assert take_reads(run) == chunks


def test_neurons_come_of_the_first_of_several_passes_for_groups(run, monkeypatch):
    planned = grouped.plan_groups
    monkeypatch.setattr(
        grouped, "plan_groups", lambda *of: [replace(plan, passes=2) for plan in planned(*of)]
    )
    expected = apart(run, by="label")
    take_reads(run)
    check(analyze_with_neurons(run, Request(scheduler="threads", by="label")), expected)
    assert take_reads(run) == chunks_of(run) + chunks_of(run)


def test_groups_whose_pass_does_not_hold_neurons_take_one_for_these(run, monkeypatch):
    planned = grouped.plan_groups
    monkeypatch.setattr(
        grouped, "plan_groups", lambda *of: [replace(plan, beside=False) for plan in planned(*of)]
    )
    check(
        analyze_with_neurons(run, Request(scheduler="threads", by="label")), apart(run, by="label")
    )


def test_too_little_memory_for_neurons_is_an_error_before_anything_is_counted(run, tmp_path):
    with pytest.raises(MemoryTooSmallError, match="is too small"):
        analyze_with_neurons(run, Request(memory="1KiB", scheduler="synchronous"))


def test_an_error_names_the_layer_and_a_damaged_chunk_is_none_of_its_numbers(tmp_path):
    store = make(tmp_path / "run", 4)
    chunk = sorted(chunks_of(store))[0]
    (tmp_path / "run" / chunk).write_bytes(b"")
    with pytest.raises(DamageError, match=re.escape(chunk)):
        analyze_with_neurons(store, Request(scheduler="threads"))
