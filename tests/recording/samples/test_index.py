from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.samples.index import AS_MANY, check_names, even_index, parsed


def owners(given_, entries, samples, layer=None):
    said = parsed(given_ if layer is None else {layer: given_})
    return (said if layer is None else said[layer]).owners("box", entries, samples)


@given(samples=st.integers(1, 9), each=st.integers(0, 9))
def test_even_orders_give_each_sample_as_many(samples, each):
    entries = samples * each
    assert even_index("contiguous", entries, samples).tolist() == [
        sample for sample in range(samples) for _ in range(each)
    ]
    assert even_index("interleaved", entries, samples).tolist() == [
        sample for _ in range(each) for sample in range(samples)
    ]
    found = owners("contiguous", entries, samples)
    assert found == (None, "contiguous: by the user", True)
    found = owners("interleaved", entries, samples)
    assert found.samples.tolist() == even_index("interleaved", entries, samples).tolist()


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_counts_and_the_index_that_they_stand_for_are_the_same(counts):
    index = np.repeat(np.arange(len(counts)), counts)
    entries, samples = len(index), len(counts)
    by_counts = owners(("counts", counts), entries, samples, "box")
    by_index = owners(("index", torch.from_numpy(index)), entries, samples, "box")
    assert by_counts.samples.tolist() == by_index.samples.tolist() == index.tolist()
    assert (by_counts.reason, by_index.reason) == ("counts: by the user", "index: by the user")
    if entries != samples:
        for bare in (counts, index):
            assert owners(bare, entries, samples, "box").samples.tolist() == index.tolist()


def test_an_array_alone_that_may_mean_two_things_is_refused():
    message = r"box: .* as many entries as samples, 3, .*say which: \('index', …\) or \('counts', …"
    with pytest.raises(OutputError, match=message):
        owners([0, 1, 2], 3, 3, "box")
    assert owners(("index", [0, 1, 1]), 3, 3, "box").samples.tolist() == [0, 1, 1]
    assert owners(("counts", [0, 1, 2]), 3, 3, "box").samples.tolist() == [1, 2, 2]


def test_what_is_said_of_all_layers_leaves_those_with_one_entry_a_sample():
    assert owners([0, 0, 1, 3, 3], 4, 4) == (None, AS_MANY, False)
    assert owners(("counts", [2, 1, 0, 2]), 4, 4) == (None, AS_MANY, False)
    message = r"box: .*is meant for this layer, too, cannot be told; .*sample_index=\{'box': …\}"
    with pytest.raises(OutputError, match=message):
        owners(("index", [0, 0, 1, 3]), 4, 4)


@pytest.mark.parametrize(
    ("said", "entries", "samples", "message"),
    [
        ("contiguous", 5, 2, r"found 5 entries, which 2 samples cannot share \(contiguous\)"),
        ("interleaved", 5, 0, r"found 5 entries, which 0 samples cannot share \(interleaved\)"),
        (("counts", [1, 2]), 4, 2, r"found 4 entries of 2 samples, .* 2 numbers, with a sum of 3"),
        (("counts", [5, -1]), 4, 2, "2 numbers, with a sum of 4"),
        (("index", [0, 1]), 4, 2, "expected the sample of each entry, or the number of entries"),
        ([0, 1, 0], 4, 2, "3 numbers"),
        ([0, 1, 2, 0], 4, 2, "names sample 2, but the batch has 2; expected numbers from 0 to 1"),
    ],
)
def test_what_does_not_fit(said, entries, samples, message):
    with pytest.raises(OutputError, match=f"^box: .*{message}"):
        owners(said, entries, samples, "box")


@pytest.mark.parametrize(
    "said",
    [
        "sorted", ("both", [1]), ..., 3, [[0, 1]], [0.5], torch.tensor([True]), ["a"], [-2, 0],
        [[0], [1, 2]], None,
    ],
)  # fmt: skip
def test_what_is_no_index(said):
    with pytest.raises(ColumnsError, match=r"^sample_index of 'box' is .*; expected 'contiguous'"):
        parsed({"box": said})
    if said is not None:
        with pytest.raises(ColumnsError, match=r"^sample_index is .*; expected 'contiguous'"):
            parsed(said)


def test_nothing_said():
    assert parsed(None) is None
    check_names(None, ["box"])
    check_names(parsed([0, 1]), ["box"])
    check_names(parsed({"b*": [0, 1]}), ["box"])
    with pytest.raises(
        OutputError, match=r"names 'head\*', which fits none of the captured layers: box, mask"
    ):
        check_names(parsed({"head*": [0, 1]}), ["box", "mask"])
    assert owners([], 0, 3, "box").samples.tolist() == []
