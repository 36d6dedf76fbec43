"""Whatever happens to a file of a store: the right answer, or an error of tsstore."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import draw_batch, stored_files, write_run

from tsstore.errors import DamageError, TsstoreError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import attributes_checksum
from tsstore.store.reading.store import open_store


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Two parts, one of them without a seal; positions that vary; numbers and text."""
    path = tmp_path_factory.mktemp("damage") / "run.zarr"
    rng = np.random.default_rng(0)
    columns = {"label": np.arange(5), "prediction": np.arange(5)[::-1], "text": list("abcde")}
    for rank in range(2):
        batches = [
            draw_batch(rng, 5, positions={"conv_1": [4, 4, 4, 4, 3]}, columns=columns)
            for _ in range(2)
        ]
        part = PartAttributes(rank=rank, step=rank, user={"lr": 0.1})
        write_run(path, batches, part=part, chunk_bytes=20, close=rank == 0)
    return path


@pytest.fixture(scope="module")
def right(path) -> Any:
    return content(path)


def content(path: Path) -> Any:
    """Return everything that a reader may want to know of a store, but whether it is closed."""
    store = open_store(path)
    return (
        [(part.directory, part.attributes, part.samples) for part in store.parts],
        {name: (states[:].tolist(), states.decode().tolist()) for name, states in store.items()},
        {name: states.read_positions().tolist() for name, states in store.items()},
        {name: [states.attributes, list(states.blocks(7))] for name, states in store.items()},
        {name: store.column(name).tolist() for name in store.columns},
    )


def right_or_error(path: Path, right: Any) -> bool:
    """Read a store that something happened to; return whether that was noticed."""
    try:
        read = content(path)
    except TsstoreError:
        return True
    assert read == right
    return False


def test_no_flipped_byte_changes_an_answer(path, right):
    noticed = flips = 0
    # Some bytes of each file: the sweep flips all of them.
    for number, file in enumerate(stored_files(path)):
        data = file.read_bytes()
        for position in range(number % 7, len(data), 17 if "/c/" in str(file) else 113):
            flipped = bytearray(data)
            flipped[position] ^= 1 << (position % 8)
            file.write_bytes(flipped)
            noticed += right_or_error(path, right)
            flips += 1
        file.write_bytes(data)
    assert flips > 400
    assert flips / 3 < noticed < flips


@pytest.mark.parametrize("share", [0, 1 / 2, 0.999])
def test_no_short_file_changes_an_answer(path, right, share):
    files, noticed = stored_files(path), 0
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[: int(share * len(data))])
        noticed += right_or_error(path, right)
        file.write_bytes(data)
    # Not noticed are files that plain Zarr readers alone need, and the record beside a seal.
    assert len(files) / 2 < noticed < len(files)


def test_no_missing_file_changes_an_answer(path, right):
    files, noticed = stored_files(path), 0
    for file in files:
        data = file.read_bytes()
        file.unlink()
        noticed += right_or_error(path, right)
        file.write_bytes(data)
    assert len(files) / 2 < noticed < len(files)


def test_no_files_that_changed_places_change_an_answer(path, right):
    swaps = noticed = 0
    for number, (first, second) in enumerate(combinations(stored_files(path), 2)):
        one, other = first.read_bytes(), second.read_bytes()
        related = first.name == second.name or first.parent == second.parent
        if one == other or not related or number % 3:
            continue
        first.write_bytes(other)
        second.write_bytes(one)
        noticed += right_or_error(path, right)
        first.write_bytes(one)
        second.write_bytes(other)
        swaps += 1
    assert swaps > 200
    assert noticed > 0.8 * swaps


@pytest.mark.parametrize("how", ["flipped", "short", "missing", "swapped", "stale"])
@pytest.mark.parametrize("array", ["states", "positions", "label"])
def test_damage_to_a_chunk_names_part_layer_and_chunk(path, array, how):
    part = path / "part-00001-00000"
    folder = {
        "states": part / "layers" / "0000-conv_1" / "states" / "c",
        "positions": part / "layers" / "0000-conv_1" / "positions" / "c",
        "label": part / "samples" / "label" / "c",
    }[array]
    file = stored_files(folder)[-1]
    data = file.read_bytes()
    # A valid chunk of the same kind from elsewhere in the store.
    other = {
        "states": part / "layers" / "0000-conv_1" / "states" / "c" / "0" / "0",
        "positions": part / "samples" / "label" / "c" / "0",
        "label": part / "samples" / "prediction" / "c" / "0",
    }[array]
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes({
            "flipped": data[:-9] + bytes([data[-9] ^ 16]) + data[-8:], "short": data[:-1],
            "swapped": other.read_bytes(), "stale": other.read_bytes(),
        }[how])  # fmt: skip
    try:
        with pytest.raises(DamageError) as caught:
            content(path)
    finally:
        file.write_bytes(data)
    assert str(file.relative_to(path)) in str(caught.value)
    assert "restore the file from a copy" in str(caught.value)


HOSTILE = [
    None, -1, 0, 1, 1 << 70, 1.5, float("inf"), True, "", "../..", "\x00", [], [[]], {}, {"a": 1},
]  # fmt: skip


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield where each value of a document is."""
    if place:
        yield place
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else inner:
        yield from places(item, (*place, key))


def replaced(document: Any, place: tuple, value: Any) -> Any:
    changed = copy.deepcopy(document)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def signed(document: Any, node: str) -> bytes:
    """Return a document with the right checksum, as a forger would make it."""
    attributes = document.get("attributes")
    if isinstance(attributes, dict) and isinstance(attributes.get("tsstore"), dict):
        attributes["tsstore"]["checksum"] = attributes_checksum(node, attributes["tsstore"])
    return json.dumps(document).encode()


def test_no_hostile_value_leads_to_another_error(path):
    refused = tried = 0
    # Some values at some places: the sweep puts all of them everywhere.
    for file in [file for file in stored_files(path) if file.name == "zarr.json"]:
        node = file.parent.relative_to(path).as_posix().removeprefix(".")
        data = file.read_bytes()
        for number, place in enumerate([*places(json.loads(data))][::4]):
            for value in HOSTILE[number % 15 :: 15]:
                file.write_bytes(signed(replaced(json.loads(data), place, value), node))
                try:
                    content(path)
                    str(open_store(path))
                except TsstoreError:
                    refused += 1
                tried += 1
        file.write_bytes(data)
    assert tried > 100
    assert refused > tried / 3


FOREIGN = [
    b"", b"null", b"[]", b"{}", b'"text"', b"\xff", b'{"attributes": []}', b'{"attributes": {}}',
    b'{"attributes": {"tsstore": 1}}', b'{"attributes": {"tsstore": {}}}', b'{"a": NaN}',
    b'{"attributes": {"tsstore": {"format": 1}}}', b"[" * 5000, b'{"a":' * 400 + b"1" + b"}" * 400,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FOREIGN)))
def test_no_foreign_document_leads_to_another_error(path, right, number):
    document = FOREIGN[number]
    # In some places each: the sweep puts all of them everywhere.
    for file in [file for file in stored_files(path) if file.name == "zarr.json"][number % 3 :: 3]:
        data = file.read_bytes()
        file.write_bytes(document)
        right_or_error(path, right)
        file.write_bytes(data)


def test_no_huge_or_endless_file_is_read(path, right):
    file = stored_files(path / "part-00000-00000" / "layers")[0]
    data = file.read_bytes()
    file.unlink()
    for target in ("/dev/zero", "/dev/random"):
        file.symlink_to(target)
        assert right_or_error(path, right)
        file.unlink()
    with open(file, "wb") as huge:
        huge.truncate(1 << 42)
    assert right_or_error(path, right)
    file.write_bytes(data)
