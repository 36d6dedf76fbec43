"""Two runs counted and compared in one pass are what they are apart, from rows read once."""

from __future__ import annotations

import re

import numpy as np
import pytest
from reads import chunks_of, open_noted, take_reads
from synthetic import layer, write_layers

import tsstore
from tsstore.analysis.execution import reduction
from tsstore.analysis.execution.block import BlockCount
from tsstore.analysis.neurons.count import compare_with_neurons
from tsstore.analysis.request import Request
from tsstore.errors import DamageError, MemoryTooSmallError
from tsstore.store.format.attributes import PartAttributes

WIDTHS = {"narrow": 2, "middle": 9, "wide": 40}
IDS = np.arange(512)

pytestmark = pytest.mark.usefixtures("small_sizes")


def write(path, seed, parts, positions=4, chunk_bytes=320, lacking=()):
    """Write a run of samples with such ids by part; of several numbers of positions where None.

    The layer `middle` is not in the parts that lack it: their samples have no rows there.
    """
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).integers(0, 4, 4096)
    for number, ids in enumerate(parts):
        own = lengths[ids] if positions is None else positions
        rows = int(own.sum()) if positions is None else len(ids) * positions
        layers = {
            name: layer(np.bitwise_and(*rng.integers(0, 256, (2, rows, width), np.uint8)), own)
            for name, width in WIDTHS.items()
            if not (name == "middle" and number in lacking)
        }
        part = PartAttributes(number, len(parts), missing="empty" if lacking else "error")
        columns = {"id": ids, "label": ids % 3}
        write_layers(path, layers, columns=columns, part=part, chunk_bytes=chunk_bytes)
    return open_noted(path)


def split(ids, *at):
    return np.split(np.asarray(ids), at)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same samples in the same order, in two parts each, of whole chunks."""
    folder = tmp_path_factory.mktemp("together")
    return tuple(write(folder / name, seed, split(IDS, 320)) for seed, name in enumerate("ab"))


def apart(first, second, **asked):
    """Return what is found of two runs by a pass for each thing."""
    plain = {name: own for name, own in asked.items() if name not in ("by", "window")}
    flips = tsstore.compare(first, second, efficiency=False)
    return (
        tsstore.analyze(first, **asked),
        tsstore.analyze(second, **plain),
        flips,
        tsstore.neurons(first),
    )


def check(found, expected):
    """Check that two runs, their flips and neurons are what was found of them apart."""
    (both, compared, neurons), (first, second, flips, others) = found, expected
    assert both.first.to_json() == first.to_json()
    assert both.second.to_json() == second.to_json()
    for name, own in second.items():
        assert both.second[name].spectrum == own.spectrum
        assert both.second[name].changes == own.changes
    assert compared.to_json() == flips.to_json()
    assert neurons.to_json() == others.to_json()
    for name, own in flips.items():
        if own.flips is not None:
            assert np.array_equal(own.flips.counted.counts, compared[name].flips.counted.counts)
            assert np.array_equal(own.flips.counted.totals, compared[name].flips.counted.totals)
            assert own.flips.identical == compared[name].flips.identical


@pytest.mark.parametrize("asked", [{}, {"by": "label"}], ids=str)
def test_a_report_that_compares_reads_every_chunk_of_both_runs_once(runs, tmp_path, place, asked):
    for run in runs:
        take_reads(run)
    tsstore.report(runs[0], tmp_path / "page.html", compare=runs[1], **place, **asked)
    for run in runs:
        assert take_reads(run) == chunks_of(run)


@pytest.fixture(scope="module")
def expected(runs):
    return {str(asked): apart(*runs, **asked) for asked in ({}, {"window": 200})}


@pytest.mark.parametrize("asked", [{}, {"window": 200}], ids=str)
def test_numbers_are_those_that_are_counted_apart_on_all_schedulers(runs, expected, place, asked):
    found = compare_with_neurons(*runs, Request(**place, **asked))
    check(found, expected[str(asked)])


def test_bits_that_differ_are_those_that_numpy_finds(runs):
    found = tsstore.compare(*runs)
    for name, own in found.items():
        first, second = (run[name].decode() for run in runs)
        assert np.array_equal(own.flips.rate, (first != second).mean(axis=0))
        assert own.samples == 512


def test_comparing_counts_and_compares_in_one_pass(runs):
    for run in runs:
        take_reads(run)
    found = tsstore.compare(*runs)
    for run in runs:
        assert take_reads(run) == chunks_of(run)
    analyses = [tsstore.analyze(run) for run in runs]
    assert found.efficiency.to_dict() == tsstore.difference(*analyses).to_dict()


def shuffled(path):
    return write(path, 8, split(np.random.default_rng(8).permutation(IDS), 100))


OTHERS = {
    "one part": lambda path: write(path, 2, [IDS]),
    "more parts": lambda path: write(path, 2, split(IDS, 100, 300, 400)),
    "other chunks": lambda path: write(path, 2, split(IDS, 320), chunk_bytes=448),
    "fewer": lambda path: write(path, 2, split(np.delete(IDS, [0, 1, 130, 131, 132]), 50)),
    "more": lambda path: write(path, 2, [np.r_[600:700, 0:200, 700:720, 200:400, 800:900]]),
    "parts in another order": lambda path: write(path, 2, [IDS[256:], IDS[:256]]),
    "other ids between": lambda path: write(path, 2, [np.where(IDS % 5, IDS, IDS + 1000)]),
    "repeats": lambda path: write(path, 2, split(np.r_[0:400, 0:100], 400)),
    "other lengths": lambda path: write(path, 2, split(IDS, 320), positions=None),
    "lacking": lambda path: write(path, 2, split(IDS, 64, 320), lacking=[1]),
}
"""Runs that hold what others hold in the same order, so far as they do."""

FIRST = {"one length": (4, ()), "lengths": (None, ()), "lacking": (4, (1,))}


@pytest.fixture(scope="module")
def firsts(tmp_path_factory):
    """A run of samples of one length, one of several, and one that lacks a layer in a part."""
    folder = tmp_path_factory.mktemp("first")
    return {
        name: write(folder / name, 1, split(IDS, 100, 320), positions, lacking=lacking)
        for name, (positions, lacking) in FIRST.items()
    }


@pytest.mark.parametrize(
    ("which", "name"),
    [
        *(("one length", name) for name in OTHERS),
        *(("lengths", name) for name in ("fewer", "other chunks", "other lengths")),
        *(("lacking", name) for name in ("more parts", "lacking")),
    ],
)
def test_runs_are_read_in_step_as_far_as_they_are_in_the_same_order(firsts, which, name, tmp_path):
    first, second = firsts[which], OTHERS[name](tmp_path / "run")
    expected = apart(first, second)
    for run in (first, second):
        take_reads(run)
    check(compare_with_neurons(first, second, Request(scheduler="synchronous")), expected)
    for run in (first, second):
        # Chunks at the ends of stretches and of tasks may be read by two of these.
        reads = take_reads(run)
        assert set(reads) == set(chunks_of(run))
        assert reads.total() < 1.25 * len(reads)


def test_runs_in_another_order_are_read_once_more_and_found_the_same(runs, tmp_path):
    second = shuffled(tmp_path / "run")
    expected = apart(runs[0], second)
    for run in (runs[0], second):
        take_reads(run)
    check(compare_with_neurons(runs[0], second, Request()), expected)
    reads = take_reads(runs[0])
    assert set(reads.values()) == {2}
    assert min(take_reads(second).values()) >= 2


@pytest.mark.parametrize("chosen", [IDS % 3 == 1, (IDS > 40) & (IDS < 300)], ids=["some", "range"])
def test_views_are_compared_as_what_they_show(runs, chosen):
    views = [run.filter(chosen).select("middle", "wide") for run in runs]
    check(compare_with_neurons(*views, Request()), apart(*views))
    check(
        compare_with_neurons(runs[0], views[1], Request(), ["wide"]),
        apart(runs[0].select("wide"), views[1].select("wide")),
    )
    check(
        compare_with_neurons(views[0], runs[1], Request()),
        apart(views[0], runs[1].select(*views[0])),
    )


def test_what_the_memory_does_not_hold_at_once_is_read_once_more(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 200)
    asked = {"scheduler": "synchronous", "scratch": tmp_path}
    with pytest.raises(MemoryTooSmallError) as refused:
        compare_with_neurons(*runs, Request(memory="1MiB", **asked))
    least = refused.value.needed
    expected = apart(*runs)
    planned = tsstore.plan(runs[0], compare=runs[1], memory=least, **asked).report
    assert planned.compared_again == runs[0].layers
    assert "are read once more in both runs, as the memory does not hold both" in planned.sentence
    for run in runs:
        take_reads(run)
    check(compare_with_neurons(*runs, Request(memory=least, **asked)), expected)
    for run in runs:
        assert min(take_reads(run).values()) >= 2
    with pytest.raises(MemoryTooSmallError):
        compare_with_neurons(*runs, Request(memory=least - (1 << 20), **asked))
    # So much more that each of two layers has half of it, and one pass gives all.
    planned = tsstore.plan(runs[0], compare=runs[1], memory=3 * least, **asked)
    assert planned.report.compared_again == planned.report.read_again == ()
    assert planned.report.projected_peak <= 3 * least
    assert planned.brief[0].endswith("; a report reads them and the other run as often.")
    check(compare_with_neurons(*runs, Request(memory=3 * least, **asked)), expected)
    for run in runs:
        assert take_reads(run) == chunks_of(run)


def test_a_plan_says_that_the_order_is_another_one(runs, tmp_path):
    planned = tsstore.plan(runs[0], compare=shuffled(tmp_path / "run")).report
    assert planned.compared_again == runs[0].layers
    assert "are read once more in both runs, as samples are in another order" in planned.sentence
    assert planned.to_dict()["compared_again"] == list(runs[0].layers)


def test_a_plan_for_a_report_with_too_little_memory_says_so(runs):
    asked = {"scheduler": "synchronous"}
    with pytest.raises(MemoryTooSmallError) as alone:
        tsstore.plan(runs[0], memory="1KiB", **asked)
    planned = tsstore.plan(runs[0], compare=runs[1], memory=alone.value.needed, **asked)
    assert planned.report.projected_peak is None
    assert "compares both, for which there is too little memory" in planned.report.sentence


def test_damage_of_either_run_is_an_error_that_names_the_chunk(runs, tmp_path):
    for number in range(2):
        second = write(tmp_path / f"run-{number}", 2, split(IDS, 320))
        chunk = sorted(chunks_of(second))[0]
        (tmp_path / f"run-{number}" / chunk).write_bytes(b"")
        both = [runs[0], second]
        with pytest.raises(DamageError, match=re.escape(chunk)):
            tsstore.compare(*(both if number else both[::-1]), scheduler="threads")


def test_chunks_that_are_longer_than_pieces_are_read_in_pieces_of_many_samples(
    tmp_path, monkeypatch
):
    take, samples = BlockCount.take, []

    def noted(self, blocks, beside):
        samples.append(sum(block.samples for block in blocks))
        take(self, blocks, beside)

    monkeypatch.setattr(BlockCount, "take", noted)
    runs = [write(tmp_path / name, 3, [IDS], chunk_bytes=1 << 16) for name in "ab"]
    found = tsstore.compare(*runs, scheduler="synchronous")
    assert [own.share for own in found.values()] == [0, 0, 0]
    assert min(samples) > 1


def test_too_little_memory_is_refused_for_groups_and_for_the_other_run_at_once(tmp_path):
    """Groups of so many rows take more than all else."""
    rows, columns = np.zeros((600_000, 20), np.uint8), {"id": np.arange(300)}
    columns["label"] = columns["id"] % 7
    runs = [
        write_layers(
            tmp_path / name, {"a": layer(rows, 2_000)}, columns=columns, chunk_bytes=1 << 20
        )
        for name in "ab"
    ]
    asked = {"memory": "1KiB", "scheduler": "synchronous", "scratch": tmp_path, "by": "label"}
    with pytest.raises(MemoryTooSmallError) as of_groups:
        tsstore.analyze(runs[0], **asked)
    with pytest.raises(MemoryTooSmallError) as refused:
        compare_with_neurons(*runs, Request(**asked))
    assert refused.value.needed >= of_groups.value.needed
