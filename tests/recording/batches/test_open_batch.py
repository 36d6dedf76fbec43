from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from watching import pack

from tsstore.errors import CaptureError, ColumnsError
from tsstore.recording.batches.layer_rows import layer_rows
from tsstore.recording.batches.open_batch import ModelInput, OpenBatch
from tsstore.recording.pipeline import BatchColumns
from tsstore.recording.selection.select import select

MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LSTM(4, 4))
FIRST, SECOND, LSTM = select(MODEL, ["0", "1", "2"])


def rows(samples, positions=1, sample_axis=0):
    shape = (samples, positions, 4) if sample_axis == 0 else (positions, samples, 4)
    return pack(torch.randn(shape), 0.0, 2, sample_axis)


def batch(*forwards, samples=None, input_shape=(), **columns):
    """Batch of forward passes, each a list of (target, rows)."""
    made = OpenBatch(samples)
    made.record(columns)
    for forward in forwards:
        made.begin_forward(ModelInput(input_shape))
        for target, packed in forward:
            made.add(target, packed)
    return made


def test_nothing_happened():
    assert OpenBatch().samples() is None
    assert layer_rows(OpenBatch().calls, "separate") == []


def test_the_number_of_samples_is_what_the_user_says():
    assert batch([(FIRST, rows(6))], samples=3, input_shape=(6, 3)).samples() == 3
    assert batch([(FIRST, rows(6))], samples=np.int32(3)).samples() == 3
    assert batch(samples=3, input_shape=(6, 3), a=[1, 2, 3]).samples() == 3


def test_else_the_columns_length_else_the_inputs_size_else_the_rows():
    assert batch([(FIRST, rows(3))], a=[1, 2, 3]).samples() == 3
    assert batch([(FIRST, rows(6))], input_shape=(3, 3)).samples() == 3
    assert batch([(FIRST, rows(6))]).samples() == 6


def test_a_known_sample_axis_outweighs_the_inputs_first_axis():
    lstm = (LSTM, rows(3, 7, sample_axis=1))
    assert batch([lstm], input_shape=(7, 3, 4)).samples() == 3
    assert batch([lstm], input_shape=(7, 3, 4), a=[1, 2, 3]).samples() == 3


@pytest.mark.parametrize("samples", [-1, True, 2.0, "3", [1, 2], torch.tensor([1, 2])])
def test_a_number_of_samples_that_is_none(samples):
    with pytest.raises(ColumnsError, match=r"expected the number of samples; pass columns by name"):
        OpenBatch(samples)


def test_columns_of_different_lengths():
    with pytest.raises(ColumnsError, match="'b' has 2 entries, but the batch has 3 samples"):
        batch(a=[1, 2, 3], b=[1, 2]).samples()
    with pytest.raises(ColumnsError, match="'a' has 3 entries, but the batch has 2 samples"):
        batch(samples=2, a=[1, 2, 3]).samples()


@pytest.mark.parametrize("length", [1, 3, 5, 7, 12])
def test_columns_that_only_fit_if_several_inputs_were_one_sample(length):
    wrong = batch([(FIRST, rows(6))], input_shape=(6, 3), a=list(range(length)))
    with pytest.raises(
        ColumnsError, match=rf"shape \(6, 3\) has 6; .*recorder.batch\({length}, sample_index=…, …"
    ):
        wrong.samples()
    with pytest.raises(ColumnsError, match=r"but the input has 6; record one entry a sample"):
        batch([(FIRST, rows(6))], a=list(range(length))).samples()


def test_columns_of_another_axis_than_the_inputs_first_are_taken_where_all_rows_agree():
    assert batch([(FIRST, rows(3))], input_shape=(7, 3), a=[1, 2, 3]).samples() == 3
    with pytest.raises(ColumnsError):
        batch([(FIRST, rows(9))], input_shape=(9, 3), a=[1, 2, 3]).samples()


def test_a_column_twice():
    made = OpenBatch()
    columns = BatchColumns(made)
    columns.record(a=[1], b=["x"])
    with pytest.raises(ColumnsError, match="column 'a' was recorded twice"):
        columns.record(a=[1])
    assert list(made.columns) == ["a", "b"]


def test_calls_of_one_pass_are_told_apart():
    one, two, other = rows(2), rows(2), rows(2)
    made = batch([(FIRST, one), (SECOND, other), (FIRST, two)])
    named = layer_rows(made.calls, "separate")
    assert [(rows.name, rows.call) for rows in named] == [("0#1", 1), ("0#2", 2), ("1", None)]
    assert [rows.calls for rows in named] == [[one], [two], [other]]


def test_further_passes_add_positions():
    one, two, three, four = (rows(2) for _ in range(4))
    made = batch([(FIRST, one), (FIRST, two)], [(FIRST, three), (FIRST, four)])
    first, second = layer_rows(made.calls, "separate")
    assert (first.calls, second.calls) == ([one, three], [two, four])
    (merged,) = layer_rows(made.calls, "merge")
    assert (merged.name, merged.calls) == ("0", [one, two, three, four])


def test_a_number_of_calls_that_changes_between_passes():
    made = batch([(FIRST, rows(2))], [(FIRST, rows(2)), (FIRST, rows(2))])
    with pytest.raises(CaptureError, match=r"0 was called 1 times in one .* and 2 times.*'merge'"):
        layer_rows(made.calls, "separate")
    assert len(layer_rows(made.calls, "merge")[0].calls) == 3


def test_a_failed_pass_is_dropped_whole():
    kept = rows(2)
    made = batch([(FIRST, kept)], [(FIRST, rows(2)), (SECOND, rows(2))])
    made.drop_forward()
    assert [(rows.name, rows.calls) for rows in layer_rows(made.calls, "separate")] == [
        ("0", [kept])
    ]


def test_the_input_of_a_failed_pass_does_not_count():
    made = batch([(FIRST, rows(64))], input_shape=(64, 3))
    made.drop_forward()
    assert made.samples() is None
    made.begin_forward(ModelInput((32, 3)))
    made.add(FIRST, rows(32))
    assert made.samples() == 32
