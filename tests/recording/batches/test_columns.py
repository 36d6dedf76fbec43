from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from watching import packed, stored, watched

import tsstore
from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.batches.columns import ColumnSchema, Masks, dtype_name, to_column
from tsstore.recording.packing.positions import choose_positions

LENGTHS = (4, 7, 0, 1)
MASK = np.arange(7) < np.array(LENGTHS)[:, np.newaxis]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "int64", [1, 2]),
        (range(2), "int64", [0, 1]),
        ((True, False), "bool", [True, False]),
        ([0.5, 1], "float64", [0.5, 1.0]),
        (np.array([1, 2], np.uint8), "uint8", [1, 2]),
        (np.array([1, 2], ">i4"), "int32", [1, 2]),
        (torch.tensor([1, 2]), "int64", [1, 2]),
        (torch.tensor([0.5, 2], dtype=torch.float16), "float16", [0.5, 2]),
        (torch.tensor([0.5, 2], dtype=torch.bfloat16), "float32", [0.5, 2]),
        (torch.tensor([0.5, 2], requires_grad=True), "float32", [0.5, 2]),
        (["a", "ü"], "string", ["a", "ü"]),
        (np.array(["a", "bc"]), "string", ["a", "bc"]),
        (np.array(["a", "bc"], dtype=object), "string", ["a", "bc"]),
        ([], "float64", []),
    ],
)
def test_what_can_be_a_column(values, dtype, expected):
    column = to_column("c", values)
    assert dtype_name(column) == dtype
    assert column.tolist() == expected
    assert all(type(value) is str for value in column) or dtype != "string"


@pytest.mark.parametrize(
    "values", [np.arange(3), torch.arange(3), np.array(["a", "b", "c"], dtype=object)]
)
def test_a_column_is_a_copy(values):
    column = to_column("c", values)
    kept = column.tolist()
    values[:] = values[0]
    assert column.tolist() == kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, r"column 'c' has shape \(\); expected one entry a sample"),
        ([[1], [2]], r"shape \(2, 1\)"),
        (torch.zeros(2, 2), r"shape \(2, 2\)"),
        ([1, "a", None], "dtype object; expected bool, integers, floats or text"),
        ([1j], "complex128"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.zeros(2, np.longdouble), "longdouble|float128"),
        ([[1], [2, 3]], "cannot be made an array"),
        (torch.zeros(2).to_sparse(), "cannot be made an array"),
        (torch.zeros(2, device="meta"), "cannot be made an array"),
        ([b"a"], r"dtype \|S1"),
        (["a", "\ud800"], r"an entry '\\ud800'; expected text of at most .* in UTF-8"),
        (["a" * (1 << 20)], "expected text of at most"),
    ],
)
def test_what_cannot(values, message):
    with pytest.raises(ColumnsError, match=message):
        to_column("c", values)


def columns(**values):
    return {name: to_column(name, value) for name, value in values.items()}


def test_the_first_batch_fixes_names_and_dtypes():
    schema = ColumnSchema()
    assert schema.dtypes is None
    schema.conform(columns(label=[1], name=["a"]))
    assert schema.dtypes == {"label": "int64", "name": "string"}
    later = schema.conform(columns(name=["b"], label=np.array([2], np.int16)))
    assert list(later) == ["label", "name"]
    assert later["label"].dtype == np.int64


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({}, "this batch recorded no columns, the first one label, name"),
        ({"label": [1]}, "recorded label, the first one label, name"),
        ({"label": [1], "name": ["a"], "loss": [0.5]}, "recorded label, name, loss, the first"),
        ({"label": [0.5], "name": ["a"]}, "'label' is float64 in this batch, but int64 in the"),
        ({"label": ["1"], "name": ["a"]}, "'label' is string"),
        ({"label": [1], "name": [1]}, "'name' is int64 in this batch, but string"),
        ({"label": np.array([1], np.uint64), "name": ["a"]}, "uint64"),
    ],
)
def test_a_later_batch_that_differs_is_refused(later, message):
    schema = ColumnSchema()
    schema.conform(columns(label=[1], name=["a"]))
    with pytest.raises(ColumnsError, match=message):
        schema.conform(columns(**later))


def test_no_columns_stay_none():
    schema = ColumnSchema()
    assert schema.conform({}) == {}
    with pytest.raises(ColumnsError, match="the first one no columns"):
        schema.conform(columns(label=[1]))


def test_an_empty_list_fits_any_dtype():
    schema = ColumnSchema()
    schema.conform(columns(label=[1], name=["a"]))
    empty = schema.conform(columns(label=[], name=[]))
    assert empty["label"].dtype == np.int64
    assert empty["name"].dtype == object


class Tokens(nn.Module):
    """A hidden vector for each token, and a pooled one of those that are there."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(3, 9)
        self.pooled = nn.Linear(9, 5)

    def forward(self, values, mask):
        hidden = self.hidden(values).relu()
        return self.pooled((hidden * mask[:, :, None]).sum(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tokens().eval()


def capture(model, path, layers=("hidden", "pooled"), **options):
    return tsstore.capture(model, path, layers=layers, durable=False, **options)


def values(samples=4):
    return torch.randn(samples, 7, 3)


def given_before(recorder, model, inputs, mask):
    with recorder.batch(id=range(len(inputs)), mask=mask):
        model(inputs, torch.as_tensor(mask).bool())


def given_after(recorder, model, inputs, mask):
    with recorder.batch(id=range(len(inputs))) as batch:
        model(inputs, torch.as_tensor(mask).bool())
        batch.record(mask=mask, late=range(len(inputs)))


@pytest.mark.parametrize("run", [given_before, given_after])
@pytest.mark.parametrize(
    "mask", [MASK, torch.from_numpy(MASK), torch.from_numpy(MASK).long(), MASK.astype(float)]
)
def test_padding_is_not_stored(model, path, run, mask):
    recorder = capture(model, path)
    with watched(model.hidden, model.pooled) as (hidden, pooled), recorder:
        run(recorder, model, values(), mask)
        run(recorder, model, values(2), mask[2:])
    store = tsstore.open(path)
    expected = [packed(hidden[0], 2)[MASK], packed(hidden[1], 2)[MASK[2:]]]
    np.testing.assert_array_equal(stored(path, "hidden"), np.concatenate(expected))
    assert store["hidden"].read_positions().tolist() == [*LENGTHS, *LENGTHS[2:]]
    assert store["hidden"].attributes.position_shape == (7,)
    # What is pooled has no padding.
    np.testing.assert_array_equal(stored(path, "pooled"), packed(torch.cat(pooled))[:, 0])
    assert store["pooled"].positions == 1


def test_an_analysis_counts_no_padding(model, path):
    with capture(model, path) as recorder:
        for _ in range(10):
            given_after(recorder, model, values(), MASK)
    # Ids begin anew with each batch: they identify no sample.
    result = tsstore.analyze(path, repeats="each")["hidden"]
    assert (result.samples, result.rows) == (40, 10 * sum(LENGTHS))


@pytest.mark.parametrize("positions", [1, 2, 3, 6])
def test_positions_are_chosen_among_those_that_are_there(model, path, positions):
    recorder = capture(model, path, positions=positions)
    with watched(model.hidden) as (hidden,), recorder:
        given_before(recorder, model, values(), MASK)
    chosen = choose_positions(0, 0, 0, np.array(LENGTHS), positions)
    rows = packed(hidden[0], 2)
    # Padding is at the end here, so that indices are the same with and without it.
    expected = [
        rows[sample, chosen[sample, : min(positions, length)]]
        for sample, length in enumerate(LENGTHS)
    ]
    np.testing.assert_array_equal(stored(path, "hidden"), np.concatenate(expected))


def test_padding_may_be_anywhere(model, path):
    mask = np.random.default_rng(0).random((4, 7)) < 0.6
    for positions in (None, 2):
        recorder = capture(model, path, "hidden", positions=positions, overwrite=True)
        with watched(model.hidden) as (hidden,), recorder:
            given_before(recorder, model, values(), mask)
        rows = packed(hidden[0], 2)
        counts = mask.sum(1)
        chosen = choose_positions(0, 0, 0, counts, positions or 7)
        expected = [
            rows[sample][mask[sample]][chosen[sample][chosen[sample] < counts[sample]]]
            for sample in range(4)
        ]
        np.testing.assert_array_equal(stored(path, "hidden"), np.concatenate(expected))


def test_a_mask_that_comes_when_positions_were_chosen_is_refused(model, path):
    late = pytest.raises(ColumnsError, match=r"give it before .*recorder.batch\(mask=…\)")
    with capture(model, path, positions=2) as recorder:
        with late:
            given_after(recorder, model, values(), MASK)
        assert recorder.statistics.batches == 0


def test_further_calls_have_positions_of_their_own(model, path):
    recorder = capture(model, path, "hidden")
    with watched(model.hidden) as (hidden,), recorder, recorder.batch(4, mask=MASK):
        model.hidden(values())
        model.hidden(torch.randn(4, 1, 3))
    kept = np.concatenate([MASK, np.ones((4, 1), bool)], axis=1)
    rows = np.concatenate([packed(call, 2) for call in hidden], axis=1)
    np.testing.assert_array_equal(stored(path, "hidden"), rows[kept])


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 9)
        self.decoder = nn.Linear(3, 9)

    def forward(self, source, target):
        return self.encoder(source), self.decoder(target)


def test_masks_by_layer(path):
    model = Translator()
    source, target = values(), torch.randn(4, 5, 3)
    short = MASK[:, :5]
    recorder = capture(model, path, ["encoder", "decoder"])
    with watched(model.encoder, model.decoder) as (encoder, decoder), recorder:
        for mask in ({"enc*": MASK}, {"encoder": MASK, "decoder": short}):
            with recorder.batch(mask=mask):
                model(source, target)
    expected = [packed(encoder[-1], 2)[MASK]] * 2
    np.testing.assert_array_equal(stored(path, "encoder"), np.concatenate(expected))
    rows = packed(decoder[-1], 2)
    expected = [rows.reshape(-1, 2), rows[short]]
    np.testing.assert_array_equal(stored(path, "decoder"), np.concatenate(expected))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK, r"decoder: found 5 positions .*\(4, 7\).*by layer: mask="),
        ({"encoder": MASK, "coder*": MASK}, r"a mask for 'coder\*', which fits none"),
    ],
)
def test_masks_that_fit_no_layer(path, mask, message):
    model = Translator()
    recorder = capture(model, path, ["encoder", "decoder"])
    with recorder, pytest.raises(OutputError, match=message), recorder.batch(mask=mask):
        model(values(), torch.randn(4, 5, 3))
    assert tsstore.open(path).samples == 0


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(4), r"the mask is float64 \(4,\); expected \(samples, positions\) of 1 where"),
        (np.ones((4, 7, 1)), r"\(4, 7, 1\)"),
        (np.full((4, 7), 2), "the mask is int64"),
        (np.full((4, 7), np.nan), "the mask is float64"),
        ([["a"] * 7] * 4, "the mask is <U1"),
        ({"encoder": 1}, r"the mask of 'encoder' is int64 \(\)"),
    ],
)
def test_masks_that_are_none(mask, message):
    with pytest.raises(ColumnsError, match=message):
        Masks().record(mask)


def test_one_mask_a_batch_and_one_line_a_sample():
    masks = Masks()
    each = np.arange(4)
    assert masks.of("hidden", 1, 4, each, 7) is None
    masks.record(MASK)
    np.testing.assert_array_equal(masks.of("hidden", 1, 4, each, 7), MASK)
    assert masks.of("pooled", 1, 4, each, 1) is None
    with pytest.raises(ColumnsError, match="recorded twice"):
        masks.record(MASK)
    with pytest.raises(ColumnsError, match=r"shape \(4, 7\), but the batch has 3 samples"):
        masks.of("hidden", 1, 3, np.arange(3), 7)
    with pytest.raises(OutputError, match="hidden: found 8 positions a sample"):
        masks.of("hidden", 1, 4, each, 8)


# Several forward passes, and other entries than samples


class Steps(nn.Module):
    """A hidden vector for each token, of as many tokens as it is given."""

    def __init__(self, beams=1):
        super().__init__()
        self.beams = beams
        self.hidden = nn.Linear(3, 9)

    def forward(self, values):
        return self.hidden(values.repeat_interleave(self.beams, 0))


@pytest.mark.parametrize("positions", [None, 2])
def test_a_mask_for_each_forward_pass(path, positions):
    model = Steps()
    masks = [MASK, MASK[:, :1], None, MASK[:, :3]]
    shapes = [7, 1, 4, 3]
    recorder = capture(model, path, "hidden", positions=positions)
    with watched(model.hidden) as (hidden,), recorder:
        for _ in range(2):
            with recorder.batch(mask=masks):
                for tokens in shapes:
                    model(torch.randn(4, tokens, 3))
    kept = np.concatenate([np.ones((4, 4), bool) if m is None else m for m in masks], axis=1)
    if positions is None:
        rows = [np.concatenate([packed(h, 2) for h in hidden[n : n + 4]], axis=1) for n in (0, 4)]
        expected = np.concatenate([some[kept] for some in rows])
        np.testing.assert_array_equal(stored(path, "hidden"), expected)
    counts = [
        np.minimum(np.full(4, 4) if mask is None else mask.sum(1), positions or 9) for mask in masks
    ]
    assert tsstore.open(path)["hidden"].read_positions().tolist() == [*sum(counts)] * 2


@pytest.mark.parametrize("masks", [[MASK], [MASK, MASK, MASK]])
@pytest.mark.parametrize("late", [False, True])
def test_as_many_masks_as_forward_passes(path, masks, late):
    model = Steps()
    wrong = pytest.raises(ColumnsError, match=rf"found {len(masks)} masks for 2 forward passes")
    with capture(model, path, "hidden") as recorder:
        with wrong, recorder.batch(mask=None if late else masks) as batch:
            for _ in range(2):
                model(values())
            if late:
                batch.record(mask=masks)
        with recorder.batch(mask=[MASK]):
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                model(torch.randn(4, 7, 2))
            # A pass that failed does not count.
            model(values())
    assert tsstore.open(path)["hidden"].read_positions().tolist() == list(LENGTHS)


@pytest.mark.parametrize("how", ["contiguous", "interleaved"])
@pytest.mark.parametrize("per", ["sample", "entry", "all entries"])
def test_masks_of_samples_with_several_entries(path, how, per):
    model = Steps(beams=2)
    owners = np.repeat(np.arange(4), 2) if how == "contiguous" else np.tile(np.arange(4), 2)
    of_entries = MASK[owners]
    mask = MASK
    if per != "sample":
        of_entries = np.random.default_rng(1).random((8, 7)) < 0.5
        mask = of_entries
    if per == "all entries":
        mask = np.concatenate([of_entries[owners == sample].reshape(1, 14) for sample in range(4)])
    recorder = capture(model, path, "hidden")
    said = {"mask": mask, "sample_index": how}
    with watched(model.hidden) as (hidden,), recorder, recorder.batch(id=range(4), **said):
        model(values())
    rows = packed(hidden[0], 2)
    expected = [rows[owners == s][of_entries[owners == s]] for s in range(4)]
    np.testing.assert_array_equal(stored(path, "hidden"), np.concatenate(expected))
