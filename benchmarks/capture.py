"""What a capture costs: a bare forward loop, tsstore, and the hook that one would write first.

Four copies of a network take turns in one process, in random order: two bare ones, one that tsstore
captures, and one with the naive hook (permute, ``numpy.packbits``, append to a Zarr array)::

    python benchmarks/capture.py
    python benchmarks/capture.py --quick
    python benchmarks/capture.py --threads 1 --directory /dev/shm --rounds 40
    python benchmarks/capture.py --networks conv_1 resnet
    python benchmarks/capture.py --commit-every 0.5

Printed are medians of the ratios to the bare loop's turn of the same round, of

- ``wall``: time of the loop until its last batch is queued;
- ``job``: CPU time of the thread that runs the network, which other programs do not change much;
- ``process``: CPU time of all threads. Of tsstore's writer it is what it took for a batch in all
  turns, commits included: there is one every 10 s (``--commit-every``), whoever's
  turn it is, so that ``process`` is rather too high.

``A/A`` is the second bare loop: what differs from 1 there is no cost of anything. ``ms`` is a
batch's time in the first one, ``writer`` nanoseconds of the writer's CPU time for a byte of rows.
"""

from __future__ import annotations

import argparse
import copy
import operator
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import zarr
from networks import LENET_LAYERS, Case, lenet, resnet, transformer
from torch import Tensor, nn

import tsstore

CHUNK_BYTES = 2 << 20
WAYS = ("bare", "A/A", "tsstore", "naive")
CLOCKS = ("wall", "job", "process")
Seconds = dict[str, list[float]]
CASES: dict[str, Callable[[bool], Case]] = {
    "conv_1": lambda quick: lenet(LENET_LAYERS[:1]),
    "conv_2": lambda quick: lenet(LENET_LAYERS[1:2]),
    "lenet": lambda quick: lenet(LENET_LAYERS),
    "resnet": lambda quick: resnet(2 if quick else 8),
    "transformer": lambda quick: transformer(2 if quick else 8),
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few and short turns")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1, 1])
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    parser.add_argument("--codec", default="lz4")
    parser.add_argument("--commit-every", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 5, 0.1
    print(machine())
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(f"\ntorch threads: {threads}, load average {os.getloadavg()[0]:.1f}")
        print(f"{'':<28}{'ms':>7}", *(f"{way:>27}" for way in WAYS[1:]), f"{'writer':>9}", sep="")
        print(f"{'':<35}" + "".join(f"{clock:>9}" for clock in CLOCKS) * 3)
        for name in arguments.networks:
            case = CASES[name](arguments.quick)
            with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
                seconds, writer = measure(case, Path(folder), arguments)
            print(f"{table_line(case, seconds)}{writer:>9.1f}", flush=True)


def measure(
    case: Case, folder: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Seconds], float]:
    """Return the seconds of a batch, by way and clock, a value a turn, and the writer's ns/byte."""
    models = {way: copy.deepcopy(case.model) for way in WAYS}
    recorder = tsstore.capture(
        models["tsstore"],
        folder / "tsstore",
        layers=case.layers,
        commit_every=arguments.commit_every,
        codec=arguments.codec,
    )
    attach_naive_hooks(models["naive"], case.layers, folder / "naive")
    seconds: dict[str, Seconds] = {way: {clock: [] for clock in CLOCKS} for way in WAYS}
    order = random.Random(1)
    with recorder, torch.inference_mode():
        batches = batches_in(arguments.seconds, models, case.inputs)
        writer = writer_clock()
        settle(writer)
        begun, before = writer(), recorder.statistics
        for _ in range(arguments.rounds):
            for way in order.sample(WAYS, len(WAYS)):
                found = turn(models[way], case.inputs, batches, writer)
                for clock, value in zip(CLOCKS, found, strict=True):
                    seconds[way][clock].append(value)
        recorder.commit()
        spent, after = writer() - begun, recorder.statistics
    each = spent / (after.batches - before.batches)
    seconds["tsstore"]["process"] = [each + value for value in seconds["tsstore"]["process"]]
    return seconds, spent / (after.bytes - before.bytes) * 1e9


def turn(
    model: nn.Module, inputs: Tensor, batches: int, writer: Callable[[], float]
) -> tuple[float, ...]:
    """Return seconds of a batch by each clock, without those of the writer."""
    wall, job = time.perf_counter(), time.thread_time()
    process, written = time.process_time(), writer()
    for _ in range(batches):
        model(inputs)
    wall, job = time.perf_counter() - wall, time.thread_time() - job
    process = time.process_time() - process - (writer() - written)
    settle(writer)
    return wall / batches, job / batches, process / batches


def writer_clock() -> Callable[[], float]:
    """Return what tells the CPU seconds of the writer's thread."""
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "tsstore writer")
    clock = time.pthread_getcpuclockid(writer.ident or 0)
    return partial(time.clock_gettime, clock)


def settle(writer: Callable[[], float]) -> None:
    """Wait until nothing is left to be written, so that the next turn is not disturbed."""
    before = -1.0
    while (now := writer()) != before:
        before = now
        time.sleep(0.15)


def batches_in(seconds: float, models: dict[str, nn.Module], inputs: Tensor) -> int:
    """Warm all models up; return how many batches a turn has."""
    for model in models.values():
        model(inputs)
    begun = time.perf_counter()
    models["bare"](inputs)
    return max(1, round(seconds / (time.perf_counter() - begun)))


def attach_naive_hooks(model: nn.Module, layers: tuple[str, ...], folder: Path) -> None:
    """Let each layer append its states to a Zarr array, batch by batch."""
    group = zarr.open_group(folder, mode="w")
    for name in layers:
        model.get_submodule(name).register_forward_hook(naive_hook(group, name))


def naive_hook(group: zarr.Group, name: str) -> Callable[..., None]:
    """Return the hook of one layer, whose array is made with the first batch."""

    def append(module: nn.Module, arguments: Any, output: Tensor) -> None:
        on = output > 0
        if not isinstance(module, nn.Linear):
            on = on.movedim(1, -1)
        rows = np.packbits(on.numpy(), axis=-1, bitorder="little")
        rows = rows.reshape(-1, rows.shape[-1])
        if name not in group:
            chunks = (CHUNK_BYTES // rows.shape[1], rows.shape[1])
            group.create_array(name, shape=(0, rows.shape[1]), dtype="uint8", chunks=chunks)
        group[name].append(rows)

    return append


def table_line(case: Case, seconds: dict[str, Seconds]) -> str:
    """Return the ratios to the bare loop as a line of the table."""
    bare = 1000 * statistics.median(seconds["bare"]["wall"])
    ratios = [
        f"{median_ratio(seconds[way][clock], seconds['bare'][clock]):>9.3f}"
        for way in WAYS[1:]
        for clock in CLOCKS
    ]
    return f"{case.name:<28}{bare:>7.1f}{''.join(ratios)}"


def median_ratio(some: list[float], bare: list[float]) -> float:
    """Return the median over all rounds: what slows a whole round down does not count."""
    return statistics.median(map(operator.truediv, some, bare))


def machine() -> str:
    """Return the processor and the versions."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [entry.split(":")[1].strip() for entry in text.splitlines() if "model name" in entry]
    versions = f"torch {torch.__version__}, NumPy {np.__version__}, Numba {numba.__version__}"
    processor = names[0] if names else platform.processor()
    python = platform.python_version()
    return (
        f"{processor}, {os.cpu_count()} cores, Python {python}, {versions}, Zarr {zarr.__version__}"
    )


if __name__ == "__main__":
    main()
