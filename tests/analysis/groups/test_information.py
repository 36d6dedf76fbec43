"""Information between states and groups, where it is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import layer, write_layers

import tsstore
from tsstore.errors import AnalysisError, EmptyStoreError
from tsstore.statistics.information import set_entropy

LABELS = 4


@pytest.fixture(scope="module", params=[(300, 1), (2_000, 1), (400, 6)])
def run(request, tmp_path_factory):
    samples, positions = request.param
    rng = np.random.default_rng(samples)
    label = rng.integers(0, LABELS, samples)
    of_row = np.repeat(label, positions)
    noise = np.minimum(rng.geometric(0.3, samples * positions), 15)
    half = np.where(rng.random(len(of_row)) < 0.5, of_row, rng.integers(0, LABELS, len(of_row)))
    states = {
        "nothing": noise,
        "all": LABELS * noise + of_row,
        "some": half,
        "own": np.arange(len(of_row)),
    }
    layers = {
        name: layer(own.astype("<u4").view(np.uint8).reshape(-1, 4), positions)
        for name, own in states.items()
    }
    columns = {"id": np.arange(samples), "label": label}
    return write_layers(tmp_path_factory.mktemp("information"), layers, columns=columns)


def test_information_is_what_it_is_known_to_be(run):
    found = tsstore.information(run, "label")
    most = set_entropy(np.bincount(run.column("label")))
    # Of four labels, the right one in 5 of 8 rows, each other one in 1 of 8.
    shares = np.array([5, 1, 1, 1]) / 8
    known = {"nothing": 0.0, "all": most, "some": 2 + float(shares @ np.log2(shares))}
    for name, bits in known.items():
        own = found[name]
        assert own.group_bits == pytest.approx(most)
        # Intervals of 95 % are missed now and then: by half of their length at most.
        room = (own.interval.upper - own.interval.lower) / 2 + 1e-9
        assert own.interval.lower - room <= bits <= own.interval.upper + room
        assert own.shuffled_bits < 0.1
    assert found["nothing"].interval.lower == 0
    assert found["all"].share > 0.98


def test_too_few_samples_tell_nothing_and_say_so(run):
    found = tsstore.information(run, "label", "own")
    own = found["own"]
    assert own.interval is None or own.interval.lower == 0
    assert own.shuffled_bits >= own.bits
    assert "own: shuffled labels show as much" in str(found)


def test_information_is_a_table(run):
    found = tsstore.information(run, "label", ["all", "some"], intervals=False)
    assert list(found) == ["all", "some"]
    assert found["all"].interval is None
    assert json.loads(found.to_json())["layers"]["some"]["information_lower_bits"] is None
    frame = found.to_frame()
    assert frame.loc["all", "information_bits"] == found["all"].bits
    with pytest.raises(AnalysisError, match="cache= keeps analyses alone"):
        tsstore.information(run, "label", cache="somewhere")


def test_shuffled_labels_of_samples_without_rows_are_not_blamed_on_the_labels(tmp_path):
    rows = np.arange(12, dtype=np.uint8).reshape(6, 2)
    positions = np.array([1] * 6 + [0] * 200)
    columns = {"label": np.array([1] + [0] * 205)}
    store = write_layers(tmp_path, {"a": type(layer(rows, 1))(rows, positions)}, columns=columns)
    assert tsstore.analyze(store, by="label").values == (0, 1)
    with pytest.raises(EmptyStoreError, match="with shuffled labels one has none"):
        tsstore.information(store, "label")


def write_samples(path, rng, ids, states, labels):
    rows = np.asarray(states, np.uint8).reshape(-1, 1)
    return write_layers(path, {"a": layer(rows, 1)}, columns={"id": ids, "label": labels})


def test_copies_tell_no_more_than_the_samples_that_they_repeat(tmp_path):
    rng = np.random.default_rng(0)
    ids, states, labels = np.arange(300), rng.geometric(0.1, 300), rng.integers(0, 3, 300)
    once = write_samples(tmp_path / "once", rng, ids, states, labels)
    twice = [np.tile(own, 2) for own in (ids, states, labels)]
    found = [
        tsstore.information(run, "label")["a"].to_dict()
        for run in (once, write_samples(tmp_path / "twice", rng, *twice))
    ]
    assert found[0] == found[1]
    # What an id repeats with another label counts with its first one.
    twice[2][300:] = (labels + 1) % 3
    other = tsstore.information(write_samples(tmp_path / "other", rng, *twice), "label")
    assert other["a"].to_dict() == found[0]


def test_shuffled_labels_are_those_of_whole_ids(tmp_path):
    """Four views of each id are in one state, so that labels of no meaning seem to tell of it."""
    rng, bits, shuffled = np.random.default_rng(0), [], []
    for number in range(6):
        ids = np.repeat(np.arange(200), 4)
        states, labels = (rng.integers(0, most, 200)[ids] for most in (100, 3))
        layers = {
            name: layer(own.astype(np.uint16).view(np.uint8).reshape(-1, 2), 1)
            for name, own in {"a": states, "views": np.arange(800)}.items()
        }
        columns = {"id": ids, "label": labels}
        run = write_layers(tmp_path / str(number), layers, columns=columns)
        found = tsstore.information(run, "label")["a"]
        bits.append(found.bits)
        shuffled.append(found.shuffled_bits)
        assert found.interval is None or found.interval.lower == 0
    assert min(bits) > 0.1
    assert np.mean(shuffled) > 0.8 * np.mean(bits)


@pytest.mark.parametrize("options", [{}, {"repeats": "each"}, {"unique_by": "id"}])
def test_information_is_the_same_with_intervals_and_without(tmp_path, options):
    """Views of an id have states of their own: by samples and by ids labels shuffle unlike."""
    rng, ids = np.random.default_rng(0), np.repeat(np.arange(60), 4)
    states = np.stack([3 * ids + rng.integers(0, 3, 240), 1000 + np.arange(240)], axis=1)
    rows = states.reshape(-1, 1).astype(np.uint16).view(np.uint8)
    run = write_layers(
        tmp_path / "run", {"a": layer(rows, 2)}, columns={"id": ids, "label": ids % 3}
    )
    found = [
        tsstore.information(run, "label", intervals=intervals, **options)["a"]
        for intervals in (True, False)
    ]
    assert found[0].interval is not None
    assert found[1].interval is None
    assert len({(one.bits, one.shuffled_bits, one.group_bits) for one in found}) == 1
