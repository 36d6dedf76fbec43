from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from tsstore.errors import DamageError, FormatError
from tsstore.store.documents import dump, metadata_key
from tsstore.store.files import LocalFiles
from tsstore.store.metadata import CODECS, ArraySpec, parse_spec, read_array

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "string"]  # fmt: skip
STATES = ArraySpec("uint8", 100, (3,), ("row", "byte"))


def written_by_zarr(spec: ArraySpec, rows: int) -> dict[str, Any]:
    """Return the metadata that Zarr itself writes for such an array."""
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=(rows, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        dtype=str if spec.is_text else spec.dtype,
        compressors=[
            BloscCodec(
                cname=spec.codec, clevel=spec.level, shuffle="noshuffle", typesize=1, blocksize=0
            ),
            Crc32cCodec(),
        ],
        filters=None,
        dimension_names=spec.dimensions,
    )
    return json.loads(store._store_dict["zarr.json"].to_bytes())


def without_empty_configurations(value: Any) -> Any:
    if isinstance(value, list):
        return [without_empty_configurations(item) for item in value]
    if isinstance(value, dict):
        return {k: without_empty_configurations(v) for k, v in value.items() if v != {}}
    return value


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_metadata_are_those_that_zarr_writes(dtype, codec):
    spec = ArraySpec(dtype, 16, (), ("sample",), codec, CODECS[codec])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = written_by_zarr(spec, 5)
    assert without_empty_configurations(spec.document(5)) == without_empty_configurations(expected)
    assert parse_spec(expected, "here") == spec


def test_metadata_of_states_are_those_that_zarr_writes():
    expected = written_by_zarr(STATES, 250)
    assert without_empty_configurations(STATES.document(250)) == without_empty_configurations(
        expected
    )
    assert expected["shape"] == [250, 3]
    assert parse_spec(expected, "here") == STATES


@given(
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 1 << 19),
    width=st.integers(1, 64) | st.none(),
    codec=st.sampled_from(sorted(CODECS)),
    level=st.integers(1, 9),
)
def test_a_spec_comes_back_from_its_document(dtype, rows, width, codec, level):
    row_shape = () if width is None else (width,)
    names = ("row", "byte")[: len(row_shape) + 1]
    spec = ArraySpec(dtype, rows, row_shape, names, codec, level)
    assert parse_spec(json.loads(dump(spec.document(7))), "here") == spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_are_little_endian(dtype):
    spec = ArraySpec(dtype, 10, (), ("sample",))
    assert spec.is_text == (dtype == "string")
    assert spec.numpy_dtype == np.dtype(object if spec.is_text else dtype).newbyteorder("<")
    assert spec.chunk_bytes == 10 * (0 if spec.is_text else np.dtype(dtype).itemsize)


def test_keys_of_chunks():
    assert STATES.chunk_key("part/layers/a/states", 7) == "part/layers/a/states/c/7/0"
    assert ArraySpec("bool", 4, (), ("sample",)).chunk_key("samples/b", 0) == "samples/b/c/0"


HOSTILE: list[tuple[tuple[str | int, ...], Any]] = [
    (("zarr_format",), 2),
    (("node_type",), "group"),
    (("data_type",), "float128"),
    (("data_type",), ["uint8"]),
    (("data_type",), {"name": "uint8"}),
    (("data_type",), None),
    (("chunk_grid",), []),
    (("chunk_grid", "name"), "rectilinear"),
    (("chunk_grid", "configuration"), 1),
    (("chunk_grid", "configuration", "chunk_shape"), "100"),
    (("chunk_grid", "configuration", "chunk_shape"), []),
    (("chunk_grid", "configuration", "chunk_shape"), [1, 1, 1]),
    (("chunk_grid", "configuration", "chunk_shape"), [0, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [-1, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [1.5, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [True, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [1 << 30, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [10**30, 10**30]),
    (("chunk_grid", "configuration", "chunk_shape"), [1 << 32, 1 << 32]),
    (("chunk_key_encoding",), {"name": "v2"}),
    (("fill_value",), 1),
    (("codecs",), None),
    (("codecs",), []),
    (("codecs",), {"1": 2}),
    (("codecs",), ["bytes", "blosc"]),
    (("codecs", 0), {"name": "transpose"}),
    (("codecs", 1, "configuration", "cname"), "pickle"),
    (("codecs", 1, "configuration", "cname"), []),
    (("codecs", 1, "configuration", "clevel"), -1),
    (("codecs", 1, "configuration", "clevel"), "5"),
    (("codecs", 1, "configuration", "shuffle"), "bitshuffle"),
    (("codecs", 2), {"name": "gzip"}),
    (("dimension_names",), None),
    (("dimension_names",), [1, None]),
    (("storage_transformers",), [{"name": "rot13"}]),
]


@pytest.mark.parametrize(("place", "value"), HOSTILE)
def test_metadata_of_another_kind_are_refused(place, value):
    document = copy.deepcopy(STATES.document(5))
    inner: Any = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(FormatError, match=r"^here: "):
        parse_spec(document, "here")


@pytest.mark.parametrize(
    "key", sorted(set(STATES.document(0)) - {"shape", "attributes", "storage_transformers"})
)
def test_incomplete_metadata_are_refused(key):
    document = STATES.document(5)
    del document[key]
    with pytest.raises(FormatError, match=r"^here: "):
        parse_spec(document, "here")


def test_a_chunk_of_text_has_a_limit_too():
    spec = ArraySpec("string", 1 << 26, (), ("sample",))
    with pytest.raises(FormatError, match=r"a chunk of \[67108864\] string is over"):
        parse_spec(spec.document(0), "here")


def test_the_stored_shape_is_not_believed():
    assert parse_spec(STATES.document(5) | {"shape": [10**30, -1]}, "here") == STATES


def test_an_array_has_attributes_with_a_checksum_or_none(tmp_path):
    files = LocalFiles(tmp_path, durable=False)
    files.write(metadata_key("a"), dump(STATES.document(5, "a", {"name": "ü", "index": 3})))
    spec, attributes = read_array(files, "a")
    assert spec == STATES
    assert attributes.items() >= {"name": "ü", "index": 3}.items()
    files.write(metadata_key("b"), files.read(metadata_key("a")))
    with pytest.raises(DamageError, match=r"b/zarr.json: the attributes do not match"):
        read_array(files, "b")
    files.write(metadata_key("a"), dump(STATES.document(5) | {"attributes": {"mine": 1}}))
    assert read_array(files, "a") == (STATES, {})
    with pytest.raises(DamageError, match=r"c/zarr.json: cannot be read"):
        read_array(files, "c")
