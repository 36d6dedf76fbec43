from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.records import Records
from tsstore.counting.tables.in_passes import count_in_passes
from tsstore.errors import CountingError


class Slots:
    """A table that holds so many records of its share, and nothing else."""

    def __init__(self, bits: int, index: int, most: int) -> None:
        self.bits, self.index, self.most = bits, index, most
        self.held: list[int] = []

    def add(self, records: Records) -> bool:
        words = records.keys[:, 0].tolist()
        self.held += [word for word in words if word >> (64 - self.bits) == self.index]
        return len(self.held) <= self.most

    @property
    def entries(self) -> int:
        return len(self.held)


@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.integers(1, 20))
def test_every_record_is_counted_in_one_table_that_holds_it(tops, most) -> None:
    words = sorted({top << 48 for top in tops})
    records = Records(np.array(words, np.uint64)[:, None])

    def slices():
        return [records[:7], records[7:]]

    tables = list(count_in_passes(lambda *share: Slots(*share, most), slices, 0, 8 * most))
    assert [word for table in tables for word in table.held] == words
    assert all(table.entries <= most for table in tables)


def test_steps_become_larger_again_after_a_dense_spot() -> None:
    dense = [number << 40 for number in range(16)]
    words = np.array([*dense, 2**63, 2**63 + 2**62], np.uint64)
    records = Records(words[:, None])
    tables = list(count_in_passes(lambda *share: Slots(*share, 4), lambda: [records], 0, 32))
    assert max(table.bits for table in tables) == 22
    assert tables[-1].bits <= 2
    assert [word for table in tables for word in table.held] == words.tolist()
    assert len(tables) < 3 * 22


def test_keys_that_share_too_many_bits_are_an_error() -> None:
    records = Records(np.arange(5, dtype=np.uint64)[:, None])
    with pytest.raises(CountingError, match=r"more than 5 distinct keys.*first 48 bits"):
        list(count_in_passes(lambda *share: Slots(*share, 4), lambda: [records], 0, 32))
