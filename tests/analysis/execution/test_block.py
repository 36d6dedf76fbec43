"""From a block's chunks to its records, against counting its rows one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from counting_cases import sample_few_rows, totals, totals_by_group
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.analysis.execution import block as block_records
from tsstore.analysis.execution.block import LayerJob, preaggregation, read_records
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import Plan, make_plan
from tsstore.analysis.samples import RandomGroups, Samples
from tsstore.counting.keys import KeyScheme
from tsstore.counting.premerge.direct_index import DirectTable
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.records import Buffers, Records
from tsstore.statistics.jackknife import SpectrumDelta
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


def records_of(
    states: LayerStates,
    scheme: KeyScheme,
    block: Block,
    groups: RandomGroups | None = None,
    sample_filter: SampleFilter = ALL_SAMPLES,
    direct: bool = False,
) -> tuple[list[Records], SpectrumDelta]:
    """All records of a block of one piece, and its numbers."""
    buffers = Buffers()
    job = LayerJob(states, scheme, plan_of(states, direct), "", Samples(sample_filter, groups))
    table = preaggregation(job, buffers)
    assert isinstance(table, DirectTable) == direct
    records, numbers = read_records(job, [block], table, buffers)
    assert direct <= (not records)
    return records + table.take(), numbers


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


def given(numbers: SpectrumDelta) -> np.ndarray:
    return np.stack([numbers.samples, numbers.rows, numbers.pairs_within_samples])


def pairs(numbers: np.ndarray) -> np.ndarray:
    return numbers * (numbers - 1) // 2


def whole(states: LayerStates, part: int = 0) -> Block:
    own = states.parts[part]
    return Block(part, 0, own.samples, 0, own.rows)


@pytest.mark.parametrize(("width", "direct"), WAYS)
@pytest.mark.parametrize("positions", [1, 4, None])
def test_records_stand_for_every_row_of_the_block(tmp_path, width, direct, positions):
    rows = draw_layer(1, 60, width, distinct=30)
    rows = rows if positions is None else layer(rows.rows[:120], positions)
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=11 * width)["a"]
    scheme = KeyScheme.create(width, seed=3)
    records, numbers = records_of(states, scheme, whole(states), direct=direct)
    nobody = np.zeros(len(rows.positions), np.uint8)
    truth = {key: pair for (key, _), pair in expected(scheme, rows, nobody).items()}
    assert totals(records) == truth
    assert numbers.groups == 1
    assert np.array_equal(given(numbers), numbers_of(rows, nobody, 1))
    assert numbers.equal_pairs_within_samples.sum() == equal_pairs(rows)
    assert all(record.group is None for record in records)


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
def test_records_tell_groups_apart(tmp_path, positions, groups, width, direct):
    dealer = RandomGroups(groups, seed=4)
    rows = draw_layer(2, 80, width, distinct=20)
    rows = rows if positions is None else layer(rows.rows, positions)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    group = dealer.of_samples(states.parts[0].directory, 0, len(rows.positions))
    scheme = KeyScheme.create(width, seed=3)
    records, numbers = records_of(states, scheme, whole(states), dealer, direct=direct)
    assert totals_by_group(records) == expected(scheme, rows, group)
    assert np.array_equal(given(numbers), numbers_of(rows, group, groups))
    assert all(record.group is not None for record in records)


@pytest.mark.parametrize("positions", [1, 4, None])
@pytest.mark.parametrize("groups", [None, RandomGroups(3)])
@pytest.mark.parametrize(("width", "direct"), [(17, False), (3, True)])
def test_samples_that_are_left_out_have_no_record(tmp_path, positions, groups, width, direct):
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
    rest = layer(rows.rows[np.repeat(kept, rows.positions)], rows.positions[kept])
    scheme = KeyScheme.create(width, seed=3)
    records, numbers = records_of(states, scheme, whole(states), groups, sample_filter, direct)
    assert totals_by_group(records) == expected(scheme, rest, dealt[kept])
    assert np.array_equal(given(numbers), numbers_of(rest, dealt[kept], numbers.groups))
    none = replace(sample_filter, left_out={directory: np.arange(samples)})
    records, numbers = records_of(states, scheme, whole(states), groups, none, direct)
    assert sum(record.rows for record in records) == 0
    assert not given(numbers).any()


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
        records, numbers = records_of(states, scheme, block, direct=direct)
        nobody = np.zeros(block.samples, np.uint8)
        truth = expected(scheme, own, nobody)
        assert totals(records) == {key: pair for (key, _), pair in truth.items()}
        assert numbers.rows.tolist() == [block.rows]


@pytest.mark.parametrize("span_bytes", [1, 100, 1 << 20])
def test_rows_become_keys_span_by_span(tmp_path, monkeypatch, span_bytes):
    rows = layer(numbered_rows(np.arange(500), 12))
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=36)["a"]
    monkeypatch.setattr(block_records, "SPAN_BYTES", span_bytes)
    scheme, buffers = KeyScheme.create(12, seed=1), Buffers()
    block = Block(0, 7, 400, 7, 400)
    table = HotKeys(scheme.words, 0, 400)
    job = LayerJob(states, scheme, plan_of(states, False), "")
    (records,), _ = read_records(job, [block], table, buffers)
    assert np.array_equal(records.keys, scheme.keys(rows.rows[7:407]))
    keys = buffers.array("keys", (400, scheme.words), np.uint64)
    assert np.shares_memory(records.keys, keys)


def test_hot_states_are_merged_although_samples_have_one_row(tmp_path, monkeypatch):
    sample_few_rows(monkeypatch, 64)
    rows = layer(numbered_rows(np.arange(400) * (np.arange(400) % 2), 8))
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    scheme = KeyScheme.create(8, seed=3)
    records, _ = records_of(states, scheme, whole(states))
    assert sum(map(len, records)) < 210
    assert max(totals(records).values()) == (200, 200)
    assert sum(kind.rows for kind in records) == 400


def test_a_table_of_all_states_serves_while_it_pays(tmp_path):
    states = write_layers(tmp_path / "run", {"a": layer(numbered_rows(np.arange(400), 3))})["a"]
    scheme, buffers, plan = KeyScheme.create(3, seed=3), Buffers(), plan_of(states, True)
    job = LayerJob(states, scheme, plan, "")
    first = preaggregation(job, buffers)
    assert isinstance(first, DirectTable)
    assert preaggregation(job, buffers) is first
    read_records(job, [whole(states)], first, buffers)
    first.take()
    second = preaggregation(job, buffers)
    assert isinstance(second, HotKeys)
    assert preaggregation(job, buffers) is second
    assert isinstance(preaggregation(job, Buffers()), DirectTable)
    without = replace(job, plan=plan_of(states, False))
    assert isinstance(preaggregation(without, Buffers()), HotKeys)
