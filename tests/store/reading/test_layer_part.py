"""One layer in one part."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from helpers import draw_batch, write_run

from tsstore.errors import FormatError, StoreError
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.store import open_store


@pytest.fixture
def part(tmp_path) -> LayerPart:
    """A layer of varying positions."""
    rng = np.random.default_rng(3)
    batch = draw_batch(rng, 12, positions={"fc.2": rng.integers(0, 4, 12).tolist()})
    write_run(tmp_path / "run.zarr", [batch], chunk_bytes=12)
    return open_store(tmp_path / "run.zarr").parts[0].layers["fc.2"]


def with_positions(part: LayerPart, tmp_path, positions: list[int]) -> LayerPart:
    """Return the part with other rows by sample, as a forger would store them."""
    batch = draw_batch(np.random.default_rng(0), len(positions), columns={"p": positions})
    write_run(tmp_path / "forged.zarr", [batch])
    return replace(part, positions=open_store(tmp_path / "forged.zarr").parts[0].columns["p"])


@pytest.mark.parametrize(("change", "why"), [
    (1, "more than the rows"), (10**15, "more than the rows"), (2**62, "more than the rows"),
    (2**63 - 4, "more than the rows"), (-100, "negative"),
])  # fmt: skip
def test_positions_that_are_not_those_of_the_rows_are_refused(part, tmp_path, change, why):
    positions = part.read_positions(0, part.samples)
    positions[5] += change
    forged = with_positions(part, tmp_path, positions.tolist())
    with pytest.raises(FormatError, match=rf"layer fc.2 has rows by sample .*: .*{why}"):
        list(forged.blocks(0, 5))


def test_positions_that_leave_rows_over_are_refused(part, tmp_path):
    forged = with_positions(part, tmp_path, [0] * part.samples)
    with pytest.raises(FormatError, match="they are fewer than the rows"):
        list(forged.blocks(0, 5))


def test_a_part_without_rows_has_its_samples_and_nothing_else(part):
    empty = part.without_rows("part-00007-00000", 9)
    assert (empty.directory, empty.samples, empty.rows) == ("part-00007-00000", 9, 0)
    assert (empty.attributes, empty.constant_positions) == (part.attributes, 0)
    assert empty.read_positions(2, 5).tolist() == [0] * 5
    assert [piece.tolist() for piece in empty.position_pieces()] == [[0] * 9]
    assert list(empty.blocks(0, 10)) == []
    assert empty.states.read(0, 0).shape == (0, 2)
    assert pickle.loads(pickle.dumps(empty)).read_positions(0, 1).tolist() == [0]
    assert part.rows > 0


def test_more_samples_than_there_is_memory_are_an_error_with_advice(part):
    huge = part.without_rows("part-00007-00000", 1 << 53)
    count = f"{1 << 56:,}"
    with pytest.raises(StoreError, match=rf"layer fc.2: what was asked for takes {count} bytes"):
        huge.read_positions(0, huge.samples)
    assert next(huge.position_pieces()).sum() == 0


@pytest.mark.parametrize("varying", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_a_block_is_divided_into_whole_samples_that_are_all_of_it(
    tmp_path, monkeypatch, varying, rows
):
    monkeypatch.setattr("tsstore.store.reading.layer_part.PIECE_SAMPLES", 5)
    rng = np.random.default_rng(3)
    positions = rng.integers(0, 4, 23).tolist() if varying else [2] * 23
    write_run(tmp_path / "own.zarr", [draw_batch(rng, 23, positions={"fc.2": positions})])
    part = open_store(tmp_path / "own.zarr").parts[0].layers["fc.2"]
    for block in part.blocks(0, 20):
        pieces = list(part.divide(block, rows))
        sample, row = block.first_sample, block.first_row
        for piece in pieces:
            own = part.read_positions(piece.first_sample, piece.samples)
            assert (piece.part, piece.first_sample, piece.first_row) == (block.part, sample, row)
            assert piece.rows == own.sum()
            assert piece.rows <= rows or piece.samples == 1 or own.max() == piece.rows
            sample, row = sample + piece.samples, row + piece.rows
        assert sample == block.first_sample + block.samples
        assert row == block.first_row + block.rows
        assert rows < block.rows or pieces == [block]
