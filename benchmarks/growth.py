"""What a run of many parts and many layers costs: to open, look at, analyse, verify, compact.

Writes a run and does each task in a process of its own::

    python benchmarks/growth.py
    python benchmarks/growth.py --parts 200 --layers 30 --directory /dev/shm
    python benchmarks/growth.py --parts 50 --layers 20 --s3

Printed are, for each task, its seconds, those of the processor, and the MiB that it adds at most to
what the process had before; imports do not count, and the run's files are in the system's cache.
With ``--s3`` the run lies on a moto server on this machine, which is a program in Python: most of
the seconds are its own. ``--package`` names another copy of tsstore to be measured on the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tsstore
from tsstore.store.chunked.writer import ArrayWriter
from tsstore.store.files.base import Files
from tsstore.store.files.open import is_url, open_files
from tsstore.store.format.arrays import sample_spec
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import dump, group_document, load, write_group
from tsstore.store.format.paths import column_paths, commit_path, part_directory
from tsstore.store.reading.part import Part
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter, create_part, create_seal

TASKS = ("open", "layers", "info", "analyze", "verify", "compact")
NEURONS = 64
DISTINCT = 64
BUCKET = "bucket"


def main() -> None:
    """Parse, write, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--samples", type=int, default=100, help="of each part")
    parser.add_argument("--positions", type=int, default=10)
    parser.add_argument("--directory", default=None, help="where the run is made")
    parser.add_argument("--keep", default=None, help="a path at which the run is kept, or is")
    parser.add_argument("--s3", action="store_true", help="on a moto server")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--package", nargs="+", default=[""], help="where else tsstore is")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        measure(*arguments.task)
        return
    local = tempfile.TemporaryDirectory(dir=arguments.directory)
    with server() if arguments.s3 else local as place:
        path = arguments.keep or f"{place}/run.zarr"
        if not arguments.keep or not Path(path).exists():
            begun = time.perf_counter()
            write(path, arguments.parts, arguments.layers, arguments.samples, arguments.positions)
            print(f"written in {time.perf_counter() - begun:.0f} s", flush=True)
        print(
            f"{arguments.parts:,} parts of {arguments.layers} layers, {arguments.samples} samples "
            f"of {arguments.positions} positions each; load average {os.getloadavg()[0]:.1f}"
        )
        for package in arguments.package:
            print(f"{package or 'this tsstore':<14}{'s':>9}{'CPU s':>9}{'MiB':>9}")
            for task in arguments.tasks:
                command = [sys.executable, __file__, "--task", task, path]
                environment = os.environ | ({"PYTHONPATH": package} if package else {})
                done = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                )
                print(f"{task:<14}{done.stdout.splitlines()[-1]}", flush=True)


def write(path: str, parts: int, layers: int, samples: int, positions: int) -> None:
    """Write a run of so many parts that differ in their ids only."""
    files = open_files(path, durable=False)
    create_run(files)
    generator = np.random.default_rng(1)
    states = generator.integers(0, 256, (DISTINCT, NEURONS // 8), dtype=np.uint8)
    rows = states[generator.integers(0, DISTINCT, samples * positions)]
    layer = LayerBatch(rows, np.full(samples, positions, np.int64))
    names = [f"block_{index}.conv" for index in range(layers)]
    writer = PartWriter(files, PartAttributes(world_size=parts))
    attributes = {name: LayerAttributes(name, NEURONS) for name in names}
    writer.define(attributes, dict.fromkeys(names, positions), {"id": "int64"})
    writer.append(Batch(samples, dict.fromkeys(names, layer), {"id": np.arange(samples)}))
    writer.seal()
    copies = PartCopies(path, files, writer.directory)
    for part in range(1, parts):
        copies.add(part, np.arange(part * samples, (part + 1) * samples))


class PartCopies:
    """Makes more parts like one, and fast: what is the same in all of them is linked."""

    def __init__(self, path: str, files: Files, first: str) -> None:
        self._files = files
        self._part = Part.open(files, first)
        column = column_paths(first, "id")
        self._documents, self._same = {}, {}
        for key in files.walk(first):
            if key.startswith((column.values, column.checksums)):
                continue
            if key.startswith((f"{first}/layers/", f"{first}/sample")):
                data = bytes(files.read(key))
                if b'"tsstore"' in data:
                    self._documents[key.removeprefix(first)] = load(data, key)
                else:
                    self._same[key.removeprefix(first)] = data
        self._root = None if is_url(path) else Path(path)

    def add(self, rank: int, ids: npt.NDArray[np.int64]) -> None:
        """Add a part of another rank, with other ids."""
        files = self._files
        part = create_part(files, replace(self._part.attributes, rank=rank))
        directory = part_directory(part.rank, part.attempt)
        for key, document in self._documents.items():
            path = f"{directory}{key.removesuffix('/zarr.json')}"
            files.write(f"{directory}{key}", dump(group_document(path, own(document))))
        for key, data in self._same.items():
            if self._root is None:
                files.write(f"{directory}{key}", data)
            else:
                target = self._root / f"{directory}{key}"
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(self._root / f"{self._part.directory}{key}", target)
        column = ArrayWriter(
            files, column_paths(directory, "id"), sample_spec("int64"), {"name": "id", "index": 0}
        )
        column.append(ids)
        record = replace(self._part.record, columns={"id": column.flush()})
        write_group(files, commit_path(directory), record.to_json())
        column.write_shape()
        create_seal(files, directory, record, "closed")


def own(document: dict[str, Any]) -> dict[str, Any]:
    """Return the tsstore attributes of a document, without the checksum that holds at its place."""
    attributes = dict(document["attributes"]["tsstore"])
    del attributes["checksum"]
    return attributes


def measure(task: str, path: str) -> None:
    """Do one task, and print what it took."""
    act = globals()[f"do_{task}"]
    act_imports()
    before = peak()
    begun, cpu = time.perf_counter(), time.process_time()
    act(path)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(f"{seconds:>9.2f}{cpu:>9.2f}{(peak() - before) / (1 << 20):>9.0f}")


def act_imports() -> None:
    """Import and compile what all tasks need, and what a machine does once only."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/small.zarr"
        write(path, 1, 1, 2, 1)
        do_analyze(path)
        do_info(path)


def do_open(path: str) -> None:
    """Open the run, and ask how many samples it has."""
    print(tsstore.open(path).samples)


def do_layers(path: str) -> None:
    """Open one layer of all parts."""
    print(tsstore.open(path)["block_0.conv"].rows)


def do_info(path: str) -> None:
    """Do what the command does."""
    from tsstore.commands.runs import info

    with contextlib.redirect_stdout(io.StringIO()):
        info(path)


def do_analyze(path: str) -> None:
    """Count one layer."""
    tsstore.analyze(path, layers="block_0.conv", memory="256MiB")


def do_verify(path: str) -> None:
    """Read all back."""
    from tsstore.store.maintenance.verify import verify

    if not verify(path).ok:
        raise SystemExit("damaged")


def do_compact(path: str) -> None:
    """Make one part of all, beside the run."""
    from tsstore.store.maintenance.compact import compact

    out = f"{path.removesuffix('.zarr')}-compact-{os.getpid()}.zarr"
    try:
        compact(path, out, durable=False)
    finally:
        open_files(out).remove_tree()


def peak() -> int:
    """Return the most bytes that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run an S3 server in a process of its own, and give a place in it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    try:
        url = f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
        request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "its-key",
            "AWS_SECRET_ACCESS_KEY": "its-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "NO_PROXY": "127.0.0.1",
        }
        yield f"s3://{BUCKET}"
    finally:
        moto.stop()


if __name__ == "__main__":
    main()
