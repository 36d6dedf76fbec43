"""From a block's chunks to its keys, against counting its rows one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from counting_cases import sample_few_rows, totals_by_group
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.analysis.execution import block as block_records
from tsstore.analysis.execution.block import LayerJob, preaggregation, read_samples
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.random_groups import RandomGroups
from tsstore.analysis.samples import Samples
from tsstore.counting.keys import KeyScheme
from tsstore.counting.premerge.direct_index import DirectTable
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.records import Buffers, SampleKeys
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.writing.batch import LayerBatch

WAYS = [(1, True), (3, True), (1, False), (3, False), (8, False), (9, False), (40, False)]
"""Bytes of a row, and whether its states are counted in a table of all of them."""


def plan_of(states: LayerStates, direct: bool) -> Plan:
    largest = max(int(part.read_positions(0, part.samples).max()) for part in states.parts)
    work = Work("a", states.rows, states.row_bytes, 1, largest_sample=largest)
    return replace(make_plan(work, 1 << 30, 1, True), direct=direct)


@dataclass(frozen=True)
class Found:
    """What is read of a block of one piece.

    `counts` are rows and samples of each key and group: of what a table has counted, which stands
    in so many records, and of the rows that are left, one by one. `numbers` are the block's, with
    the equal pairs of these rows.
    """

    counts: dict
    numbers: np.ndarray
    records: int
    left: SampleKeys | None


def read(
    states: LayerStates,
    scheme: KeyScheme,
    block: Block,
    groups: RandomGroups | None = None,
    sample_filter: SampleFilter = ALL_SAMPLES,
    direct: bool = False,
) -> Found:
    buffers = Buffers()
    job = LayerJob(states, scheme, plan_of(states, direct), "", Samples(sample_filter, groups))
    table = preaggregation(job, buffers)
    assert isinstance(table, DirectTable) == direct
    left, numbers = read_samples(job, [block], table, buffers)
    assert direct == (left is None)
    records = table.take()
    counts, numbers = totals_by_group(records), numbers.copy()
    if left is not None:
        assert (left.group is None) == (groups is None)
        for (key, group, _), rows in rows_by_sample(left).items():
            k, q = counts.get((key, group), (0, 0))
            counts[key, group] = k + rows, q + 1
            numbers[2, group] += rows * (rows - 1) // 2
    return Found(counts, numbers, sum(map(len, records)), left)


def rows_by_sample(left: SampleKeys) -> Counter:
    """Rows of each key in each sample, with its group."""
    ends = np.arange(1, len(left) + 1) if left.ends is None else left.ends
    group = np.zeros(len(ends), int) if left.group is None else left.group
    assert len(ends) == len(group)
    assert ends[-1:].tolist() == [len(left)][: len(ends)]
    sample = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    keys = map(tuple, left.keys.tolist())
    return Counter(zip(keys, group[sample].tolist(), sample.tolist(), strict=True))


def expected(scheme: KeyScheme, rows: LayerBatch, group: np.ndarray) -> dict:
    """Rows and samples of each key and group, row by row."""
    samples = np.repeat(np.arange(len(rows.positions)), rows.positions)
    keys = list(map(tuple, scheme.keys(rows.rows).tolist()))
    own = group[samples].tolist()
    multiplicity = Counter(zip(keys, own, strict=True))
    of_samples = set(zip(keys, own, samples.tolist(), strict=True))
    incidence = Counter((key, number) for key, number, _ in of_samples)
    return {place: (multiplicity[place], incidence[place]) for place in multiplicity}


def numbers_of(rows: LayerBatch, group: np.ndarray, groups: int) -> np.ndarray:
    """Samples, rows and pairs of rows by group."""
    found = np.zeros((groups, 3), np.int64)
    own = np.stack([np.ones_like(rows.positions), rows.positions, pairs(rows.positions)], axis=1)
    np.add.at(found, group, own)
    return found.T


def given(numbers: np.ndarray) -> np.ndarray:
    return numbers[[0, 1, 3]]


def pairs(numbers: np.ndarray) -> np.ndarray:
    return numbers * (numbers - 1) // 2


def whole(states: LayerStates, part: int = 0) -> Block:
    own = states.parts[part]
    return Block(part, 0, own.samples, 0, own.rows)


@pytest.mark.parametrize(("width", "direct"), WAYS)
@pytest.mark.parametrize("positions", [1, 4, None])
def test_every_row_of_the_block_is_counted_or_left(tmp_path, width, direct, positions):
    rows = draw_layer(1, 60, width, distinct=30)
    rows = rows if positions is None else layer(rows.rows[:120], positions)
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=11 * width)["a"]
    scheme = KeyScheme.create(width, seed=3)
    found = read(states, scheme, whole(states), direct=direct)
    nobody = np.zeros(len(rows.positions), np.uint8)
    assert found.counts == expected(scheme, rows, nobody)
    assert np.array_equal(given(found.numbers), numbers_of(rows, nobody, 1))
    assert found.numbers[2].tolist() == [equal_pairs(rows)]


def samples_of(rows: LayerBatch, kept: np.ndarray) -> LayerBatch:
    return layer(rows.rows[np.repeat(kept, rows.positions)], rows.positions[kept])


def equal_pairs(rows: LayerBatch) -> int:
    ends = np.cumsum(rows.positions)
    total = 0
    for stop, count in zip(ends, rows.positions, strict=True):
        repeats = Counter(row.tobytes() for row in rows.rows[stop - count : stop])
        total += sum(number * (number - 1) // 2 for number in repeats.values())
    return total


@pytest.mark.parametrize("positions", [1, None])
@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize(("width", "direct"), [(9, False), (2, True)])
def test_groups_are_told_apart(tmp_path, positions, groups, width, direct):
    dealer = RandomGroups(groups, seed=4)
    rows = draw_layer(2, 80, width, distinct=20)
    rows = rows if positions is None else layer(rows.rows, positions)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    group = dealer.of_samples(states.parts[0].directory, 0, len(rows.positions))
    scheme = KeyScheme.create(width, seed=3)
    found = read(states, scheme, whole(states), dealer, direct=direct)
    assert found.counts == expected(scheme, rows, group)
    assert np.array_equal(given(found.numbers), numbers_of(rows, group, groups))
    of_groups = [samples_of(rows, group == own) for own in range(groups)]
    assert found.numbers[2].tolist() == list(map(equal_pairs, of_groups))


@pytest.mark.parametrize("positions", [1, 4, None])
@pytest.mark.parametrize("groups", [None, RandomGroups(3)])
@pytest.mark.parametrize(("width", "direct"), [(17, False), (3, True)])
def test_samples_that_are_left_out_are_not_counted(tmp_path, positions, groups, width, direct):
    rows = draw_layer(5, 60, width, distinct=20)
    rows = rows if positions is None else layer(rows.rows[:120], positions)
    samples = len(rows.positions)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    directory = states.parts[0].directory
    kept = np.random.default_rng(2).random(samples) < 0.7
    sample_filter = SampleFilter({directory: np.flatnonzero(~kept)})
    dealt = np.zeros(samples, np.uint8)
    if groups is not None:
        dealt = groups.of_samples(directory, 0, samples)
    rest = samples_of(rows, kept)
    scheme = KeyScheme.create(width, seed=3)
    of = states, scheme, whole(states), groups
    found = read(*of, sample_filter, direct)
    count = 1 if groups is None else groups.count
    assert found.counts == expected(scheme, rest, dealt[kept])
    assert np.array_equal(given(found.numbers), numbers_of(rest, dealt[kept], count))
    assert found.numbers[2].sum() == equal_pairs(rest)
    none = replace(sample_filter, left_out={directory: np.arange(samples)})
    found = read(*of, none, direct)
    assert not found.counts
    assert not found.numbers.any()


@pytest.mark.parametrize("positions", [1, None])
@pytest.mark.parametrize(("width", "direct"), [(8, False), (3, True)])
def test_a_block_is_its_own_rows_and_no_others(tmp_path, positions, width, direct):
    rows = draw_layer(7, 90, width, distinct=40)
    rows = rows if positions is None else layer(rows.rows, positions)
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=64)["a"]
    scheme = KeyScheme.create(width, seed=3)
    for block in states.blocks(50):
        samples = slice(block.first_sample, block.first_sample + block.samples)
        own = layer(
            rows.rows[block.first_row : block.first_row + block.rows], rows.positions[samples]
        )
        found = read(states, scheme, block, direct=direct)
        nobody = np.zeros(block.samples, np.uint8)
        assert found.counts == expected(scheme, own, nobody)
        assert found.numbers[1].tolist() == [block.rows]


@pytest.mark.parametrize("span_bytes", [1, 100, 1 << 20])
def test_rows_become_keys_span_by_span(tmp_path, monkeypatch, span_bytes):
    rows = layer(numbered_rows(np.arange(500), 12))
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=36)["a"]
    monkeypatch.setattr(block_records, "SPAN_BYTES", span_bytes)
    scheme, buffers = KeyScheme.create(12, seed=1), Buffers()
    block = Block(0, 7, 400, 7, 400)
    table = HotKeys(scheme.words, 0, 400)
    job = LayerJob(states, scheme, plan_of(states, False), "")
    left, _ = read_samples(job, [block], table, buffers)
    assert left is not None
    assert np.array_equal(left.keys, scheme.keys(rows.rows[7:407]))
    keys = buffers.array("keys", (400, scheme.words), np.uint64)
    assert np.shares_memory(left.keys, keys)


def test_hot_states_are_merged_although_samples_have_one_row(tmp_path, monkeypatch):
    sample_few_rows(monkeypatch, 64)
    rows = layer(numbered_rows(np.arange(400) * (np.arange(400) % 2), 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    scheme = KeyScheme.create(8, seed=3)
    found = read(states, scheme, whole(states))
    assert found.left is not None
    assert len(found.left) + found.records < 210
    assert max(found.counts.values()) == (200, 200)
    assert sum(rows for rows, _ in found.counts.values()) == 400


def test_a_table_of_all_states_serves_while_it_pays(tmp_path):
    states = write_layers(tmp_path / "run", {"a": layer(numbered_rows(np.arange(400), 3))})["a"]
    scheme, buffers, plan = KeyScheme.create(3, seed=3), Buffers(), plan_of(states, True)
    job = LayerJob(states, scheme, plan, "")
    first = preaggregation(job, buffers)
    assert isinstance(first, DirectTable)
    assert preaggregation(job, buffers) is first
    read_samples(job, [whole(states)], first, buffers)
    first.take()
    second = preaggregation(job, buffers)
    assert isinstance(second, HotKeys)
    assert preaggregation(job, buffers) is second
    assert isinstance(preaggregation(job, Buffers()), DirectTable)
    without = replace(job, plan=plan_of(states, False))
    assert isinstance(preaggregation(without, Buffers()), HotKeys)
