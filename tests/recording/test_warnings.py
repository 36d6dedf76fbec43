"""Warnings point at the user's line that led to them, none of the package's or of torch's."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from watching import capture

from tsstore.errors import TsstoreWarning

VALUES = torch.ones(2, 3)


def no_sample(model: Any, path: Path) -> None:
    with capture(model, path):
        pass


def no_sample_by_hand(model: Any, path: Path) -> None:
    capture(model, path).close()


def outside_a_batch(model: Any, path: Path) -> None:
    with capture(model, path) as recorder:
        model[0](VALUES)
        model(VALUES)
    assert recorder.statistics.samples == 2


def a_copy(model: Any, path: Path) -> None:
    with capture(model, path):
        copy.deepcopy(model)(VALUES)
        model(VALUES)


def a_full_run(model: Any, path: Path) -> None:
    with capture(model, path, max_bytes=1):
        model(VALUES)


def a_full_run_in_blocks(model: Any, path: Path) -> None:
    with capture(model, path, max_bytes=1) as recorder, recorder.batch():
        model(VALUES)


def silent_layers(model: Any, path: Path) -> None:
    model.other = nn.Linear(1, 1)
    model.forward = lambda values: model[0](values)
    with capture(model, path, nn.Linear):
        model(VALUES)


def silent_layers_in_a_block(model: Any, path: Path) -> None:
    with capture(model, path, nn.Linear) as recorder, recorder.batch():
        model[0](VALUES)


def a_later_hook(model: Any, path: Path) -> None:
    with capture(model, path):
        handle = model[0].register_forward_hook(lambda module, taken, given: given + 1)
        model(VALUES)
        handle.remove()


@pytest.mark.parametrize(
    "happens",
    [
        no_sample, no_sample_by_hand, outside_a_batch, a_copy, a_full_run, a_full_run_in_blocks,
        silent_layers, silent_layers_in_a_block, a_later_hook,
    ],
)  # fmt: skip
def test_a_warning_points_at_the_line_that_led_to_it(happens, model, path):
    with pytest.warns(TsstoreWarning) as warned:
        happens(model, path)
    lines, first = inspect.getsourcelines(happens)
    assert [Path(one.filename) for one in warned] == [Path(__file__)]
    assert first < warned[0].lineno < first + len(lines)
