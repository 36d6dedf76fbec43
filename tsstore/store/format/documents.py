"""The JSON document of a Zarr node: made, parsed, and its tsstore attributes checked."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Self

import google_crc32c

from tsstore.errors import DamageError, FormatError
from tsstore.store.files.base import Bytes, Files

ZARR_JSON = "zarr.json"
MAX_DOCUMENT_BYTES = 16 << 20
MAX_DEPTH = 32
_NESTING = dict, list, tuple
MAX_NUMBER = 1 << 53
"""Beyond it, JSON readers in other languages may round."""


def number(
    value: object, what: str, where: str, minimum: int = 0, maximum: int = MAX_NUMBER
) -> int:
    """Return `value` as an int from `minimum` to `maximum`, or raise FormatError."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise FormatError(
            f"{where}: {what} is {value!r:.80}; expected an integer from {minimum} to {maximum}"
        )
    return value


def real(value: object, what: str, where: str) -> float:
    """Return `value` as a finite float, or raise FormatError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= sys.float_info.max
    ):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected a finite number")
    return float(value)


def text(value: object, what: str, where: str) -> str:
    """Return `value` as a string, or raise FormatError."""
    if not isinstance(value, str):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected text")
    return value


def mapping(value: object, what: str, where: str) -> dict[str, Any]:
    """Return `value` as a dictionary, or raise FormatError."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected a mapping")
    return value


def sequence(value: object, what: str, where: str) -> list[Any]:
    """Return `value` as a list, or raise FormatError."""
    if not isinstance(value, list):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected a list")
    return value


def now() -> str:
    """Return the time as it is stored: ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


Check = Callable[[object, str, str], Any]
"""Returns a stored value as it is used, given what it is and where; FormatError if not valid."""


def stored(check: Check, default: Any = MISSING, *, absent: object = None) -> Any:
    """Return a field of a class of stored values: how it is checked, and its value if not given.

    Where None is that, null may be stored. Where the first versions did not write it, `absent` is
    checked in its place.
    """
    metadata = {"check": check, "absent": absent}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@cache
def _checks(kind: type[Any]) -> list[tuple[str, Check, object, bool]]:
    return [
        (own.name, own.metadata["check"], own.metadata["absent"], own.default is None)
        for own in fields(kind)
    ]


class Stored:
    """Base of dataclasses that lie in attributes as mappings, of fields made by :func:`stored`."""

    @classmethod
    def from_json(cls, value: object, what: str, where: str) -> Self:
        """Check and parse what is stored; FormatError where something in it is not valid."""
        said, checked = mapping(value, what, where), []
        for name, check, absent, may_be_null in _checks(cls):  # type: ignore[arg-type]
            found = said.get(name, absent)
            is_null = found is None and may_be_null
            checked.append(None if is_null else check(found, name, where))
        return cls(*checked)

    @classmethod
    def read(cls, files: Files, path: str) -> Self:
        """Read, check and parse the attributes of the node at `path`; it must have some."""
        where = files.where(metadata_key(path))
        return cls.from_json(read_attributes(files, path), "attributes", where)

    @classmethod
    def find(cls, files: Files, path: str) -> Self | None:
        """Do the same; None where there is no node."""
        found, where = find_attributes(files, path), files.where(metadata_key(path))
        return None if found is None else cls.from_json(found, "attributes", where)


def metadata_key(path: str) -> str:
    """Return the key of the metadata of the node at `path` ('' is the root)."""
    return f"{path}/{ZARR_JSON}" if path else ZARR_JSON


def attributes_checksum(path: str, attributes: Mapping[str, Any]) -> int:
    """Return crc32c of a node's path and tsstore attributes as canonical JSON.

    With the path in it, documents that have changed places are noticed, too.
    """
    body = {key: value for key, value in attributes.items() if key != "checksum"}
    canonical = json.dumps([path, body], sort_keys=True, separators=(",", ":"))
    return google_crc32c.value(canonical.encode())  # type: ignore[no-any-return]


def node_attributes(path: str, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what goes under ``attributes`` of a node: nothing, or ours with their checksum."""
    if not attributes:
        return {}
    # What JSON makes of keys and tuples is what the checksum must be of.
    plain = json.loads(dump(attributes, indent=None))
    return {"tsstore": {**plain, "checksum": attributes_checksum(path, plain)}}


def group_document(path: str, attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the Zarr v3 metadata of a group."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": node_attributes(path, attributes),
    }


def write_group(files: Files, path: str, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the metadata of the group at `path`, replacing what is there."""
    files.write(metadata_key(path), dump(group_document(path, attributes)))


def create_group(files: Files, path: str, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of the group at `path`; FileExistsError where there is one.

    A nonce makes them unlike any other process's: where a reply is lost, and the request is sent
    again, what is there by then can be told from what another one wrote.
    """
    unique = {**attributes, "nonce": secrets.token_hex(8)}
    files.create(metadata_key(path), dump(group_document(path, unique)))


def find_document(files: Files, path: str) -> dict[str, Any] | None:
    """Read the metadata of the node at `path`; None where there is no node."""
    key = metadata_key(path)
    try:
        data = files.read(key, most=MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return None
    return load(data, files.where(key))


def read_document(files: Files, path: str) -> dict[str, Any]:
    """Read the metadata of the node at `path`; it is damage if there is none, as there was one."""
    document = find_document(files, path)
    if document is None:
        raise files.missing(metadata_key(path))
    return document


def read_attributes(files: Files, path: str) -> dict[str, Any]:
    """Read and check the tsstore attributes of the node at `path`; it must have some."""
    return attributes_of(read_document(files, path), path, files.where(path))


def find_attributes(files: Files, path: str) -> dict[str, Any] | None:
    """Read and check the tsstore attributes of the node at `path`; None where there is no node."""
    document = find_document(files, path)
    return None if document is None else attributes_of(document, path, files.where(path))


def attributes_of(document: Mapping[str, Any], path: str, where: str) -> dict[str, Any]:
    """Return the tsstore attributes of the node at `path` from its metadata, checked."""
    return check_attributes(tsstore_attributes(document, where), path, where)


def tsstore_attributes(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``attributes.tsstore`` of a document, unchecked; FormatError where there is none."""
    attributes = mapping(document.get("attributes"), "attributes", where)
    return mapping(attributes.get("tsstore"), "attributes.tsstore", where)


def check_attributes(attributes: dict[str, Any], path: str, where: str) -> dict[str, Any]:
    """Return tsstore attributes that are what was written, and for this node; else DamageError."""
    if attributes.get("checksum") != attributes_checksum(path, attributes):
        raise DamageError(
            f"{where}/{ZARR_JSON}: the attributes do not match their checksum; "
            "restore the file from a copy"
        )
    return attributes


def dump(document: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """Return a document as JSON; FormatError where that cannot hold it, or it is too large."""
    try:
        data = json.dumps(document, allow_nan=False, indent=indent).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"metadata cannot be stored as JSON: {error}") from error
    if len(data) > MAX_DOCUMENT_BYTES or _is_deep(document):
        raise FormatError(
            f"metadata of {len(data)} bytes cannot be stored; expected at most "
            f"{MAX_DOCUMENT_BYTES} bytes, and at most {MAX_DEPTH} levels"
        )
    return data


def load(data: Bytes, where: str) -> dict[str, Any]:
    """Parse a metadata document: DamageError if it is no JSON, FormatError if it is another one."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise FormatError(
            f"{where}: {len(data)} bytes of metadata; expected at most {MAX_DOCUMENT_BYTES}"
        )
    try:
        value = json.loads(bytes(data), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamageError(
            f"{where}: not valid JSON ({error}); restore the file from a copy"
        ) from error
    if _is_deep(value):
        raise FormatError(f"{where}: the document has more than {MAX_DEPTH} levels")
    return mapping(value, "the document", where)


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")


def _is_deep(value: object) -> bool:
    """Whether a value has more than MAX_DEPTH levels, found without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        children: list[object] = []
        for item in level:
            if isinstance(item, dict):
                children += item.values()
            elif isinstance(item, list | tuple):
                children += item
        # Most are numbers and text, which need no look of their own.
        level = [child for child in children if isinstance(child, _NESTING)]
        if not level:
            return False
    return True
