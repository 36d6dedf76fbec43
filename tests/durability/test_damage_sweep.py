"""Each file of a store, damaged in every way: the right answer or an error, and `verify` knows.

The fast part takes a small share of all cases, the slow one every eighth of a kind, beginning
anywhere; with ``TSSTORE_DAMAGE_SHARE=1`` it takes them all, which is half an hour. Run with ``-s``
to see how many there were, and which was the first.

A share is swept in processes of their own, in which nothing else takes memory.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import struct
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import children
import google_crc32c
import numpy as np
import pytest
from helpers import draw_batch, stored_files, write_run

from tsstore.errors import TsstoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import attributes_checksum
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store
from tsstore.store.writing.part import create_seal

BUDGET_BYTES = 8 << 20
"""What reading a store of some kilobytes may take."""
BUDGET_SECONDS = 10.0

HOSTILE: list[Any] = [
    None, True, "", 0, 1, -1, 1 << 31, 1 << 53, 1 << 70, 0.5, float("nan"), float("inf"),
    "../../etc", "/etc/passwd", "..", "\x00", "\x1b[2J", "a" * 300, [], [1 << 53], {}, {"a": 1},
    [[[[[[[[[[]]]]]]]]]],
]  # fmt: skip
DEEP = b'{"attributes":' * 2000 + b"1" + b"}" * 2000
DOCUMENTS = [
    b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"attributes": {}}', b'{"a": NaN}',
    b'{"attributes": {"tsstore": {}}}', b'{"attributes": {"tsstore": {"format": 1}}}', b"9" * 9999,
    b'{"zarr_format": 3, "node_type": "group", "attributes": {}}', b" " * (17 << 20), DEEP,
]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Three parts, one of them open, one sealed while its writer went on; positions that vary."""
    path = tmp_path_factory.mktemp("sweep") / "run.zarr"
    rng = np.random.default_rng(0)

    def batches(first: int) -> list:
        columns = {"id": np.arange(first, first + 5), "text": [f"{i}ü" for i in range(5)]}
        positions = {"conv_1": [4, 0, 4, 4, 3]}
        return [draw_batch(rng, 5, positions=positions, columns=columns) for _ in range(2)]

    for rank, attempt in ((0, 0), (1, 0), (1, 1)):
        part = PartAttributes(rank=rank, world_size=2, step=7, user={"lr": 0.1})
        drawn = batches(100 * rank + 10 * attempt)
        writer = write_run(path, drawn, part=part, chunk_bytes=20, close=rank == 0)
        if (rank, attempt) == (1, 0):
            sealed = writer.record
            writer.append(drawn[0])
            writer.commit()
            create_seal(LocalFiles(path), writer.directory, sealed, "resumed", "another process")
    content(path)
    verify(path)
    return path


def content(path: Path) -> Any:
    """Return everything that a reader may want to know of a store."""
    store = open_store(path)
    str(store)
    return (
        [(part.directory, part.attributes, part.samples, part.seal) for part in store.parts],
        {name: (states[:].tolist(), states.decode().tolist()) for name, states in store.items()},
        {name: states.read_positions().tolist() for name, states in store.items()},
        {name: [states.attributes, list(states.blocks(7))] for name, states in store.items()},
        {name: store.column(name).tolist() for name in store.columns},
        (store.steps, store.last_commit, store.repeated_samples),
    )


@dataclass(frozen=True)
class Case:
    """What happens to a file.

    Attributes
    ----------
    kind
        What is counted together.
    file
        The file.
    data
        Its new bytes, or what makes them: most are never needed; None where it is deleted.
    forged
        Whether somebody made it with right checksums: then another answer may be right.
    other, other_data
        A second file and its new bytes.
    """

    kind: str
    file: Path
    data: bytes | Callable[[], bytes] | None
    forged: bool = False
    other: Path | None = None
    other_data: bytes = b""

    @property
    def is_huge(self) -> bool:
        """Whether it may ask for memory."""
        return self.kind in ("Blosc header", "huge value")

    @property
    def takes_a_seal(self) -> bool:
        """Whether a seal is gone: that cannot be noticed, and its part's record counts."""
        return self.data is None and self.file.parent.name == "sealed"


def cases(path: Path) -> Iterator[Case]:
    """Yield all that may happen to the files of a store."""
    files = stored_files(path)
    for number, file in enumerate(files):
        data = file.read_bytes()
        yield Case("deleted", file, None)
        for size in (0, len(data) // 2, len(data) - 1):
            yield Case("truncated", file, data[:size])
        yield Case("extended", file, data + b"\x00")
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1 << (position % 8)
            yield Case("flipped", file, bytes(flipped))
        for other in files[number + 1 :]:
            if other.name == file.name and other.read_bytes() != data:
                yield Case("swapped", file, other.read_bytes(), other=other, other_data=data)
        if file.name == "zarr.json":
            yield from hostile_documents(path, file, data)
        else:
            yield from hostile_chunks(file, data)


def hostile_documents(path: Path, file: Path, data: bytes) -> Iterator[Case]:
    """Yield metadata that anybody could write, with right checksums where there are any."""
    node = file.parent.relative_to(path).as_posix().removeprefix(".")
    for document in DOCUMENTS:
        yield Case("document", file, document, forged=True)
    for place in places(json.loads(data)):
        for value in HOSTILE:
            changed = partial(forged, data, node, replaced, place, value)
            huge = (isinstance(value, int) and value >= 1 << 31) or value == [1 << 53]
            yield Case("huge value" if huge else "value", file, changed, forged=True)
        yield Case("value left out", file, partial(forged, data, node, without, place), True)


def hostile_chunks(file: Path, data: bytes) -> Iterator[Case]:
    """Yield chunks whose Blosc headers declare what they do not hold, closed by a right crc32c."""
    fields = struct.unpack_from("<BBBBIII", data)
    values = (0, 1, 16, 255, 1 << 20, (256 << 20) - 1, 1 << 31, (1 << 32) - 1)
    for field, value in ((field, value) for field in range(7) for value in values):
        header = list(fields)
        header[field] = value if field > 3 else value % 256
        packed = struct.pack("<BBBBIII", *header) + data[16:-4]
        closed = packed + struct.pack("<I", google_crc32c.value(packed))
        if closed != data:
            yield Case("Blosc header", file, closed)


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield where each value of a document is."""
    if place:
        yield place
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else inner:
        yield from places(item, (*place, key))


def replaced(document: Any, place: tuple, value: Any) -> Any:
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = copy.copy(value)
    return document


def without(document: Any, place: tuple) -> Any:
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return document


def forged(data: bytes, node: str, change: Callable[..., Any], *arguments: Any) -> bytes:
    """Return a changed document with the right checksum, as a forger would make it."""
    document = change(json.loads(data), *arguments)
    attributes = document.get("attributes")
    if isinstance(attributes, dict) and isinstance(attributes.get("tsstore"), dict):
        attributes["tsstore"]["checksum"] = attributes_checksum(node, attributes["tsstore"])
    return json.dumps(document).encode()


def attempt(call: Any, path: Path) -> tuple[Any, Exception | None]:
    """Return what a call gives, or the error of tsstore that it raises."""
    try:
        return call(path), None
    except TsstoreError as error:
        return None, error


@contextmanager
def one_thread() -> Iterator[None]:
    """Let stores be read in one thread: to start more takes longer than to read a small store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFiles, "readers", 1)
        patch.setattr("tsstore.store.maintenance.verify.processors", lambda: 1)
        yield


class Sweep:
    """Lets cases happen to a store, one after another, and checks what its readers say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.right = content(path)
        self.counts: Counter = Counter()
        self.peak = 0
        assert not verify(path).errors

    def run(self, in_threads: bool, share: int, first: int, kinds: Collection[str] = ()) -> None:
        """Try each `share`-th case, from the first on; of each of some kinds, if they are given.

        It is every eighth of those if they are read in several threads, as users read them, whose
        own memory is not told from other memory; and all others if they are not.
        """
        reached: Counter = Counter()
        for case in cases(self.path):
            if kinds and case.kind not in kinds:
                continue
            counted = case.kind if kinds else ""
            number, skipped = divmod(reached[counted] - first, share)
            reached[counted] += 1
            if number >= 0 and not skipped and in_threads == (number % 8 == 0):
                with nullcontext() if in_threads else one_thread():
                    self.check(case, traced if in_threads else watched)

    def check(self, case: Case, watch: Watch) -> None:
        whole, data = case.file.read_bytes(), case.data
        if callable(data):
            case = replace(case, data=(data := data()))
        if data is None:
            case.file.unlink()
        else:
            case.file.write_bytes(data)
        if case.other is not None:
            case.other.write_bytes(case.other_data)
        try:
            self.read(case, watch)
        finally:
            case.file.write_bytes(whole)
            if case.other is not None:
                case.other.write_bytes(data)

    def read(self, case: Case, watch: Watch) -> None:
        label = f"{case.kind} {case.file.relative_to(self.path)}: {case.data!r:.3000}"
        # Computing time: the machine may be busy with other things.
        started = time.process_time()
        # Where a number asks for memory, that is asked for each time; the interpreter's table of
        # names, which grows by megabytes, grows but once. And the most that a process ever had, by
        # which it is watched, may be from an earlier case: the second time its own is traced.
        for again in (watch, traced):
            with again() if case.is_huge else nullcontext(Memory()) as memory:
                read, refusal = attempt(content, self.path)
                report, no_report = attempt(verify, self.path)
            if memory.peak < BUDGET_BYTES:
                break
        assert memory.peak < BUDGET_BYTES, label
        assert time.process_time() - started < BUDGET_SECONDS, label
        self.peak = max(self.peak, memory.peak)
        if refusal is not None and "wait for the next commit" not in str(refusal):
            assert no_report is not None or not report.ok, f"{label}: {refusal}"
        elif refusal is None and not (case.forged or case.takes_a_seal):
            assert read == self.right, label
        self.counts[f"{case.kind}: " + ("noticed" if refusal is not None else "right")] += 1


@dataclass
class Memory:
    """The most that was taken, in bytes."""

    peak: int = 0


@contextmanager
def traced() -> Iterator[Memory]:
    """Watch what the block takes, in whichever thread; all takes three times as long."""
    memory = Memory()
    tracemalloc.start(1)
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def watched() -> Iterator[Memory]:
    """Watch what is asked of the system, in a process that asks it for each MiB anew."""
    memory = Memory()
    before = address_space("VmSize")
    yield memory
    memory.peak = address_space("VmPeak") - before


def address_space(line: str) -> int:
    """Return bytes of this process's memory: as it is, or its peak since the process was forked."""
    return int(re.findall(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10


Watch = Callable[[], AbstractContextManager[Memory]]
SWEEP = """
import ctypes, json, os, sys
from pathlib import Path
from test_damage_sweep import M_MMAP_THRESHOLD, Sweep

assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
done = Sweep(Path(sys.argv[1]))
if loaded := os.fork():
    # What it took to load does not count.
    os._exit(os.waitstatus_to_exitcode(os.waitpid(loaded, 0)[1]))
done.run(*json.loads(sys.argv[2]))
print(json.dumps([done.counts, done.peak]))
"""
M_MMAP_THRESHOLD = -3
"""Of malloc.h: what is as large does not come out of what is free, but from the system."""


def sweep(path: Path, share: int, first: int = 0, kinds: Collection[str] = ()) -> Counter:
    """Sweep in processes of their own; return how many cases of each kind were noticed, and not."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    counts: Counter = Counter()
    for in_threads in (False, True):
        asked = json.dumps([in_threads, share, first, kinds])
        done = children.run(SWEEP, path, asked, strict=True, env=environment, timeout=3600)
        assert done.returncode == 0, done.stderr
        counted, peak = json.loads(done.stdout)
        counts += Counter(counted)
        print(f"\n{sum(counted.values()):,} cases, at most {peak / (1 << 20):.1f} MiB")
    for kind, count in sorted(counts.items()):
        print(f"  {kind} {count:,}")
    return counts


def test_a_share_of_all_damage_is_noticed_or_changes_nothing(path):
    counts = sweep(path, 797)
    assert counts.total() > 80
    assert counts["flipped: noticed"] > counts["flipped: right"]


KINDS = {
    "deleted": 80, "truncated": 240, "extended": 80, "swapped": 1500, "document": 700,
    "value": 25_000, "value left out": 1400, "huge value": 5000, "Blosc header": 1400,
    "flipped": 35_000,
}  # fmt: skip
"""How many cases there are of each kind, at least."""
FEW = tuple(kind for kind, count in KINDS.items() if count < 5000)
PIECES = {FEW: (8, 1), ("huge value",): (8, 2), ("value",): (8, 4), ("flipped",): (8, 6)}
"""Which share of kinds is swept, and in how many pieces: processes have about as much to do."""


@pytest.mark.slow(minutes=0.5)
@pytest.mark.parametrize(
    ("kinds", "share", "piece", "pieces"),
    [
        (kinds, *how, piece, pieces)
        for kinds, (*how, pieces) in PIECES.items()
        for piece in range(pieces)
    ],
    ids=lambda value: value if isinstance(value, int) else value[-1],
)
def test_all_damage_is_noticed_or_changes_nothing(path, kinds, share, piece, pieces):
    share = int(os.environ.get("TSSTORE_DAMAGE_SHARE", share))
    first = int(os.environ.get("TSSTORE_DAMAGE_FIRST", random.SystemRandom().randrange(share)))
    print(f"share {share}, first {first}")
    counts = sweep(path, share * pieces, first + share * piece, kinds)
    for kind in kinds:
        found = {what: counts[f"{kind}: {what}"] for what in ("noticed", "right")}
        assert sum(found.values()) >= KINDS[kind] // (share * pieces), kind
        assert found["noticed"] > sum(found.values()) / 4, kind
