from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import FormatError
from tsstore.store.format.documents import dump
from tsstore.store.format.record import ArrayCommit, CommitRecord, LayerCommit, Seal

RECORD = CommitRecord(
    generation=2,
    batches=3,
    samples=12,
    time="2024-05-06T07:08:09.123+00:00",
    layers={
        "0000-conv_1": LayerCommit(ArrayCommit(48, 7, 8, 9)),
        "0001-fc": LayerCommit(ArrayCommit(30, 1, 2, 3), ArrayCommit(12, 4, 5, 6)),
    },
    columns={"label": ArrayCommit(12, 0, 12, 99)},
)

numbers = st.integers(0, (1 << 32) - 1)
directories = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)


@st.composite
def records(draw) -> CommitRecord:
    samples = draw(st.integers(0, 1 << 40))
    of_samples = st.builds(ArrayCommit, st.just(samples), numbers, numbers, numbers)
    equal = st.integers(0, 1000).map(lambda positions: positions * samples)
    layers = st.one_of(
        st.builds(LayerCommit, st.builds(ArrayCommit, equal, numbers, numbers, numbers)),
        st.builds(LayerCommit, st.builds(ArrayCommit, numbers, numbers), of_samples),
    )
    return CommitRecord(
        draw(numbers), draw(numbers), samples, draw(st.text()),
        draw(st.dictionaries(directories, layers, max_size=4)),
        draw(st.dictionaries(directories, of_samples, max_size=4)),
    )  # fmt: skip


@given(record=records())
def test_a_record_comes_back(record):
    assert (
        CommitRecord.from_json(json.loads(dump(record.to_json())), "attributes", "commit") == record
    )


def changed(array: ArrayCommit) -> list[ArrayCommit]:
    return [replace(array, **{name: value + 1}) for name, value in vars(array).items()]


def test_records_have_equal_digests_only_if_they_are_equal():
    conv, fc, label = *RECORD.layers.values(), RECORD.columns["label"]
    own = {"generation": 3, "batches": 4, "samples": 13, "time": "2024"}
    convs = [replace(conv, states=one) for one in changed(conv.states)]
    convs += [replace(conv, positions=conv.states), replace(conv, lengths=(1, 4))]
    fcs = [replace(fc, positions=one) for one in changed(fc.positions)]
    others = [
        *(replace(RECORD, **{name: value}) for name, value in own.items()),
        *(replace(RECORD, layers={**RECORD.layers, "0000-conv_1": one}) for one in convs),
        *(replace(RECORD, layers={**RECORD.layers, "0001-fc": one}) for one in fcs),
        replace(RECORD, layers={"0000-conv_1": conv, "0001-fd": fc}),
        *(replace(RECORD, columns={"label": one}) for one in changed(label)),
        replace(RECORD, columns={"": label}),
    ]
    assert len({record.digest for record in [RECORD, *others]}) == 1 + len(others)
    turned = replace(RECORD, layers=dict(reversed(RECORD.layers.items())))
    assert turned.digest == RECORD.digest


@given(record=records(), why=st.text(), by=st.text())
def test_a_seal_comes_back_with_its_record(record, why, by):
    seal = Seal(record, why, by, "now")
    assert Seal.from_json(json.loads(dump(seal.to_json())), "attributes", "sealed") == seal


@pytest.mark.parametrize("waited", [None, 0.0, 1.5, 3])
def test_a_commit_says_how_long_the_job_waited_or_is_as_ever(waited):
    said = replace(RECORD, waited=waited).to_json()
    assert said == (RECORD.to_json() if waited is None else RECORD.to_json() | {"waited": waited})
    assert CommitRecord.from_json(said, "attributes", "commit").waited == waited


@pytest.mark.parametrize("waited", [None, 0.0, 1.5, 3])
def test_a_seal_says_how_long_the_job_waited(waited):
    seal = Seal(RECORD, "closed", "host", "now", waited)
    assert Seal.from_json(json.loads(dump(seal.to_json())), "attributes", "sealed") == seal
    older = seal.to_json()
    del older["waited"]
    assert Seal.from_json(older, "attributes", "sealed") == replace(seal, waited=None)
    with pytest.raises(FormatError, match="sealed: waited is 'long'; expected a finite number"):
        Seal.from_json(older | {"waited": "long"}, "attributes", "sealed")


def test_layers_stay_in_the_order_of_capture():
    layers = {name: LayerCommit(ArrayCommit(0)) for name in ("0001-b", "0000-a", "0010-c")}
    read = CommitRecord.from_json(
        json.loads(dump(CommitRecord(layers=layers).to_json())), "attributes", "commit"
    )
    assert list(read.layers) == ["0001-b", "0000-a", "0010-c"]


@pytest.mark.parametrize(("key", "value"), [
    ("generation", None), ("generation", -1), ("batches", 1.0), ("samples", "12"),
    ("samples", 10**30), ("time", 5), ("layers", []), ("columns", None),
    ("layers", {"0000-conv_1": 1}), ("layers", {"0000-conv_1": {"states": None}}),
    ("layers", {"0000-conv_1": {"states": {"rows": 1}}}),
    ("layers", {"../up": {}}), ("layers", {"": {}}), ("layers", {"/etc": {}}),
    ("columns", {"a/b": {}}), ("columns", {"label": {"rows": -1}}), ("columns", {"label": 3}),
])  # fmt: skip
def test_a_hostile_record_is_refused(key, value):
    with pytest.raises(FormatError, match=r"^run.zarr/part/commit: "):
        CommitRecord.from_json(
            RECORD.to_json() | {key: value}, "attributes", "run.zarr/part/commit"
        )


@pytest.mark.parametrize("field", ["rows", "digest", "tail_rows", "tail_checksum"])
@pytest.mark.parametrize("value", [-1, None, 0.5, True, 1 << 60])
def test_every_number_of_a_record_is_checked(field, value):
    fields = {"rows": 1, "digest": 2, "tail_rows": 3, "tail_checksum": 4}
    assert ArrayCommit.from_json(fields, "attributes", "commit") == ArrayCommit(1, 2, 3, 4)
    with pytest.raises(FormatError, match=f"commit: {field} is "):
        ArrayCommit.from_json(fields | {field: value}, "attributes", "commit")


@pytest.mark.parametrize("changed", [
    {"samples": 11}, {"samples": 0}, {"samples": 13},
    {"layers": {"0000-conv_1": LayerCommit(ArrayCommit(49))}},
    {"layers": {"0001-fc": LayerCommit(ArrayCommit(30), ArrayCommit(11))}},
    {"columns": {"label": ArrayCommit(13)}},
])  # fmt: skip
def test_layers_and_columns_hold_the_same_samples(changed):
    record = replace(RECORD, **changed)
    with pytest.raises(FormatError, match=r"samples"):
        CommitRecord.from_json(record.to_json(), "attributes", "commit")


@pytest.mark.parametrize("key", ["record", "why", "by", "time"])
def test_an_incomplete_seal_is_refused(key):
    value = Seal(RECORD, "closed", "host", "now").to_json()
    del value[key]
    with pytest.raises(FormatError, match=f"sealed: {key} is None"):
        Seal.from_json(value, "attributes", "sealed")


@pytest.mark.parametrize("lengths", [None, (0, 0), (3, 900)])
def test_the_fewest_and_the_most_positions_come_back(lengths):
    layers = {"0000-a": LayerCommit(ArrayCommit(0), lengths=lengths)}
    document = json.loads(dump(CommitRecord(layers=layers).to_json()))
    assert CommitRecord.from_json(document, "attributes", "commit").layers == layers
    # Earlier versions did not note them.
    del document["layers"]["0000-a"]["lengths"]
    earlier = CommitRecord.from_json(document, "attributes", "commit").layers["0000-a"]
    assert earlier.lengths is None


@pytest.mark.parametrize("lengths", [5, [5], [1, 2, 3], [2, 1], [-1, 2], ["1", "2"]])
def test_lengths_that_are_none(lengths):
    document = json.loads(dump(CommitRecord(layers={"a": LayerCommit(ArrayCommit(0))}).to_json()))
    document["layers"]["a"]["lengths"] = lengths
    with pytest.raises(FormatError, match="commit: lengths is"):
        CommitRecord.from_json(document, "attributes", "commit")
