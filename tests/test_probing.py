from __future__ import annotations

import pytest

from tsstore.counting.probing import LONG_PROBE, PROBE_LIMIT, slots_for


@pytest.mark.parametrize(
    ("keys", "slots"), [(0, 2), (1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (512, 1024), (513, 2048)]
)
def test_slots_are_the_smallest_power_of_two_that_stays_half_empty(keys: int, slots: int) -> None:
    assert slots_for(keys) == slots


def test_message_names_the_limit_and_a_way_out() -> None:
    assert str(PROBE_LIMIT) in LONG_PROBE
    assert "another seed" in LONG_PROBE
