from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise

import counting_cases
import numpy as np
import pytest
from counting_cases import changes_as_counter
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.tables import spectra as module
from tsstore.counting.tables.spectra import (
    DeltaEntries,
    DeltaTally,
    add_up_entries,
    add_up_in_order,
    add_up_listed,
    cells_of,
    changes_of_singletons,
    join_entries,
)
from tsstore.errors import CountingError

GROUPS = 3
rows_of_groups = st.lists(
    st.lists(
        st.tuples(
            st.one_of(st.integers(1, 5), st.integers(2**33, 2**33 + 2)),
            st.integers(1, 3),
            st.sampled_from([-1, 1]),
        ),
        max_size=30,
    ),
    min_size=GROUPS,
    max_size=GROUPS,
)


def added_up(by_group: list[list[tuple[int, int, int]]]) -> DeltaEntries:
    rows = [(group, *row) for group, rows in enumerate(by_group) for row in rows]
    return added_up_rows(np.array(rows, np.int64).reshape(-1, 4))


def entries_of_rows(rows: np.ndarray, groups: int) -> DeltaEntries:
    """What rows of a group, k, q and states change: a place may come several times."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    ends = np.searchsorted(rows[:, 0], np.arange(groups), side="right")
    dtype = np.int64 if rows.max(initial=0) >= 2**31 else np.int32
    return DeltaEntries(ends, *rows[:, 1:].T.astype(dtype, order="C"))


def added_up_rows(rows: np.ndarray) -> DeltaEntries:
    nothing = entries_of_rows(rows[:0], GROUPS)
    return add_up_entries([entries_of_rows(rows, GROUPS), nothing])


def expected(*parts: list[list[tuple[int, int, int]]]) -> Counter:
    counter: Counter = Counter()
    for by_group in parts:
        for group, rows in enumerate(by_group):
            for k, q, states in rows:
                counter[group, k, q] += states
    return counting_cases.without_zeros(counter)


@given(rows_of_groups)
def test_rows_add_up_to_entries_as_in_a_counter(by_group) -> None:
    assert changes_as_counter(added_up(by_group)) == expected(by_group)


@given(st.lists(rows_of_groups, min_size=1, max_size=4))
def test_changes_of_disjoint_states_add_up(parts) -> None:
    merged = add_up_entries([added_up(part) for part in parts])
    assert changes_as_counter(merged) == expected(*parts)
    assert len(merged.ends) == GROUPS


@given(st.lists(rows_of_groups, min_size=2, max_size=4), st.integers(0, 100))
def test_many_changes_add_up_some_groups_after_others_to_the_same(parts, at_once) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        merged = add_up_entries([added_up(part) for part in parts])
    assert changes_as_counter(merged) == expected(*parts)
    assert len(merged.ends) == GROUPS
    assert merged.ends[-1] == len(merged)


@given(st.lists(rows_of_groups, min_size=1, max_size=6), st.sampled_from([0, 20, 1 << 17]))
def test_a_tally_has_all_changes_whenever_they_are_added_up(parts, at_once) -> None:
    tally = DeltaTally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        for number, part in enumerate(parts):
            tally.add(added_up(part))
            assert changes_as_counter(tally.total()) == expected(*parts[: number + 1])
    assert len(tally.total().ends) == GROUPS


def test_a_tally_adds_up_what_waits_only_when_there_is_much_of_it(monkeypatch) -> None:
    sizes, add_up = [], module.add_up_entries
    monkeypatch.setattr(
        module, "add_up_entries", lambda parts: (sizes.append(len(parts)), add_up(parts))[1]
    )
    monkeypatch.setattr(module, "AT_ONCE", 8)
    tally, part = DeltaTally(), added_up([[(1, 1, 1), (2, 1, 1), (3, 1, 1)], [], []])
    sizes.clear()
    for _ in range(9):
        tally.add(part)
    # Three of them are more than eight entries.
    assert sizes == [3, 4, 4]
    assert tally.total().states.tolist() == [9, 9, 9]


@pytest.mark.parametrize("add_up", [add_up_entries, add_up_in_order])
def test_no_more_than_some_changes_are_copied_at_once(add_up) -> None:
    k = np.arange(1, module.AT_ONCE // 4 + 1)
    rows = np.tile(np.column_stack([k, k, k, np.ones_like(k)]), (GROUPS * 3, 1))
    rows[:, 0] = np.repeat(np.arange(GROUPS), 3 * len(k))
    parts = [added_up_rows(rows) for _ in range(4)]
    tracemalloc.start()
    merged = add_up(parts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert merged.states.tolist() == [12] * len(merged)
    assert peak < 2 * merged.nbytes + 8 * module.AT_ONCE * module.ENTRY_BYTES // 2


def test_the_changes_of_some_groups_are_views_of_those_of_all() -> None:
    part = added_up([[(1, 1, 1), (2, 1, 3)], [], [(5, 2, -1)]])
    assert part.of(0, 2).ends.tolist() == [2, 2]
    assert part.of(1, 3).ends.tolist() == [0, 1]
    assert part.of(2, 3).multiplicity.tolist() == [5]
    assert np.shares_memory(part.of(0, 1).states, part.states)


def test_integers_are_no_wider_than_they_need_be() -> None:
    narrow = added_up([[(2**31 - 1, 1, 1)], [], []])
    wide = added_up([[(2**31, 1, 1)], [], []])
    assert narrow.multiplicity.dtype == narrow.incidence.dtype == narrow.states.dtype == np.int32
    assert wide.multiplicity.dtype == np.int64
    assert wide.states.dtype == np.int32
    assert wide.nbytes - narrow.nbytes == 4
    assert changes_as_counter(add_up_entries([narrow, wide])) == Counter(
        {(0, 2**31 - 1, 1): 1, (0, 2**31, 1): 1}
    )


def test_sums_may_be_wider_than_what_they_are_of() -> None:
    part = added_up([[(1, 1, 2**31 - 1)], [], []])
    both = add_up_entries([part, part])
    assert part.states.dtype == np.int32
    assert both.states.tolist() == [2**32 - 2]
    assert both.multiplicity.dtype == np.int32


@given(rows_of_groups)
def test_changes_in_order_ascend_in_each_group_and_none_is_0(by_group) -> None:
    ordered = added_up(by_group).in_order()
    k, q, states = ordered.columns
    group = np.repeat(range(GROUPS), np.diff(ordered.ends, prepend=0))
    cells = list(zip(group.tolist(), k.tolist(), q.tolist(), strict=True))
    assert cells == sorted(expected(by_group))
    assert states.all()
    assert changes_as_counter(ordered) == expected(by_group)


@given(st.lists(rows_of_groups, min_size=1, max_size=4), st.sampled_from([1, 8, 1 << 17]))
def test_changes_of_disjoint_states_add_up_in_order(parts, at_once) -> None:
    every = [added_up(part) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        merged = add_up_in_order(every)
    expected = add_up_entries(every).in_order()
    for own, other in zip(merged.columns, expected.columns, strict=True):
        assert own.tolist() == other.tolist()
    assert merged.ends.tolist() == expected.ends.tolist()


def test_changes_too_wide_for_one_integer_are_in_order_all_the_same() -> None:
    k = [2**61, 2**40, 2**61, 1]
    q = [2**33, 2**39, 7, 1]
    ordered = added_up([list(zip(k, q, [1] * 4, strict=True)), [], []]).in_order()
    assert ordered.multiplicity.tolist() == [1, 2**40, 2**61, 2**61]
    assert ordered.incidence.tolist() == [1, 2**39, 7, 2**33]


@given(rows_of_groups, st.integers(0, GROUPS), st.integers(0, GROUPS))
def test_changes_of_some_groups_after_others_are_those_of_all(by_group, one, other) -> None:
    part = added_up(by_group)
    some = [part.of(*span) for span in pairwise(sorted({0, one, other, GROUPS}))]
    for dtype in (None, np.int64):
        joined = join_entries(some, dtype)
        assert joined.ends.tolist() == part.ends.tolist()
        assert changes_as_counter(joined) == changes_as_counter(part)
    assert joined.states.dtype == joined.multiplicity.dtype == np.int64


def test_one_part_is_returned_as_it_is() -> None:
    part = added_up([[(1, 1, -1)], [], [(1, 1, 1)]])
    assert add_up_entries([part]) is part
    assert part.ends.tolist() == [1, 1, 2]


def test_losses_and_gains_of_an_entry_add_up() -> None:
    part = added_up([[(1, 1, -1), (2, 1, 5)], [(1, 1, 1), (1, 1, -1)], [(3, 1, -1)]])
    assert part.ends.tolist() == [2, 3, 4]
    assert part.states.tolist() == [-1, 5, 0, -1]
    assert changes_as_counter(part) == Counter({(0, 1, 1): -1, (0, 2, 1): 5, (2, 3, 1): -1})


def test_states_that_occur_once_are_gone_without_their_group() -> None:
    assert changes_of_singletons(np.array([3, 0, 2**40])).tolist() == [-3, 0, -(2**40)]
    # Two groups of each of two sets, and of none.
    of_all, of_sets = [-(1 + 3 + 5), -(2 + 4)], [-1, -2, 3, -3, -4, 7]
    assert changes_of_singletons(np.array([1, 2, 3, 4, 5, 0]), 2).tolist() == of_all + of_sets


@given(st.lists(rows_of_groups, max_size=4), st.sampled_from([4, 8]))
def test_what_is_listed_and_what_is_small_add_up_to_entries(parts, side) -> None:
    listed = np.array([row for part in parts for rows in part for row in rows], np.int64)
    listed = listed.reshape(-1, 3) + np.array([side, 0, 0])  # no small ones
    sizes = [len(rows) for part in parts for rows in part]
    stops = np.cumsum(sizes, dtype=np.int64).reshape(-1, GROUPS)
    small = np.arange(-9, GROUPS * cells_of(side) - 9).reshape(GROUPS, -1)
    of_small = [
        [(k, q, small[group, k * (k + 1) // 2 + q]) for k in range(side) for q in range(k + 1)]
        for group in range(GROUPS)
    ]
    moved = [[[(k + side, q, n) for k, q, n in rows] for rows in part] for part in parts]
    found = add_up_listed(listed.T.copy(), stops, small, side)
    assert changes_as_counter(found) == expected(of_small, *moved)
    assert not small.any()
    assert changes_as_counter(add_up_listed(listed.T.copy(), stops)) == expected(*moved)


def test_many_entries_of_one_group_and_few_of_the_next() -> None:
    k = np.arange(1, 20_001)
    rows = np.ones((40_005, 4), np.int64)
    rows[:40_000, 0], rows[:40_000, 1], rows[40_000:, 1] = 0, np.tile(k, 2), k[:5]
    changes = added_up_rows(rows)
    assert changes.ends.tolist() == [20_000, 20_005, 20_005]
    assert set(changes.states[:20_000].tolist()) == {2}
    assert set(changes.states[20_000:].tolist()) == {1}


def test_kernels_run_as_plain_python_with_the_same_result(monkeypatch) -> None:
    by_group = [[(k % 7 + 1, k % 3 + 1, 1) for k in range(40)], [], [(5, 5, -1)] * 3]
    compiled = changes_as_counter(added_up(by_group))
    counting_cases.run_as_plain_python(monkeypatch, module)
    with np.errstate(over="ignore"):
        assert changes_as_counter(added_up(by_group)) == compiled
        twice = add_up_entries([added_up(by_group), added_up(by_group)])
        assert changes_as_counter(twice) == expected(by_group, by_group)
        monkeypatch.setattr(module, "PROBE_LIMIT", 0)
        with pytest.raises(CountingError, match="another seed"):
            added_up(by_group)
