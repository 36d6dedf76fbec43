"""The Zarr v3 metadata of an array: made, parsed, and checked against what format 1 allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tsstore.errors import FormatError
from tsstore.store.files.base import Files
from tsstore.store.format.documents import (
    attributes_of,
    mapping,
    node_attributes,
    number,
    read_document,
    sequence,
    text,
)

MAX_CHUNK_BYTES = 256 << 20
FRAME_BYTES = 64
"""More than what Blosc and the crc32c add to a chunk that cannot be compressed."""
MAX_SHARD_CHUNKS = 1 << 14
"""So that the index of a shard, which is read whole, stays small."""
COLUMN_CHUNK_ROWS = 1 << 14
MAX_COLUMN_CHUNK_ROWS = 1 << 14
MAX_TEXT_BYTES = MAX_CHUNK_BYTES // COLUMN_CHUNK_ROWS - 8
"""UTF-8 bytes of one entry of text, so that a chunk of them stays within its limit."""
CHECKSUM_CHUNK_ROWS = 1 << 12
CODECS = {"lz4": 5, "zstd": 3}
"""Names of the compressors of format 1, and the level of each unless one is given."""

_DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "string",
]  # fmt: skip


@dataclass(frozen=True)
class ArraySpec:
    """What stays the same of a stored array while it grows.

    Attributes
    ----------
    dtype
        Name of the NumPy dtype, or ``"string"`` for UTF-8 text.
    chunk_rows
        Entries along the first axis in a chunk.
    row_shape
        Shape of one entry: ``(bytes,)`` for states, ``()`` for everything else.
    dimensions
        Names of the axes.
    codec
        ``"lz4"`` or ``"zstd"``.
    level
        Level of the compressor.
    shard_chunks
        Chunks in a file of many, 2 at least; None where each has a file of its own.
    """

    dtype: str
    chunk_rows: int
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    codec: str = "lz4"
    level: int = CODECS["lz4"]
    shard_chunks: int | None = None

    @cached_property
    def is_text(self) -> bool:
        """Whether entries are UTF-8 text."""
        return self.dtype == "string"

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Dtype of decoded entries, little endian as stored; object for text."""
        return np.dtype(object if self.is_text else self.dtype).newbyteorder("<")

    @cached_property
    def entry_bytes(self) -> int:
        """Bytes of one entry as decoded; text has no such number (0)."""
        return 0 if self.is_text else math.prod(self.row_shape) * self.numpy_dtype.itemsize

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk; 0 for text."""
        return self.chunk_rows * self.entry_bytes

    @property
    def most_encoded_bytes(self) -> int:
        """Bytes of an encoded chunk at most."""
        return (MAX_CHUNK_BYTES if self.is_text else self.chunk_bytes) + FRAME_BYTES

    def document(
        self, rows: int, path: str = "", attributes: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the Zarr v3 metadata of the array at `path`, with so many rows."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.row_shape],
            "data_type": self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {
                    "chunk_shape": [self.chunk_rows * self.file_chunks, *self.row_shape]
                },
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": _fill_value(self.dtype),
            "codecs": self._chunk_codecs() if self.shard_chunks is None else [self._sharding()],
            "attributes": node_attributes(path, attributes),
            "dimension_names": list(self.dimensions),
            "storage_transformers": [],
        }

    @property
    def file_chunks(self) -> int:
        """Chunks in a file."""
        return self.shard_chunks or 1

    def file_key(self, array: str, file: int) -> str:
        """Return the key of a file of the array at `array`: of a chunk, or of a shard."""
        return f"{array}/c/{file}" + "/0" * len(self.row_shape)

    def chunk_key(self, array: str, chunk: int) -> str:
        """Return the key of the file that holds a chunk of the array at `array`."""
        return self.file_key(array, chunk // self.file_chunks)

    def _chunk_codecs(self) -> list[dict[str, Any]]:
        serializer = (
            {"name": "vlen-utf8", "configuration": {}}
            if self.is_text
            else {"name": "bytes", **_endianness(self.dtype)}
        )
        blosc = {
            "typesize": 1,
            "cname": self.codec,
            "clevel": self.level,
            "shuffle": "noshuffle",
            "blocksize": 0,
        }
        return [serializer, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]

    def _sharding(self) -> dict[str, Any]:
        configuration = {
            "chunk_shape": [self.chunk_rows, *self.row_shape],
            "codecs": self._chunk_codecs(),
            "index_codecs": [{"name": "bytes", **_endianness("uint64")}, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {"name": "sharding_indexed", "configuration": configuration}


def _endianness(dtype: str) -> dict[str, Any]:
    if np.dtype(dtype).itemsize == 1:
        return {}
    return {"configuration": {"endian": "little"}}


def _fill_value(dtype: str) -> object:
    return "" if dtype == "string" else np.zeros((), dtype).item()


def states_spec(row_bytes: int, chunk_rows: int, codec: str, level: int | None) -> ArraySpec:
    """Return the spec of an array of rows; the codec's usual level unless one is given."""
    level = CODECS[codec] if level is None else level
    return ArraySpec("uint8", chunk_rows, (row_bytes,), ("row", "byte"), codec, level)


def sample_spec(dtype: str) -> ArraySpec:
    """Return the spec of an array with one entry a sample."""
    return ArraySpec(dtype, COLUMN_CHUNK_ROWS, (), ("sample",))


def checksums_spec(dimension: str) -> ArraySpec:
    """Return the spec of an array of chunks' checksums."""
    return ArraySpec("uint32", CHECKSUM_CHUNK_ROWS, (), (dimension,))


def read_array(files: Files, path: str) -> tuple[ArraySpec, dict[str, Any]]:
    """Read and check the metadata of the array at `path`: its spec, and its tsstore attributes.

    Whatever differs from what format 1 writes is refused, before anything is allocated.
    """
    where = f"{files.location}/{path}"
    document = read_document(files, path)
    spec = parse_spec(document, where)
    if "tsstore" not in mapping(document.get("attributes", {}), "attributes", where):
        return spec, {}
    return spec, attributes_of(document, path, where)


def parse_spec(document: Mapping[str, Any], where: str) -> ArraySpec:
    """Check an array's metadata and return its spec; FormatError where it is not of format 1."""
    try:
        shape = document["chunk_grid"]["configuration"]["chunk_shape"]
        codecs, file_shape = document["codecs"], shape
        is_sharded = codecs[0]["name"] == "sharding_indexed"
        if is_sharded:
            inner = codecs[0]["configuration"]
            shape, codecs = inner["chunk_shape"], inner["codecs"]
        blosc = codecs[1]["configuration"]
        names = document["dimension_names"]
        dtype, codec, level = document["data_type"], blosc["cname"], blosc["clevel"]
    except (KeyError, IndexError, TypeError) as error:
        raise FormatError(f"{where}: no array of format 1 ({error!r:.80})") from None
    if dtype not in _DTYPES or codec not in list(CODECS):
        raise FormatError(
            f"{where}: data type {dtype!r:.80} with codec {codec!r:.80} is not of format 1"
        )
    rows, *row_shape = _chunk_shape(shape, where)
    dimensions = tuple(
        text(name, "dimension name", where) for name in sequence(names, "dimension_names", where)
    )
    level = number(level, "compression level", where)
    spec = ArraySpec(dtype, rows, tuple(row_shape), dimensions, codec, level)
    # A pointer's size stands for an entry of text, whose bytes are checked chunk by chunk.
    if rows * (spec.entry_bytes or 8) > MAX_CHUNK_BYTES:
        raise FormatError(f"{where}: a chunk of {shape} {dtype} is over {MAX_CHUNK_BYTES} bytes")
    if not row_shape and rows > MAX_COLUMN_CHUNK_ROWS:
        # A chunk of millions of empty texts takes few bytes on disk, and any number in memory.
        raise FormatError(
            f"{where}: a chunk has {rows} entries; expected at most {MAX_COLUMN_CHUNK_ROWS}"
        )
    if is_sharded:
        count = _chunk_shape(file_shape, where)[0] // rows
        count = number(count, "number of chunks in a shard", where, 2, MAX_SHARD_CHUNKS)
        spec = replace(spec, shard_chunks=count)
    _check_as_written(document, spec, where)
    return spec


def _chunk_shape(shape: object, where: str) -> list[int]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        raise FormatError(f"{where}: chunk shape {shape!r:.80} is not of format 1")
    return [number(size, "chunk shape", where, 1) for size in shape]


def _check_as_written(document: Mapping[str, Any], spec: ArraySpec, where: str) -> None:
    """Compare with what would be written; only the shape changes, and no reader believes it."""
    for key, expected in spec.document(0).items():
        found = document.get(key, [])
        if key in ("shape", "attributes") or found == expected:
            continue
        if _without_defaults(found) != _without_defaults(expected):
            raise FormatError(f"{where}: {key} is {found!r:.200}; expected {expected!r}")


def _without_defaults(value: Any) -> Any:
    """Leave out empty configurations, which writers of Zarr metadata may add or drop."""
    if isinstance(value, list):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items() if item != {}}
    return value
