from __future__ import annotations

import pickle
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from counting_cases import by_partition
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.analysis.execution import exchange
from tsstore.analysis.execution.exchange import (
    FiledSlices,
    HeldSlices,
    Receipt,
    Scattered,
    spill,
)
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records
from tsstore.errors import AnalysisError, CountingError

ENTRY, FRAME = 28, 20
"""Bytes of an entry, and of what comes before a frame's records."""


def draw_records(
    seed: int, count: int, words: int, grouped: bool = False, bare: bool = False
) -> Records:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, (count, words), np.uint64)
    group = rng.integers(0, 255, count, np.uint8) if grouped else None
    if bare:
        return Records(keys, group=group)
    multiplicity = rng.integers(1, 2**32, count, np.uint32)
    incidence = rng.integers(1, multiplicity, dtype=np.uint32, endpoint=True)
    return Records(keys, multiplicity, incidence, group)


def scattered(counts: list[int], words: int, bits: int, grouped: bool = False) -> list[Scattered]:
    """Return pieces of so many records, of which every other one is bare."""
    drawn = (draw_records(n, n, words, grouped, not n % 2) for n in counts)
    return [by_partition(records, bits) for records in drawn]


def in_file(folder: Path, count: int = 500, bits: int = 3, words: int = 1) -> FiledSlices:
    """Spill bare records and as many others."""
    pieces = [draw_records(1, count, words, bare=bare) for bare in (True, False)]
    return spill([by_partition(piece, bits) for piece in pieces], str(folder))


def read(slices: FiledSlices | HeldSlices, partition: int = 0) -> list[Records]:
    return list(slices.read(partition))


def has_changed(slices: FiledSlices, partition: int) -> bool:
    try:
        read(slices, partition)
    except CountingError as error:
        return "has changed while it was in use; analyse again" in str(error)
    return False


def contents(pieces: list[Records]) -> dict[bool, list[list[Any]]]:
    """Return the columns of all bare records and of all others, in their order."""
    return {
        bare: [
            [row for column in same for row in column.tolist()]
            for same in zip(
                *(piece.arrays() for piece in pieces if piece.is_bare == bare), strict=True
            )
        ]
        for bare in (True, False)
    }


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=5),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([1, 400, exchange.FRAME_BYTES]),
)
def test_slices_are_the_same_from_a_file_as_from_memory(counts, words, bits, grouped, frame_bytes):
    pieces = scattered(counts, words, bits, grouped)
    held = HeldSlices(pieces)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "FRAME_BYTES", frame_bytes)
        filed = spill(pieces, folder)
        assert filed.partitions == 2**bits
        assert filed.total == held.total == sum(counts)
        assert (filed.words, filed.group_bytes) == (words, grouped)
        for partition in range(2**bits):
            found = read(filed, partition)
            assert contents(found) == contents(held.read(partition))
            assert all(len(piece) for piece in found)


def test_records_lie_in_frames_that_are_read_one_by_one(tmp_path, monkeypatch):
    pieces = scattered([100] * 6, 1, 0)
    monkeypatch.setattr(exchange, "FRAME_BYTES", 1600)
    slices = spill(pieces, str(tmp_path))
    assert [len(piece) for piece in slices.read(0)] == [200] * 3
    monkeypatch.setattr(exchange, "FRAME_BYTES", 1)
    assert [len(piece) for piece in spill(pieces, str(tmp_path)).read(0)] == [100] * 6
    assert Path(slices.file).stat().st_size == ENTRY + 3 * FRAME + 600 * 8


def test_a_partition_without_records_has_no_frame(tmp_path):
    bare = Records(np.zeros((3, 1), np.uint64))
    slices = spill([by_partition(bare, 2)], str(tmp_path))
    assert [len(read(slices, partition)) for partition in range(4)] == [1, 0, 0, 0]
    assert read(slices)[0].is_bare
    assert [HeldSlices([by_partition(bare, 2)]).read(part) for part in (1, 2, 3)] == [[], [], []]


def test_slices_in_memory_are_views_and_cover_all_records():
    pieces = [scatter([draw_records(2, 100, 2)], 2), scatter([draw_records(3, 50, 2)], 2)]
    slices = [HeldSlices(pieces).read(partition) for partition in range(4)]
    assert sum(len(piece) for own in slices for piece in own) == 150
    for part, own in enumerate(slices):
        assert all((piece.keys[:, 0] >> np.uint64(62) == part).all() for piece in own)
        for piece, (records, _) in zip(own, pieces, strict=True):
            assert np.shares_memory(piece.keys, records.keys)


def test_a_receipt_survives_the_way_to_another_process(tmp_path):
    filed, held = in_file(tmp_path), HeldSlices(scattered([40, 31], 1, 3))
    for slices in (filed, held):
        receipt = pickle.loads(pickle.dumps(Receipt(1000, 3, 4, slices)))
        assert (receipt.rows, receipt.slices.total) == (1000, slices.total)
        assert receipt.groups is None
        assert contents(read(receipt.slices, 2)) == contents(read(slices, 2))


def test_a_block_that_is_spilled_twice_has_two_files(tmp_path):
    first, second = in_file(tmp_path), in_file(tmp_path)
    assert first.file != second.file
    assert len(list(tmp_path.iterdir())) == 2
    assert contents(read(first, 3)) == contents(read(second, 3))


def test_every_bit_of_a_scratch_file_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "FRAME_BYTES", 1)
    slices = in_file(tmp_path, count=3, bits=1)
    path = Path(slices.file)
    data = path.read_bytes()
    expected = [contents(read(slices, partition)) for partition in (0, 1)]
    assert len(data) == 2 * ENTRY + sum(
        FRAME + piece.nbytes for partition in (0, 1) for piece in slices.read(partition)
    )
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        failed = [partition for partition in (0, 1) if has_changed(slices, partition)]
        assert len(failed) == 1
        assert contents(read(slices, 1 - failed[0])) == expected[1 - failed[0]]


def test_a_frame_of_more_records_than_there_are_is_not_read(tmp_path):
    slices = in_file(tmp_path, bits=0)
    data = bytearray(Path(slices.file).read_bytes())
    data[:8] = (2**40).to_bytes(8, "little")
    Path(slices.file).write_bytes(data)
    with pytest.raises(CountingError, match="has changed"):
        read(slices)


def test_an_entry_cannot_stand_for_that_of_another_partition(tmp_path):
    slices = in_file(tmp_path, bits=1)
    data = Path(slices.file).read_bytes()
    swapped = data[: -2 * ENTRY] + data[-ENTRY:] + data[-2 * ENTRY : -ENTRY]
    Path(slices.file).write_bytes(swapped)
    for partition in (0, 1):
        with pytest.raises(CountingError, match="has changed"):
            read(slices, partition)


def test_a_frame_cannot_stand_for_another_one_of_its_partition(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "FRAME_BYTES", 1)
    pieces = [by_partition(draw_records(seed, 30, 1), 0) for seed in (1, 2)]
    slices = spill(pieces, str(tmp_path))
    data = Path(slices.file).read_bytes()
    end = len(data) - ENTRY
    Path(slices.file).write_bytes(data[end // 2 : end] + data[: end // 2] + data[end:])
    with pytest.raises(CountingError, match="has changed"):
        read(slices)


def test_a_frame_cannot_stand_for_one_of_another_partition(tmp_path):
    slices = in_file(tmp_path, bits=1)
    data = Path(slices.file).read_bytes()
    second = int.from_bytes(data[-ENTRY : 8 - ENTRY], "little")
    frames = data[:second], data[second : -2 * ENTRY]
    size = min(map(len, frames))
    Path(slices.file).write_bytes(frames[1][:size] + data[size:])
    with pytest.raises(CountingError, match="has changed"):
        read(slices, 0)


@pytest.mark.parametrize("left", [0, 10, 19, 20, 39, 40, 300, -1])
def test_a_short_scratch_file_is_an_error(tmp_path, left):
    slices = in_file(tmp_path, bits=0)
    data = Path(slices.file).read_bytes()
    Path(slices.file).write_bytes(data[:left])
    with pytest.raises(CountingError, match="has changed"):
        read(slices)


def test_a_missing_scratch_file_is_an_error(tmp_path):
    slices = in_file(tmp_path)
    Path(slices.file).unlink()
    with pytest.raises(CountingError, match=r"cannot be read \(No such file or directory\)"):
        read(slices)
    Path(slices.file).mkdir()
    with pytest.raises(CountingError, match="Is a directory"):
        read(slices)


def test_a_folder_that_this_process_does_not_see_is_an_error_that_names_its_host(tmp_path):
    (tmp_path / "file").touch()
    unseen = f"is not there, as seen from {socket.gethostname()}; pass a folder on a file system"
    for folder in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(AnalysisError, match=unseen):
            in_file(folder)
    there = tmp_path / "there"
    there.mkdir()
    slices = in_file(there)
    there.rename(tmp_path / "elsewhere")
    with pytest.raises(AnalysisError, match=unseen):
        read(slices)


def test_a_disk_that_fills_up_is_an_error_and_leaves_no_file(tmp_path):
    # No disk is full here, but no file of the child may have more than a few bytes.
    script = """
        import resource, signal, sys
        import numpy as np
        from tsstore.analysis.execution.exchange import spill
        from tsstore.counting.partition import scatter_rows
        from tsstore.counting.records import SampleKeys
        from tsstore.errors import AnalysisError
        pieces = [scatter_rows(SampleKeys(np.arange(1500, dtype=np.uint64)[:, None]), 3)]
        spill(pieces, sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            spill(pieces, sys.argv[1])
        except AnalysisError as error:
            print(error)
    """
    done = children.run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"11.72 KiB of a block cannot be written \(File too large\), [\d.]+ \wiB are free; free "
        "some space, or pass another folder as scratch=, or give more memory",
        done.stdout,
    )
    assert len(list(tmp_path.iterdir())) == 1
