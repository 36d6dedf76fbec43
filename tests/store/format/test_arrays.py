from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from tsstore.errors import DamageError, FormatError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.arrays import (
    CODECS,
    MAX_COLUMN_CHUNK_ROWS,
    MAX_SHARD_CHUNKS,
    ArraySpec,
    parse_spec,
    read_array,
)
from tsstore.store.format.documents import dump, metadata_key

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "string"]  # fmt: skip
STATES = ArraySpec("uint8", 100, (3,), ("row", "byte"))
SHARDS = replace(STATES, shard_chunks=5)


def written_by_zarr(spec: ArraySpec, rows: int) -> dict[str, Any]:
    """Return the metadata that Zarr itself writes for such an array."""
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=(rows, *spec.row_shape),
        chunks=(spec.chunk_rows, *spec.row_shape),
        shards=spec.shard_chunks and (spec.chunk_rows * spec.shard_chunks, *spec.row_shape),
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


@pytest.mark.parametrize("shard_chunks", [None, 7])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_metadata_are_those_that_zarr_writes(dtype, codec, shard_chunks):
    spec = ArraySpec(dtype, 16, (), ("sample",), codec, CODECS[codec], shard_chunks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = written_by_zarr(spec, 5)
    assert without_empty_configurations(spec.document(5)) == without_empty_configurations(expected)
    assert parse_spec(expected, "here") == spec


@pytest.mark.parametrize("spec", [STATES, SHARDS])
def test_metadata_of_states_are_those_that_zarr_writes(spec):
    expected = written_by_zarr(spec, 250)
    assert without_empty_configurations(spec.document(250)) == without_empty_configurations(
        expected
    )
    assert expected["shape"] == [250, 3]
    assert parse_spec(expected, "here") == spec


@given(
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(1, 1 << 19),
    width=st.integers(1, 64) | st.none(),
    codec=st.sampled_from(sorted(CODECS)),
    level=st.integers(1, 9),
    shard_chunks=st.none() | st.integers(2, MAX_SHARD_CHUNKS),
)
def test_a_spec_comes_back_from_its_document(dtype, rows, width, codec, level, shard_chunks):
    row_shape = () if width is None else (width,)
    rows = rows if row_shape else min(rows, MAX_COLUMN_CHUNK_ROWS)
    names = ("row", "byte")[: len(row_shape) + 1]
    spec = ArraySpec(dtype, rows, row_shape, names, codec, level, shard_chunks)
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
    assert (STATES.file_chunks, SHARDS.file_chunks) == (1, 5)
    assert [SHARDS.chunk_key("a", chunk) for chunk in (0, 4, 5)] == ["a/c/0/0"] * 2 + ["a/c/1/0"]
    assert SHARDS.file_key("a", 5) == STATES.file_key("a", 5) == "a/c/5/0"
    assert SHARDS.chunk_bytes == STATES.chunk_bytes == 300


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


SHARDING = ("codecs", 0, "configuration")
HOSTILE_SHARDS: list[tuple[tuple[str | int, ...], Any]] = [
    (("codecs", 0, "name"), "sharding"),
    (SHARDING, None),
    (SHARDING, []),
    ((*SHARDING, "chunk_shape"), [500, 3]),
    ((*SHARDING, "chunk_shape"), [501, 3]),
    ((*SHARDING, "chunk_shape"), [99, 3]),
    ((*SHARDING, "chunk_shape"), [100, 1]),
    ((*SHARDING, "chunk_shape"), [100]),
    ((*SHARDING, "chunk_shape"), [0, 3]),
    ((*SHARDING, "chunk_shape"), [10**30, 3]),
    ((*SHARDING, "chunk_shape"), "100"),
    ((*SHARDING, "codecs"), []),
    ((*SHARDING, "codecs", 1, "configuration", "cname"), "pickle"),
    ((*SHARDING, "codecs", 0), SHARDS.document(0)["codecs"][0]),
    ((*SHARDING, "index_codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}]),
    ((*SHARDING, "index_codecs", 0, "configuration", "endian"), "big"),
    ((*SHARDING, "index_location"), "start"),
    ((*SHARDING, "index_location"), None),
    ((*SHARDING, "more"), 1),
    (("codecs",), [*SHARDS.document(0)["codecs"], {"name": "crc32c"}]),
    (("chunk_grid", "configuration", "chunk_shape"), [100 * (MAX_SHARD_CHUNKS + 1), 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [10**30, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [100, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [99, 3]),
    (("chunk_grid", "configuration", "chunk_shape"), [500, 4]),
    (("chunk_grid", "configuration", "chunk_shape"), [500]),
    (("chunk_grid", "configuration", "chunk_shape"), 500),
]


@pytest.mark.parametrize(
    ("spec", "place", "value"),
    [*((STATES, *case) for case in HOSTILE), *((SHARDS, *case) for case in HOSTILE_SHARDS)],
)
def test_metadata_of_another_kind_are_refused(spec, place, value):
    document = copy.deepcopy(spec.document(5))
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
    with pytest.raises(DamageError, match=r"c/zarr.json is damaged: it is missing"):
        read_array(files, "c")


@pytest.mark.parametrize("dtype", ["string", "int64", "uint32"])
def test_a_column_of_many_entries_in_a_chunk_is_refused(dtype):
    spec = ArraySpec(dtype, MAX_COLUMN_CHUNK_ROWS + 1, (), ("sample",))
    with pytest.raises(FormatError, match=r"16385 entries; expected at most 16384"):
        parse_spec(spec.document(7), "here")
