"""One chunk: encode, decode, checksum. Bytes that were not committed never become numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc
from numcodecs.vlen import VLenUTF8

from tsstore.errors import StoreError
from tsstore.store.files.base import Bytes, damaged
from tsstore.store.format.arrays import MAX_CHUNK_BYTES, ArraySpec

_BLOSC_HEADER = struct.Struct("<BBBBIII")
_CHECKSUM_BYTES = 4
_COUNT_BYTES = 4
_MAX_EXPANSION = {"lz4": 255, "zstd": 1 << 15}
"""How often its own size a compressed chunk can become at most.

A byte of LZ4 adds 255 to the length of a match at most; a block of Zstandard takes 4 bytes at least
and gives 128 KiB at most.

References
----------
"LZ4 block format description", lz4 project. Y. Collet and M. Kucherawy, "Zstandard compression and
the application/zstd media type", RFC 8878, 2021, section 3.1.1.2.
"""


def empty_entries(spec: ArraySpec, rows: int) -> npt.NDArray[Any]:
    """Return an array of fill values for so many entries."""
    if spec.is_text:
        return np.full(rows, "", dtype=object)
    return np.zeros((rows, *spec.row_shape), dtype=spec.numpy_dtype)


def payload(spec: ArraySpec, entries: npt.NDArray[Any]) -> Any:
    """Return entries as bytes, little endian; text as each entry's UTF-8 behind its length."""
    if spec.is_text:
        return bytes(VLenUTF8().encode(entries))[_COUNT_BYTES:]
    return np.ascontiguousarray(entries, dtype=spec.numpy_dtype).reshape(-1).view(np.uint8)


def checksum(spec: ArraySpec, entries: npt.NDArray[Any]) -> int:
    """Return crc32c of entries as decoded, little endian.

    Text counts as each entry's UTF-8 bytes behind their number in 4 bytes. The checksum of an
    unfinished chunk's first entries stays true when more entries follow.
    """
    return google_crc32c.value(payload(spec, entries))  # type: ignore[no-any-return]


def encode(spec: ArraySpec, entries: npt.NDArray[Any]) -> bytes:
    """Encode a whole chunk: serialised, compressed by Blosc, closed by its crc32c."""
    data = payload(spec, entries)
    if spec.is_text:
        data = struct.pack("<I", len(entries)) + data
    packed = blosc.compress(data, spec.codec.encode(), spec.level, blosc.NOSHUFFLE, 0, 1)
    return bytes(packed) + struct.pack("<I", google_crc32c.value(packed))


def decode(
    spec: ArraySpec,
    data: Bytes,
    where: str,
    out: npt.NDArray[Any] | None = None,
    *,
    vouched: bool = False,
) -> npt.NDArray[Any]:
    """Decode a whole chunk, after checking all that can be checked before allocating.

    Parameters
    ----------
    spec
        What the chunk should be.
    data
        The bytes of its file.
    where
        The file's name, for messages.
    out
        A contiguous array of the chunk's shape and dtype to decode into.
    vouched
        Whether the caller compares the entries with a checksum of their own: then the one of the
        encoded bytes tells nothing more, and is not computed.

    Returns
    -------
    numpy.ndarray
        The entries, shape (chunk_rows, *row_shape); `out` where it is given.

    Raises
    ------
    DamageError
        If the bytes are short, do not match their own checksum, or declare another size.
    """
    packed = np.frombuffer(data, dtype=np.uint8)[:-_CHECKSUM_BYTES]
    if len(packed) < _BLOSC_HEADER.size:
        raise damaged(where, f"{len(data)} bytes are too few")
    (stored,) = struct.unpack("<I", data[-_CHECKSUM_BYTES:])
    if not vouched and stored != google_crc32c.value(packed):
        raise damaged(where, "its bytes do not match their crc32c")
    *_, size, _, packed_size = _BLOSC_HEADER.unpack_from(data)
    wrong_size = size > MAX_CHUNK_BYTES if spec.is_text else size != spec.chunk_bytes
    too_much = size > len(packed) * _MAX_EXPANSION[spec.codec]
    if wrong_size or too_much or packed_size != len(packed):
        raise damaged(where, f"it declares {size} bytes in {packed_size}")
    if spec.is_text:
        return _decode_text(spec, _decompress(packed, None, where), where)
    if out is None:
        out = np.empty((spec.chunk_rows, *spec.row_shape), dtype=spec.numpy_dtype)
    _decompress(packed, out, where)
    return out


@contextmanager
def taking_memory(where: str, count: int) -> Iterator[None]:
    """Turn a lack of memory in the block, which takes `count` bytes, into a StoreError."""
    try:
        yield
    except (MemoryError, ValueError):
        raise StoreError(
            f"{where}: what was asked for takes {count:,} bytes, more memory than there is; read "
            "slices or blocks of it, or count its states by tsstore.analyze"
        ) from None


def _decompress(packed: npt.NDArray[np.uint8], out: npt.NDArray[Any] | None, where: str) -> Any:
    try:
        return blosc.decompress(packed, out)
    except (RuntimeError, ValueError) as error:
        raise damaged(where, f"it cannot be decompressed ({error})") from error


def _decode_text(spec: ArraySpec, payload: bytes, where: str) -> npt.NDArray[Any]:
    # Each entry takes at least its length's bytes: fewer cannot be what the number promises.
    short = len(payload) < _COUNT_BYTES * (1 + spec.chunk_rows)
    if short or payload[:_COUNT_BYTES] != struct.pack("<I", spec.chunk_rows):
        raise damaged(where, f"it does not hold {spec.chunk_rows} entries of text")
    try:
        return np.asarray(VLenUTF8().decode(payload), dtype=object)
    except (ValueError, UnicodeDecodeError) as error:
        raise damaged(where, f"it is not UTF-8 text ({error})") from error
