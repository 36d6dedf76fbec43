from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from watching import pack, packed

from tsstore.recording.packing import packer, team
from tsstore.recording.packing.packed import form_of


@pytest.fixture(params=[2, 3, 7])
def threads(request, monkeypatch):
    """Let so many of torch's threads pack the smallest of tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(team, "WORTH_BYTES", 1)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@pytest.mark.parametrize(
    ("shape", "axis", "memory_format"),
    [
        ((5, 9, 7, 3), 1, torch.contiguous_format),
        ((5, 9, 7, 3), 1, torch.channels_last),
        ((1, 20, 33), 1, torch.contiguous_format),
        ((2, 70, 600), 1, torch.contiguous_format),
        ((3, 20, 33), 2, torch.contiguous_format),
        ((40, 84), 1, torch.contiguous_format),
        ((1, 3, 2), 1, torch.contiguous_format),
        ((1, 30), 1, torch.contiguous_format),
    ],
)
def test_a_team_packs_as_numpy_does(threads, shape, axis, memory_format, dtype):
    tensor = (3 * torch.randn(shape)).to(dtype).to(memory_format=memory_format)
    np.testing.assert_array_equal(pack(tensor, 0.0, axis, 0).rows, packed(tensor, axis))


def test_gaps_between_blocks_and_lines_are_left_out(threads):
    wide = torch.randn(6, 20, 40)
    for tensor, axis in ((wide[:, :, :20], 1), (wide[::2], 1), (wide[:, :, 3:23], 2)):
        np.testing.assert_array_equal(pack(tensor, 0.0, axis, 0).rows, packed(tensor, axis))


def test_two_models_may_pack_at_a_time(threads):
    tensors = [torch.randn(9, 20, 50) for _ in range(40)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda tensor: pack(tensor, 0.0, 1, 0).rows, tensors))
    for tensor, rows in zip(tensors, found, strict=True):
        np.testing.assert_array_equal(rows, packed(tensor))


def test_where_torch_has_other_threads_one_packs(threads, monkeypatch):
    monkeypatch.setattr(packer, "find_team", lambda: None)
    monkeypatch.setattr(packer, "Parts", None)
    tensor = torch.randn(5, 9, 7)
    np.testing.assert_array_equal(pack(tensor, 0.0, 1, 0).rows, packed(tensor))


def test_a_library_without_openmp_has_no_team(monkeypatch):
    monkeypatch.setattr(torch._C, "__file__", np.random.bit_generator.__file__)
    team.find_team.cache_clear()
    assert team.find_team() is None
    monkeypatch.undo()
    team.find_team.cache_clear()


def test_a_team_that_has_to_wait_for_its_threads_is_left_alone_for_a_while():
    tensor = torch.randn(8, 3, 5)
    reading = packer.reading_of(tensor, form_of(tensor, 0.0, 1, 0))
    parts = team.Parts(reading.kernel, reading.arguments, reading.shape, reading.itemsize, 2)
    seconds = {False: 2.0, True: 1.0}
    ways = []
    for call in range(4 * team.TRY_EVERY):
        seconds[True] = 1.0 if call < 2 * team.TRY_EVERY else 9.0
        ways.append(parts.is_next())
        parts.seconds[ways[-1]] = seconds[ways[-1]]
    quiet, busy = np.split(np.array(ways), 2)
    assert quiet.sum() >= len(quiet) - 4
    assert busy.sum() <= 4
