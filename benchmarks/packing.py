"""Packing on one CPU thread: NumPy, torch operations alone, and tsstore's kernels.

Printed are GB of activations read in a second, by the median CPU time of the calls, and how many
times faster tsstore is than the others. ``copy`` is what the machine reads when it copies the
tensor. The ways take turns in one process, in random order. Each tensor has just been written, as
a layer's output has, unless `--warm` says that it is the same one each time::

    python benchmarks/packing.py
    python benchmarks/packing.py --warm
    python benchmarks/packing.py --rounds 100 --json

NumPy compares the array, moves the neurons' axis to the end and calls ``packbits``; it has no
bfloat16, so there torch compares. Each way's rows are checked against NumPy's first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import nn

from tsstore.recording.axes.layer import LayerAxes
from tsstore.recording.axes.tensor import Axes
from tsstore.recording.background.arena import Arena
from tsstore.recording.packing.packer import Packer, pack_by_torch

Way = Callable[[torch.Tensor, int], Any]

CASES = {
    "conv 200x6x28x28": ((200, 6, 28, 28), 1),
    "conv 200x20x24x24": ((200, 20, 24, 24), 1),
    "conv 200x16x10x10": ((200, 16, 10, 10), 1),
    "conv 32x64x56x56": ((32, 64, 56, 56), 1),
    "channels last": ((32, 64, 56, 56), 1),
    "channels last, 20": ((32, 20, 56, 56), 1),
    "conv 32x512x7x7": ((32, 512, 7, 7), 1),
    "tokens 32x196x512": ((32, 196, 512), 2),
    "dense 200x84": ((200, 84), 1),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="turns of each way")
    parser.add_argument("--warm", action="store_true", help="the same tensor each time")
    parser.add_argument("--json", action="store_true", help="print a JSON document a line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.json:
        print(machine())
        names = f"times {', '.join(OTHERS)}"
        print(f"{'':<20}{'':<10}", *(f"{name:>9}" for name in WAYS), f"{names:>27}")
    for name in CASES:
        for dtype in DTYPES:
            tensor, axis = make(name, dtype), CASES[name][1]
            speeds = measure(tensor, axis, arguments.rounds, arguments.warm)
            found = {"case": name, "dtype": str(dtype).removeprefix("torch."), **speeds}
            print(json.dumps(found) if arguments.json else table_line(found))


def by_numpy(tensor: torch.Tensor, neuron_axis: int) -> Any:
    """Pack as one would by hand."""
    on = (tensor > 0).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy() > 0
    return np.packbits(np.moveaxis(on, neuron_axis, -1), axis=-1, bitorder="little")


def by_torch(tensor: torch.Tensor, neuron_axis: int) -> Any:
    """Pack by torch operations, as on other devices."""
    return pack_by_torch(tensor, 0.0, neuron_axis, 0)


def by_tsstore(tensor: torch.Tensor, neuron_axis: int) -> Any:
    """Pack as a capture does: in blocks, by what is known of earlier tensors of the layer."""
    return packer_of(neuron_axis).pack(tensor).rows


def by_copying(tensor: torch.Tensor, neuron_axis: int) -> Any:
    """Read all values and write them elsewhere; nothing is packed."""
    return copy_of(tensor.shape, tensor.stride(), tensor.dtype).copy_(tensor)


@cache
def copy_of(shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return where to copy tensors of a kind to."""
    return torch.empty_strided(shape, strides, dtype=dtype)


@cache
def packer_of(neuron_axis: int) -> Packer:
    """Return what packs the tensors of a layer."""
    return Packer(0.0, LayerAxes(Axes("layer", nn.Identity(), neuron_axis, 0)), Arena())


PACKING: dict[str, Way] = {"numpy": by_numpy, "torch": by_torch, "tsstore": by_tsstore}
WAYS: dict[str, Way] = {**PACKING, "copy": by_copying}
OTHERS = ("numpy", "torch", "copy")


def make(name: str, dtype: torch.dtype) -> torch.Tensor:
    """Return activations, half of them on."""
    shape, _ = CASES[name]
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    if name.startswith("channels last"):
        return values.to(memory_format=torch.channels_last)
    return values


def measure(
    tensor: torch.Tensor, neuron_axis: int, rounds: int, warm: bool = False
) -> dict[str, float]:
    """Return the GB/s of each way."""
    expected = by_numpy(tensor, neuron_axis).ravel()
    for name, way in PACKING.items():
        if not np.array_equal(np.asarray(way(tensor, neuron_axis)).ravel(), expected):
            raise AssertionError(f"{name} packs {tuple(tensor.shape)} otherwise than NumPy")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    order = random.Random(1)
    for _ in range(rounds):
        # What ran before decides what is left in the cache: none follows always the same one.
        for name in order.sample(list(WAYS), len(WAYS)):
            given = tensor if warm else tensor.clone()
            begin = time.thread_time()
            WAYS[name](given, neuron_axis)
            seconds[name].append(time.thread_time() - begin)
    size = tensor.numel() * tensor.itemsize / 1e9
    return {name: size / statistics.median(times) for name, times in seconds.items()}


def table_line(found: dict[str, Any]) -> str:
    """Return what was found as a line of the table."""
    speeds = "".join(f"{found[name]:>10.1f}" for name in WAYS)
    ratios = "".join(f"{found['tsstore'] / found[name]:>9.2f}" for name in OTHERS)
    return f"{found['case']:<20}{found['dtype']:<10}{speeds}{ratios}"


def machine() -> str:
    """Return the processor, how busy it is, and the versions."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [entry.split(":")[1].strip() for entry in text.splitlines() if "model name" in entry]
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = f"torch {torch.__version__}, NumPy {np.__version__}, Numba {numba.__version__}"
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {load}; {versions}; GB/s"


if __name__ == "__main__":
    main()
