from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import write_columns

from tsstore.analysis import random_groups as module
from tsstore.analysis.random_groups import GROUPS, Dealt, RandomGroups
from tsstore.errors import AnalysisError, DamageError
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore


def dealt(store: StateStore, cluster: str, **options: int) -> list[int]:
    """The groups of all samples, part after part."""
    groups = RandomGroups.of_parts(store.parts, cluster, **options)
    pieces = [groups.of_samples(part.directory, 0, part.samples) for part in store.parts]
    return np.concatenate(pieces).tolist()


def test_groups_are_as_good_as_drawn_by_lot():
    dealt = RandomGroups().of_samples("part-00000-00000", 0, 320_000)
    assert dealt.dtype == np.uint8
    sizes = np.bincount(dealt, minlength=GROUPS)
    assert len(sizes) == GROUPS == 32
    # Chi square with 31 degrees: 80 and more once in 300,000 times.
    assert ((sizes - 10_000) ** 2 / 10_000).sum() < 80
    pairs = np.bincount(dealt[:-1].astype(np.int64) * GROUPS + dealt[1:], minlength=GROUPS**2)
    assert ((pairs - 312.5) ** 2 / 312.5).sum() < 1300


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 300), st.integers(1, 255), st.integers(0, 9))
def test_a_sample_s_group_is_the_same_in_every_block(first, samples, count, seed):
    groups = RandomGroups(count, seed)
    whole = groups.of_samples("part-00000-00000", 0, first + samples)
    assert groups.of_samples("part-00000-00000", first, samples).tolist() == whole[first:].tolist()
    assert whole.max(initial=0) < count


def test_parts_and_seeds_are_dealt_separately():
    draws = [
        RandomGroups(seed=seed).of_samples(directory, 0, 1000)
        for seed in (0, 1)
        for directory in ("part-00000-00000", "part-00001-00000")
    ]
    for number, one in enumerate(draws):
        for other in draws[:number]:
            assert 5 < np.count_nonzero(one == other) < 80
    assert np.array_equal(draws[0], RandomGroups().of_samples("part-00000-00000", 0, 1000))


def test_samples_of_one_value_are_in_one_group_in_all_parts(tmp_path):
    patients = [f"patient {number % 40} é" for number in range(400)]
    store = write_columns(
        tmp_path / "run", {"patient": patients[:150]}, {"patient": patients[150:]}
    )
    found = dealt(store, "patient")
    assert found == found[:40] * 10
    assert len(set(found)) > 12
    assert dealt(store, "patient", count=255, seed=3) != found
    assert max(dealt(store, "patient", count=3)) == 2


@pytest.mark.parametrize(
    "values",
    [
        np.arange(20, dtype=np.int64) - 10,
        np.arange(20, dtype=np.uint8),
        np.arange(20, dtype=np.float32),
        np.arange(20) / 7,
        np.arange(20) % 2 == 0,
        np.array([2**63, 2**64 - 1] * 10, np.uint64),
    ],
    ids=["int64", "uint8", "float32", "float64", "bool", "uint64"],
)
def test_columns_of_any_numbers_make_clusters(tmp_path, values):
    store = write_columns(tmp_path / "run", {"cluster": np.concatenate([values, values])})
    found = dealt(store, "cluster")
    assert found[:20] == found[20:]
    assert len(set(found)) > min(10, len(set(values.tolist())) - 1)


def test_equal_numbers_are_equal_whatever_their_types(tmp_path):
    kinds = [np.int64, np.int16, np.float32, np.float64]
    parts = [{"cluster": np.arange(-50, 50).astype(kind)} for kind in kinds]
    found = dealt(write_columns(tmp_path / "run", *parts), "cluster")
    assert found == found[:100] * 4
    zeros = [{"cluster": np.array([0.0, -0.0, 1.0])}, {"cluster": np.array([False, False, True])}]
    found = dealt(write_columns(tmp_path / "zeros", *zeros), "cluster", count=255)
    assert found[:3] == found[3:]
    assert found[0] == found[1] != found[2]


def test_negative_numbers_are_not_those_larger_by_a_power_of_two(tmp_path):
    negative = np.arange(-100, 0)
    parts = [{"cluster": negative}, {"cluster": negative.astype(np.uint64)}]
    found = dealt(write_columns(tmp_path / "run", *parts), "cluster", count=255)
    equal = np.equal(found[:100], found[100:])
    assert equal.sum() < 10


def test_missing_numbers_are_one_value(tmp_path):
    missing = np.array([0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000], np.uint64)
    values = np.concatenate([missing.view(np.float64), [np.inf, -np.inf, 1e300]])
    found = dealt(write_columns(tmp_path / "run", {"cluster": values}), "cluster", count=255)
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 4


def test_columns_are_read_some_values_at_a_time(tmp_path, monkeypatch):
    values = [f"patient {number % 7}" for number in range(100)]
    store = write_columns(tmp_path / "run", {"patient": values})
    expected = dealt(store, "patient")
    monkeypatch.setattr(module, "PIECE_SAMPLES", 9)
    assert dealt(store, "patient") == expected
    groups = RandomGroups.of_parts(store.parts, "patient")
    assert groups.of_samples(store.parts[0].directory, 13, 50).tolist() == expected[13:63]
    assert groups.of_samples(store.parts[0].directory, 5, 0).tolist() == []


@pytest.mark.parametrize("piece", [1, 9, 1 << 14])
def test_clusters_are_counted_over_all_parts(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(module, "PIECE_SAMPLES", piece)
    names = [f"patient {number % 7}" for number in range(100)]
    store = write_columns(
        tmp_path / "text", {"patient": names[:30]}, {"patient": [*names, "one more"]}
    )
    assert RandomGroups.of_parts(store.parts, "patient").count_clusters() == 8
    numbers = [{"cluster": np.arange(-5, 25, dtype=kind)} for kind in (np.int64, np.float32)]
    missing = {"cluster": np.array([np.nan, -np.nan, 0.5, 99])}
    store = write_columns(tmp_path / "numbers", *numbers, missing)
    assert RandomGroups.of_parts(store.parts, "cluster").count_clusters() == 30 + 3
    assert RandomGroups.of_parts(store.parts).count_clusters() is None


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20)), max_size=9))
def test_as_many_clusters_are_counted_as_there_are_values(pieces):
    def column(values):
        array = np.array(values, np.int64)
        commit = SimpleNamespace(rows=len(values))
        return SimpleNamespace(commit=commit, read=lambda start, stop: array[start:stop])

    groups = RandomGroups(columns={str(n): column(values) for n, values in enumerate(pieces)})
    assert groups.count_clusters() == len(set().union(*pieces))


def test_groups_are_small_to_send_and_the_same_elsewhere(tmp_path):
    store = write_columns(tmp_path / "run", {"patient": np.arange(5000)})
    for groups in (RandomGroups(), RandomGroups.of_parts(store.parts, "patient")):
        sent = pickle.dumps(groups)
        assert len(sent) < 5000
        directory = store.parts[0].directory
        assert np.array_equal(
            pickle.loads(sent).of_samples(directory, 0, 5000),
            groups.of_samples(directory, 0, 5000),
        )


def test_a_column_that_is_not_there_is_an_error(tmp_path):
    store = write_columns(tmp_path / "run", {"patient": [1, 2], "id": [1, 2]}, {"id": [1, 2]})
    with pytest.raises(AnalysisError, match=r"no sample column 'patient' to make clusters of; it"):
        RandomGroups.of_parts(store.parts, "patient")
    with pytest.raises(AnalysisError, match=r"'doctor' .*; it has (patient, id|id, patient)"):
        RandomGroups.of_parts(store.parts, "doctor")


def test_a_damaged_column_is_an_error(tmp_path):
    store = write_columns(tmp_path / "run", {"patient": np.arange(50)})
    next((tmp_path / "run").rglob("samples/patient/c/0")).write_bytes(b"damage" * 9)
    groups = RandomGroups.of_parts(store.parts, "patient")
    with pytest.raises(DamageError, match="patient"):
        groups.of_samples(store.parts[0].directory, 0, 50)
    with pytest.raises(DamageError, match="patient"):
        groups.count_clusters()


@pytest.mark.parametrize("count", [0, 256, -1])
def test_a_number_of_groups_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} groups; expected 1 to 255"):
        RandomGroups(count)


def test_ids_tell_which_samples_groups_hold_whatever_their_order(tmp_path):
    ids = np.random.default_rng(1).permutation(300)
    names = [f"sample {number}" for number in ids]
    whole = write_columns(tmp_path / "whole", {"id": ids})
    parts = write_columns(
        tmp_path / "parts", {"id": ids[200:]}, {"id": ids[:200][::-1].astype(np.int32)}
    )
    other = write_columns(tmp_path / "other", {"id": np.where(ids == 7, 300, ids)})
    text = write_columns(tmp_path / "text", {"id": names})
    dealt = [
        RandomGroups.of_parts(one.parts, "id").dealt()[0] for one in (whole, parts, other, text)
    ]
    assert dealt[0] == dealt[1] != dealt[2]
    assert len({one.digests for one in dealt}) == 3
    assert dealt[0].matches(dealt[1])
    assert dealt[0].matches(dealt[2])
    assert sum(count for count, _ in dealt[0].digests) == 300
    assert all(count < 30 for count, _ in dealt[0].digests)
    assert RandomGroups.of_parts(whole.parts).dealt() == [None]


def test_samples_that_are_left_out_are_in_no_group(tmp_path):
    store = write_columns(tmp_path / "run", {"id": [3, 1, 4, 1, 5]})
    once = write_columns(tmp_path / "once", {"id": [5, 4, 3, 1]})
    sample_filter = SampleFilter({store.parts[0].directory: np.array([3])})
    dealt = RandomGroups.of_parts(store.parts, "id").dealt(sample_filter)
    assert dealt == RandomGroups.of_parts(once.parts, "id").dealt()


def test_values_that_were_dealt_together_match_only_if_all_are_the_same():
    one, other = Dealt("patient", ((2, 7), (1, 5))), Dealt("patient", ((2, 7), (1, 6)))
    joined = replace(one, joined=True)
    assert one.matches(other)
    assert joined.matches(joined)
    assert not joined.matches(replace(other, joined=True))
    assert not one.matches(joined)
    assert not one.matches(replace(one, by="id"))
