from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsstore import bits

patterns = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=20))


@given(states=patterns)
def test_states_come_back_as_they_were_packed(states):
    rows = bits.pack(states)
    assert rows.dtype == np.uint8
    assert rows.shape == (*states.shape[:-1], bits.row_bytes(states.shape[-1]))
    unpacked = bits.unpack(rows, states.shape[-1])
    assert unpacked.dtype == np.bool_
    np.testing.assert_array_equal(unpacked, states)


@given(states=patterns)
def test_each_neuron_is_the_bit_that_the_format_says(states):
    rows = bits.pack(states)
    for neuron in range(states.shape[-1]):
        bit = rows[..., neuron // 8] >> (neuron % 8) & 1
        np.testing.assert_array_equal(bit, states[..., neuron])


@given(neurons=st.integers(1, 40))
def test_pad_bits_are_zero(neurons):
    row = bits.pack(np.ones(neurons, dtype=bool))
    assert int.from_bytes(row.tobytes(), "little") == (1 << neurons) - 1
    assert len(row) == bits.row_bytes(neurons)


def test_known_rows():
    assert bits.pack([True, False, False, False]).tolist() == [1]
    assert bits.pack([0, 0, 0, 0, 0, 0, 0, 2, 1]).tolist() == [128, 1]
    assert [bits.row_bytes(n) for n in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]


def test_no_rows_unpack_to_no_states():
    assert bits.unpack(np.empty((0, 2), dtype=np.uint8), 13).shape == (0, 13)


@pytest.mark.parametrize("neurons", [1, 8, 17, 100])
def test_rows_of_another_width_are_refused(neurons):
    with pytest.raises(ValueError, match=f"2 bytes cannot hold {neurons} neurons"):
        bits.unpack(np.zeros((3, 2), dtype=np.uint8), neurons)
