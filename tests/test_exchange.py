from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.analysis import exchange
from tsstore.analysis.exchange import FiledSlices, HeldSlices, scratch_folder, spill
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records
from tsstore.errors import AnalysisError, CountingError


def draw_records(seed: int, count: int, words: int, grouped: bool = False) -> Records:
    rng = np.random.default_rng(seed)
    multiplicity = rng.integers(1, 2**32, count, np.uint32)
    return Records(
        rng.integers(0, 2**64, (count, words), np.uint64),
        multiplicity,
        rng.integers(1, multiplicity, dtype=np.uint32, endpoint=True),
        rng.integers(0, 255, count, np.uint8) if grouped else None,
    )


def in_file(folder: Path, count: int = 500, bits: int = 3, words: int = 1) -> FiledSlices:
    return spill(*scatter(draw_records(1, count, words), bits), str(folder))


def assert_same(found: Records, expected: Records) -> None:
    assert np.array_equal(found.keys, expected.keys)
    assert np.array_equal(found.multiplicity, expected.multiplicity)
    assert np.array_equal(found.incidence, expected.incidence)
    assert (found.group is None) == (expected.group is None)
    assert found.group is None or np.array_equal(found.group, expected.group)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(0, 300),
    st.sampled_from([1, 2]),
    st.integers(0, 5),
    st.booleans(),
)
def test_slices_are_the_same_from_a_file_as_from_memory(seed, count, words, bits, grouped):
    records, offsets = scatter(draw_records(seed, count, words, grouped), bits)
    held = HeldSlices(records, offsets)
    with tempfile.TemporaryDirectory() as folder:
        filed = spill(records, offsets, folder)
        assert filed.partitions == 2**bits
        assert filed.total == held.total == count
        assert filed.grouped == grouped
        for partition in range(2**bits):
            assert_same(filed.read(partition), held.read(partition))


def test_slices_in_memory_are_views_and_cover_all_records():
    records, offsets = scatter(draw_records(2, 100, 2), 2)
    slices = [HeldSlices(records, offsets).read(partition) for partition in range(4)]
    assert sum(map(len, slices)) == 100
    assert all(np.shares_memory(piece.keys, records.keys) for piece in slices if len(piece))
    assert all(
        (piece.keys[:, 0] >> np.uint64(62) == part).all() for part, piece in enumerate(slices)
    )


def test_a_block_that_is_spilled_twice_has_two_files(tmp_path):
    first, second = in_file(tmp_path), in_file(tmp_path)
    assert first.file != second.file
    assert len(list(tmp_path.iterdir())) == 2
    assert_same(first.read(3), second.read(3))


@pytest.mark.parametrize("position", ["entry", "first record", "last byte"])
def test_a_flipped_bit_of_a_scratch_file_is_an_error(tmp_path, position):
    slices = in_file(tmp_path, bits=0)
    data = bytearray(Path(slices.file).read_bytes())
    data[{"entry": 9, "first record": 20, "last byte": -1}[position]] ^= 4
    Path(slices.file).write_bytes(data)
    with pytest.raises(CountingError, match="has changed while it was in use; analyse again"):
        slices.read(0)


def test_every_bit_of_an_entry_is_checked(tmp_path):
    slices = in_file(tmp_path, count=20, bits=1)
    data = Path(slices.file).read_bytes()
    for bit in range(8 * 20):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        Path(slices.file).write_bytes(changed)
        with pytest.raises(CountingError):
            slices.read(0)


def test_an_entry_cannot_stand_for_that_of_another_partition(tmp_path):
    slices = in_file(tmp_path, bits=1)
    data = Path(slices.file).read_bytes()
    Path(slices.file).write_bytes(data[20:40] + data[:20] + data[40:])
    for partition in (0, 1):
        with pytest.raises(CountingError, match="has changed"):
            slices.read(partition)


@pytest.mark.parametrize("left", [0, 10, 19, 300, -1])
def test_a_short_scratch_file_is_an_error(tmp_path, left):
    slices = in_file(tmp_path, bits=0)
    data = Path(slices.file).read_bytes()
    Path(slices.file).write_bytes(data[:left])
    with pytest.raises(CountingError, match="has changed"):
        slices.read(0)


def test_a_missing_scratch_file_is_an_error(tmp_path):
    slices = in_file(tmp_path)
    Path(slices.file).unlink()
    with pytest.raises(CountingError, match=r"cannot be read \(No such file or directory\)"):
        slices.read(0)
    Path(slices.file).mkdir()
    with pytest.raises(CountingError, match="Is a directory"):
        slices.read(0)


def test_a_folder_that_takes_no_file_is_an_error_with_advice(tmp_path):
    with pytest.raises(AnalysisError, match=r"No such file.*pass another folder as scratch="):
        in_file(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(AnalysisError, match="Not a directory"):
        in_file(tmp_path / "file")


def test_a_disk_that_fills_up_is_an_error_and_leaves_no_file(tmp_path):
    # No disk is full here, but no file of the child may have more than a few bytes.
    script = """if True:
        import resource, signal, sys
        sys.path.insert(0, sys.argv[2])
        from pathlib import Path
        from test_exchange import in_file
        from tsstore.errors import AnalysisError
        in_file(Path(sys.argv[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            in_file(Path(sys.argv[1]))
        except AnalysisError as error:
            print(error)
    """
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), tests],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "7.812 KiB cannot be written (File too large); free some space" in done.stdout
    assert len(list(tmp_path.iterdir())) == 1


def test_a_scratch_folder_is_made_where_it_should_be_and_goes_with_all_that_is_in_it(tmp_path):
    with scratch_folder(str(tmp_path)) as folder:
        assert Path(folder).parent == tmp_path
        in_file(Path(folder))
    assert list(tmp_path.iterdir()) == []
    with scratch_folder(None) as folder:
        assert Path(folder).parent == Path(tempfile.gettempdir())


def test_a_scratch_folder_goes_after_an_error_too(tmp_path):
    def fail() -> None:
        with scratch_folder(str(tmp_path)) as folder:
            in_file(Path(folder))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_has_an_absolute_path_because_workers_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with scratch_folder(".") as folder:
        assert os.path.isabs(folder)
        assert Path(folder).parent == tmp_path


def test_a_scratch_folder_that_cannot_be_made_is_an_error_with_advice(tmp_path):
    (tmp_path / "file").touch()
    for parent in ("file", "gone"):
        with (
            pytest.raises(AnalysisError, match=f"{parent} cannot be used .*; pass another one as"),
            scratch_folder(str(tmp_path / parent)),
        ):
            pytest.fail("a folder was made")


def test_a_file_that_a_late_task_writes_while_the_folder_goes_does_not_keep_it(
    tmp_path, monkeypatch
):
    rmtree = exchange.shutil.rmtree
    late = threading.Event()

    def rmtree_and_a_late_file(folder: str, ignore_errors: bool) -> None:
        if late.is_set():
            rmtree(folder, ignore_errors=ignore_errors)
        late.set()

    monkeypatch.setattr(exchange.shutil, "rmtree", rmtree_and_a_late_file)
    with scratch_folder(str(tmp_path)) as folder:
        in_file(Path(folder))
    assert late.is_set()
    assert list(tmp_path.iterdir()) == []
