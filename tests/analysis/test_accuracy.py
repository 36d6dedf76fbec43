from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic import write_columns

from tsstore.analysis import accuracy as module
from tsstore.analysis.accuracy import count_right
from tsstore.analysis.random_groups import RandomGroups
from tsstore.errors import DamageError
from tsstore.statistics.rates import Answers


def predictions(seed: int, samples: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).integers(0, 3, (2, samples))
    return {"prediction": drawn[0], "label": drawn[1]}


@pytest.mark.parametrize("piece", [7, 1 << 14])
def test_right_predictions_are_counted_by_group_over_all_parts(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(module, "PIECE_SAMPLES", piece)
    parts = [predictions(1, 50), predictions(2, 80)]
    store = write_columns(tmp_path / "run", *parts)
    groups = RandomGroups(5)
    (accuracy,) = count_right(store.parts, groups)
    right, samples = np.zeros((2, 5), np.int64)
    for stored, values in zip(store.parts, parts, strict=True):
        group = groups.of_samples(stored.directory, 0, stored.samples)
        np.add.at(samples, group, 1)
        np.add.at(right, group, values["prediction"] == values["label"])
    assert accuracy.right.tolist() == right.tolist()
    assert accuracy.samples.tolist() == samples.tolist()
    assert accuracy.share == right.sum() / 130


def test_without_groups_all_samples_are_one(tmp_path):
    (accuracy,) = count_right(write_columns(tmp_path / "run", predictions(1, 60)).parts)
    assert accuracy.samples.tolist() == [60]
    assert math.isnan(Answers(np.zeros(2, np.int64), np.zeros(2, np.int64)).share)


def test_text_is_compared_as_text(tmp_path):
    values = {"prediction": ["cat", "dog", "é"], "label": ["cat", "cat", "é"]}
    (accuracy,) = count_right(write_columns(tmp_path / "run", values).parts)
    assert accuracy.right.tolist() == [2]


def test_there_is_no_accuracy_where_a_part_lacks_a_column(tmp_path):
    store = write_columns(tmp_path / "run", predictions(1, 20), {"label": np.arange(20)})
    assert count_right(store.parts) == [None]
    assert count_right(store.parts[:1])[0].samples.tolist() == [20]


def test_without_answers_nothing_is_asked_of_single_samples(tmp_path, monkeypatch):
    store = write_columns(tmp_path / "run", {"label": np.arange(20)})
    monkeypatch.setattr(module, "sets_of", lambda *_: pytest.fail("samples were looked at"))
    assert count_right(store.parts, RandomGroups(5)) == [None]


def test_damaged_labels_are_an_error(tmp_path):
    store = write_columns(tmp_path / "run", predictions(1, 20))
    next((tmp_path / "run").rglob("samples/label/c/0")).write_bytes(b"damage" * 9)
    with pytest.raises(DamageError, match="label"):
        count_right(store.parts, RandomGroups())
