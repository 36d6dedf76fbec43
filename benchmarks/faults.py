"""What becomes of each use of a run when something fails: done really, and told in a table.

Run it from a checkout, whose tests bring the object store and the proxy that fails::

    PYTHONPATH=.:tests/support python benchmarks/faults.py

Each cell does one thing with a run while one thing fails: on a disk, in an object store (moto's
server behind a proxy), on a cluster of two worker processes. ``right`` is an answer that equals
that of a run to which nothing happened; an error is named by its class, and after it the same is
done again without the fault, which must be right. Below the table it counts what must not be: wrong
numbers, sound data called damaged, exceptions that are not tsstore's, half a minute without a word,
and files left behind.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import children
import torch
from distributed import Client, LocalCluster
from object_stores import FailingProxy, Outage, fresh_url, s3_environment, s3_server

import tsstore
from tsstore.errors import DamageError, TsstoreError
from tsstore.store.files import objects
from tsstore.store.files.open import open_files
from tsstore.store.maintenance.compact import compact
from tsstore.store.maintenance.verify import verify

SAMPLES, BATCH = 60, 10
LAYER = "1"
SILENCE_SECONDS = 30.0
STATES = re.compile(r"/states/c/")

Fault = Callable[[str], Any]
"""Takes where a run lies, and gives a context in which something fails."""


def record(path: str, stop: int = SAMPLES, **options: Any) -> None:
    """Record the samples that are missing, as a job does that is started again."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    settings = {"layers": [LAYER], "resume": True, "commit_every": 0.001, **options}
    with torch.inference_mode(), tsstore.capture(model, path, **settings) as recorder:
        missing = recorder.missing(range(stop))
        for start in range(0, len(missing), BATCH):
            ids = missing[start : start + BATCH]
            inputs = torch.sin(torch.tensor(ids).float()[:, None] * torch.arange(1, 5))
            with recorder.batch(id=ids):
                model(inputs)


def content(path: str) -> Any:
    """Return what a run holds, in the order of ids."""
    store = tsstore.open(path)
    ids = store.column("id")
    order = ids.argsort()
    return ids[order].tolist(), store[LAYER][:][order].tolist(), store.repeated_samples


class Uses:
    """What is done with a run; each returns what must be the same whatever fails."""

    def __init__(self, out: str, scratch: str) -> None:
        self.out, self.scratch = out, scratch
        self.scheduler: Any = "synchronous"

    def capture(self, run: str) -> Any:
        """Record a run, and read it."""
        fresh = f"{self.out}/new.zarr"
        record(fresh)
        return content(fresh)

    def resume(self, run: str) -> Any:
        """Go on with a run of which half is there."""
        record(f"{self.out}/begun.zarr")
        return content(f"{self.out}/begun.zarr")

    def info(self, run: str) -> Any:
        """Open a run and read it."""
        return content(run)

    def analyze(self, run: str) -> Any:
        """Count a layer's states."""
        options = {"scratch": self.scratch, "scheduler": self.scheduler, "patience": 3}
        return tsstore.analyze(run, memory="48MiB", **options)[LAYER].spectrum

    def export(self, run: str) -> Any:
        """Write a table of a layer's states."""
        options = {"scratch": self.scratch, "scheduler": self.scheduler}
        return tsstore.export(run, LAYER, f"{self.out}/states.parquet", **options)

    def verify(self, run: str) -> Any:
        """Read everything back."""
        report = verify(run)
        if report.errors:
            raise DamageError(str(report.errors[0]))
        if report.unreadable:
            raise tsstore.AccessError(str(report.unreadable[0]))
        return report.samples

    def compact(self, run: str) -> Any:
        """Rewrite a run, and read the new one."""
        compact(tsstore.open(run), f"{self.out}/compact.zarr")
        return content(f"{self.out}/compact.zarr")


READS = ("info", "analyze", "export", "verify", "compact")
WRITES = ("capture", "resume", "compact")
ALL = ("capture", "resume", *READS)


class Table:
    """Does things while something fails, and keeps how they ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, dict[str, str]] = {}
        self.bad: Counter[str] = Counter()
        self.right: dict[str, Any] = {}
        self.cells = 0

    def row(
        self, name: str, base: str, fault: Fault, uses: tuple[str, ...], is_damage: bool = False,
        scheduler: Any = None,
    ) -> None:  # fmt: skip
        """Do each use while something fails."""
        for use in uses:
            cell = self.cell(name, f"{base}/{self.cells}", use, fault, is_damage, scheduler)
            self.rows.setdefault(name, {})[use] = cell
            print(f"{name:32} {use:8} {cell}", file=sys.stderr, flush=True)

    def cell(
        self, name: str, place: str, use: str, fault: Fault, is_damage: bool, scheduler: Any
    ) -> str:
        """Do one use while something fails; say how that ended, and how long it took."""
        self.cells += 1
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        run = f"{place}/run.zarr"
        record(run)
        record(f"{place}/begun.zarr", SAMPLES // 2)
        uses = Uses(place, str(scratch))
        done = getattr(uses, use)
        if use not in self.right:
            self.right[use] = done(run)
            remove(place, use)
        uses.scheduler = scheduler or uses.scheduler
        with listened() as said:
            begun = time.monotonic()
            try:
                with fault(run):
                    outcome = self.compared(use, done(run))
            except TsstoreError as error:
                outcome = type(error).__name__
                if isinstance(error.__cause__ or error, DamageError) and not is_damage:
                    self.bad["sound data called damaged"] += 1
            except Exception as error:
                outcome = f"{type(error).__name__} (!)"
                self.bad["exceptions that are not tsstore's"] += 1
            times = [begun, *said, time.monotonic()]
        silence = max(b - a for a, b in pairwise(times))
        self.bad["waits of 30 s without a word"] += silence > SILENCE_SECONDS
        self.bad["left in scratch"] += len(list(scratch.iterdir()))
        if outcome != "right":
            self.bad["half of a file or run left"] += left(place, use)
            if not is_damage:
                uses.scheduler = "synchronous"
                again = self.compared(use, done(run))
                outcome += ", then right" if again == "right" else f", then {again}"
        return f"{outcome} ({times[-1] - begun:.0f} s)"

    def compared(self, use: str, found: Any) -> str:
        """Say whether an answer is right."""
        if found == self.right[use]:
            return "right"
        self.bad["wrong numbers"] += 1
        return "wrong"

    def print(self) -> None:
        """Print the table, and how often there was what must not be."""
        print("| fault | " + " | ".join(ALL) + " |")
        print("|---" * (1 + len(ALL)) + "|")
        for name, cells in self.rows.items():
            print(f"| {name} | " + " | ".join(cells.get(use, "") for use in ALL) + " |")
        kinds = (
            "wrong numbers", "sound data called damaged", "exceptions that are not tsstore's",
            "waits of 30 s without a word", "left in scratch", "half of a file or run left",
        )  # fmt: skip
        print(f"\n{self.cells} cells: " + ", ".join(f"{self.bad[kind]} {kind}" for kind in kinds))


def remove(place: str, use: str) -> None:
    """Remove what a use made, so that it can be made again."""
    files = open_files(place)
    for name in MADE.get(use, ()):
        files.remove_tree(name)
    if use == "resume":
        files.remove_tree("begun.zarr")
        record(f"{place}/begun.zarr", SAMPLES // 2)


MADE = {
    "capture": ["new.zarr"], "export": ["states.parquet"], "compact": ["compact.zarr"],
}  # fmt: skip


def left(place: str, use: str) -> int:
    """Return how many files are there of what has failed, and is not to be gone on with."""
    if use not in ("export", "compact"):
        return 0
    names = open_files(place).list("")
    return sum(name.startswith(MADE[use][0]) for name in names)


@contextmanager
def listened() -> Iterator[list[float]]:
    """Give the times at which something is said."""
    said: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: said.append(time.monotonic())
        yield said


def opening(cause: int, pattern: re.Pattern[str], times: int = 1 << 30) -> Fault:
    """Let files that are opened to be read fail so."""

    @contextmanager
    def failing(run: str) -> Iterator[None]:
        real, count = os.open, [0]

        def open_or_fail(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if pattern.search(str(path)) and not flags & os.O_CREAT and str(path).startswith(run):
                count[0] += 1
                if count[0] <= times:
                    raise OSError(cause, os.strerror(cause), str(path))
            return real(path, flags, *arguments, **options)

        with patch.object(os, "open", open_or_fail):
            yield

    return failing


@contextmanager
def full_disk(run: str) -> Iterator[None]:
    """Let the disk be full after some files."""
    from tsstore.store.files import local

    real, count = local._write_all, [0]

    def write(file: Any, data: Any) -> None:
        count[0] += 1
        if count[0] > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, data)

    with patch.object(local, "_write_all", write):
        yield


def chunk_of(run: str) -> Path:
    """Return a file with states."""
    return next(
        path
        for path in sorted(Path(run).rglob("*"))
        if "/states/c/" in f"{path}" and path.is_file()
    )


@contextmanager
def flipped(run: str) -> Iterator[None]:
    """Flip a bit of a chunk."""
    data = bytearray(chunk_of(run).read_bytes())
    data[len(data) // 2] ^= 1
    chunk_of(run).write_bytes(data)
    yield


@contextmanager
def missing(run: str) -> Iterator[None]:
    """Remove a chunk."""
    chunk_of(run).unlink()
    yield


@contextmanager
def not_mounted(run: str) -> Iterator[None]:
    """Let the file system be gone, and come back."""
    os.rename(run, f"{run}.elsewhere")
    try:
        yield
    finally:
        os.rename(f"{run}.elsewhere", run)


def outage(proxy_fault: Outage, seconds: float) -> Fault:
    """Let an object store fail for some seconds."""

    @contextmanager
    def begun(run: str) -> Iterator[None]:
        proxy_fault.begin(seconds)
        try:
            yield
        finally:
            proxy_fault.begin(-1)

    return begun


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Change environment variables."""
    with patch.dict(os.environ, changes):
        yield


def on_disk(table: Table) -> None:
    """Let disks fail."""
    base = str(table.folder / "disk")
    chunk, root = re.compile(r"/states/c/"), re.compile(r"run\.zarr/zarr\.json")
    table.row("nothing", base, lambda run: nullcontext(), ALL)
    table.row("a bit of a chunk is flipped", base, flipped, READS, is_damage=True)
    table.row("a chunk is missing", base, missing, READS, is_damage=True)
    table.row("no permission for a chunk", base, opening(errno.EACCES, chunk), READS)
    table.row("too many open files", base, opening(errno.EMFILE, chunk), READS)
    table.row("one EIO", base, opening(errno.EIO, chunk, 1), READS)
    table.row("EIO for ever", base, opening(errno.EIO, root), READS)
    table.row("a stale handle, twice", base, opening(errno.ESTALE, root, 2), READS)
    table.row("the disk is not mounted", base, not_mounted, READS)
    table.row("the disk is full", base, full_disk, WRITES)


def on_s3(table: Table, seconds: float, patience: float) -> None:
    """Let an object store fail."""
    objects.PATIENCE_SECONDS = 120.0
    with s3_server() as server, s3_environment(server):
        for kind in ("refused", "busy", "stalled", "cut"):
            fault = Outage(kind)
            with FailingProxy(server, fault) as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
                base = fresh_url().removesuffix("/run.zarr")
                name = f"S3 {kind} for {seconds:g} s"
                table.row(name, base, outage(fault, seconds), ALL)
                if kind in ("refused", "busy"):
                    objects.PATIENCE_SECONDS = patience
                    name = f"S3 {kind} for longer than is waited"
                    table.row(name, base, outage(fault, 1e9), ALL)
                    objects.PATIENCE_SECONDS = 120.0


@contextmanager
def workers() -> Iterator[Client]:
    """Give a client of two workers."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def on_a_cluster(table: Table) -> None:
    """Let clusters fail."""
    base = str(table.folder / "cluster")

    def killing(client: Any, number: int) -> Fault:
        @contextmanager
        def killed(run: str) -> Iterator[None]:
            pids = list(client.run(os.getpid).values())[:number]
            timer = threading.Timer(0.02, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
            timer.start()
            yield
            timer.join()

        return killed

    for use in ("analyze", "export"):
        with workers() as client:
            fault = killing(client, 1)
            table.row("one of two workers is killed", base, fault, (use,), scheduler=client)
    with workers() as client:
        fault = killing(client, 2)
        table.row("all workers are killed", base, fault, ("analyze",), scheduler=client)
    with workers() as client:

        @contextmanager
        def closed(run: str) -> Iterator[None]:
            client.close()
            yield

        table.row("the client is closed", base, closed, ("analyze", "export"), scheduler=client)


STOPPED = """
import os, signal, sys, threading, time
from tsstore import cli

signal.signal(signal.SIGTERM, signal.SIG_DFL)
folder, *arguments = sys.argv[1:]
before = set(os.listdir(folder))

def stop():
    while set(os.listdir(folder)) == before:
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop, daemon=True).start()
sys.argv = ["tsstore", *arguments]
cli.main()
"""


def stopped(table: Table) -> None:
    """Send SIGTERM to commands as soon as they have made a file."""
    run = str(table.folder / "stopped" / "run.zarr")
    record(run)
    for use, options in {
        "export": ["--layer", LAYER, "--states", "states.parquet"],
        "compact": ["compact.zarr"],
    }.items():
        folder = table.folder / "stopped" / use
        folder.mkdir()
        done = children.run(STOPPED, folder, use, run, *options, cwd=folder)
        table.cells += 1
        table.bad["half of a file or run left"] += len(list(folder.iterdir()))
        table.bad["exceptions that are not tsstore's"] += "Traceback" in done.stderr
        cell = f"exit code {done.returncode}"
        table.rows.setdefault("SIGTERM", {})[use] = cell


def main() -> None:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of an outage")
    parser.add_argument("--patience", type=float, default=120.0, help="with one that stays")
    parser.add_argument("--only", choices=["disk", "s3", "cluster"], help="one place")
    options = parser.parse_args()
    os.environ.setdefault("AWS_READ_TIMEOUT", "5s")
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="tsstore-faults-"))
    table = Table(folder)
    try:
        if options.only in (None, "disk"):
            on_disk(table)
            stopped(table)
        if options.only in (None, "s3"):
            on_s3(table, options.seconds, options.patience)
        if options.only in (None, "cluster"):
            on_a_cluster(table)
        table.print()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
