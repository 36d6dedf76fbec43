from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsstore.errors import OutputError
from tsstore.recording.packing.memory import patterns_on
from tsstore.recording.packing.packed import rounded_threshold

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
