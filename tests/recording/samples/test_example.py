"""What an example input stands for."""

from __future__ import annotations

import torch

from tsstore.recording.samples.example import arguments_of


def test_a_batch_a_tuple_and_a_mapping_are_told_apart() -> None:
    batch = torch.zeros(2, 3)
    assert arguments_of(batch) == ((batch,), {})
    assert arguments_of((batch, 1)) == ((batch, 1), {})
    assert arguments_of({"inputs": batch}) == ((), {"inputs": batch})


def test_a_mapping_in_a_tuple_is_an_argument() -> None:
    assert arguments_of(({"inputs": 1},)) == (({"inputs": 1},), {})


def test_a_list_is_one_argument() -> None:
    assert arguments_of([1, 2]) == (([1, 2],), {})
