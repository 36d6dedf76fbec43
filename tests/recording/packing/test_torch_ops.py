from __future__ import annotations

import numpy as np
import pytest
import torch
from watching import packed

from tsstore.recording.packing.packer import pack_by_torch

VALUES = [-1.0, -0.0, 0.0, 1e-40, 1.0, float("inf"), -float("inf"), float("nan"), 2.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "neurons", "samples"),
    [
        ((3, 9), 1, 0),
        ((9, 3), 0, 1),
        ((3, 9, 5), 1, 0),
        ((3, 17, 2, 3), 1, 0),
        ((5, 3, 16), 2, 1),
        ((2, 5, 3, 4), 2, 1),
    ],
)
def test_rows_are_those_of_numpy(dtype, shape, neurons, samples):
    picks = np.random.default_rng(5).integers(0, len(VALUES), shape)
    tensor = torch.tensor(np.array(VALUES)[picks]).to(dtype)
    rows = pack_by_torch(tensor, 0.0, neurons, samples)
    np.testing.assert_array_equal(rows.numpy(), packed(tensor, neurons, samples))
    assert rows.is_contiguous()


@pytest.mark.parametrize("neurons", [1, 7, 8, 9, 64, 65])
def test_pad_bits_are_zero(neurons):
    expected = np.packbits(np.ones(neurons, bool), bitorder="little")
    last = pack_by_torch(torch.ones(2, 3, neurons), 0.0, 2, 0)
    second = pack_by_torch(torch.ones(2, neurons, 3), 0.0, 1, 0)
    assert last.shape == second.shape == (2, 3, len(expected))
    assert (last.numpy() == expected).all()
    assert (second.numpy() == expected).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint16, torch.uint32, torch.int64])
@pytest.mark.parametrize("threshold", [0.0, -1.0, 127.0, 2.0**40, -(2.0**70)])
def test_integers_are_compared_exactly(dtype, threshold):
    info = torch.iinfo(dtype)
    values = [info.min, 0, 1, info.max - 1, info.max]
    rows = pack_by_torch(torch.tensor([values]).to(dtype), threshold, 1, 0)
    assert rows.item() == sum((value > threshold) << bit for bit, value in enumerate(values))


@pytest.mark.parametrize(("threshold", "expected"), [(-1.0, 0b11), (0.0, 0b10), (1.0, 0)])
def test_bools(threshold, expected):
    assert pack_by_torch(torch.tensor([[False, True]]), threshold, 1, 0).item() == expected


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_8_bits(dtype):
    values = torch.tensor([[-1.0, 0.0, 0.5, float("nan")]]).to(dtype)
    assert pack_by_torch(values, 0.0, 1, 0).item() == 0b0100


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 4), (2, 5, 0)])
def test_no_samples_or_no_positions_give_no_rows(shape):
    rows = pack_by_torch(torch.empty(shape), 0.0, 1, 0)
    assert rows.shape == (shape[0], shape[2] if len(shape) > 2 else 1, 1)


def test_rows_are_on_the_tensors_device_and_need_no_gradient():
    values = torch.randn(3, 8, 2, requires_grad=True)
    assert not pack_by_torch(values, 0.0, 1, 0).requires_grad
    rows = pack_by_torch(torch.empty(3, 9, 2, device="meta"), 0.0, 1, 0)
    assert rows.device.type == "meta"
    assert rows.shape == (3, 2, 2)
    assert rows.dtype == torch.uint8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.bool])
def test_rows_of_a_gpu_are_those_of_the_cpu(dtype):
    tensor = torch.randn(4, 21, 6, 5).to(dtype)
    rows = pack_by_torch(tensor.cuda(), 0.0, 1, 0)
    assert rows.is_cuda
    assert torch.equal(rows.cpu(), pack_by_torch(tensor, 0.0, 1, 0))
