"""Zarr v3 metadata documents: made, parsed, and checked against what format 1 allows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsstore.errors import DamageError, FormatError
from tsstore.store.files import Files

ZARR_JSON = "zarr.json"
MAX_DOCUMENT_BYTES = 64 << 20
MAX_CHUNK_BYTES = 256 << 20
CODECS = {"lz4": 5, "zstd": 3}
"""Names of the compressors of format 1, and the level of each unless one is given."""

_NUMBERS = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
}  # fmt: skip


def number(value: object, what: str, where: str, minimum: int = 0) -> int:
    """Return `value` as an int of at least `minimum`, or raise FormatError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise FormatError(f"{where}: {what} is {value!r}; expected an integer ≥ {minimum}")
    return value


def text(value: object, what: str, where: str) -> str:
    """Return `value` as a string, or raise FormatError."""
    if not isinstance(value, str):
        raise FormatError(f"{where}: {what} is {value!r}; expected text")
    return value


def mapping(value: object, what: str, where: str) -> dict[str, Any]:
    """Return `value` as a dictionary, or raise FormatError."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected a mapping")
    return value


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
    """

    dtype: str
    chunk_rows: int
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    codec: str = "lz4"
    level: int = CODECS["lz4"]

    @property
    def is_text(self) -> bool:
        """Whether entries are UTF-8 text."""
        return self.dtype == "string"

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry as decoded; text has no such number (0)."""
        if self.is_text:
            return 0
        return int(np.prod(self.row_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk; 0 for text."""
        return self.chunk_rows * self.entry_bytes

    def document(self, rows: int, attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the Zarr v3 metadata of the array with so many rows."""
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
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.row_shape],
            "data_type": self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.chunk_rows, *self.row_shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": _fill_value(self.dtype),
            "codecs": [
                serializer,
                {"name": "blosc", "configuration": blosc},
                {"name": "crc32c"},
            ],
            "attributes": {"tsstore": dict(attributes)} if attributes else {},
            "dimension_names": list(self.dimensions),
            "storage_transformers": [],
        }

    def chunk_key(self, array: str, chunk: int) -> str:
        """Return the key of a chunk of the array at `array`."""
        return f"{array}/c/{chunk}" + "/0" * len(self.row_shape)


def _endianness(dtype: str) -> dict[str, Any]:
    if np.dtype(dtype).itemsize == 1:
        return {}
    return {"configuration": {"endian": "little"}}


def _fill_value(dtype: str) -> object:
    if dtype == "string":
        return ""
    if dtype == "bool":
        return False
    return 0.0 if dtype.startswith("float") else 0


def parse_array(document: dict[str, Any], where: str) -> tuple[ArraySpec, dict[str, Any]]:
    """Check an array's metadata and return its spec and its tsstore attributes.

    Whatever differs from what format 1 writes is refused, before anything is allocated.

    Raises
    ------
    FormatError
        If the document is not one that format 1 writes.
    """
    try:
        blosc = document["codecs"][1]["configuration"]
        shape = document["chunk_grid"]["configuration"]["chunk_shape"]
        names = document["dimension_names"]
        dtype, codec, level = document["data_type"], blosc["cname"], blosc["clevel"]
    except (KeyError, IndexError, TypeError) as error:
        raise FormatError(f"{where}: no array of format 1: {error!r} is missing") from None
    if dtype not in _NUMBERS | {"string"} or codec not in CODECS:
        raise FormatError(f"{where}: data type {dtype!r} with codec {codec!r} is not of format 1")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not isinstance(names, list):
        raise FormatError(f"{where}: chunk shape {shape!r:.80} is not of format 1")
    rows, *row_shape = (number(size, "chunk shape", where, 1) for size in shape)
    dimensions = tuple(text(name, "dimension name", where) for name in names)
    level = number(level, "compression level", where)
    spec = ArraySpec(dtype, rows, tuple(row_shape), dimensions, codec, level)
    if spec.chunk_bytes > MAX_CHUNK_BYTES or rows > MAX_CHUNK_BYTES:
        raise FormatError(f"{where}: a chunk of {shape} {dtype} is over {MAX_CHUNK_BYTES} bytes")
    expected = spec.document(0)
    for key in ("chunk_key_encoding", "codecs", "fill_value", "node_type", "zarr_format"):
        if _without_defaults(document.get(key)) != _without_defaults(expected[key]):
            raise FormatError(
                f"{where}: {key} is {document.get(key)!r:.200}; expected {expected[key]!r}"
            )
    return spec, tsstore_attributes(document, where, required=False)


def _without_defaults(value: Any) -> Any:
    """Leave out empty configurations, which writers of Zarr metadata may add or drop."""
    if isinstance(value, list):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items() if item != {}}
    return value


def group_document(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the Zarr v3 metadata of a group."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"tsstore": dict(attributes)} if attributes else {},
    }


def tsstore_attributes(
    document: dict[str, Any], where: str, required: bool = True
) -> dict[str, Any]:
    """Return ``attributes.tsstore`` of a metadata document."""
    attributes = mapping(document.get("attributes", {}), "attributes", where)
    if "tsstore" not in attributes and not required:
        return {}
    return mapping(attributes.get("tsstore"), "attributes.tsstore", where)


def dump(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON bytes; NaN and infinity are refused."""
    return json.dumps(document, allow_nan=False, indent=2).encode()


def load(data: bytes, where: str) -> dict[str, Any]:
    """Parse a metadata document.

    Raises
    ------
    DamageError
        If the bytes are not JSON as the standard knows it.
    FormatError
        If the document is larger than any that tsstore writes, or no mapping.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise FormatError(f"{where}: {len(data)} bytes of metadata; expected ≤ 64 MiB")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamageError(
            f"{where}: not valid JSON ({error}); restore the file from a copy"
        ) from error
    return mapping(value, "the document", where)


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")


def write_group(files: Files, path: str, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the metadata of the group at `path` ('' is the root)."""
    files.write(metadata_key(path), dump(group_document(attributes)))


def read_document(files: Files, path: str) -> dict[str, Any]:
    """Read the metadata of the node at `path`.

    Raises
    ------
    DamageError
        If there is none: the caller knows that there was one.
    """
    key = metadata_key(path)
    where = f"{files.location}/{key}"
    try:
        data = files.read(key)
    except OSError as error:
        raise DamageError(f"{where}: cannot be read ({error}); restore it from a copy") from error
    return load(data, where)


def metadata_key(path: str) -> str:
    """Return the key of a node's metadata."""
    return f"{path}/{ZARR_JSON}" if path else ZARR_JSON
