from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.errors import DamageError, FormatError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format import documents
from tsstore.store.format.documents import (
    attributes_checksum,
    check_attributes,
    create_group,
    dump,
    load,
    mapping,
    metadata_key,
    now,
    number,
    read_attributes,
    read_document,
    real,
    text,
    tsstore_attributes,
    write_group,
)

any_text = st.text(st.characters())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | any_text
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path, durable=False)


@settings(deadline=None, max_examples=50)
@given(attributes=st.dictionaries(any_text, json_values, min_size=1, max_size=4))
def test_attributes_of_any_kind_come_back_as_they_were_written(tmp_path_factory, attributes):
    attributes.pop("checksum", None)
    files = LocalFiles(tmp_path_factory.mktemp("store"), durable=False)
    write_group(files, "part", attributes | {"name": "ü\ud800\0"})
    read = read_attributes(files, "part")
    del read["checksum"]
    assert read == attributes | {"name": "ü\ud800\0"}


def test_what_json_makes_of_keys_and_tuples_is_what_counts(files):
    write_group(files, "part", {"user": {10: "a", 9: (1, 2)}})
    assert read_attributes(files, "part")["user"] == {"10": "a", "9": [1, 2]}


def test_the_checksum_is_of_the_path_and_the_canonical_attributes(files):
    write_group(files, "a/b", {"z": [1, 0.5], "ä": None})
    attributes = read_attributes(files, "a/b")
    assert attributes["checksum"] == attributes_checksum("a/b", {"ä": None, "z": [1, 0.5]})
    assert attributes["checksum"] != attributes_checksum("a/c", attributes)
    assert attributes["checksum"] != attributes_checksum("a/b", attributes | {"z": [1, 0.25]})


def test_a_document_in_anothers_place_is_damage(files):
    write_group(files, "part-0", {"rank": 0})
    write_group(files, "part-1", {"rank": 1})
    (files.root / "part-0").rename(files.root / "swapped")
    (files.root / "part-1").rename(files.root / "part-0")
    with pytest.raises(DamageError, match=r"part-0/zarr\.json: the attributes do not match"):
        read_attributes(files, "part-0")


@pytest.mark.parametrize("checksum", [None, 0, "1", [1]])
def test_a_wrong_checksum_is_damage(checksum):
    with pytest.raises(DamageError, match=r"do not match their checksum"):
        check_attributes({"rank": 0, "checksum": checksum}, "part", "run.zarr/part")


def test_a_group_is_created_once(files):
    create_group(files, "sealed", {"why": "closed"})
    with pytest.raises(FileExistsError):
        create_group(files, "sealed", {"why": "resumed"})
    assert read_attributes(files, "sealed")["why"] == "closed"


def test_what_is_created_is_unlike_what_any_other_process_creates(files):
    create_group(files, "a", {"why": "closed"})
    create_group(files, "b", {"why": "closed"})
    nonces = {read_attributes(files, path)["nonce"] for path in "ab"}
    assert len(nonces) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", nonce) for nonce in nonces)


def test_a_group_without_attributes_has_none(files):
    write_group(files, "layers")
    document = read_document(files, "layers")
    assert document == {"zarr_format": 3, "node_type": "group", "attributes": {}}
    with pytest.raises(FormatError, match=r"attributes.tsstore is None; expected a mapping"):
        tsstore_attributes(document, "layers")


def test_keys_of_metadata():
    assert metadata_key("") == "zarr.json"
    assert metadata_key("part/layers") == "part/layers/zarr.json"


def test_a_missing_document_is_damage(files):
    with pytest.raises(DamageError, match=r"part/zarr.json is damaged: it is missing"):
        read_document(files, "part")


@pytest.mark.parametrize("data", [
    b"", b"{", b"\xff\xfe{", b'{"a": NaN}', b'{"a": -Infinity}', b"{} {}",
    b"[" * 100_000, b"1" * 5_000, b'{"a": ' + b"9" * 5_000 + b"}",
])  # fmt: skip
def test_what_is_no_json_is_damage(data):
    with pytest.raises(DamageError, match=r"here: not valid JSON .*; restore the file"):
        load(data, "here")


@pytest.mark.parametrize("data", [b"[]", b"1", b'"a"', b"null"])
def test_a_document_must_be_a_mapping(data):
    with pytest.raises(FormatError, match=r"here: the document is .*; expected a mapping"):
        load(data, "here")


@pytest.mark.parametrize("depth", [33, 500, 900])
def test_deep_documents_are_refused(depth):
    data = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises((FormatError, DamageError), match=r"more than 32 levels|recursion"):
        load(data, "here")


def test_large_documents_are_refused_both_ways(monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(FormatError, match=r"here: 101 bytes of metadata; expected at most 100"):
        load(b" " * 101, "here")
    with pytest.raises(FormatError, match=r"metadata of .* bytes cannot be stored"):
        dump({"a": "b" * 100})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, np.int64(3), b"bytes", {(1, 2): 3}]
)
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(FormatError, match=r"metadata cannot be stored as JSON"):
        dump({"user": value})


def test_deep_and_endless_values_are_refused_when_written():
    deep: list = []
    for _ in range(40):
        deep = [deep]
    endless: list = []
    endless.append(endless)
    for value in (deep, endless):
        with pytest.raises(FormatError, match=r"cannot be stored"):
            dump({"user": value})


@given(value=json_values)
def test_a_number_is_what_it_was_or_an_error(value):
    if type(value) is int and 0 <= value <= 1 << 53:
        assert number(value, "rows", "here") == value
    else:
        with pytest.raises(FormatError, match=r"here: rows is .*; expected an integer from 0 to"):
            number(value, "rows", "here")


@pytest.mark.parametrize(
    "value", [None, "1", True, float("inf"), float("nan"), 10**400, -(10**400), [1.0]]
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(FormatError, match=r"here: threshold is .*; expected a finite number"):
        real(value, "threshold", "here")


def test_values_of_the_right_kind_are_returned():
    assert real(3, "threshold", "here") == 3.0
    assert real(-0.5, "threshold", "here") == -0.5
    assert text("ü", "name", "here") == "ü"
    assert mapping({"a": 1}, "user", "here") == {"a": 1}
    assert number(-5, "step", "here", -10) == -5


@pytest.mark.parametrize("check", [number, text, mapping])
def test_messages_stay_short_whatever_was_found(check):
    with pytest.raises(FormatError) as caught:
        check(["x" * 10_000], "name", "here")
    assert len(str(caught.value)) < 200
    assert json.dumps(str(caught.value))


def test_the_time_is_text_with_an_offset():
    time = datetime.fromisoformat(now())
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(seconds=10)
