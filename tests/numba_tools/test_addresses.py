from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from tsstore.numba_tools.addresses import prefetch, words_at


def total(address, count, like):
    words = words_at(address, count, like)
    result = 0
    for index in range(words.size):
        prefetch(words, index + 5)
        result += words[index]
    words[0] = 9
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("total", [total, njit(total)])
def test_what_lies_at_an_address_is_the_memory_itself(total, dtype):
    memory = np.arange(2, 22, dtype=dtype)
    assert total(memory[3:].ctypes.data, 10, dtype(0)) == sum(range(5, 15))
    assert memory[3] == 9
    assert (memory[:3].tolist(), memory[4:].tolist()) == ([2, 3, 4], list(range(6, 22)))


def test_numbers_at_an_address_have_the_type_asked_for():
    memory = np.arange(8, dtype=np.uint8)
    words = words_at(memory.ctypes.data, 2, np.uint32(0))
    assert (words.dtype, words.shape) == (np.uint32, (2,))
    assert words.tobytes() == memory.tobytes()
    assert np.shares_memory(words, memory)


def test_memory_that_is_not_there_may_be_asked_for():
    @njit
    def ask(words):
        prefetch(words, 1 << 40)
        return words[0]

    assert ask(np.ones(1, np.uint16)) == 1
    assert prefetch(np.ones(1), 77) is None
