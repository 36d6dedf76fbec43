from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from watching import pack, packed

from tsstore.errors import (
    CaptureError,
    ColumnsError,
    OutputError,
    SelectionError,
    TsstoreWarning,
)
from tsstore.recording.axes.tensor import Axes
from tsstore.recording.batches import assembly as module
from tsstore.recording.batches.assembly import Assembly
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.samples.index import Owners
from tsstore.recording.selection.select import Target, select
from tsstore.recording.settings import Settings

MODEL = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Linear(3, 4))
CONV, LINEAR = select(MODEL, [nn.Conv2d, nn.Linear])


class Earlier:
    """In the place of what earlier attempts have left: notes what it is asked, and may refuse."""

    def __init__(self, refuse=()):
        self.asked, self.refuse = [], list(refuse)

    def check_columns(self, columns):
        self.columns = columns

    def check_layers(self, layers, complete):
        assert not complete
        self.asked.append((list(layers), self.columns))
        if self.refuse and self.refuse.pop():
            raise CaptureError("not these")


def assembly(targets=(CONV, LINEAR), **settings):
    return Assembly(targets, Settings(**settings))


def maps(samples, height=2, width=3, neurons=5):
    return torch.randn(samples, neurons, height, width)


def vectors(samples, neurons=4, dtype=torch.float32):
    return torch.randn(samples, neurons).to(dtype)


def batch(*calls, samples=None, **columns):
    """Batch of one forward pass: calls are (target, tensor)."""
    made = OpenBatch(samples)
    made.record(columns)
    made.begin_forward()
    for target, tensor in calls:
        made.add(target, pack(tensor, 0.0, *target.axes.of(tensor)))
    return made


def usual(samples=2, **columns):
    return batch((CONV, maps(samples)), (LINEAR, vectors(samples)), **columns)


def test_a_batch_has_rows_sample_after_sample():
    tensor = maps(2)
    made = assembly([CONV]).assemble(batch((CONV, tensor), label=[7, 8]))
    assert made.batch.samples == 2
    layer = made.batch.layers["0"]
    np.testing.assert_array_equal(layer.rows, packed(tensor).reshape(-1, 1))
    assert layer.positions == 6
    assert made.batch.columns["label"].tolist() == [7, 8]


def test_the_first_batch_says_what_the_layers_are():
    made = assembly(threshold=0.1).assemble(usual(label=[7, 8]))
    conv, linear = made.new_layers.values()
    assert (conv.name, conv.neurons, conv.module_class, conv.where) == ("0", 5, "Conv2d", "after")
    assert (conv.neuron_axis, conv.sample_axis, conv.position_shape) == (1, 0, (2, 3))
    assert (linear.dtype, linear.call, linear.position_shape) == ("float32", None, ())
    assert linear.threshold == {"given": 0.1, "used": 0.0}
    assert made.columns == {"label": "int64"}
    assert made.positions == {"0": 6, "1": 1}


def test_later_batches_bring_nothing_new():
    house = assembly()
    assert house.assemble(usual()) is not None
    later = house.assemble(usual(5))
    assert later.new_layers == {}
    assert later.positions == {}
    assert later.batch.samples == 5


def test_a_batch_like_one_before_is_finished_alike():
    house = assembly()
    house.assemble(usual(3, label=[1, 2, 3]))
    for number in range(3):
        tensors = maps(3), vectors(3)
        made = house.assemble(batch(*zip((CONV, LINEAR), tensors, strict=True), label=[number] * 3))
        assert (made.batch.samples, made.new_layers, made.columns) == (3, {}, {"label": "int64"})
        assert made.batch.columns["label"].tolist() == [number] * 3
        for name, tensor, positions in zip("01", tensors, (6, 1), strict=True):
            layer = made.batch.layers[name]
            np.testing.assert_array_equal(layer.rows, packed(tensor).reshape(len(layer.rows), -1))
            assert layer.positions == positions
            layer.check(name, 3, 1)


def alike(calls, **options):
    """A batch whose calls have the forms of another one's, as those of a hook have."""
    made = batch(**options)
    for target, found in calls:
        made.add(target, found)
    return made


def calls_of(*targets, samples=2):
    return [(target, pack(vectors(samples), 0.0, 1, 0)) for target in targets]


def test_what_is_known_of_a_batch_is_used_only_where_nothing_else_is_different():
    house = assembly([LINEAR])
    calls = calls_of(LINEAR)
    first = house.assemble(alike(calls, samples=2))
    again = house.assemble(alike(calls, samples=2))
    assert again.batch.layers["1"].positions == first.batch.layers["1"].positions == 1
    assert house.assemble(alike(calls)).batch.samples == 2
    with pytest.raises(OutputError, match="whose they are is not known"):
        house.assemble(alike(calls, samples=1))
    with pytest.raises(OutputError, match="2 entries of 3 samples, and whose they are is not"):
        house.assemble(alike(calls, samples=3))
    with pytest.raises(ColumnsError, match="recorded label, the first one no columns"):
        house.assemble(alike(calls, label=[1, 2]))
    with pytest.raises(CaptureError, match=r"was called 1 times .* and 2 times"):
        house.assemble(alike(calls * 2, samples=2))
    twice = house.assemble(alike(calls, samples=2))
    assert twice.batch.layers["1"].positions == 1


def test_a_mask_is_no_less_obeyed_in_a_batch_like_one_before():
    house = assembly([CONV])
    found = pack(maps(2), 0.0, 1, 0)
    masks = [None, np.eye(2, 6), np.ones((2, 6)), None]
    counts = []
    for mask in masks:
        made = alike([(CONV, found)])
        if mask is not None:
            made.masks.record(mask)
        counts.append(house.assemble(made).batch.layers["0"].each(2).tolist())
    assert counts == [[6, 6], [1, 1], [6, 6], [6, 6]]


def test_a_layer_that_comes_later_has_no_rows_in_batches_like_those_before():
    house = assembly(missing="empty")
    calls = [(CONV, pack(maps(2), 0.0, 1, 0))]
    before = house.assemble(alike(calls)), house.assemble(alike(calls))
    house.assemble(alike(calls_of(LINEAR)))
    after = house.assemble(alike(calls)), house.assemble(alike(calls))
    assert [list(made.batch.layers) for made in before] == [["0"]] * 2
    for made in after:
        assert set(made.batch.layers) == {"0", "1"}
        assert made.batch.layers["1"].rows.shape == (0, 1)
        made.batch.layers["1"].check("1", 2, 1)


def test_calls_of_one_module_keep_their_numbers_in_a_batch_like_one_before():
    house = assembly()
    for _ in range(3):
        calls = list(zip((LINEAR, CONV, LINEAR), (vectors(2), maps(2), vectors(2)), strict=True))
        forms = [pack(tensor, 0.0, 1, 0) for _, tensor in calls]
        for _ in range(2):
            made = house.assemble(alike(zip((LINEAR, CONV, LINEAR), forms, strict=True)))
            assert set(made.batch.layers) == {"1#1", "0", "1#2"}
            for name, form in zip(("1#1", "0", "1#2"), forms, strict=True):
                rows = form.rows.reshape(-1, 1)
                np.testing.assert_array_equal(made.batch.layers[name].rows, rows)


def test_forms_of_batches_are_not_remembered_without_end(monkeypatch):
    monkeypatch.setattr(module, "_MOST_KNOWN", 3)
    house = assembly([LINEAR])
    for samples in range(1, 9):
        house.assemble(batch((LINEAR, vectors(samples))))
        assert 1 <= len(house._known) <= 3


def test_a_batch_in_which_nothing_happened_is_none():
    assert assembly().assemble(OpenBatch()) is None


def test_several_calls_are_joined_sample_by_sample():
    one, two = vectors(2), vectors(2)
    made = assembly([LINEAR], calls="merge").assemble(batch((LINEAR, one), (LINEAR, two)))
    expected = np.stack([packed(one)[:, 0], packed(two)[:, 0]], axis=1)
    np.testing.assert_array_equal(made.batch.layers["1"].rows, expected.reshape(-1, 1))
    assert made.new_layers["1"].position_shape == (2,)


@pytest.mark.parametrize(
    ("owners", "counts", "shape"),
    [
        (None, [3, 3], (3, 2, 3)),
        ([0, 1, 0, 1, 0, 1], [3, 3], (3, 2, 3)),
        ([1, 1, -1, 0, 1, -1], [1, 3], (3, 2, 3)),
        ([1, 0, -1, -1, -1, -1], [1, 1], (2, 3)),
    ],
)
def test_entries_are_those_of_the_samples_that_they_belong_to(owners, counts, shape):
    tensor = maps(6)
    index = None if owners is None else np.array(owners)
    found = pack(tensor, 0.0, 1, 0)._replace(owners=Owners(index, "by somebody"))
    made = assembly([CONV]).assemble(alike([(CONV, found)], samples=2))
    layer = made.batch.layers["0"]
    assert layer.each(2).tolist() == [6 * count for count in counts]
    owner = np.array([0, 0, 0, 1, 1, 1] if owners is None else owners)
    expected = [packed(tensor)[owner == sample].reshape(-1, 1) for sample in (0, 1)]
    np.testing.assert_array_equal(layer.rows, np.concatenate(expected))
    assert made.new_layers["0"].position_shape == shape
    assert made.new_layers["0"].decided["sample_index"] == "by somebody"


@pytest.mark.parametrize("samples", [1, 2, 3, 0])
def test_rows_of_which_nothing_says_whose_they_are(samples):
    message = rf"1: axis 0 holds 6 entries of {samples} samples, and whose they are is not known"
    with pytest.raises(OutputError, match=message):
        assembly([LINEAR]).assemble(batch((LINEAR, vectors(6)), samples=samples))


@pytest.mark.parametrize("calls", [1, 2])
def test_a_batch_without_samples(calls):
    made = assembly([CONV], calls="merge").assemble(batch(*[(CONV, maps(0))] * calls))
    assert made.batch.samples == 0
    assert made.batch.layers["0"].rows.shape == (0, 1)
    assert made.positions == {"0": 0}


def test_positions_may_vary():
    house = assembly([CONV])
    house.assemble(batch((CONV, maps(2))))
    later = house.assemble(batch((CONV, maps(1, height=4))))
    assert later.batch.layers["0"].positions == 12


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (vectors(2, neurons=6), "act: 6 neurons of float32 .* but 4 neurons of float32"),
        (vectors(2, dtype=torch.float64), "act: 4 neurons of float64 .* but 4 neurons of float32"),
        (vectors(2)[:, None], "along axis 2, samples along axis 0 in this batch, but .* axis 1"),
    ],
)
def test_a_layer_that_changes(tensor, message):
    module = nn.ReLU()
    target = Target("act", module, "after", True, Axes("act", module, fallback=-1))
    house = assembly([target])
    house.assemble(batch((target, vectors(2))))
    with pytest.raises(CaptureError, match=message):
        house.assemble(batch((target, tensor)))


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("missing", ["error", "empty"])
def test_a_number_of_calls_that_changes(before, now, missing):
    house = assembly([LINEAR], missing=missing)
    house.assemble(batch(*[(LINEAR, vectors(2))] * before))
    message = f"1 was called {before} times in one forward pass and {now} times .*calls='merge'"
    with pytest.raises(CaptureError, match=message):
        house.assemble(batch(*[(LINEAR, vectors(2))] * now))


def test_what_never_runs_is_left_out_with_one_warning():
    house = assembly()
    message = "did not run in the first batch, or .*reset_compiler=True\\), are left out: 1$"
    with pytest.warns(TsstoreWarning, match=message) as warned:
        house.assemble(batch((CONV, maps(2))))
    assert len(warned) == 1
    assert house.left_out == [LINEAR]
    assert house.assemble(batch((CONV, maps(2)))) is not None


def test_what_was_named_must_run():
    named = select(MODEL, "1")
    with pytest.raises(
        SelectionError, match=r"1 was named but .*call .*, or pass reset_compiler=True"
    ):
        assembly([CONV, *named]).assemble(batch((CONV, maps(2))))
    with pytest.raises(
        SelectionError, match=r"none of the selected layers ran .*, or pass reset_compiler=True"
    ):
        assembly().assemble(batch(label=[1, 2]))


def test_later_silence_is_an_error_unless_it_may_be_empty():
    house = assembly()
    house.assemble(usual())
    with pytest.raises(CaptureError, match=r"1 gave no states in this batch .*missing='empty'"):
        house.assemble(batch((CONV, maps(2))))
    house = assembly(missing="empty")
    house.assemble(usual())
    silent = house.assemble(batch((CONV, maps(2)))).batch.layers["1"]
    assert silent.rows.shape == (0, 1)
    assert silent.positions == 0


def test_where_layers_may_be_empty_they_may_come_later():
    house = assembly(missing="empty")
    first = house.assemble(batch((CONV, maps(2))))
    assert list(first.new_layers) == ["0"]
    second = house.assemble(batch((LINEAR, vectors(2))))
    assert list(second.new_layers) == ["1"]
    assert list(second.batch.layers) == ["0", "1"]
    assert house.assemble(batch(samples=2)) is None


def test_a_refused_batch_fixes_nothing():
    house = assembly([LINEAR])
    with pytest.raises(ColumnsError):
        house.assemble(batch((LINEAR, vectors(3)), a=[1, 2]))
    with pytest.raises(OutputError):
        house.assemble(batch((LINEAR, vectors(3, neurons=9)), samples=2))
    made = house.assemble(batch((LINEAR, vectors(3)), b=[1, 2, 3]))
    assert made.columns == {"b": "int64"}
    assert made.new_layers["1"].neurons == 4


def test_a_refused_first_batch_leaves_nothing_out():
    house = assembly()
    with pytest.raises(OutputError):
        house.assemble(batch((CONV, maps(3)), samples=2))
    made = house.assemble(usual(3, a=[1, 2, 3]))
    assert house.left_out == []
    assert list(made.new_layers) == ["0", "1"]


def test_columns_must_stay_the_same():
    house = assembly([LINEAR])
    house.assemble(batch((LINEAR, vectors(2)), a=[1, 2]))
    with pytest.raises(ColumnsError, match="recorded no columns, the first one a"):
        house.assemble(batch((LINEAR, vectors(2))))


def test_new_layers_may_be_refused_and_then_nothing_is_fixed():
    earlier = Earlier(refuse=[True])
    house = Assembly([CONV, LINEAR], Settings(missing="empty"), earlier)
    with pytest.raises(CaptureError, match="not these"):
        house.assemble(batch((CONV, maps(2)), label=[7, 8]))
    for calls in ([(LINEAR, vectors(2))], [(LINEAR, vectors(2))], [(CONV, maps(2))]):
        earlier.refuse.append(False)
        assert house.assemble(batch(*calls, other=[7.5, 8])) is not None
    other = {"other": "float64"}
    assert earlier.asked == [(["0"], {"label": "int64"}), (["1"], other), (["0"], other)]


def test_columns_are_asked_for_where_no_layer_ran():
    earlier = Earlier()
    house = Assembly([CONV], Settings(missing="empty"), earlier)
    for _ in range(2):
        house.assemble(batch(samples=2, name=["a", "b"]))
    assert earlier.asked == [([], {"name": "string"})]
