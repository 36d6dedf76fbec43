from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from watching import hook_count, packed, stored, watched

import tsstore
from tsstore.errors import CaptureError, OutputError, ResumeError, TsstoreWarning
from tsstore.recording.packing.positions import choose_positions, gather
from tsstore.recording.settings import Sampling
from tsstore.store.maintenance.compact import compact


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 9, 3), nn.ReLU(), nn.Flatten(), nn.Linear(324, 4)).eval()


def images(count, size=8):
    return torch.randn(count, 1, size, size)


def capture(model, path, layers=("0", "3"), **options):
    return tsstore.capture(model, path, layers=layers, durable=False, **options)


def chosen_rows(output, chosen):
    """Rows of a convolution at chosen positions, as NumPy packs all of them."""
    rows = packed(output)
    return np.take_along_axis(rows, chosen[:, :, np.newaxis], axis=1).reshape(-1, rows.shape[-1])


# Which positions


def drawn(counts, most=4, seed=0, rank=0, first=0):
    return choose_positions(seed, rank, first, np.array(counts, dtype=np.int64), most)


@given(
    counts=st.lists(st.integers(0, 40), max_size=8),
    most=st.integers(1, 12),
    seed=st.integers(0, 2**64 - 1),
    rank=st.integers(0, 5),
    first=st.integers(0, 2**40),
    cut=st.integers(0, 8),
)
def test_positions_are_different_ones_and_follow_from_the_samples_number(
    counts, most, seed, rank, first, cut
):
    chosen = drawn(counts, most, seed, rank, first)
    for line, count in zip(chosen, counts, strict=True):
        there = line[line < count]
        assert len(there) == min(most, count)
        assert (np.diff(there) > 0).all()
        assert (there >= 0).all()
        assert (line[len(there) :] >= count).all()
    cut = min(cut, len(counts))
    pieces = [
        drawn(counts[:cut], most, seed, rank, first),
        drawn(counts[cut:], most, seed, rank, first + cut),
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), chosen)


def test_the_choice_is_the_same_for_ever():
    assert drawn([10, 3, 10]).tolist() == [[2, 4, 8, 9], [0, 1, 2, 2**63 - 1], [0, 2, 4, 9]]


def test_every_set_of_positions_is_as_likely_as_another():
    sets, counts = np.unique(drawn([5] * 20_000, most=2), axis=0, return_counts=True)
    assert len(sets) == 10
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_seeds_and_ranks_choose_differently():
    choices = {
        drawn([1000] * 3, seed=seed, rank=rank).tobytes() for seed in range(5) for rank in range(5)
    }
    assert len(choices) == 25


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("neuron_axis", "sample_axis"), [(1, 0), (3, 0), (2, 1), (0, 3)])
def test_gathered_values_are_those_at_the_positions(groups, neuron_axis, sample_axis):
    tensor = torch.randn(4, 6, 2, 8)
    moved = tensor.movedim((sample_axis, neuron_axis), (0, -1))
    flat = moved.reshape(moved.shape[0] // groups, -1, moved.shape[-1])
    chosen = choose_positions(0, 0, 0, np.full(len(flat), flat.shape[1]), 3)
    numbers = chosen + np.arange(len(flat))[:, np.newaxis] * flat.shape[1]
    found = gather(tensor, neuron_axis, sample_axis, numbers)
    expected = torch.stack(
        [line[torch.from_numpy(c)] for line, c in zip(flat, chosen, strict=True)]
    )
    assert torch.equal(found, expected)


# Captured


@pytest.mark.parametrize("positions", [1, 2, 5, 20, 35, 36, 50])
def test_rows_are_those_at_the_chosen_positions(model, path, positions):
    with (
        watched(model[0], model[3]) as (conv, head),
        capture(model, path, positions=positions, seed=3) as recorder,
    ):
        for count in (4, 3):
            model(images(count))
        assert recorder.statistics.bytes == 7 * (min(positions, 36) * 2 + 1)
    store = tsstore.open(path)
    chosen = drawn([36] * 7, min(positions, 36), seed=3)
    expected = chosen_rows(torch.cat(conv), chosen)
    np.testing.assert_array_equal(stored(path, "0"), expected)
    np.testing.assert_array_equal(stored(path, "3"), packed(torch.cat(head))[:, 0])
    assert store["0"].attributes.sampling == {"positions": positions, "seed": 3}
    assert store["0"].attributes.position_shape == (6, 6)
    assert store["3"].attributes.sampling is None


def test_a_resumed_run_has_what_one_run_would_have(model, path):
    torch.manual_seed(1)
    batches = [images(3) for _ in range(4)]
    whole = path.with_name("whole")
    with capture(model, whole, positions=5):
        for batch in batches:
            model(batch)
    for some in (batches[:1], batches[1:]):
        with capture(model, path, positions=5, resume=True):
            for batch in some:
                model(batch)
    np.testing.assert_array_equal(stored(path, "0"), stored(whole, "0"))
    other = pytest.raises(ResumeError, match=r"sampling: .*6.* in this job, .*5.* there")
    with capture(model, path, positions=6, resume=True), other:
        model(batches[0])


class Sequence(nn.Module):
    """(time, sample, feature) within, windows of each sample in the first axis after."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 9)
        self.window = nn.Linear(9, 5)

    def forward(self, values):
        output, _ = self.lstm(values.transpose(0, 1))
        output = output.transpose(0, 1)
        return self.window(output.reshape(len(values) * 4, -1, 9))


@pytest.mark.parametrize("positions", [1, 5])
def test_samples_in_another_axis_and_samples_of_several_entries(path, positions):
    model = Sequence().eval()
    values = torch.randn(3, 12, 3)
    recorder = capture(model, path, ["lstm", "window"], positions=positions)
    with watched(model.window) as (window,), recorder, torch.no_grad():
        model(values)
    lstm, _ = model.lstm(values.transpose(0, 1))
    chosen = drawn([12] * 3, positions)
    rows = packed(lstm, 2, 1)
    expected = np.take_along_axis(rows, chosen[:, :, np.newaxis], axis=1)
    np.testing.assert_array_equal(stored(path, "lstm"), expected.reshape(-1, 2))
    rows = packed(window[0], 2).reshape(3, 12, 1)
    expected = np.take_along_axis(rows, chosen[:, :, np.newaxis], axis=1)
    np.testing.assert_array_equal(stored(path, "window"), expected.reshape(-1, 1))
    by = tsstore.open(path)["window"].attributes.decided["sample_index"]
    assert by == "contiguous: found by experiment"


def test_each_call_gives_so_many_positions(model, path):
    with (
        watched(model[0]) as (conv,),
        capture(model, path, "0", positions=5) as recorder,
        recorder.batch(id=[1, 2]),
    ):
        for size in (8, 9, 4):
            model[0](images(2, size))
    parts = [
        np.take_along_axis(packed(call), drawn([n] * 2, 5)[:, :, np.newaxis] % n, axis=1)
        for call, n in zip(conv[:2], (36, 49), strict=True)
    ]
    rows = np.concatenate([*parts, packed(conv[2])], axis=1)
    np.testing.assert_array_equal(stored(path, "0"), rows.reshape(-1, 2))
    assert tsstore.open(path)["0"].positions == 5 + 5 + 4


class TimeFirst(nn.Module):
    """Takes (time, sample, feature), which nobody can know of it."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 9)
        self.step = nn.Linear(9, 5)

    def forward(self, values):
        output, _ = self.lstm(values)
        return self.step(output.transpose(0, 1).reshape(-1, 9))


def test_positions_need_to_know_whose_they_are(path):
    model = TimeFirst()
    values = torch.randn(7, 4, 3)
    open_ = pytest.raises(OutputError, match=r"step: axis 0 has 28 .* of 4 samples.*sample_index=")
    with capture(model, path, ["lstm", "step"], positions=2), open_:
        model(values)
    index = torch.arange(4).repeat_interleave(7)
    options = {"positions": 2, "sample_index": {"step": index}, "overwrite": True}
    with watched(model.step) as (step,), capture(model, path, ["lstm", "step"], **options):
        for _ in range(2):
            model(values)
    assert {states.positions for states in tsstore.open(path).values()} == {2}
    rows = packed(step[-1]).reshape(4, 7, 1)
    chosen = drawn([7] * 8, 2)
    expected = [
        np.take_along_axis(rows, some[:, :, np.newaxis], axis=1)
        for some in (chosen[:4], chosen[4:])
    ]
    np.testing.assert_array_equal(stored(path, "step"), np.concatenate(expected).reshape(-1, 1))


def test_every_other_batch_runs_as_if_nothing_were_recorded(model, path):
    with watched(model[0]) as (conv,), capture(model, path, every=3) as recorder:
        for number in range(4):
            with recorder.batch(id=[2 * number, 2 * number + 1]) as batch:
                output = model(images(2))
                batch.record(prediction=output.argmax(1))
            if number == 0:
                with pytest.raises(ValueError, match="no"), recorder.batch():
                    raise ValueError("no")
        with recorder.batch(anything="goes", mask=3):
            pass
        model(images(2))
        assert (recorder.statistics.batches, recorder.statistics.calls_outside) == (2, 0)
    store = tsstore.open(path)
    assert store.column("id").tolist() == [0, 1, 6, 7]
    np.testing.assert_array_equal(stored(path, "0"), np.concatenate(
        [packed(conv[0]).reshape(-1, 2), packed(conv[3]).reshape(-1, 2)]
    ))  # fmt: skip
    assert store["0"].attributes.sampling == {"every": 3}
    assert store["3"].attributes.sampling == {"every": 3}


def test_forward_passes_are_counted_likewise(model, path):
    with watched(model[0]) as (conv,), capture(model, path, "0", every=2):
        for _ in range(4):
            model(images(2))
    expected = [packed(conv[0]).reshape(-1, 2), packed(conv[2]).reshape(-1, 2)]
    np.testing.assert_array_equal(stored(path, "0"), np.concatenate(expected))


def test_recording_ends_where_there_are_bytes_enough(model, path):
    with capture(model, path, "0", max_bytes=300) as recorder:
        for _ in range(2):
            with recorder.batch(id=[1, 2]):
                model(images(2))
            assert hook_count(model) > 0
        full = pytest.warns(TsstoreWarning, match="has 432 bytes of rows, and max_bytes is 300")
        assert recorder.statistics.bytes == 288
        with full as warned, recorder.batch(id=[1, 2]):
            model(images(2))
        assert len(warned) == 1
        assert hook_count(model) == 0
        with recorder.batch(id=[1, 2]) as batch:
            model(images(2))
            batch.record(more=3)
        recorder.commit()
    store = tsstore.open(path)
    assert (store.samples, store.finished) == (6, True)
    assert store.parts[0].seal.why == "closed: max_bytes=300 reached"
    assert store["0"].attributes.sampling == {"max_bytes": 300}


def run(model, path, batches, **options):
    with capture(model, path, "0", **options) as recorder:
        for _ in range(batches):
            model(images(2))
    assert recorder.closed


def test_more_bytes_may_be_added_later_and_no_more_than_were_allowed(model, path):
    for max_bytes, samples in ((144, 2), (144, 2), (400, 6)):
        with pytest.warns(TsstoreWarning, match=f"max_bytes is {max_bytes}"):
            run(model, path, 3, max_bytes=max_bytes, resume=True)
        assert tsstore.open(path).samples == samples
    run(model, path, 1, resume=True)
    assert tsstore.open(path).samples == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 0}, "positions is 0; expected a whole number of at least 1"),
        ({"positions": 1.5}, "positions is 1.5"),
        ({"positions": True}, "positions is True"),
        ({"every": 0}, "every is 0"),
        ({"every": None}, "every is None"),
        ({"max_bytes": -5}, "max_bytes is -5"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_settings_that_make_no_sense(model, path, options, message):
    with pytest.raises(CaptureError, match=message):
        capture(model, path, "0", **options)
    assert not path.exists()


def test_what_a_layer_says():
    assert Sampling().attributes(True) is None
    assert Sampling(positions=4).attributes(False) is None
    sampling = Sampling(np.int64(4), np.int64(2), np.int64(9), np.int64(1))
    sampling.check()
    assert sampling.attributes(True) == {"positions": 4, "seed": 1, "every": 2, "max_bytes": 9}


def test_results_show_what_was_left_out(model, path):
    with pytest.warns(TsstoreWarning, match="max_bytes"):
        run(model, path, 200, positions=5, every=2, max_bytes=1500)
    analysis = tsstore.analyze(path)
    left_out = "1 batch of 2, at most 1,500 bytes of rows."
    assert f"\n  0: positions 5 of 36, {left_out}" in analysis.table()
    assert f"0: positions 5 of 36, {left_out}" in analysis._repr_html_()
    assert "(positions 5 of 36, 1 batch of 2" in repr(analysis["0"])
    assert analysis.to_dict()["layers"]["0"]["sampling"] == {
        "positions": 5, "of_positions": 36, "seed": 0, "every": 2, "max_bytes": 1500,
    }  # fmt: skip


def test_nothing_left_out_is_not_mentioned(model, path):
    with capture(model, path, positions=36):
        for _ in range(20):
            model(images(4))
    assert "positions" not in tsstore.analyze(path).table()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("neuron_axis", [1, 3])
def test_positions_on_a_gpu_are_those_of_the_cpu(neuron_axis):
    tensor = torch.randn(4, 6, 5, 8)
    chosen = drawn([240 // tensor.shape[neuron_axis]] * 4, 3)
    on_gpu = gather(tensor.cuda(), neuron_axis, 0, 1, chosen)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), gather(tensor, neuron_axis, 0, 1, chosen))


# A share of the positions


@given(
    counts=st.lists(st.integers(0, 60), max_size=8),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    cut=st.integers(0, 8),
)
def test_a_share_is_rounded_up_or_down_and_follows_from_the_samples_number(
    counts, share, seed, first, cut
):
    chosen = drawn(counts, share, seed, first=first)
    for line, count in zip(chosen, counts, strict=True):
        there = line[line < count]
        assert np.floor(count * share) <= len(there) <= np.floor(count * share) + 1
        assert len(there) <= count
        assert (np.diff(there) > 0).all()
        assert (line[len(there) :] >= count).all()
    cut = min(cut, len(counts))
    for start, stop in ((0, cut), (cut, len(counts))):
        piece = drawn(counts[start:stop], share, seed, first=first + start)
        for line, other in zip(piece, chosen[start:stop], strict=True):
            assert line[line < 60].tolist() == other[other < 60].tolist()


@pytest.mark.parametrize("share", [0.01, 0.05, 1 / 3, 0.9])
def test_a_share_is_that_share_on_average(share):
    counts = np.random.default_rng(0).integers(0, 30, 20_000)
    chosen = drawn(counts, share)
    numbers = (chosen < counts[:, np.newaxis]).sum(axis=1)
    for count in (1, 7, 29):
        here = numbers[counts == count]
        error = count * share - here.mean()
        assert abs(error) < 4 * 0.5 / np.sqrt(len(here))
    places = chosen[counts == 10]
    often = np.bincount(places[places < 10], minlength=10)
    assert abs(often - often.mean()).max() < 5 * np.sqrt(often.mean())


class Tokens(nn.Module):
    """A state for each token, and one for each sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(1024, 10)
        self.head = nn.Linear(10, 3)
        bits = (np.arange(1024)[:, None] >> np.arange(10)) & 1
        with torch.no_grad():
            self.embedding.weight.copy_(torch.from_numpy(2.0 * bits - 1))

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(1))


def record_ragged(path, samples=800, **options):
    """Record long samples of many states, and three times as many short ones of few."""
    rng = np.random.default_rng(0)
    model, layers = Tokens(), ["embedding", "head"]
    with tsstore.capture(model, path, layers=layers, durable=False, **options) as recorder:
        for _ in range(samples // 40):
            long = rng.random(40) < 0.25
            many, few = rng.integers(0, 64, (40, 64)), rng.integers(0, 4, (40, 64))
            tokens = np.where(long[:, None], many, few)
            lengths = np.where(long, rng.integers(40, 65, 40), rng.integers(4, 9, 40))
            with recorder.batch(40, mask=np.arange(64) < lengths[:, None]):
                model(torch.from_numpy(tokens))
    return tsstore.open(path)


def test_a_share_keeps_what_is_estimated_and_a_number_does_not(tmp_path):
    whole = tsstore.analyze(record_ragged(tmp_path / "all"), "embedding")["embedding"]
    share = record_ragged(tmp_path / "share", positions=0.1)
    some = tsstore.analyze(share)["embedding"]
    fixed = tsstore.analyze(record_ragged(tmp_path / "fixed", positions=4))
    expected = whole.interval()
    assert some.rows == pytest.approx(whole.rows / 10, rel=0.05)
    assert expected.lower < some.entropy() < expected.upper
    assert fixed["embedding"].entropy() < expected.lower - 1
    assert (whole.target, some.target) == ("per row", "per row")
    assert fixed["embedding"].target == "per sample"
    said = "a per-sample target: samples of different length weigh the same"
    assert f"  embedding: positions 4 of 4 to 64, {said}." in repr(fixed).splitlines()
    document = fixed.to_dict()["layers"]["embedding"]
    assert document["sampling"] == {
        "positions": 4, "of_positions": 64, "seed": 0, "lengths": [4, 64], "target": "per sample",
    }  # fmt: skip
    assert document["target"] == "per sample"
    table = repr(tsstore.analyze(share, "embedding"))
    assert "  embedding: 10 % of the positions of each sample." in table.splitlines()
    # A layer without positions has all of its rows.
    assert share["head"].rows == share.samples
    assert share["head"].attributes.sampling is None


def test_samples_without_a_row_by_rounding_are_samples(tmp_path):
    store = record_ragged(tmp_path / "run", positions=0.01)
    positions = store["embedding"].read_positions()
    assert set(positions.tolist()) == {0, 1}
    assert positions.sum() == store["embedding"].rows < store.samples / 3
    result = tsstore.analyze(store)["embedding"]
    assert (result.samples, result.rows) == (store.samples, positions.sum())
    assert result.entropy_lower_bound < result.entropy("plug-in")
    assert result.coverage is not None
    assert result.rarefied(100).distinct < result.distinct
    verified = tsstore.analyze(store, dependent_by=None, intervals=False)["embedding"]
    assert verified.entropy() == pytest.approx(result.entropy())


def test_a_batch_may_have_no_row_at_all(tmp_path, model):
    with capture(model, tmp_path / "run", "0", positions=0.001) as recorder:
        for _ in range(40):
            model(images(3))
    states = tsstore.open(tmp_path / "run")["0"]
    assert recorder.statistics.samples == states.samples == 120
    assert 0 < states.rows < 20
    assert states.lengths == (36, 36)
    assert tsstore.analyze(tmp_path / "run")["0"].target == "per row"


def test_shares_by_gathering_and_by_packing_are_the_same(path, model):
    with watched(model[0]) as (conv,), capture(model, path, "0", positions=0.5, seed=2):
        for count in (4, 3):
            model(images(count))
    chosen = drawn([36] * 7, 0.5, seed=2)
    np.testing.assert_array_equal(stored(path, "0"), chosen_rows(torch.cat(conv), chosen))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_shares_that_make_no_sense(model, path, share):
    message = f"positions is {share}; expected a whole number of at least 1, or a share between"
    with pytest.raises(CaptureError, match=message):
        capture(model, path, "0", positions=share)


def test_lengths_outlive_compaction_and_are_those_of_all_parts(tmp_path):
    options = {"positions": 4, "resume": True}
    record_ragged(tmp_path / "run", samples=80, **options)
    model, layers = Tokens(), ["embedding", "head"]
    with tsstore.capture(model, tmp_path / "run", layers=layers, durable=False, **options):
        model(torch.zeros((2, 99), dtype=torch.int64))
    store = tsstore.open(tmp_path / "run")
    assert store["embedding"].lengths == (4, 99)
    assert compact(store, tmp_path / "out")["embedding"].lengths == (4, 99)


def test_where_all_positions_are_kept_no_sample_weighs_more_than_another(tmp_path):
    store = record_ragged(tmp_path / "run", samples=80, positions=64)
    assert store["embedding"].lengths is None
    with_all = tsstore.analyze(store)["embedding"]
    assert with_all.rows > 80 * 4
