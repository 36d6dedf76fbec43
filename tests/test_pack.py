from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from watching import packed

from tsstore.errors import OutputError
from tsstore.recording.pack import check_packable, pack, rounded_threshold

SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.1, -0.1, 1.0, 1e-40, 1e-300]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    data=st.data(),
    dtype=st.sampled_from(FLOATS),
)
def test_rows_are_those_of_numpy_whatever_the_axes(shape, data, dtype):
    neurons, samples = data.draw(st.permutations(range(len(shape))))[:2]
    picks = np.random.default_rng(sum(shape)).integers(0, len(SPECIAL), shape)
    tensor = torch.tensor(np.array(SPECIAL)[picks]).to(dtype)
    found = pack(tensor, 0.0, neurons, samples)
    np.testing.assert_array_equal(found.rows.numpy(), packed(tensor, neurons, samples))
    rest = [n for axis, n in enumerate(shape) if axis not in (neurons, samples)]
    assert found.position_shape == tuple(rest)
    assert (found.neurons, found.samples) == (shape[neurons], shape[samples])
    assert (found.neuron_axis, found.sample_axis) == (neurons, samples)


@pytest.mark.parametrize("neurons", [1, 7, 8, 9, 63, 64, 65, 300])
def test_pad_bits_are_zero(neurons):
    last = pack(torch.ones(2, 3, neurons), 0.0, 2, 0).rows
    second = pack(torch.ones(2, neurons, 3), 0.0, 1, 0).rows
    expected = np.packbits(np.ones(neurons, bool), bitorder="little")
    assert last.shape == second.shape == (2, 3, len(expected))
    assert (last.numpy() == expected).all()
    assert (second.numpy() == expected).all()


def test_memory_layout_does_not_matter():
    tensor = torch.randn(3, 11, 4, 5)
    expected = packed(tensor)
    odd = torch.randn(6, 22, 4, 5)[::2, ::2].copy_(tensor)
    for same in (tensor.to(memory_format=torch.channels_last), odd):
        np.testing.assert_array_equal(pack(same, 0.0, 1, 0).rows.numpy(), expected)
    expanded = torch.randn(3, 11, 1, 1).expand(3, 11, 4, 5)
    np.testing.assert_array_equal(pack(expanded, 0.0, 1, 0).rows.numpy(), packed(expanded))


def test_rows_are_no_view_and_the_tensor_stays_as_it_was():
    tensor = torch.randn(3, 8, requires_grad=True)
    before = tensor.detach().clone()
    rows = pack(tensor, 0.0, 1, 0).rows
    kept = rows.clone()
    assert torch.equal(tensor.detach(), before)
    with torch.no_grad():
        tensor.fill_(1.0)
    assert torch.equal(rows, kept)
    assert not rows.requires_grad


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 7), (5, 3), (2, 16, 6), (1, 1)])
def test_rows_take_no_more_memory_than_they_need(shape):
    for neurons in range(1, len(shape)):
        rows = pack(torch.randn(shape), 0.0, neurons, 0).rows
        assert rows.untyped_storage().nbytes() == rows.numel()


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 4, 4), (2, 5, 0, 4), (0, 3, 5)])
def test_no_samples_or_no_positions_give_no_rows(shape):
    for neurons in range(1, len(shape)):
        if shape[neurons]:
            found = pack(torch.empty(shape), 0.0, neurons, 0)
            others = itertools.compress(shape[1:], [a != neurons for a in range(1, len(shape))])
            positions = int(np.prod([*others], dtype=int))
            assert found.rows.shape == (shape[0], positions, -(-shape[neurons] // 8))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_threshold_is_rounded_to_the_tensors_dtype(dtype):
    used = rounded_threshold(0.1, dtype)
    same = torch.tensor([0.1], dtype=dtype)
    above = torch.nextafter(same, torch.ones_like(same)) if dtype != torch.float16 else same * 1.01
    assert used == same.double().item()
    assert not pack(same[None], used, 1, 0).rows.item()
    assert pack(above[None], used, 1, 0).rows.item() == 1


def test_a_threshold_beyond_the_dtype_is_refused():
    assert rounded_threshold(1e5, torch.float32) == 1e5
    with pytest.raises(OutputError, match=r"100000.0 is beyond what torch.float16 can hold"):
        rounded_threshold(1e5, torch.float16)
    with pytest.raises(OutputError, match="beyond"):
        rounded_threshold(-1e300, torch.float32)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64],
)
@pytest.mark.parametrize(
    "threshold", [0.0, 0.1, -0.1, -1.0, 1.5, 255.0, -129.0, 2.0**40, -(2.0**70)]
)
def test_integers_are_compared_exactly(dtype, threshold):
    info = torch.iinfo(dtype)
    values = [info.min, 0, 1, 2, info.max - 1, info.max]
    used = rounded_threshold(threshold, dtype)
    rows = pack(torch.tensor([values]).to(dtype), used, 1, 0).rows
    expected = sum((value > threshold) << bit for bit, value in enumerate(values))
    assert rows.item() == expected


def test_large_integers_are_not_rounded():
    values = torch.tensor([[2**53, 2**53 + 1, 2**24 + 1]])
    assert pack(values, float(2**53), 1, 0).rows.item() == 0b010
    assert pack(values, float(2**24), 1, 0).rows.item() == 0b111


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0b10), (0.5, 0b10), (1.0, 0), (-0.5, 3)])
def test_bools(threshold, expected):
    used = rounded_threshold(threshold, torch.bool)
    assert pack(torch.tensor([[False, True]]), used, 1, 0).rows.item() == expected


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_8_bits(dtype):
    values = torch.tensor([[-1.0, 0.0, 0.5, float("nan")]]).to(dtype)
    found = pack(values, rounded_threshold(0.0, dtype), 1, 0)
    assert found.rows.item() == 0b0100
    assert found.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, 3, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(2, 3).to_sparse(), "torch.sparse_coo tensor"),
        (lambda: torch.zeros(2, 3, dtype=torch.uint64), "uint64"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8), "qint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_tensors_that_cannot_be_compared_are_refused(make, message):
    with pytest.raises(OutputError, match=rf"found a .*{message}.*expected a dense one"):
        check_packable(make())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused_with_advice():
    nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)])
    with pytest.raises(OutputError, match="enable_nested_tensor=False"):
        check_packable(nested)


def test_a_tensor_without_neurons_is_refused():
    with pytest.raises(OutputError, match=r"\(2, 0\), expected at least one neuron"):
        pack(torch.empty(2, 0), 0.0, 1, 0)
