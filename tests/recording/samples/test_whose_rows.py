"""Every row belongs to the sample it came from: real modules, counted once more with NumPy.

What each network gives is seen by plain hooks, dealt out to the samples by index arithmetic of this
file's own, and counted with `numpy.unique`; the interval is that of a run written in that order.
"""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import write_run
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from watching import as_numpy, capture, watched

import tsstore
from tsstore.errors import ColumnsError, OutputError, ResumeError, TsstoreWarning
from tsstore.store.writing.batch import Batch, LayerBatch

BY_EXPERIMENT = "found by experiment"


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def rows_of(states):
    """Rows, uint8 (rows, bytes), of on/off states or values with the neurons in the last axis."""
    on = as_numpy(states) > 0 if isinstance(states, torch.Tensor) else states
    return np.packbits(on.reshape(-1, on.shape[-1]), axis=-1, bitorder="little")


def by_sample(tensor, owners, samples):
    """The rows of each sample, where `owners` says whose each entry of the first axis is."""
    owners = np.asarray(owners)
    return [rows_of(tensor[torch.from_numpy(owners == sample)]) for sample in range(samples)]


def spectrum_of(samples):
    """Number of distinct states by multiplicity and incidence, counted with NumPy."""
    width = samples[0].shape[1]
    every = np.concatenate(samples).view(f"V{width}").ravel()
    each = np.concatenate([np.unique(rows.view(f"V{width}")) for rows in samples if len(rows)])
    states, multiplicity = np.unique(every, return_counts=True)
    again, incidence = np.unique(each, return_counts=True)
    assert (states == again).all()
    pairs, counts = np.unique(np.stack([multiplicity, incidence]), axis=1, return_counts=True)
    return {tuple(pair): count for pair, count in zip(pairs.T.tolist(), counts, strict=True)}


def check(path, name, samples, neurons):
    """Positions a sample, rows, incidences and the interval are those of the true samples."""
    store = tsstore.open(path)
    counts = np.array([len(rows) for rows in samples])
    assert store[name].read_positions().tolist() == counts.tolist()
    assert store[name].neurons == neurons
    np.testing.assert_array_equal(store[name][:], np.concatenate(samples))
    # Ids begin anew with each batch: they identify no sample.
    result = tsstore.analyze(path, repeats="each")[name]
    found = result.spectrum
    entries = zip(found.multiplicity, found.incidence, strict=True)
    assert dict(zip(entries, found.states, strict=True)) == spectrum_of(samples)
    true = path.with_name(f"{path.name}-true-{name}")
    layer = LayerBatch(np.concatenate(samples), counts)
    write_run(true, [Batch(len(samples), {name: layer})], neurons={name: neurons})
    expected = tsstore.analyze(true)[name]
    assert (result.samples, result.rows) == (expected.samples, expected.rows)
    assert result.interval() == expected.interval()
    return store[name].attributes.decided["sample_index"]


# What an experiment finds


def contiguous(entries, samples):
    return np.repeat(np.arange(samples), entries)


class Frames(nn.Module):
    """Takes videos, and works on their frames."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3)
        self.head = nn.Linear(7, 5)

    def forward(self, videos):
        frames = self.conv(videos.flatten(0, 1)).mean((2, 3))
        return self.head(frames).unflatten(0, videos.shape[:2]).mean(1)


def test_frames_folded_into_the_batch(path, caplog):
    model = Frames().eval()
    caplog.set_level(logging.INFO, "tsstore")
    with watched(model.conv, model.head) as (conv, head), capture(model, path, ["conv", "head"]):
        for samples in (12, 5):
            model(torch.randn(samples, 4, 3, 5, 5))
    owners = contiguous(4, 17)
    reasons = {
        check(path, "conv", by_sample(torch.cat(conv).movedim(1, 3), owners, 17), 7),
        check(path, "head", by_sample(torch.cat(head), owners, 17), 5),
    }
    assert reasons == {f"contiguous: {BY_EXPERIMENT}"}
    (line,) = [line for line in caplog.messages if "samples of the first batch" in line]
    assert re.match(r"ran the model 6 times on samples of the first batch, in \d+\.\d+", line)
    assert line.endswith("belong to which sample; found it for 2 of 2 layers")


class Doubled(nn.Module):
    """Sees each sample twice, as with classifier-free guidance."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.inner = nn.Linear(3, 9)

    def forward(self, values):
        return self.inner(self.join(values))


@pytest.mark.parametrize(
    ("join", "owners", "how"),
    [
        (lambda x: torch.cat([x, -x]), lambda n: np.tile(np.arange(n), 2), "interleaved"),
        (lambda x: torch.stack([x, -x], 1).flatten(0, 1), lambda n: contiguous(2, n), "contiguous"),
    ],
)
def test_a_doubled_batch(path, join, owners, how):
    model = Doubled(join).eval()
    with watched(model.inner) as (inner,), capture(model, path, "inner") as recorder:
        for samples in (9, 6, 6):
            with recorder.batch(label=range(samples)):
                model(torch.randn(samples, 3))
    parts = [by_sample(tensor, owners(len(tensor) // 2), len(tensor) // 2) for tensor in inner]
    reason = check(path, "inner", [rows for part in parts for rows in part], 9)
    assert reason == f"{how}: {BY_EXPERIMENT}"


def test_windows_of_a_swin_transformer(path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    model = transformers.Swinv2Model(config).eval()
    inner, outer = (
        "encoder.layers.0.blocks.0.attention.self.query",
        "encoder.layers.0.blocks.0.intermediate.dense",
    )
    modules = model.get_submodule(inner), model.get_submodule(outer)
    with watched(*modules) as (windows, tokens), capture(model, path, [inner, outer]):
        for samples in (6, 4):
            model(torch.randn(samples, 3, 32, 32))
    reason = check(path, inner, by_sample(torch.cat(windows), contiguous(4, 10), 10), 8)
    assert reason == f"contiguous: {BY_EXPERIMENT}"
    reason = check(path, outer, by_sample(torch.cat(tokens), np.arange(10), 10), 32)
    assert reason == "as many entries as samples"


class LanguageModel(nn.Module):
    """Takes (time, sample), as torch's own recurrent modules do."""

    def __init__(self, neurons=9):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, neurons)
        self.head = nn.Linear(neurons, 11)

    def forward(self, tokens):
        return self.head(self.lstm(self.embed(tokens))[0])


@pytest.mark.parametrize("time", [60, 24, 12])
def test_a_language_model_with_time_first(path, time):
    model = LanguageModel().eval()
    layers = ["embed", "lstm", "head"]
    with watched(model.embed, model.head) as (embed, head), capture(model, path, layers):
        for _ in range(2):
            model(torch.randint(0, 20, (time, 12)))
    for name, tensors, neurons in (("embed", embed, 6), ("head", head, 11)):
        moved = torch.cat([tensor.transpose(0, 1) for tensor in tensors])
        check(path, name, by_sample(moved, np.arange(24), 24), neurons)
        assert tsstore.open(path)[name].attributes.sample_axis == 1
    assert tsstore.open(path)["lstm"].positions == time


class Mixer(nn.Module):
    """Mixes tokens, and takes (time, sample, feature), or (sample, time, feature)."""

    def __init__(self, time_first):
        super().__init__()
        self.time = 0 if time_first else 1
        self.inner = nn.Linear(3, 9)

    def forward(self, values):
        before = values.cumsum(self.time)
        return self.inner(before).mean(self.time)


@pytest.mark.parametrize("time_first", [False, True])
def test_as_many_time_steps_as_samples(path, time_first):
    model = Mixer(time_first).eval()
    with watched(model.inner) as (inner,), capture(model, path, "inner") as recorder:
        for samples in (12, 12, 7, 7):
            shape = (12, samples, 3) if time_first else (samples, 12, 3)
            with recorder.batch(id=range(samples)):
                model(torch.randn(shape))
    moved = torch.cat([tensor.transpose(0, 1) if time_first else tensor for tensor in inner])
    check(path, "inner", by_sample(moved, np.arange(38), 38), 9)
    attributes = tsstore.open(path)["inner"].attributes
    assert attributes.sample_axis == int(time_first)
    assert attributes.decided["sample_axis"] == BY_EXPERIMENT


class Transposed(nn.Module):
    """Takes (sample, time, feature), and works on (time, sample, feature)."""

    def __init__(self, mixes):
        super().__init__()
        self.mixes = mixes
        self.inner = nn.Linear(3, 9)

    def forward(self, values):
        states = self.inner(values.transpose(0, 1))
        return states.cumsum(0) if self.mixes else states


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 6, 2, 3)])
def test_time_first_within_and_as_many_steps_as_samples(path, shape, mixes):
    model = Transposed(mixes).eval()
    with watched(model.inner) as (inner,), capture(model, path, "inner"):
        model(torch.randn(shape))
    check(path, "inner", by_sample(inner[0].transpose(0, 1), np.arange(6), 6), 9)


def test_samples_that_the_model_puts_in_another_order(path):
    model = Doubled(lambda values: values.flip(0))
    with (
        capture(model, path, "inner", example_input=torch.randn(5, 3)),
        pytest.raises(OutputError, match=r"6 entries of 6 samples \(an experiment .* order"),
    ):
        model(torch.randn(6, 3))
    index = {"inner": ("index", np.arange(6)[::-1])}
    again = capture(model, path, "inner", overwrite=True)
    with watched(model.inner) as (inner,), again, again.batch(6, sample_index=index):
        model(torch.randn(6, 3))
    check(path, "inner", by_sample(inner[0], np.arange(6)[::-1], 6), 9)


class RecurrentMixer(Mixer):
    """Has a module that takes time first, and a layer that no tensor leads to from there."""

    def __init__(self):
        super().__init__(time_first=True)
        self.lstm = nn.LSTM(3, 3)

    def forward(self, values):
        return self.lstm(values)[0], super().forward(values)


@torch.enable_grad()
def test_as_many_time_steps_as_samples_and_nothing_tells(path):
    model = RecurrentMixer()
    message = r"inner: axes 0 and 1 both have 12 entries.*, as in sample_axis=0"
    with capture(model, path, "inner"), pytest.raises(OutputError, match=message):
        model(torch.randn(12, 12, 3))
    with capture(model, path, "inner", sample_axis=1, overwrite=True):
        model(torch.randn(12, 12, 3))
    assert tsstore.open(path)["inner"].attributes.decided["sample_axis"] == "by the user"
    # Where no module of the model takes time first, samples come first, but not without a word.
    model = Mixer(time_first=False)
    message = "inner: .* axis 0 is taken for the samples; .* sample_axis=1; .* example_input="
    with capture(model, path, "inner", overwrite=True):
        with pytest.warns(TsstoreWarning, match=message):
            model(torch.randn(12, 12, 3))
        model(torch.randn(12, 12, 3))
    assert "sample_axis" not in tsstore.open(path)["inner"].attributes.decided


# What the user says


class Experts(nn.Module):
    """Sorts the tokens by expert, as mixtures of experts do."""

    def __init__(self):
        super().__init__()
        self.route = nn.Linear(3, 2)
        self.experts = nn.ModuleList(nn.Linear(3, 9) for _ in range(2))
        self.owners = [None, None]

    def forward(self, values):
        samples, tokens, features = values.shape
        flat = values.reshape(-1, features)
        chosen = self.route(flat).argmax(-1)
        owner = torch.arange(samples).repeat_interleave(tokens)
        for number, expert in enumerate(self.experts):
            self.owners[number] = owner[chosen == number]
            expert(flat[chosen == number])
        return values


def test_experts_that_sort_tokens(path):
    model = Experts().eval()
    expected = [[], []]
    recorder = capture(model, path, "experts.*")
    with recorder, watched(*model.experts) as seen:
        for turn in range(3):
            with recorder.batch() as batch:
                model(torch.randn(8, 7, 3))
                batch.record(
                    sample_index={
                        f"experts.{n}": ("index", owners) for n, owners in enumerate(model.owners)
                    }
                )
            for number, owners in enumerate(model.owners):
                expected[number] += by_sample(seen[number][turn], owners, 8)
    for number, samples in enumerate(expected):
        assert check(path, f"experts.{number}", samples, 9) == "index: by the user"


def test_what_an_experiment_does_not_find_is_one_error(path):
    model = Experts().eval()
    message = (
        r"experts.0, experts.1: axis 0 has \d+ entries of 8 samples \(an experiment did not tell: "
        r"its shape changes with the values\)|experts.0: axis 0 .*; experts.1: axis 0 .*"
        r'sample_index=\{"experts.\*": …\}'
    )
    with capture(model, path, ["route", "experts.*"]), pytest.raises(OutputError, match=message):
        model(torch.randn(8, 7, 3))
    assert tsstore.open(path).samples == 0


class Detector(nn.Module):
    """Takes images, and works on proposals: as many as there are of each."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(1, 4, 3)
        self.box = nn.Linear(4, 9)

    def forward(self, images, proposals):
        features = self.backbone(images).mean((2, 3))
        each = features.repeat_interleave(torch.tensor(proposals), 0)
        return self.box(each + torch.randn(each.shape))


@torch.enable_grad()
@pytest.mark.parametrize("said", ["early", "late"])
@pytest.mark.parametrize("form", [tuple, torch.tensor, np.array])
def test_proposals_of_a_detector(path, said, form):
    model = Detector()
    proposals = [[3, 0, 4, 1], [2, 2, 0, 0], [1, 1, 1, 1]]
    recorder = capture(model, path, ["backbone", "box"])
    with watched(model.box) as (box,), recorder:
        for counts in proposals:
            given = ("counts", counts) if form is tuple else ("counts", form(counts))
            index = {"bo*": given}
            with recorder.batch(sample_index=index if said == "early" else None) as batch:
                model(torch.randn(4, 1, 5, 5), counts)
                if said == "late":
                    batch.record(sample_index=index)
    owners = np.repeat(np.arange(12), np.concatenate(proposals))
    assert check(path, "box", by_sample(torch.cat(box), owners, 12), 9) == "counts: by the user"
    assert tsstore.open(path)["backbone"].positions == 9


class GraphNetwork(nn.Module):
    """Works on the nodes of all graphs of a batch at once, then on each graph."""

    def __init__(self):
        super().__init__()
        self.node = nn.Linear(3, 9)
        self.graph = nn.Linear(9, 5)

    def forward(self, nodes, batch, graphs):
        hidden = self.node(nodes).relu()
        return self.graph(torch.zeros(graphs, 9).index_add(0, batch, hidden))


@pytest.mark.parametrize("by_layer", [False, True])
def test_graph_batches_with_nodes(path, by_layer):
    model = GraphNetwork().eval()
    batches = [[0, 0, 1, 1, 1, 3, 3], [2, 0, 1, 0, 0, 1, 3, 3, 3], [0, 1, 2, 2, 3, 3]]
    recorder = capture(model, path, ["node", "graph"])
    with watched(model.node, model.graph) as (node, graph), recorder:
        for number, owners in enumerate(batches):
            index = torch.tensor(owners)
            said = {"node": index} if by_layer else index
            with recorder.batch(label=[number] * 4, sample_index=said):
                model(torch.randn(len(owners), 3), index, 4)
    parts = [by_sample(tensor, owners, 4) for tensor, owners in zip(node, batches, strict=True)]
    assert check(path, "node", [rows for part in parts for rows in part], 9) == "index: by the user"
    check(path, "graph", by_sample(torch.cat(graph), np.arange(12), 12), 5)


def test_an_index_of_the_inputs_own_entries_does_not_say_how_many_samples_there_are(path):
    model = GraphNetwork().eval()
    index = torch.tensor([0, 0, 1, 2, 2])
    recorder = capture(model, path, "node")
    unknown = pytest.raises(ColumnsError, match=r"node .* 5 entries .*nobody knows how many")
    with recorder, unknown, recorder.batch(sample_index=index):
        model(torch.randn(5, 3), index, 3)
    recorder = capture(model, path, "node", overwrite=True)
    with recorder, recorder.batch(4, sample_index=index):
        model(torch.randn(5, 3), index, 4)
    assert tsstore.open(path)["node"].read_positions().tolist() == [2, 1, 2, 0]


def test_an_index_of_layers_that_are_not_captured(path):
    model = GraphNetwork()
    with pytest.raises(OutputError, match=r"names 'edge\*', which fits none .*: node"):
        capture(model, path, "node", sample_index={"edge*": "contiguous"})
    recorder = capture(model, path, "node")
    index = torch.tensor([0, 1, 1])
    unknown = pytest.raises(OutputError, match=r"names 'edge', which fits none .*: node")
    with recorder, unknown, recorder.batch(2, sample_index={"edge": index, "node": index}):
        model(torch.randn(3, 3), index, 2)


def test_entries_of_no_sample_are_left_out_and_counted(path):
    model = GraphNetwork().eval()
    index = torch.tensor([0, -1, 1, 1, -1])
    with watched(model.node) as (node,), capture(model, path, "node") as recorder:
        for _ in range(3):
            with recorder.batch(2, sample_index=index):
                model(torch.randn(5, 3), index.clamp(0), 2)
        assert recorder.statistics.left_out == 6
    owners = np.concatenate([np.where(index >= 0, index + 2 * n, -1) for n in range(3)])
    check(path, "node", by_sample(torch.cat(node), owners, 6), 9)


@torch.enable_grad()
@pytest.mark.parametrize(
    ("how", "owners"),
    [("contiguous", [0, 0, 0, 1, 1, 1]), ("interleaved", [0, 1, 0, 1, 0, 1])],
)
def test_crops_belong_to_the_sample_that_the_user_says(path, how, owners):
    model = nn.Sequential(nn.Conv2d(1, 9, 3), nn.Flatten(), nn.Linear(81, 5))
    options = {"sample_index": how}
    with watched(model[2]) as (last,), capture(model, path, "2", **options) as recorder:
        for _ in range(2):
            with recorder.batch(label=[3, 4]):
                model(torch.randn(6, 1, 5, 5))
    owners = np.concatenate([owners, np.array(owners) + 2])
    assert check(path, "2", by_sample(torch.cat(last), owners, 4), 5) == f"{how}: by the user"


# What the tensor says


def sorted_by_length(lengths):
    return sorted(lengths, reverse=True)


class Packs(nn.Module):
    """Packs padded sequences, and unpacks them again."""

    def __init__(self, enforce_sorted, bidirectional=False):
        super().__init__()
        self.options = {"batch_first": True, "enforce_sorted": enforce_sorted}
        self.lstm = nn.LSTM(3, 5, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear(10 if bidirectional else 5, 4)

    def forward(self, values, lengths):
        output, last = self.lstm(pack_padded_sequence(values, lengths, **self.options))
        return self.head(pad_packed_sequence(output, batch_first=True)[0]), output, last


@torch.enable_grad()
@pytest.mark.parametrize("outputs", [None, "0", "0.data"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences(path, enforce_sorted, bidirectional, outputs):
    model = Packs(enforce_sorted, bidirectional)
    neurons = 10 if bidirectional else 5
    expected = []
    warned = pytest.warns(TsstoreWarning, match="lstm: .*enforce_sorted=False")
    recorder = capture(model, path, "lstm", outputs=outputs)
    with warned if enforce_sorted else nullcontext(), recorder:
        for lengths in ([5, 4, 4, 1], [3, 2, 1], [2, 6, 1, 6, 3]):
            lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
            with recorder.batch(id=range(len(lengths))):
                _, output, _ = model(torch.randn(len(lengths), 7, 3), torch.tensor(lengths))
            padded, _ = pad_packed_sequence(output, batch_first=True)
            expected += [
                rows_of(states[:length]) for states, length in zip(padded, lengths, strict=True)
            ]
    assert check(path, "lstm", expected, neurons) == "its packed sequences"


def test_packed_sequences_are_the_models_input_and_last_states_are_tensors(path):
    model = nn.GRU(3, 5, num_layers=2)
    sequences = [torch.randn(length, 3) for length in (2, 5, 3)]
    with capture(model, path, "GRU", where="both", outputs="1"):
        _, last = model(pack_sequence(sequences, enforce_sorted=False))
    store = tsstore.open(path)
    assert (store.samples, store["GRU:before"].neurons) == (3, 3)
    assert store["GRU:before"].read_positions().tolist() == [2, 5, 3]
    np.testing.assert_array_equal(
        store["GRU:before"][:], np.concatenate([rows_of(values) for values in sequences])
    )
    check(path, "GRU", by_sample(last.transpose(0, 1), np.arange(3), 3), 5)


@pytest.mark.parametrize("positions", [1, 3, 0.5])
def test_positions_of_packed_sequences_and_of_an_index(path, positions):
    model = Packs(enforce_sorted=False).eval()
    whole = path.with_name("whole")
    torch.manual_seed(1)
    batches = [(torch.randn(4, 7, 3), torch.tensor([5, 1, 7, 2])) for _ in range(3)]
    for where, options in ((path, {"positions": positions}), (whole, {})):
        with capture(model, where, "lstm", **options):
            for batch in batches:
                model(*batch)
    some, every = tsstore.open(path)["lstm"], tsstore.open(whole)["lstm"]
    lengths = every.read_positions()
    if positions >= 1:
        assert some.read_positions().tolist() == np.minimum(lengths, positions).tolist()
    ends = np.cumsum(lengths), np.cumsum(some.read_positions())
    for whole_of, some_of in zip(
        np.split(every[:], ends[0][:-1]), np.split(some[:], ends[1][:-1]), strict=True
    ):
        left = iter(whole_of.tolist())
        assert all(row in left for row in some_of.tolist()), "chosen rows in their order"


# What changes


def test_other_entries_a_sample_than_before_are_an_error_and_nothing_is_stored(path):
    model = Frames().eval()
    with capture(model, path, ["conv", "head"]) as recorder:
        model(torch.randn(3, 4, 3, 5, 5))
        with pytest.raises(
            OutputError, match="conv, head: axis 0 has 18 entries of 3 samples: say"
        ):
            model(torch.randn(3, 6, 3, 5, 5))
        with pytest.raises(OutputError, match=r"conv: found 1 entries a sample .*, and 4 in"):
            model(torch.randn(3, 1, 3, 5, 5))
        with recorder.batch(sample_index="contiguous"):
            model(torch.randn(3, 6, 3, 5, 5))
        assert recorder.statistics.samples == 6
    counts = tsstore.open(path)["head"].read_positions()
    assert counts.tolist() == [4, 4, 4, 6, 6, 6]


def test_as_many_entries_as_samples_and_then_others(path):
    model = Doubled(lambda values: values).eval()
    with capture(model, path, "inner"):
        model(torch.randn(4, 3))
        model.join = lambda values: torch.cat([values, values])
        with pytest.raises(OutputError, match="inner: axis 0 has 8 entries of 4 samples"):
            model(torch.randn(4, 3))
    assert tsstore.open(path).samples == 4


def test_after_a_batch_of_one_sample_the_next_one_tells(path):
    model = Frames().eval()
    with watched(model.head) as (head,), capture(model, path, "head"):
        for samples in (1, 1, 3, 3):
            model(torch.randn(samples, 4, 3, 5, 5))
    owners = np.repeat(np.arange(8), 4)
    reason = check(path, "head", by_sample(torch.cat(head), owners, 8), 5)
    assert reason == "the only sample of its batch"


@torch.enable_grad()
def test_all_entries_of_the_only_sample_are_its_own(path):
    model = Frames()
    with watched(model.head) as (head,), capture(model, path, "head"):
        for frames in (4, 4, 7):
            model(torch.randn(1, frames, 3, 5, 5))
        with pytest.raises(OutputError, match="head: axis 0 has 8 entries of 2 samples"):
            model(torch.randn(2, 4, 3, 5, 5))
    owners = np.repeat([0, 1, 2], [4, 4, 7])
    reason = check(path, "head", by_sample(torch.cat(head[:3]), owners, 3), 5)
    assert reason == "the only sample of its batch"


class Conditioned(nn.Module):
    """Takes values beside something that is one for all samples."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 9)

    def forward(self, condition, values):
        values = torch.stack(values) if isinstance(values, list) else values["values"]
        return self.inner(values) + condition.sum()


@pytest.mark.parametrize(
    ("condition", "values", "samples"),
    [
        (torch.ones(1), {"values": torch.ones(6, 3)}, None),
        (torch.ones(1, 2, 3), [torch.ones(1, 3)] * 6, None),
        (torch.ones(1), {"values": torch.ones(1, 3)}, 1),
        (torch.tensor(0.5), {"values": torch.ones(6, 3)}, 6),
    ],
)
def test_a_first_argument_of_one_entry_does_not_say_how_many_samples_there_are(
    path, condition, values, samples
):
    model = Conditioned().eval()
    with capture(model, path, "inner") as recorder:
        if samples is None:
            message = r"inner has 6 entries, and the first .*; say it: recorder.batch\(32\)"
            with pytest.raises(ColumnsError, match=message):
                model(condition, values)
            with recorder.batch(6):
                model(condition, values)
        else:
            model(condition, values)
    store = tsstore.open(path)
    assert store["inner"].read_positions().sum() == store.samples == (samples or 6)


def test_a_model_that_takes_no_tensor_does_not_say_how_many_samples_there_are(path):
    model = Doubled(lambda graph: graph.nodes)
    graph = SimpleNamespace(nodes=torch.ones(6, 3))
    with capture(model, path, "inner") as recorder:
        with pytest.raises(ColumnsError, match=r"called without a tensor.* say it: recorder.batch"):
            model(graph)
        with recorder.batch(6):
            model(graph)
    assert tsstore.open(path).samples == 6


def test_a_resumed_run_refuses_another_belonging_and_names_both(path):
    model = Doubled(lambda values: torch.cat([values, values])).eval()
    with capture(model, path, "inner"):
        model(torch.randn(4, 3))
    again = capture(model, path, "inner", resume=True, sample_index="contiguous")
    message = "contiguous: by the user.* in this job, .*interleaved: found by experiment.* there"
    with again, pytest.raises(ResumeError, match=message):
        model(torch.randn(4, 3))
    with capture(model, path, "inner", resume=True, sample_index="interleaved"):
        model(torch.randn(4, 3))
    assert tsstore.open(path).samples == 8


def test_an_experiment_can_be_forbidden(path):
    model = Frames().eval()
    with capture(model, path, "head", probe=False), pytest.raises(OutputError, match="say which"):
        model(torch.randn(3, 4, 3, 5, 5))


@pytest.mark.parametrize("columns", [{}, {"id": range(6)}])
def test_windows_along_another_axis_than_the_first(path, columns):
    model = Doubled(lambda values: values.reshape(1, -1, 2, 3)).eval()
    with watched(model.inner) as (inner,), capture(model, path, "inner") as recorder:
        for _ in range(3):
            with recorder.batch(**columns):
                model(torch.randn(6, 8, 3))
    parts = [by_sample(tensor[0], contiguous(4, 6), 6) for tensor in inner]
    reason = check(path, "inner", [rows for part in parts for rows in part], 9)
    assert reason == f"contiguous: {BY_EXPERIMENT}"
