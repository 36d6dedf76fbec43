"""Hooks of others that come after ours, and change what was captured."""

from __future__ import annotations

import gc
import warnings
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from watching import hook_count, joined, stored, watched

import tsstore
from tsstore.errors import TsstoreWarning


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


def capture(model, path, layers=("0", "2"), **options):
    return tsstore.capture(model, path, layers=layers, durable=False, **options)


def values():
    return torch.randn(5, 3)


def double(module, arguments, output):
    return output * 2


def clear(module, arguments, output):
    with torch.no_grad():
        output.zero_()


@pytest.mark.parametrize("change", [double, clear])
@pytest.mark.parametrize("in_block", [False, True])
def test_one_that_changes_the_output_is_warned_of_once(model, path, change, in_block):
    with watched(model[0]) as (first,), capture(model, path) as recorder:

        def run():
            if not in_block:
                model(values())
                return
            with recorder.batch():
                model[2](model[1](model[0](values())))

        run()
        model[0].register_forward_hook(change)
        message = f"{path}: a hook that was registered on 0 after .* prepend=True"
        with pytest.warns(TsstoreWarning, match=message) as warned:
            run()
        assert len(warned) == 1
        run()
    assert hook_count(model) == 1
    np.testing.assert_array_equal(stored(path, "0"), joined(first))
    assert tsstore.open(path).samples == 15


def test_one_that_changes_the_input_is_warned_of(model, path):
    with capture(model, path, "2", where="before"):
        model[2].register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
        with pytest.warns(TsstoreWarning, match="registered on 2:before after"):
            model(values())
    assert hook_count(model) == 1


def test_others_are_not(model, path):
    """Those that only look, that come before, or are another recorder's."""
    seen = []
    model[2].register_forward_hook(lambda module, arguments, output: output + 1)
    with (
        capture(model, path),
        capture(model, path.with_name("other")),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        model[0].register_forward_hook(lambda *_: seen.append(1))
        model[0].register_forward_hook(lambda m, a, output: output + 1, prepend=True)
        model[2].register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with mode():
                model(values())
    assert len(seen) == 3
    assert hook_count(model) == 4


def test_one_that_comes_when_another_only_looks(model, path):
    with capture(model, path, "0"):
        model[0].register_forward_hook(lambda *_: None)
        model(values())
        model[0].register_forward_hook(lambda module, arguments, output: output * 2)
        with pytest.warns(TsstoreWarning, match="registered on 0 after"):
            model(values())
    assert hook_count(model) == 2


@pytest.mark.parametrize("in_block", [False, True])
def test_a_pass_that_fails_between_the_hooks_keeps_no_tensor(model, path, in_block):
    kept, fails = [], [False, True, False]

    def note(module, arguments, output):
        kept.append(weakref.ref(output))
        if fails.pop(0):
            raise KeyError("on purpose")

    with torch.no_grad(), capture(model, path, "0") as recorder:
        model[0].register_forward_hook(note)
        model(values())
        with pytest.raises(KeyError), recorder.batch() if in_block else nullcontext():
            model(values())
        gc.collect()
        assert [tensor() for tensor in kept] == [None, None]
        model(values())
    assert tsstore.open(path).samples == 10
