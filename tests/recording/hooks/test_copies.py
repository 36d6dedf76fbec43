"""A capture that stores nothing says what may be the cause."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import tsstore
from tsstore.errors import SelectionError, TsstoreWarning
from tsstore.recording.hooks.copies import CopiedHook, do_nothing

EMPTY = "the capture ended without a sample: "
LIST = (
    r"the model was not called within a batch; or a copy of it ran \(.*\); or it was compiled and "
    r"called before .*reset_compiler=True\), or exported \(.*\); or its forward\(\) was called"
)


def make():
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


@pytest.fixture
def model():
    return make()


def capture(model, path, layers=("0", "2"), **options):
    return tsstore.capture(model, path, layers=layers, durable=False, **options)


def values(count=2):
    return torch.randn(count, 3)


def test_a_capture_without_a_sample_gives_the_list(model, path):
    recorder = capture(model, path)
    with pytest.warns(TsstoreWarning, match=f"{path}/part-00000-00000: {EMPTY}{LIST}") as warned:
        recorder.close()
    assert len(warned) == 1
    recorder.close()
    assert tsstore.open(path).finished


COPIERS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "a copy's copy": lambda model: copy.deepcopy(pickle.loads(pickle.dumps(model))),
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model),
}


@pytest.mark.parametrize("way", COPIERS)
def test_a_copy_that_runs_says_so_once_and_the_end_names_it(model, path, way):
    recorder = capture(model, path)
    other = COPIERS[way](model)
    with pytest.warns(TsstoreWarning, match=f"{path}: a copy of the captured model ran") as warned:
        other(values())
    other(values())
    assert len(warned) == 1
    with pytest.warns(TsstoreWarning, match=f"{EMPTY}the model was not called, but a copy of it"):
        recorder.close()
    other(values())


def test_a_shallow_copy_says_so(model, path):
    recorder = capture(model, path, layers="Sequential")
    other = copy.copy(model)
    with pytest.warns(TsstoreWarning, match="a copy of the captured model ran"):
        other(values())
    with pytest.warns(TsstoreWarning, match="but a copy of it ran"):
        recorder.close()


def test_a_part_of_a_copy_says_so(model, path):
    with pytest.warns(TsstoreWarning) as warned, capture(model, path):
        copy.deepcopy(model[0])(values())
    messages = [str(warning.message) for warning in warned]
    assert ["a copy" in message for message in messages] == [True, True]


def test_a_copy_in_place_of_the_model_in_a_block_is_named_by_the_error(model, path):
    recorder = capture(model, path)
    other = copy.deepcopy(model)

    def block():
        with recorder.batch(id=[1, 2]):
            other(values())

    ran = pytest.raises(SelectionError, match=r"none of the selected .* but a copy of it ran")
    with pytest.warns(TsstoreWarning, match="a copy"), ran:
        block()
    # The error has told.
    recorder.close()


def test_copies_are_silent_beside_the_model_before_and_after(model, path):
    before = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with capture(model, path) as recorder:
            later = copy.deepcopy(model)
            before(values())
            with recorder.batch():
                model(values())
                later(values())
            later(values())
        later(values())
        capture(model, path.with_name("other")).close("closed: no data")
        later(values())
    assert tsstore.open(path).samples == 2


def test_a_compiled_copy_is_compiled_whole(model, path):
    torch.compiler.reset()
    with capture(model, path):
        compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
        with torch.no_grad():
            compiled(values())
        model(values())
    torch.compiler.reset()


def test_a_pickle_of_another_process_knows_nothing(model, path):
    with capture(model, path, layers="0"):
        content = pickle.dumps(model)
        hook = pickle.loads(content)[0]._forward_hooks.popitem()[1]
        assert isinstance(hook, CopiedHook)
        model(values())
    key = hook.copies.key.encode()
    elsewhere = pickle.loads(content.replace(key, b"0" * len(key)))
    assert elsewhere[0]._forward_hooks.popitem()[1] is do_nothing


def test_forward_that_was_called_directly(model, path):
    recorder = capture(model, path)
    with pytest.warns(TsstoreWarning, match="outside of any batch"):
        model.forward(values())
    message = rf"{EMPTY}captured layers were called 2 times outside of any batch: .*forward\(\)"
    with pytest.warns(TsstoreWarning, match=message):
        recorder.close()


class Direct(nn.Module):
    """Calls the forward() of its layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, inputs):
        return self.second.forward(self.first(inputs))


def test_a_layer_whose_forward_is_called_directly(path):
    model = Direct()
    silent = pytest.raises(SelectionError, match=r"second was named but .* or its forward\(\)")
    with capture(model, path, "second"), pytest.raises(SelectionError, match=LIST):
        model(values())
    with capture(model, path, ["first", "second"], overwrite=True), silent:
        model(values())
    left_out = pytest.warns(TsstoreWarning, match=r"forward\(\) was called, .* out: second$")
    with capture(model, path, "Linear", overwrite=True), left_out:
        model(values())
    assert tsstore.open(path).layers == ("first",)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_model_that_was_exported(model, path):
    program = torch.export.export(model.eval(), (values(),), strict=False)
    flat = program.module()
    # What holds parameters only is called by nobody.
    silent = pytest.raises(SelectionError, match=r"or exported \(capture torch.export.unflatten")
    with capture(flat, path, "0"), silent:
        flat(values())
    whole = torch.export.unflatten(program)
    with capture(whole, path, "0", overwrite=True):
        whole(values())
    assert tsstore.open(path).samples == 2


def test_where_nothing_was_to_be_recorded_there_is_no_warning(model, path):
    ids = [1, 2]

    def job(layers=("0", "2")):
        with capture(model, path, layers, resume=True) as recorder:
            for id in recorder.missing(ids):
                with recorder.batch(id=[id]):
                    model(values(1))
            return recorder.statistics.samples

    assert [job(), job()] == [2, 0]

    def fail():
        with capture(model, path.with_name("failed")):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    rank = capture(model, path.with_name("rank"), rank=1, world_size=2, run_id="mine")
    rank.close("closed: no data")
    assert tsstore.open(path.with_name("rank")).parts[0].seal.why == "closed: no data"


def test_batches_that_hold_nothing(model, path):
    recorder = capture(model, path, missing="empty")
    model(values(0))
    with pytest.warns(TsstoreWarning, match=f"{EMPTY}its 1 batches were empty"):
        recorder.close()
