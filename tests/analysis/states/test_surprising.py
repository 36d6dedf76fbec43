from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore.errors import AnalysisError, MemoryTooSmallError, TsstoreWarning
from tsstore.store.reading.store import StateStore


def expected(store: StateStore, name: str) -> dict[int, tuple[float, float, int]]:
    """Return bits, share of new rows and rows of each sample that has some, by counting."""
    states = store[name]
    rows, positions = states.decode(), states.read_positions()
    sample = np.repeat(np.arange(len(positions)), positions).tolist()
    keys = [row.tobytes() for row in rows]
    in_all, in_sample = Counter(keys), Counter(zip(keys, sample, strict=True))
    incidence = Counter(key for key, _ in in_sample)
    single = sum(in_all[key] for key, q in incidence.items() if q == 1)
    once, twice = (sum(q == times for q in incidence.values()) for times in (1, 2))
    drawn, n = int(np.count_nonzero(positions)), len(keys)
    missing = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    missing = (drawn - 1) / drawn * missing
    if states.neurons < 60:
        missing = min(missing, 2**states.neurons - len(in_all))
    mass, found = single / n, {}
    for number in np.flatnonzero(positions).tolist():
        own = [key for key, of in zip(keys, sample, strict=True) if of == number]
        bits, new = 0.0, 0
        for key in own:
            others = in_all[key] - in_sample[key, number]
            share = (1 - mass) * others / (n - len(own)) if others else mass / max(missing, 1)
            bits -= math.log2(share)
            new += not others
        found[number] = bits / len(own), new / len(own), len(own)
    return found


def check(store: StateStore, frame, name: str = "a") -> None:
    wanted, starts = expected(store, name), {}
    for part in store[name].sample_parts:
        starts[part.directory] = sum(
            other.samples for other in store[name].sample_parts if other.directory < part.directory
        )
    numbers = [starts[part] + sample for _, part, sample in frame.index]
    assert len(numbers) == len(set(numbers))
    for number, bits, new, rows in zip(
        numbers, frame["bits"], frame["new"], frame["rows"], strict=True
    ):
        assert bits == pytest.approx(wanted[number][0], abs=1e-8)
        assert (new, rows) == (pytest.approx(wanted[number][1]), wanted[number][2])
    assert frame["bits"].is_monotonic_decreasing
    least = frame["bits"].iloc[-1]
    assert sum(bits > least + 1e-8 for bits, _, _ in wanted.values()) <= len(frame)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    width=st.sampled_from([1, 3, 9, 17]),
    samples=st.lists(st.integers(2, 30), min_size=1, max_size=3),
    distinct=st.integers(1, 80),
    largest=st.integers(1, 9),
)
@pytest.mark.filterwarnings("ignore::tsstore.errors.TsstoreWarning")
def test_bits_are_those_of_counting(tmp_path_factory, width, samples, distinct, largest):
    parts = [draw_layer(seed, n, width, distinct, largest) for seed, n in enumerate(samples)]
    parts.append(layer(np.zeros((2, width), np.uint8)))
    path = tmp_path_factory.mktemp("surprising") / "run"
    store = write_layers(path, *({"a": part} for part in parts))
    everything = tsstore.surprising(store, "a", 1_000)
    check(store, everything)
    assert len(everything) == len(expected(store, "a"))
    assert tsstore.surprising(path, "a", 3).equals(everything.head(3))


@pytest.mark.parametrize("positions", [1, 4])
def test_no_plan_and_no_place_changes_the_bits(tmp_path, monkeypatch, positions):
    numbers = np.random.default_rng(1).geometric(0.01, 12_000)
    columns = {"id": np.arange(12_000 // positions), "position": np.zeros(12_000 // positions, int)}
    rows = layer(numbered_rows(numbers, 9), positions)
    store = write_layers(tmp_path / "run", {"a": rows}, columns=columns, chunk_bytes=1 << 12)
    found = tsstore.surprising(store, "a", 50)
    assert list(found) == ["bits", "new", "rows", "id", "position"]
    assert found["id"].tolist() == [sample for _, _, sample in found.index]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(MemoryTooSmallError, match="give at least memory='"):
        tsstore.surprising(store, "a", memory=1 << 20)
    for options in (
        {"scheduler": "synchronous", "memory": "24MiB", "scratch": scratch},
        {"memory": "1GiB"},
    ):
        assert tsstore.surprising(store, "a", 50, **options).equals(found)
    monkeypatch.setattr("tsstore.analysis.schedulers.LocalScheduler.shared_memory", False)
    seen = []
    monkeypatch.setattr(
        "tsstore.analysis.schedulers.LocalScheduler.check_scratch", lambda _, f: seen.append(f)
    )
    assert tsstore.surprising(store, "a", 50, scratch=scratch).equals(found)
    assert seen
    assert list(scratch.iterdir()) == []


def test_a_view_is_compared_with_itself(tmp_path):
    labels = np.arange(60) % 3
    part = draw_layer(3, 60, 2, 20)
    store = write_layers(tmp_path / "run", {"a": part}, {"a": part}, columns={"label": labels})
    view = store.filter(label=1)
    frame = tsstore.surprising(view, "a", 1_000)
    assert set(frame["label"]) == {1}
    wanted = sorted((bits for bits, _, _ in expected(view, "a").values()), reverse=True)
    assert frame["bits"].tolist() == pytest.approx(wanted, abs=1e-8)


def test_an_odd_one_comes_first_and_a_copy_does_not(tmp_path):
    numbers = np.concatenate([np.arange(100) % 5, [77], [78] * 3])
    store = write_layers(tmp_path / "run", {"a": layer(numbered_rows(numbers, 8))})
    frame = tsstore.surprising(store, "a", 2)
    assert frame.index[0][2] == 100
    assert frame["new"].tolist() == [1, 0]
    assert frame.attrs == {"equally_surprising": 2}
    assert tsstore.surprising(store, "a", 1).attrs == {"equally_surprising": 0}


def test_where_no_state_comes_again_nothing_is_more_surprising(tmp_path):
    store = write_layers(tmp_path / "run", {"a": layer(numbered_rows(np.arange(50), 8))})
    with pytest.warns(TsstoreWarning, match="no state occurs in two samples"):
        frame = tsstore.surprising(store, "a", 1_000)
    assert len(frame) == 50
    assert frame["bits"].nunique() == 1
    with pytest.raises(AnalysisError, match="n is 0"):
        tsstore.surprising(store, "a", 0)
    alone = write_layers(tmp_path / "alone", {"a": layer(numbered_rows(np.arange(5), 8), 5)})
    with pytest.raises(AnalysisError, match="one sample alone has rows"):
        tsstore.surprising(alone, "a")


def test_workers_of_a_cluster_find_the_same(tmp_path, client):
    parts = [draw_layer(seed, 60, 40, distinct=90) for seed in (1, 2)]
    store = write_layers(tmp_path / "run", *({"a": part} for part in parts))
    (tmp_path / "scratch").mkdir()
    found = tsstore.surprising(store, "a", 7, scheduler=client, scratch=tmp_path / "scratch")
    assert found.equals(tsstore.surprising(store, "a", 7))
