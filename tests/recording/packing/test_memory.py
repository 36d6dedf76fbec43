from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import OutputError
from tsstore.recording.packing.memory import is_worth_reading, patterns_on, positions_of, words_of
from tsstore.recording.packing.packed import rounded_threshold


def blocks(tensor):
    """What there is to be known of the positions, in Python's own numbers."""
    starts, size, step = positions_of(tensor.shape, tensor.stride())
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
    starts, size, step = positions_of(tensor.shape, tensor.stride())
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
        with pytest.raises(RuntimeError, match=r"storage|Batching rule"):
            words_of(tensor)
        return tensor

    assert torch.vmap(look)(torch.zeros(2, 3, 4)).shape == (2, 3, 4)


def test_short_lines_is_worth_reading_only_if_they_are_together():
    assert is_worth_reading(lines=100, size=16, step=99)
    assert not is_worth_reading(lines=100, size=15, step=99)
    assert is_worth_reading(lines=100, size=15, step=15)
    assert is_worth_reading(lines=1, size=1, step=99)


SHORT = [torch.float16, torch.bfloat16, torch.int16, torch.uint16, torch.int8, torch.uint8]
LONG = [torch.float64, torch.float32, torch.int64, torch.int32, torch.uint32]
THRESHOLDS = [0.0, -0.0, 0.1, -0.1, 1.0, -1.5, 3e-8, -3e-8, 126.0, 255.0, -128.0, -129.0, 6e4, -1e9]


def values_of_all_patterns(dtype):
    """Each value that a dtype has, in the order of its patterns as unsigned integers."""
    count = 1 << (8 * dtype.itemsize)
    patterns = np.arange(count, dtype=f"u{dtype.itemsize}")
    return torch.frombuffer(bytearray(patterns.tobytes()), dtype=dtype).tolist()


def usable_threshold(dtype, threshold):
    try:
        return rounded_threshold(threshold, dtype)
    except OutputError:
        pytest.skip("the dtype does not hold it")


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_each_pattern_of_a_greater_number_is_in_one_range(dtype, threshold):
    used = usable_threshold(dtype, threshold)
    values = values_of_all_patterns(dtype)
    times = np.zeros(len(values), int)
    for first, following in patterns_on(dtype, used):
        times[np.arange(first, first + following + 1) % len(values)] += 1
    assert times.tolist() == [int(value > used) for value in values]


@pytest.mark.parametrize("dtype", LONG)
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_ranges_end_where_numbers_stop_being_greater(dtype, threshold):
    used = usable_threshold(dtype, threshold)
    count = 1 << (8 * dtype.itemsize)

    def is_greater(pattern):
        raw = (pattern % count).to_bytes(dtype.itemsize, "little")
        return torch.frombuffer(bytearray(raw), dtype=dtype).item() > used

    ranges = patterns_on(dtype, used)
    assert len(ranges) == (2 if dtype.is_floating_point and used < 0 else 1)
    for first, following in ranges:
        assert 0 <= first < count
        assert 0 <= following < count
        assert is_greater(first)
        assert is_greater(first + following // 2)
        assert is_greater(first + following)
        if following < count - 1:
            assert not is_greater(first - 1)
            assert not is_greater(first + following + 1)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(-0.5, ((0, 255),)), (0.0, ((1, 254),)), (1.0, ()), (7.0, ())]
)
def test_a_bool_is_true_unless_its_byte_is_zero(threshold, expected):
    used = rounded_threshold(threshold, torch.bool)
    assert patterns_on(torch.bool, used) == expected


def test_no_integer_is_greater_than_the_largest():
    assert patterns_on(torch.int8, 127.0) == ()
    assert patterns_on(torch.int8, 126.0) == ((127, 0),)
    assert patterns_on(torch.int64, 2.0**63) == ()
    assert patterns_on(torch.uint32, -(2.0**80)) == ((0, 2**32 - 1),)


def test_known_patterns():
    assert patterns_on(torch.float32, 0.0) == ((1, 0x7F7FFFFF),)
    assert patterns_on(torch.bfloat16, 1.0) == ((0x3F81, 0x7F80 - 0x3F81),)
    assert patterns_on(torch.float16, -1.0) == ((0, 0x7C00), (0x8000, 0x3BFF))
    (largest,) = patterns_on(torch.float64, math.nextafter(math.inf, 0))
    assert largest == (0x7FF0 << 48, 0)
