from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from tsstore.errors import CaptureError
from tsstore.recording.hooks.passes import Passes


class Model(nn.Module):
    """Runs what it is given, inside torch's own call."""

    def forward(self, inside=lambda: None):
        return inside()


@pytest.fixture
def passes():
    return Passes()


@pytest.fixture
def model(passes):
    """Model that reports to `passes`; `model.told` holds what they said."""
    model = Model()
    model.told = []

    def before(module, arguments):
        if passes.cut_off():
            model.told.append("cut off")
            passes.reset()
        model.told.append(("begin", passes.begin()))

    def after(module, arguments, output):
        failed = passes.failed()
        model.told.append(("end", passes.end(), failed))

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after, always_call=True)
    return model


def fail(error):
    raise error


def test_a_pass_begins_and_ends(model, passes):
    model()
    assert model.told == [("begin", True), ("end", True, False)]
    assert not passes.end()
    assert passes.depth == 0


def test_only_the_outermost_pass_counts(model):
    model(lambda: model(model))
    begins = [told[1] for told in model.told if told[0] == "begin"]
    ends = [told[1] for told in model.told if told[0] == "end"]
    assert begins == [True, False, False]
    assert ends == [False, False, True]


def test_a_failed_pass_is_known(model, passes):
    with pytest.raises(ValueError, match="no"):
        model(lambda: fail(ValueError("no")))
    assert model.told[-1] == ("end", True, True)
    assert passes.depth == 0


def test_a_pass_while_an_error_is_handled_has_not_failed(model):
    try:
        fail(ValueError("before"))
    except ValueError:
        model()
        assert model.told[-1] == ("end", True, False)
        with pytest.raises(KeyError):
            model(lambda: fail(KeyError("inside")))
    assert model.told[-1] == ("end", True, True)


def test_an_end_without_a_beginning_is_none(passes):
    assert not passes.end()
    assert passes.depth == 0
    assert not passes.cut_off()


def test_a_pass_that_an_interrupt_cut_off_is_noticed(model, passes):
    with pytest.raises(KeyboardInterrupt):
        model(lambda: fail(KeyboardInterrupt()))
    assert passes.depth == 1, "torch calls no hook then"
    assert passes.cut_off()
    model()
    assert model.told[1:] == ["cut off", ("begin", True), ("end", True, False)]


def test_a_pass_that_goes_on_is_not_cut_off(model, passes):
    assert model(lambda: passes.cut_off()) is False
    assert model(lambda: (model(), passes.cut_off())[1]) is False


def test_two_threads_at_once_are_refused(model, passes):
    def call_from_another_thread():
        errors = []

        def call():
            try:
                model()
            except CaptureError as error:
                errors.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return errors

    (error,) = model(call_from_another_thread)
    assert "in two threads at once" in error
    assert ("end", True, False) in model.told, "the first pass is none the worse for it"
    assert passes.depth == 0


def test_a_pass_that_ended_with_its_thread_is_cut_off(model, passes):
    def call():
        with pytest.raises(KeyboardInterrupt):
            model(lambda: fail(KeyboardInterrupt()))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert passes.cut_off()


def test_reset_forgets(passes):
    passes.begin()
    passes.begin()
    passes.reset()
    assert passes.depth == 0
    assert not passes.end()


def test_nothing_of_a_pass_is_kept_after_a_reset(model, passes):
    model()
    passes.reset()
    assert all(not isinstance(value, torch.Tensor) for value in vars(passes).values())
    assert [value for value in vars(passes).values() if value] == []
