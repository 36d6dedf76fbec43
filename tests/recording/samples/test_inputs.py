"""What an example input stands for, and the same arguments for some of the samples."""

from __future__ import annotations

from collections import OrderedDict

import torch

from tsstore.recording.samples.inputs import arguments_of, flattened, selected
from tsstore.recording.selection.outputs import tensors_in


def test_a_batch_a_tuple_and_a_mapping_are_told_apart() -> None:
    batch = torch.zeros(2, 3)
    assert arguments_of(batch) == ((batch,), {})
    assert arguments_of((batch, 1)) == ((batch, 1), {})
    assert arguments_of({"inputs": batch}) == ((), {"inputs": batch})


def test_a_mapping_in_a_tuple_is_an_argument() -> None:
    assert arguments_of(({"inputs": 1},)) == (({"inputs": 1},), {})


def test_a_list_is_one_argument() -> None:
    assert arguments_of([1, 2]) == (([1, 2],), {})


def test_arguments_of_some_samples():
    values = torch.arange(12).reshape(4, 3)
    lengths, scale = torch.arange(4), torch.tensor(2)
    arguments = ([values, {"lengths": lengths}], scale, "text", None)
    ((chosen, inside), again, *plain) = selected(arguments, 0, 4, [2, 0])
    assert chosen.tolist() == values[[2, 0]].tolist()
    assert inside["lengths"].tolist() == [2, 0]
    assert again.tolist() == 2
    assert again is not scale
    assert plain == ["text", None]
    (flat, *_), *_ = selected(arguments, 0, 4, [1, flattened(2)])
    assert flat.tolist() == [[3, 4, 5], [6, 6, 6]]
    assert values[2].tolist() == [6, 7, 8]
    (across,) = selected((values,), 1, 3, [1, 1])
    assert across.tolist() == values[:, [1, 1]].tolist()
    made = selected(OrderedDict(a=values), 0, 4, [1])
    assert type(made) is OrderedDict
    assert [tensor.shape for tensor in tensors_in(arguments)] == [(4, 3), (4,), ()]
