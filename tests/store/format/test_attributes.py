from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import FormatError
from tsstore.store.format.arrays import COLUMN_CHUNK_ROWS, MAX_CHUNK_BYTES, MAX_TEXT_BYTES
from tsstore.store.format.attributes import (
    LayerAttributes,
    PartAttributes,
    RunAttributes,
    check_format,
)
from tsstore.store.format.documents import dump

any_text = st.text(st.characters())
numbers = st.integers(0, 1 << 40)
reals = st.floats(allow_nan=False, allow_infinity=False)
mappings = st.dictionaries(any_text, st.none() | st.integers(-9, 9) | any_text, max_size=3)


def stored(attributes: RunAttributes | PartAttributes | LayerAttributes) -> dict:
    return json.loads(dump(attributes.to_json()))


def test_a_chunk_of_the_longest_texts_stays_within_its_limit():
    chunk = 4 + COLUMN_CHUNK_ROWS * (4 + MAX_TEXT_BYTES)
    assert chunk <= MAX_CHUNK_BYTES


@given(
    run=st.builds(
        RunAttributes,
        any_text,
        any_text,
        st.dictionaries(any_text, any_text),
        st.none() | any_text,
    )
)
def test_attributes_of_a_run_come_back(run):
    assert RunAttributes.from_json(stored(run), "attributes", "run.zarr") == run


@given(
    part=st.builds(
        PartAttributes,
        rank=numbers,
        world_size=st.integers(1, 1 << 20),
        attempt=numbers,
        step=st.none() | any_text | st.integers(-(1 << 63), 1 << 63),
        started=any_text,
        model=mappings,
        user=mappings,
        process=st.just({})
        | st.fixed_dictionaries(
            {
                "host": any_text,
                "pid": numbers,
                "started": st.none() | any_text,
                "system": st.none() | any_text,
            }
        ),
        compacted_from=st.lists(st.tuples(any_text, numbers), max_size=3).map(tuple),
    )
)
def test_attributes_of_a_part_come_back(part):
    assert PartAttributes.from_json(stored(part), "attributes", "part") == part


@given(
    layer=st.builds(
        LayerAttributes,
        name=any_text,
        neurons=st.integers(1, 1 << 20),
        call=st.none() | st.integers(1, 99),
        neuron_axis=numbers,
        threshold=st.fixed_dictionaries({"given": reals, "used": reals}),
        position_shape=st.lists(numbers, max_size=3).map(tuple),
        sampling=st.none() | mappings,
        output=st.none() | any_text,
        decided=st.none() | st.dictionaries(any_text, any_text, max_size=3),
        parameters=st.none() | numbers,
    )
)
def test_attributes_of_a_layer_come_back(layer):
    assert LayerAttributes.from_json(stored(layer), "attributes", "layer") == layer
    assert layer.row_bytes * 8 - 7 <= layer.neurons <= layer.row_bytes * 8


@pytest.mark.parametrize("version", [2, 10**6])
def test_a_newer_format_says_to_upgrade(version):
    with pytest.raises(FormatError, match=f"run.zarr: the store has format {version}, .* upgrade"):
        check_format({"format": version}, "run.zarr")


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True, [1]])
def test_a_format_that_is_none_is_refused(version):
    with pytest.raises(FormatError, match=r"run.zarr: format is .*; expected an integer"):
        check_format({"format": version}, "run.zarr")


@pytest.mark.parametrize(("key", "value"), [
    ("run_id", 1), ("created", None), ("software", []), ("software", "tsstore"),
    ("compacted_from", 1), ("compacted_from", ["id"]),
])  # fmt: skip
def test_a_run_with_other_attributes_is_refused(key, value):
    attributes = stored(RunAttributes("id", "now", {})) | {key: value}
    with pytest.raises(FormatError, match=f"run.zarr: {key} is "):
        RunAttributes.from_json(attributes, "attributes", "run.zarr")


@pytest.mark.parametrize(("key", "value"), [
    ("rank", -1), ("rank", 1 << 60), ("world_size", 0), ("attempt", 1.5), ("attempt", False),
    ("step", 1.0), ("step", True), ("step", 1 << 64), ("step", []), ("started", 5),
    ("model", "LeNet"), ("user", None), ("process", []), ("process", {"pid": 1}),
    ("process", {"host": "a", "pid": -1}), ("process", {"host": "a", "pid": 1, "started": 5}),
    ("process", {"host": "a", "pid": 1, "started": "5", "system": 6}),
    ("compacted_from", None), ("compacted_from", {"a": 1}), ("compacted_from", ["ab"]),
    ("compacted_from", [["a", -1]]), ("compacted_from", [["a", 1, 2]]),
    ("compacted_from", [[1, 1]]), ("compacted_from", [["a", 1 << 60]]),
    ("missing", None), ("missing", "zero"), ("missing", True), ("missing", ["empty"]),
])  # fmt: skip
def test_a_part_with_other_attributes_is_refused(key, value):
    with pytest.raises(FormatError, match=rf"part: {key}(\.\w+)? is "):
        PartAttributes.from_json(stored(PartAttributes()) | {key: value}, "attributes", "part")


@pytest.mark.parametrize(("key", "value"), [
    ("name", None), ("neurons", 0), ("neurons", 10**30), ("module_class", 1), ("where", {}),
    ("call", 0), ("neuron_axis", -1), ("sample_axis", "0"), ("dtype", 32), ("threshold", 0.0),
    ("threshold", {"given": 0.0}), ("threshold", {"given": True, "used": 0.0}),
    ("threshold", {"given": 0.0, "used": 10**400}), ("position_shape", 28),
    ("position_shape", [28, -1]), ("position_shape", ["28"]), ("sampling", [1]),
    ("output", 1), ("output", ["1.0"]), ("decided", "its width"), ("decided", {"neuron_axis": 1}),
    ("parameters", -1), ("parameters", "5"), ("parameters", 2.5),
])  # fmt: skip
def test_a_layer_with_other_attributes_is_refused(key, value):
    with pytest.raises(FormatError, match=f"layer: {key}"):
        LayerAttributes.from_json(
            stored(LayerAttributes("a", 5)) | {key: value}, "attributes", "layer"
        )


def test_a_layer_of_an_early_version_says_nothing_of_its_decisions_and_parameters():
    attributes = stored(LayerAttributes("a", 5, parameters=20))
    del attributes["decided"], attributes["parameters"]
    layer = LayerAttributes.from_json(attributes, "attributes", "layer")
    assert (layer.decided, layer.parameters) == (None, None)


def test_a_part_of_an_early_version_says_nothing_of_its_process():
    attributes = stored(PartAttributes(rank=3))
    del attributes["process"]
    assert PartAttributes.from_json(attributes, "attributes", "part") == PartAttributes(rank=3)


def test_a_part_says_what_a_layer_is_that_it_does_not_have():
    attributes = stored(PartAttributes(missing="empty"))
    assert PartAttributes.from_json(attributes, "attributes", "part").missing == "empty"
    del attributes["missing"]
    assert PartAttributes.from_json(attributes, "attributes", "part").missing == "error"


def test_attributes_that_a_later_version_adds_are_passed_over():
    part = replace(PartAttributes(), rank=3)
    assert PartAttributes.from_json(stored(part) | {"host": "gpu-7"}, "attributes", "part") == part


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"positions": 0}, "sampling.positions is 0; expected an integer from 1"),
        ({"positions": 1.0}, "sampling.positions is 1.0; expected a whole number of at least 1"),
        ({"positions": 0.0}, "or a share between 0 and 1"),
        ({"positions": "5"}, "sampling.positions is '5'"),
        ({"positions": True}, "sampling.positions is True"),
        ({"positions": 5, "seed": -1}, "sampling.seed is -1"),
        ({"every": 0.5}, "sampling.every is 0.5"),
        ({"max_bytes": None}, "sampling.max_bytes is None"),
    ],
)
def test_what_was_left_out_is_checked(sampling, message):
    value = stored(LayerAttributes("conv_1", 6)) | {"sampling": sampling}
    with pytest.raises(FormatError, match=message):
        LayerAttributes.from_json(value, "attributes", "layer")


@pytest.mark.parametrize(
    "sampling",
    [
        {"positions": 5, "seed": (1 << 64) - 1, "every": 2, "max_bytes": 1},
        {"positions": 0.05, "seed": 0},
        {"something": "else"},
    ],
)
def test_what_may_be_left_out(sampling):
    value = stored(LayerAttributes("conv_1", 6)) | {"sampling": sampling}
    assert LayerAttributes.from_json(value, "attributes", "layer").sampling == sampling
