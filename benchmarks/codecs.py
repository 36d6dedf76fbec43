"""The three codecs: what a capture costs, what the store weighs, how fast an analysis reads it.

States are those of the convolutions of the demo's LeNet-5, and of a ResNet-18 with random weights,
on MNIST images. With each codec the same batches are captured anew::

    python benchmarks/codecs.py
    python benchmarks/codecs.py --quick
    python benchmarks/codecs.py --directory /mnt/disk --samples 4000 --threads 2

Printed are

- ``job``, ``writer``: CPU time of the thread that runs the network, and of the writer with its
  threads, as shares of what the network takes without a capture, the last commit included;
- ``encoded``: MB of rows a second of the writer's CPU time;
- ``weight``: bytes of the store's files as a share of the rows, and ``B/sample``;
- ``cold``, ``warm``: MB of rows a second that are read and checked block by block as an analysis
  does, from files whose pages the system was told to drop, and once more;
- ``warm CPU``: the same by CPU time, which other programs do not change much;
- ``analysis``: seconds of ``tsstore.analyze``, warm.

Where a system does not drop pages (some file systems in memory, some sandboxes), cold is warm.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from capture import machine
from networks import LENET_LAYERS, Case, images, lenet, resnet

import tsstore

Batches = tuple[torch.Tensor, ...]

CODECS = (("lz4", None), ("zstd", 1), ("zstd", 3))
BLOCK_ROWS = 1 << 20
COLUMNS = (
    "codec", "job", "writer", "encoded", "weight", "B/sample", "cold", "warm", "warm CPU",
    "analysis",
)  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--samples", type=int, default=10_000, help="of LeNet-5; 1/40 of ResNet-18")
    parser.add_argument("--threads", type=int, default=1, help="of the writer")
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples = arguments.samples // 10 if arguments.quick else arguments.samples
    print(machine())
    print(f"load average {os.getloadavg()[0]:.1f}, writer threads: {arguments.threads}")
    for case, batches in (lenet_case(samples), resnet_case(samples)):
        print(f"\n{case.name}: {sum(map(len, batches)):,} samples")
        print("".join(f"{column:>10}" for column in COLUMNS))
        with torch.inference_mode():
            for line in table(case, batches, arguments.directory, arguments.threads):
                print(line, flush=True)


def table(case: Case, batches: Batches, directory: Path | None, threads: int) -> Iterator[str]:
    """Yield the lines of a network's table."""
    for number, (codec, level) in enumerate((CODECS[0], *CODECS)):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            # What happens for the first time does so with the first two batches, and is not shown.
            some, path = batches if number else batches[:2], Path(folder) / "run"
            spent = capture(case, some, path, codec=codec, level=level, writer_threads=threads)
            if number:
                cells = [f"{codec} {level or ''}", *costs(spent, path)]
                yield "".join(f"{cell:>10}" for cell in cells)


def lenet_case(samples: int) -> tuple[Case, Batches]:
    """Return the demo's LeNet-5, and batches of 200 images."""
    return lenet(LENET_LAYERS[:3]), images(samples).split(200)


def resnet_case(samples: int) -> tuple[Case, Batches]:
    """Return a ResNet-18, and batches of 8 images."""
    return resnet(1), images(max(samples // 40, 8), 224, 3).split(8)


def capture(case: Case, batches: Batches, path: Path, **options: Any) -> dict[str, float]:
    """Capture all batches, each once more without, and commit them; return CPU seconds by task."""
    captured, spent = copy.deepcopy(case.model), {"bare": 0.0, "job": 0.0}
    process = time.process_time()
    with tsstore.capture(captured, path, layers=case.layers, **options) as recorder:
        for batch in batches:
            # They take turns: what else goes on in the machine is the same for both.
            for task, model in (("bare", case.model), ("job", captured)):
                begun = time.thread_time()
                model(batch)
                spent[task] += time.thread_time() - begun
        recorder.commit()
    return spent | {"writer": time.process_time() - process - spent["bare"] - spent["job"]}


def costs(spent: dict[str, float], path: Path) -> list[str]:
    """Return the cells of a line."""
    store = tsstore.open(path)
    rows = sum(layer.rows * layer.row_bytes for layer in store.values())
    weight = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    evict(path)
    cold, _ = read_time(path)
    warm, warm_cpu = min(read_time(path) for _ in range(3))
    analysis = min(analysis_time(path) for _ in range(3))
    return [
        f"{spent['job'] / spent['bare'] - 1:.1%}",
        f"{spent['writer'] / spent['bare']:.1%}",
        f"{rows / spent['writer'] / 1e6:,.0f}",
        f"{weight / rows:.0%}",
        f"{weight / store.samples:,.0f}",
        *(f"{rows / seconds / 1e6:,.0f}" for seconds in (cold, warm, warm_cpu)),
        f"{analysis:.2f} s",
    ]


def evict(path: Path) -> None:
    """Ask the system to forget what it has of all files."""
    for file in path.rglob("*"):
        if file.is_file() and hasattr(os, "posix_fadvise"):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def analysis_time(path: Path) -> float:
    """Analyse a run; return seconds of the clock."""
    begun = time.perf_counter()
    tsstore.analyze(path)
    return time.perf_counter() - begun


def read_time(path: Path) -> tuple[float, float]:
    """Read all states, block by block; return seconds of the clock, and of this thread's CPU."""
    begun, cpu = time.perf_counter(), time.thread_time()
    for layer in tsstore.open(path).values():
        for block in layer.blocks(BLOCK_ROWS):
            layer.read_block(block)
    return time.perf_counter() - begun, time.thread_time() - cpu


if __name__ == "__main__":
    main()
