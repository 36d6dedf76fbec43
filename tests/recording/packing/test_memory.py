from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsstore.recording.packing.memory import is_worth_reading, positions_of, words_of


def blocks(tensor):
    """What there is to be known of the positions, in Python's own numbers."""
    starts, size, step = positions_of(tensor)
    assert starts.dtype == np.int64
    return starts.tolist(), size, step


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(2, 6, 5, 4), ([0, 120], 20, 1)),
        (torch.zeros(2, 6, 5, 4).to(memory_format=torch.channels_last), ([0], 40, 6)),
        (torch.zeros(3, 6), ([0], 3, 6)),
        (torch.zeros(3, 7, 6).movedim(2, 1), ([0], 21, 6)),
        (torch.zeros(7, 3, 6).permute(1, 2, 0), ([0, 6, 12], 7, 18)),
        (torch.zeros(2, 3, 4, 6)[..., :5], ([0, 6, 12, 18, 72, 78, 84, 90], 5, 1)),
        (torch.zeros(2, 3, 1).expand(2, 3, 9), ([0, 3], 9, 0)),
        (torch.zeros(1, 9), ([0], 1, 1)),
        (torch.zeros(1, 9, 1, 1), ([0], 1, 1)),
        (torch.zeros(5, 1), ([0], 5, 1)),
    ],
)
def test_positions_are_found_in_the_fewest_blocks(tensor, expected):
    assert blocks(tensor) == expected


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    data=st.data(),
)
def test_positions_and_words_lead_to_each_value(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    memory = torch.arange(2 * math.prod(shape)).reshape(*[shape[axis] for axis in order], 2)
    tensor = memory[..., 0].permute(np.argsort(order).tolist())
    starts, size, step = positions_of(tensor)
    words = words_of(tensor)
    places = starts[:, np.newaxis] + step * np.arange(size)
    first_neuron = tensor[:, 0].flatten()
    assert words[places].ravel().tolist() == first_neuron.tolist()
    last_neuron = places + tensor.stride(1) * (tensor.shape[1] - 1)
    assert words[last_neuron].ravel().tolist() == tensor[:, -1].flatten().tolist()


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        (torch.bool, np.uint8),
        (torch.int8, np.uint8),
        (torch.bfloat16, np.uint16),
        (torch.float16, np.uint16),
        (torch.uint16, np.uint16),
        (torch.float32, np.uint32),
        (torch.float64, np.uint64),
        (torch.int64, np.uint64),
    ],
)
def test_words_are_the_memory_itself(dtype, word):
    tensor = torch.ones(3, 4, 5, dtype=dtype)[1:, ::2, 1:]
    words = words_of(tensor)
    assert words.dtype == word
    assert words.ctypes.data == tensor.data_ptr()
    assert len(words) == 20 + 10 + 3 + 1
    kept = tensor.clone()
    words[0] = 0
    assert tensor[0, 0, 0] == 0
    assert torch.equal(tensor[1:], kept[1:])


def test_a_tensor_without_memory_has_no_words():
    def look(tensor):
        with pytest.raises(RuntimeError, match="storage"):
            words_of(tensor)
        return tensor

    assert torch.vmap(look)(torch.zeros(2, 3, 4)).shape == (2, 3, 4)


def test_short_lines_is_worth_reading_only_if_they_are_together():
    assert is_worth_reading(lines=100, size=16, step=99)
    assert not is_worth_reading(lines=100, size=15, step=99)
    assert is_worth_reading(lines=100, size=15, step=15)
    assert is_worth_reading(lines=1, size=1, step=99)
