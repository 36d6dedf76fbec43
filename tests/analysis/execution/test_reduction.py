"""A pass over a layer, against all of its rows at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import draw_layer, write_layers

from tsstore.analysis.execution import reduction
from tsstore.analysis.execution.reduction import Reduction, most_at_once
from tsstore.analysis.request import choose
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import MemoryTooSmallError

MEMORY = 64 << 20


def each_sample(piece):
    """Return what tells a sample from all others: its place, rows, and their sum."""
    rows, positions = piece.shown()
    first, samples = piece.block.first_sample, np.split(rows, np.cumsum(positions)[:-1])
    return [
        (piece.part.directory, first + n, len(own), int(own.sum())) for n, own in enumerate(samples)
    ]


def together(results):
    return [one for result in results for one in result]


@pytest.fixture
def states(tmp_path, monkeypatch):
    monkeypatch.setattr(reduction, "PIECE_BYTES", 60)
    monkeypatch.setattr(reduction, "BLOCK_PIECES", 2)
    for seed in range(2):
        store = write_layers(tmp_path / "run", {"a": draw_layer(seed, 150, 5)})
    return store["a"]


@pytest.fixture(params=["synchronous", "threads", "cluster"])
def scheduler(request):
    return choose(
        request.getfixturevalue("client") if request.param == "cluster" else request.param
    )


def expected(states):
    found = []
    for part in states.parts:
        edges = np.cumsum(part.read_positions(0, part.samples))[:-1]
        samples = np.split(part.states.read(0, part.rows), edges)
        found += [(part.directory, n, len(own), int(own.sum())) for n, own in enumerate(samples)]
    return found


def test_results_come_in_order_whatever_the_scheduler(states, scheduler):
    calls = []
    wanted = Reduction(states, "list samples", each_sample, together)
    found = wanted.run(MEMORY, scheduler, lambda *call: calls.append(call))
    assert found == expected(states)
    assert calls[-1][0] == calls[-1][1] > len(wanted.blocks()) > reduction.FAN_IN


def test_some_blocks_alone(states):
    wanted = Reduction(states, "list samples", each_sample, together)
    some = wanted.blocks()[3:5]
    found = wanted.run(MEMORY, LocalScheduler(1), blocks=some)
    assert len(found) == sum(block.samples for block in some)
    assert set(found) < set(expected(states))


def test_some_rows_of_a_piece(states):
    rows = Reduction(states, "take rows", lambda piece: piece.stored_rows(1, 3).copy(), list)
    found = np.concatenate(rows.of_block(rows.blocks()[0]))
    assert np.array_equal(found[:2], states[1:3])


def test_less_memory_than_a_task_takes(states):
    wanted = Reduction(states, "list samples", each_sample, together, result_bytes=1 << 20)
    with pytest.raises(MemoryTooSmallError, match=r"to list samples of layer a; give.*'\d+KiB'"):
        wanted.run(20 << 20, LocalScheduler(1))
    assert wanted.least_memory(LocalScheduler(8)) == wanted.least_memory(LocalScheduler(1))


def test_an_error_of_a_piece_ends_the_pass(states):
    def fail(piece):
        raise ZeroDivisionError(piece.block.first_row)

    with pytest.raises(ZeroDivisionError):
        Reduction(states, "fail", fail, together).run(MEMORY, LocalScheduler(2))


def test_pieces_grow_as_far_as_half_of_the_memory_holds(states):
    wanted = Reduction(states, "list samples", each_sample, together, bytes_beside_row=1000)
    runner = LocalScheduler(1)
    small = wanted.least_memory(runner)
    grown = wanted.in_pieces_of(64_000, 2 * small + (2 << 20), runner)
    assert 0 < grown.piece_rows < 64_000
    assert small < grown.least_memory(runner) <= small + (1 << 20)
    assert wanted.in_pieces_of(64_000, 0, runner) is wanted
    assert wanted.in_pieces_of(64_000, 1 << 30, runner).piece_rows == 64_000
    assert grown.run(MEMORY, runner) == expected(states)


def test_as_many_things_are_counted_at_once_as_the_memory_holds(states):
    one = Reduction(states, "list samples", each_sample, together, result_bytes=1 << 20)

    def of(number):
        return replace(one, result_bytes=number << 20)

    runner, blocks = LocalScheduler(1), one.blocks()
    for number in (1, 3, 9):
        memory = of(number).needed(runner, blocks)
        assert most_at_once(of, 9, memory, runner, blocks) == number
        assert most_at_once(of, 9, memory + 1000, runner, blocks) == number
    with pytest.raises(MemoryTooSmallError, match="list samples of layer a"):
        most_at_once(of, 9, of(1).needed(runner, blocks) - 1, runner, blocks)
