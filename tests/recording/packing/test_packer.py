from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from watching import packed

from tsstore.errors import OutputError
from tsstore.recording.axes.tensor import Axes
from tsstore.recording.packing import packer as module
from tsstore.recording.packing.packed import RowMemory
from tsstore.recording.packing.packer import Packer, Reading


def convolution(threshold=0.0, **options):
    return Packer(threshold, Axes("conv", nn.Identity(), 1), **options)


def check(packer, tensor):
    found = packer.pack(tensor)
    np.testing.assert_array_equal(found.in_memory(), packed(tensor))
    return found


def test_tensors_alike_have_one_form():
    packer = convolution()
    first, second = (check(packer, torch.randn(3, 20, 5, 4)) for _ in range(2))
    assert first.form is second.form
    assert (first.form.samples, first.form.neurons) == (3, 20)
    assert first.form.position_shape == (5, 4)
    others = [
        torch.randn(2, 20, 5, 4),
        torch.randn(3, 20, 4, 5),
        torch.randn(3, 20, 5, 4, dtype=torch.float64),
        torch.randn(3, 20, 5, 4).to(memory_format=torch.channels_last),
        torch.randn(3, 20, 5, 8)[..., :4],
    ]
    forms = [check(packer, tensor).form for tensor in others]
    assert len({id(form) for form in [first.form, *forms]}) == 6
    assert [check(packer, tensor).form for tensor in others] == forms


@given(
    shape=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int8, torch.float64]),
    threshold=st.sampled_from([0.0, 0.3, -0.3]),
)
def test_the_second_time_is_like_the_first(shape, order, dtype, threshold):
    packer = convolution(threshold)
    for _ in range(3):
        tensor = torch.randn(shape).permute(order).contiguous().to(dtype)
        tensor = tensor.permute(np.argsort(order).tolist())
        limit, _ = packer.look_at(tensor)
        on = tensor.double() > limit
        np.testing.assert_array_equal(packer.pack(tensor).in_memory(), packed(on))


def test_rows_lie_in_the_memory_that_was_given_the_second_time_as_well():
    given_shapes = []

    class Memory(RowMemory):
        def empty(self, shape):
            given_shapes.append(shape)
            return np.full(shape, 255, np.uint8)

    packer = convolution(memory=Memory())
    for tensor in (torch.randn(3, 20, 5, 4), torch.randn(3, 20, 1, 1)):
        for _ in range(2):
            check(packer, tensor)
    for _ in range(2):
        assert packer.pack(torch.randn(2, 20, 0, 4)).rows.shape == (2, 0, 3)
        assert packer.pack(torch.randn(0, 20, 5, 4)).rows.shape == (0, 20, 3)
    shapes = [(3, 20, 3)] * 2 + [(3, 1, 3)] * 2 + [(2, 0, 3), (0, 20, 3)] * 2
    assert given_shapes == shapes


def test_later_tensors_are_read_where_they_lie_and_by_nothing_but_the_kernel(monkeypatch):
    packer = convolution()
    check(packer, torch.randn(3, 20, 5, 4))
    for name in ("check_packable", "form_of", "_rows_of"):
        monkeypatch.setattr(module, name, None)
    check(packer, torch.randn(3, 20, 5, 4))
    check(packer, torch.randn(3, 20, 5, 4, requires_grad=True))
    with torch.inference_mode():
        check(packer, torch.randn(3, 20, 5, 4))


def test_what_only_seems_alike_is_looked_at():
    class Tagged(torch.Tensor):
        pass

    packer = convolution()
    values = torch.randn(3, 20, 5, 4)
    for _ in range(2):
        check(packer, values)
        check(packer, values.as_subclass(Tagged))
        check(packer, nn.Parameter(values))
        negated = torch.complex(torch.zeros(values.shape), values).conj().imag
        assert negated.is_neg()
        np.testing.assert_array_equal(packer.pack(negated).in_memory(), packed(-values))


def test_values_between_two_words_are_moved_first():
    packer = convolution()
    values = np.random.default_rng(0).standard_normal((2, 20, 4, 5)).astype(np.float32)
    check(packer, torch.from_numpy(values))
    shifted = torch.frombuffer(bytearray(1) + values.tobytes(), dtype=torch.float32, offset=1)
    assert shifted.data_ptr() % 4
    check(packer, shifted.view(values.shape))


def test_tensors_that_stand_for_others_are_refused_though_one_like_them_was_not():
    packer = convolution()
    for plain in (torch.randn(3, 20, 5, 4), torch.randn(3, 20, 1, 4)[:, ::2]):
        check(packer, plain)
        check(packer, plain)
        seen = []

        def look(tensor, seen=seen):
            with pytest.raises(OutputError, match=r"within torch.func.vmap.*exclude the layer"):
                packer.pack(tensor)
            seen.append(tensor)
            return tensor.sum()

        torch.vmap(look)(plain[None].expand(2, *plain.shape))
        torch.func.grad(look)(plain)
        torch.func.functionalize(look)(plain)
        look(plain.to("meta"))
        with FakeTensorMode() as mode:
            look(mode.from_tensor(plain))
        assert len(seen) == 5


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_traced_tensors_are_refused_though_one_like_them_was_not():
    packer = convolution()

    class Packs(nn.Module):
        def forward(self, tensor):
            packer.pack(tensor)
            return tensor * 2

    values = torch.randn(3, 20, 5, 4)
    Packs()(values)
    with pytest.raises(OutputError, match=r"torch.jit.trace"):
        torch.jit.trace(Packs(), values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, 3, 4, 4, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(2, 3, 4, 4).to_sparse(), "torch.sparse_coo tensor"),
        (lambda: torch.zeros(3), "at least a sample axis"),
        (lambda: torch.zeros(2, 0, 4, 4), "expected at least one neuron"),
    ],
)
def test_what_cannot_be_packed_is_refused_each_time(make, message):
    packer = convolution()
    for _ in range(2):
        with pytest.raises(OutputError, match=message):
            packer.pack(make())


def test_plans_are_not_kept_without_end(monkeypatch):
    monkeypatch.setattr(module, "_MOST_PLANS", 3)
    packer = convolution()
    for width in range(1, 9):
        check(packer, torch.randn(2, 5, 3, width))
        assert 1 <= len(packer._plans) <= 3
    assert all(isinstance(plan.reading, Reading) for plan in packer._plans.values())
