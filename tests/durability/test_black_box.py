"""Ranks of a real evaluation are killed at random times; readers and analyses run beside them."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import children
import numpy as np
import pytest
from black_box_job import LAYERS, SAMPLES, check_part, rows_of, spectrum_of

import tsstore
from tsstore.errors import NotAStoreError

PATIENCE = 120.0
"""Seconds after which a process counts as stuck."""


SERVE = """
import os, sys
os.dup2(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
import black_box_job
black_box_job.serve()
"""


class Server:
    """Starts processes that have loaded all that they need: forks of one that has recorded."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        self.process = children.start(SERVE, errors, pipes=["stdin", "stdout"])

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, task: str, **arguments) -> int:
        return self.ask(task=task, arguments=arguments)

    def wait(self, pid: int) -> int:
        """Return how a process ended: its exit code, or minus the signal that killed it."""
        deadline = time.monotonic() + PATIENCE
        while (code := self.ask(reap=pid)) is None:
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.005)
        return code

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "errors")
    yield server
    server.close()
    assert server.process.returncode == 0
    assert server.errors.read_text() == ""


class Job:
    """An evaluation whose ranks are killed and started again, until it is left to end."""

    def __init__(self, server: Server, folder: Path, seed: int) -> None:
        self.server, self.folder = server, folder
        self.drawn = random.Random(seed)
        self.path, self.oracle = folder / "run", folder / "oracle"
        self.oracle.mkdir()
        self.durable = self.drawn.random() < 0.3
        self.world_size, self.pause = self.drawn.choice((2, 3)), 0.016
        self.alive: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    @contextmanager
    def watched(self):
        """Let a reader and an analyst look at the run all the time."""
        stop = self.folder / "stop"
        pids = {
            kind: self.server.start(
                "watch",
                kind=kind,
                path=str(self.path),
                report=str(self.folder / kind),
                stop=str(stop),
            )
            for kind in ("reader", "analyst")
        }
        try:
            yield
        finally:
            stop.touch()
            codes = [self.server.wait(pid) for pid in pids.values()]
        assert codes == [0, 0], self.server.errors.read_text()
        for kind in pids:
            report = json.loads((self.folder / kind).read_text(encoding="utf-8"))
            self.counts["false damage"] += len(report["wrong"])
            assert report["wrong"] == [], report["wrong"]
            self.counts += Counter(report["done"])

    def start(self) -> None:
        """Start each rank that does not run."""
        for rank in range(self.world_size):
            if rank not in self.alive:
                self.alive[rank] = self.server.start(
                    "record",
                    path=str(self.path),
                    oracle=str(self.oracle),
                    seed=self.drawn.randrange(1 << 32),
                    durable=self.durable,
                    pause=self.pause,
                    rank=rank,
                    world_size=self.world_size,
                )

    def kill(self, ranks) -> None:
        """Kill some ranks at the same time, if they have not ended well already."""
        for rank in ranks:
            os.kill(self.alive[rank], signal.SIGKILL)
        codes = [self.server.wait(self.alive.pop(rank)) for rank in ranks]
        assert set(codes) <= {0, -signal.SIGKILL}, self.server.errors.read_text()
        self.counts["kills"] += codes.count(-signal.SIGKILL)

    def play_round(self) -> None:
        """Let the ranks run for a while, kill some or all of them, and check what is there."""
        if self.drawn.random() < 0.4:
            self.kill(list(self.alive))
            self.world_size = self.drawn.choice((2, 3))
        self.start()
        time.sleep(self.drawn.random() * 0.8)
        count = self.drawn.choice((1, self.world_size, self.world_size))
        self.kill(self.drawn.sample(sorted(self.alive), count))
        self.check()
        self.counts["rounds"] += 1

    def finish(self) -> None:
        """Start what was killed for the last time, and let all come to their end."""
        self.start()
        codes = [self.server.wait(pid) for pid in self.alive.values()]
        assert set(codes) == {0}, self.server.errors.read_text()
        self.check()

    def check(self) -> None:
        """Check that each part is a prefix of what was given, and holds what was acknowledged."""
        acknowledged = {file.stem: ids_in(file) for file in self.oracle.glob("*.acknowledged")}
        try:
            parts = {part.directory: part for part in tsstore.open(self.path).parts}
        except NotAStoreError:
            # All were killed before one of them had made the run.
            parts = {}
        for directory, promised in acknowledged.items():
            held = check_part(parts[directory]) if directory in parts else []
            given = ids_in(self.oracle / f"{directory}.given")
            assert held == given[: len(held)]
            assert promised == given[: len(promised)]
            self.counts["rows lost"] += rows_of(max(len(promised) - len(held), 0))
        assert self.counts["rows lost"] == 0
        assert {name for name, part in parts.items() if part.samples} <= acknowledged.keys()

    def check_end(self, uninterrupted) -> None:
        """Check that the run is whole, and that its spectra are those of one never interrupted."""
        store = tsstore.open(self.path)
        assert store.finished
        assert sorted(set(store.column("id").tolist())) == list(range(SAMPLES))
        assert tsstore.verify(self.path).ok
        analysis = tsstore.analyze(store, unique_by="id", scheduler="synchronous")
        assert analysis.samples == uninterrupted.samples == SAMPLES
        for name in LAYERS:
            assert analysis[name].spectrum == uninterrupted[name].spectrum
            assert analysis[name].spectrum == spectrum_of(name, list(range(SAMPLES)))
        self.counts["repeated samples"] += store.samples - SAMPLES
        self.counts["parts cut off"] += sum(
            part.samples > 0 and part.seal.why != "closed" for part in store.parts
        )
        self.counts["rows committed"] += rows_of(store.samples)
        tsstore.repair(self.path)
        assert tsstore.verify(self.path).ok
        assert list(self.path.rglob("*.partial")) == []
        assert tsstore.open(self.path).samples == store.samples


def ids_in(file: Path) -> list[int]:
    return np.frombuffer(file.read_bytes(), dtype=np.int64).tolist()


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    """The analysis of a run that one process has recorded at one go."""
    job = Job(server, tmp_path_factory.mktemp("uninterrupted"), seed=0)
    job.world_size, job.pause = 1, 0.0
    job.finish()
    return tsstore.analyze(job.path, scheduler="synchronous")


def play(server, folder: Path, seed: int, rounds: int, uninterrupted) -> Counter[str]:
    """Play some rounds on one run, let it end, and return what was counted."""
    folder.mkdir()
    job = Job(server, folder, seed)
    with job.watched():
        for _ in range(rounds):
            job.play_round()
        job.finish()
    job.check_end(uninterrupted)
    return job.counts


def report(seed: int, counts: Counter[str]) -> str:
    names = ("rounds", "kills", "rows committed", "rows lost", "false damage")
    names += ("parts cut off", "repeated samples")
    watching = ("read", "verified", "analysed")
    return f"seed {seed}: " + ", ".join(f"{counts[name]:,} {name}" for name in names + watching)


@pytest.fixture
def seed():
    return int(os.environ.get("TSSTORE_SEED", random.SystemRandom().randrange(1 << 32)))


def test_three_rounds_of_kills_lose_nothing(server, uninterrupted, tmp_path, seed):
    print(f"seed {seed}")
    counts = play(server, tmp_path / "job", seed, 3, uninterrupted)
    print(report(seed, counts))
    assert counts["rounds"] == 3
    assert counts["read"] > 0 < counts["analysed"]


@pytest.mark.slow(minutes=1)
def test_fifty_rounds_of_kills_lose_nothing(server, uninterrupted, tmp_path, seed, capsys):
    print(f"seed {seed}")
    counts: Counter[str] = Counter()
    for number in range(10):
        counts += play(server, tmp_path / str(number), seed + number, 5, uninterrupted)
    with capsys.disabled():
        print("\n" + report(seed, counts))
    assert counts["rounds"] == 50
    assert counts["kills"] > 50
    assert counts["parts cut off"] > 20
    assert counts["verified"] > 10 < counts["analysed"]
