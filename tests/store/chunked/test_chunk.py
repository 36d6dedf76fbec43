from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import blosc

from tsstore.errors import DamageError
from tsstore.store.chunked.chunk import checksum, decode, empty_entries, encode
from tsstore.store.format.arrays import MAX_CHUNK_BYTES, ArraySpec

NUMBERS = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "float16", "float32", "float64"]  # fmt: skip
STATES = ArraySpec("uint8", 50, (4,), ("row", "byte"))
TEXT = ArraySpec("string", 3, (), ("sample",))
ROWS = np.arange(200, dtype=np.uint8).reshape(50, 4)


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def closed(payload: bytes, spec: ArraySpec = STATES) -> bytes:
    """Encode any payload as a forger would: with the right crc32c."""
    packed = blosc.compress(payload, spec.codec.encode(), spec.level, blosc.NOSHUFFLE, 0, 1)
    return packed + struct.pack("<I", google_crc32c.value(packed))


@given(data=st.data(), dtype=st.sampled_from(NUMBERS), codec=st.sampled_from(["lz4", "zstd"]))
def test_numbers_come_back_as_they_were_encoded(data, dtype, codec):
    shape = data.draw(st.sampled_from([(5,), (1,), (3, 2)]))
    entries = data.draw(hnp.arrays(dtype, shape))
    spec = ArraySpec(dtype, shape[0], shape[1:], ("a", "b")[: len(shape)], codec)
    encoded = encode(spec, entries)
    out = empty_entries(spec, shape[0])
    for decoded in (decode(spec, encoded, "c/0"), decode(spec, encoded, "c/0", out)):
        assert decoded.dtype == entries.dtype
        assert decoded.tobytes() == entries.tobytes()
    assert decoded is out


@given(values=st.lists(st.text(max_size=20), min_size=3, max_size=3))
def test_text_comes_back_as_it_was_encoded(values):
    decoded = decode(TEXT, encode(TEXT, texts(*values)), "c/0")
    assert decoded.dtype == object
    assert decoded.tolist() == values


def test_a_checksum_is_of_the_little_endian_bytes():
    spec = ArraySpec("int32", 2, (), ("sample",))
    entries = np.array([1, -2], dtype=">i4")
    assert checksum(spec, entries) == google_crc32c.value(struct.pack("<ii", 1, -2))
    assert checksum(STATES, ROWS) == google_crc32c.value(ROWS.tobytes())
    assert checksum(STATES, ROWS[::2]) == google_crc32c.value(ROWS[::2].tobytes())


def test_the_checksum_of_text_is_of_lengths_and_bytes():
    payload = struct.pack("<I2sI", 2, "ü".encode(), 0) + struct.pack("<I3s", 3, b"a\0b")
    assert checksum(TEXT, texts("ü", "", "a\0b")) == google_crc32c.value(payload)
    assert checksum(TEXT, texts("ab", "")) != checksum(TEXT, texts("a", "b"))


def test_fill_values():
    assert empty_entries(TEXT, 2).tolist() == ["", ""]
    assert empty_entries(STATES, 2).tolist() == [[0] * 4] * 2
    assert empty_entries(STATES, 0).shape == (0, 4)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_damage(position, bit):
    for spec, entries in ((STATES, ROWS), (TEXT, texts("a", "bc", ""))):
        encoded = bytearray(encode(spec, entries))
        encoded[position % len(encoded)] ^= 1 << bit
        with pytest.raises(DamageError, match=r"^part/c/0 is damaged: its bytes do not match"):
            decode(spec, bytes(encoded), "part/c/0")


@pytest.mark.parametrize("spec", [STATES, TEXT])
def test_a_short_chunk_is_damage(spec):
    encoded = encode(spec, ROWS if spec is STATES else texts("a", "bc", ""))
    for size in range(len(encoded)):
        with pytest.raises(DamageError, match=r"c/0 is damaged: .*; restore the file"):
            decode(spec, encoded[:size], "c/0")


@pytest.mark.parametrize("size", [0, 1, 199, 201, 4000])
def test_a_valid_chunk_of_another_size_is_damage(size):
    with pytest.raises(DamageError, match=rf"it declares {size} bytes"):
        decode(STATES, closed(b"\1" * size), "c/0")


@pytest.mark.parametrize("declared", [200, MAX_CHUNK_BYTES + 1, (1 << 32) - 1])
@pytest.mark.parametrize("spec", [STATES, TEXT])
def test_a_forged_header_never_leads_to_an_allocation(spec, declared):
    packed = bytearray(closed(b"\1" * 100, spec)[:-4])
    packed[4:8] = struct.pack("<I", declared)
    forged = bytes(packed) + struct.pack("<I", google_crc32c.value(bytes(packed)))
    with pytest.raises(DamageError, match=r"c/0 is damaged: it "):
        decode(spec, forged, "c/0")


@pytest.mark.parametrize(("payload", "why"), [
    (b"", "cannot be decompressed"),
    (struct.pack("<I", 3), "3 entries"),
    (struct.pack("<IIII", 4, 0, 0, 0), "3 entries"),
    (struct.pack("<IIII", (1 << 32) - 1, 0, 0, 0), "3 entries"),
    (struct.pack("<IIII", 3, 0, 0, 5), "not UTF-8 text"),
    (struct.pack("<IIII", 3, (1 << 32) - 1, 0, 0), "not UTF-8 text"),
    (struct.pack("<IIIII", 3, 0, 0, 4, 0xFFFFFFFF), "not UTF-8 text"),
])  # fmt: skip
def test_forged_text_is_damage(payload, why):
    with pytest.raises(DamageError, match=f"c/0 is damaged: it .*{why}"):
        decode(TEXT, closed(payload, TEXT), "c/0")


def test_text_that_promises_more_than_it_holds_is_damage_before_memory_is_taken():
    spec = ArraySpec("string", 1 << 31, (), ("sample",))
    with pytest.raises(DamageError, match=r"does not hold 2147483648 entries"):
        decode(spec, closed(struct.pack("<I", 1 << 31), spec), "c/0")


@pytest.mark.parametrize(("codec", "largest"), [("lz4", 255), ("zstd", 1 << 15)])
@pytest.mark.parametrize("rows", [1 << 10, 1 << 20, 1 << 24])
def test_no_codec_packs_more_than_it_may_declare(codec, largest, rows):
    spec = ArraySpec("uint8", rows, (1,), ("row", "byte"), codec, 9 if rows < 1 << 24 else 3)
    entries = empty_entries(spec, rows)
    encoded = encode(spec, entries)
    assert rows < largest * (len(encoded) - 4)
    assert decode(spec, encoded, "c/0").tobytes() == entries.tobytes()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["string", "uint8"])
def test_a_chunk_that_declares_more_than_its_codec_packs_takes_no_memory(codec, dtype):
    spec = ArraySpec(dtype, MAX_CHUNK_BYTES, (), ("sample",), codec)
    packed = bytearray(closed(b"\1" * 400, replace(spec, codec="lz4"))[:-4])
    packed[4:8] = struct.pack("<I", MAX_CHUNK_BYTES)
    forged = bytes(packed) + struct.pack("<I", google_crc32c.value(bytes(packed)))
    tracemalloc.start()
    try:
        with pytest.raises(DamageError, match=rf"c/0 is damaged: it declares {MAX_CHUNK_BYTES}"):
            decode(spec, forged, "c/0")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
