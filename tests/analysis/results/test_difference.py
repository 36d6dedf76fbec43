from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import column
from made_results import analysis, counted
from sampling import Counted, independent_rows, shannon_entropy, zipf
from synthetic import layer, write_layers

import tsstore
from tsstore.analysis.results.difference import Difference, difference
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics.efficiency import efficiency_of, propagated
from tsstore.statistics.intervals import Jackknifed, Reach, difference_interval, jackknifed_entropy
from tsstore.store.reading.store import StateStore

WITHOUT = np.array([3.9, 4.1, 4.0, 4.2])
FIRST = Jackknifed(4.0, 3.5, 5.0, WITHOUT, np.array([10, 12, 9, 8])), Reach(3.5, 5.0, 3.0, 5.5)
SECOND = (
    Jackknifed(3.0, 2.8, 3.1, WITHOUT - 1 + np.array([0, 0, 0.1, 0]), np.array([9, 9, 9, 9])),
    Reach(2.8, 3.1, 2.8, 3.1),
)

STATES = np.array([[0], [1], [2], [3], [4], [5], [6], [7]], dtype=np.uint8)
SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


def error_of(without: np.ndarray) -> float:
    groups = len(without)
    return math.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())


def test_paired_groups_are_left_out_at_once() -> None:
    found = difference_interval(FIRST, SECOND, paired=True)
    error = error_of(np.array([0, 0, 0.1, 0]))
    assert found.estimate == 1.0
    assert found.standard_error == pytest.approx(error, rel=1e-12)
    margin = 3.182446 * error
    # The first one at its lowest, the second one at its highest.
    assert found.lower == pytest.approx(3.5 - 3.1 - math.hypot(margin, 0.5), rel=1e-6)
    assert found.upper == pytest.approx(5.0 - 2.8 + math.hypot(margin, 0.5), rel=1e-6)
    assert difference_interval(FIRST, SECOND, paired=True, level=0.5).upper < found.upper


def test_numbers_that_are_off_alike_differ_less() -> None:
    found = difference_interval(FIRST, SECOND, paired=True, alike=True)
    margin = 3.182446 * found.standard_error
    # Both at their lowest, 3.5 - 2.8, or both at their highest, 5.0 - 3.1, and what each missed.
    assert found.lower == pytest.approx(0.7 - math.hypot(margin, 0.5), rel=1e-6)
    assert found.upper == pytest.approx(1.9 + math.hypot(margin, 0.5), rel=1e-6)


def test_independent_variances_add_up() -> None:
    found = difference_interval(FIRST, SECOND, paired=False)
    one, other = error_of(FIRST[0].without), error_of(SECOND[0].without)
    assert found.standard_error == pytest.approx(math.hypot(one, other), rel=1e-12)
    # Between 3 and 6 degrees of freedom.
    margin = math.sqrt((3.5 - 3.1 - found.lower) ** 2 - 0.5**2)
    assert 2.446 < margin / found.standard_error < 3.183
    constant = Jackknifed(1.0, 1.0, 1.0, np.ones(4), np.ones(4, np.int64))
    same = (constant, Reach(1.0, 1.0, 1.0, 1.0))
    assert difference_interval(same, same, paired=False).upper == 0


def test_pairs_are_of_the_same_groups() -> None:
    other = Jackknifed(1.0, 1.0, 1.0, np.ones(3), np.ones(3, np.int64)), Reach(1, 1, 1, 1)
    with pytest.raises(ValueError, match="found 4 and 3"):
        difference_interval(FIRST, other, paired=True)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        difference_interval(FIRST, SECOND, paired=False, level=95)


def estimated(rows: np.ndarray, group: np.ndarray) -> tuple[Jackknifed, Reach]:
    one = Counted.of(rows, group)
    known = jackknifed_entropy(one.spectrum, one.samples, one.changes, neurons=10)
    return propagated([known], [10], lambda bits: efficiency_of(bits, [10]), 0.95)


@pytest.mark.parametrize("paired", [True, False])
def test_it_holds_the_difference_about_as_often_as_it_says(paired: bool) -> None:
    rng, shares, held, alike, widths = np.random.default_rng(21), zipf(60), 0, 0, []
    merged = np.bincount(np.arange(60) // 2, shares)
    truth = (shannon_entropy(shares) - shannon_entropy(merged)) / 10
    for _ in range(60):
        rows, group = independent_rows(rng, shares, 400), rng.integers(0, 32, 400)
        # The second network does not tell states 2 i and 2 i + 1 from each other.
        others = rows if paired else independent_rows(rng, shares, 400)
        dealt = group if paired else rng.integers(0, 32, 400)
        one, other = estimated(rows, group), estimated(others // 2, dealt)
        found = difference_interval(one, other, paired=paired)
        held += found.lower <= truth <= found.upper
        near = difference_interval(one, other, paired=paired, alike=True)
        alike += near.lower <= truth <= near.upper
        widths.append(found.standard_error)
    assert held >= alike >= 55
    # What both have in common, because they saw the same, is gone.
    assert np.median(widths) < 0.0043 if paired else np.median(widths) > 0.0048


def run(path: Path, ids: Any, seed: int, columns: dict[str, Any] | None = None) -> StateStore:
    """Write a run of two parts; a sample's state follows from its id, a few of them by chance."""
    rng = np.random.default_rng(seed)
    for piece in np.array_split(np.arange(len(ids)), 2):
        own = [ids[index] for index in piece.tolist()]
        drawn = [np.random.default_rng([7, abs(hash_of(i))]).choice(8, p=SHARES) for i in own]
        states = np.where(rng.random(len(own)) < 0.1, rng.integers(0, 8, len(own)), drawn)
        values = {"id": column(own), **{n: column(v[piece]) for n, v in (columns or {}).items()}}
        if None in own:
            del values["id"]
        store = write_layers(path, {"a": layer(STATES[states])}, columns=values)
    return store


def hash_of(value: Any) -> int:
    return int(value) if not isinstance(value, str) else int(value.removeprefix("sample "))


def test_samples_of_equal_ids_are_paired_whatever_their_order(tmp_path: Path) -> None:
    ids = np.arange(600)
    shuffled = np.random.default_rng(3).permutation(ids)
    first = tsstore.analyze(run(tmp_path / "first", ids, 1))
    second = tsstore.analyze(run(tmp_path / "second", shuffled, 2))
    found = tsstore.difference(first, second)
    assert found.paired
    assert found.pairing == "Paired by id, which is the same for the 600 samples of both."
    interval = found["a"].interval
    apart = difference_interval(*map(of_layer, (first, second)), paired=False)
    assert interval.estimate == pytest.approx(apart.estimate, abs=1e-15)
    assert interval.standard_error < 0.75 * apart.standard_error
    assert interval.lower < 0 < interval.upper
    assert found.network.interval.estimate == pytest.approx(interval.estimate, abs=1e-12)
    assert difference(first, first)["a"].interval.standard_error == 0


def of_layer(found: tsstore.Analysis) -> tuple[Jackknifed, Reach]:
    known, neurons = found["a"].jackknifed, [found["a"].neurons]
    return propagated([known], neurons, lambda bits: efficiency_of(bits, neurons), 0.95)


def test_ids_that_are_not_all_the_same_are_paired_as_far_as_they_are(tmp_path: Path) -> None:
    names = [f"sample {number}" for number in range(600)]
    first = tsstore.analyze(run(tmp_path / "first", names[:500], 1))
    second = tsstore.analyze(run(tmp_path / "second", names[100:], 2))
    found = tsstore.difference(first, second)
    assert found.paired
    assert "not the same for all of the 500 and 500 samples" in found.pairing


def test_without_ids_samples_are_taken_to_be_independent(tmp_path: Path) -> None:
    with_ids = tsstore.analyze(run(tmp_path / "first", np.arange(900), 1))
    store = write_layers(
        tmp_path / "second", {"a": layer(STATES[np.random.default_rng(1).integers(0, 8, 900)])}
    )
    found = tsstore.difference(with_ids, tsstore.analyze(store))
    assert not found.paired
    assert "Independent: nothing tells which samples both have in common" in repr(found)
    one, other = with_ids["a"].jackknifed, tsstore.analyze(store)["a"].jackknifed
    error = math.hypot(one.standard_error, other.standard_error) / 8
    assert found["a"].interval.standard_error == pytest.approx(error, rel=1e-12)


def test_where_each_sample_is_a_draw_of_its_own_ids_pair_nothing(tmp_path: Path) -> None:
    store = run(tmp_path / "run", np.arange(600) // 2, 1)
    each = tsstore.analyze(store, repeats="each")
    assert each.dealt is None
    assert not tsstore.difference(each, tsstore.analyze(store)).paired


def test_samples_of_a_cluster_are_paired_by_it(tmp_path: Path) -> None:
    patient = np.arange(600) // 3
    runs = [
        run(tmp_path / name, np.arange(600), seed, {"patient": patient})
        for name, seed in (("first", 1), ("second", 2))
    ]
    first, second = (tsstore.analyze(one, dependent_by="patient") for one in runs)
    found = tsstore.difference(first, second)
    assert found.paired
    assert "Paired by patient, which is the same" in found.pairing
    with pytest.raises(AnalysisError, match=r"by 'patient', and those of .* by 'id'; analyse"):
        tsstore.difference(first, tsstore.analyze(runs[1]))
    with pytest.raises(AnalysisError, match="intervals=False"):
        tsstore.difference(first, tsstore.analyze(runs[1], intervals=False))
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        tsstore.difference(first, second, level=95)


def rows_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(8, (700, 1), p=SHARES)


def two_analyses() -> tuple[tsstore.Analysis, tsstore.Analysis]:
    every = np.random.default_rng(3).integers(0, 2**18, (700, 1))
    first = analysis(counted(rows_of(1)), counted(every, "conv_2", 20), counted(rows_of(5), "fc"))
    return first, analysis(counted(rows_of(2)), counted(every, "conv_2", 20))


def test_what_is_not_known_is_said_with_its_reason() -> None:
    found = difference(*two_analyses())
    assert list(found) == ["conv_1", "conv_2", "fc"]
    assert found["conv_2"].interval is None
    assert found["conv_2"].reason == "both: sample-limited"
    assert found["conv_2"].first > 0
    assert (found["fc"].second, found["fc"].reason) == (None, "second: not analysed")
    assert found.network.reason == "both: a lower bound"
    with pytest.raises(
        UnknownLayerError, match="no layer 'conv_9' in this Difference; there are conv_1"
    ):
        found["conv_9"]


def test_it_is_shown_as_a_table_and_handed_on() -> None:
    found = difference(*two_analyses())
    text, html = repr(found), found._repr_html_()
    shown = found["conv_1"].interval
    cell = f"{shown.estimate:+.3f} [{shown.lower:+.3f}, {shown.upper:+.3f}]"
    assert text.startswith("<Difference run.zarr - run.zarr>")
    for part in (cell, "not known (second: not analysed)", "network efficiency"):
        assert part in text
        assert part in html
    assert found.pairing in text
    document = json.loads(found.to_json())
    assert document["layers"]["conv_1"]["interval"]["estimate"] == shown.estimate
    assert document["layers"]["conv_2"]["interval"] is None
    assert document["paired"] is False
    frame = found.to_frame()
    assert frame.index.tolist() == ["conv_1", "conv_2", "fc", "network efficiency"]
    assert frame.loc["conv_1", "difference_lower"] == shown.lower
    assert isinstance(found, Difference)
    assert len(found) == 3
