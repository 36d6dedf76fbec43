"""What resets of the TensorState API cost: the last against the first, and the bytes they leave.

    python benchmarks/resets.py [--resets 401] [--stay]

Each round runs the demo's LeNet-5 on 100 test images, asks for the network's efficiency, and
resets. With ``--stay`` the store stays on disk, a part a reset; else it is temporary.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tsstore
from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5


def main() -> None:
    """Print a line of times, and one of bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resets", type=int, default=401)
    parser.add_argument("--stay", action="store_true")
    options = parser.parse_args()
    model = load_lenet5()
    inputs = torch.from_numpy(mnist.to_model_input(mnist.test_images()[0][:100]))
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        path = Path(folder) / "run.zarr" if options.stay else None
        tsstore.build_efficiency_model(model, ["Conv2d"], storage_path=path)
        evaluations, resets, sizes = [], [], []
        for _ in range(options.resets):
            begun = _clocks()
            with torch.inference_mode():
                model(inputs)
            tsstore.network_efficiency(model)
            evaluated = _clocks()
            tsstore.reset_efficiency_model(model)
            evaluations.append(evaluated - begun)
            resets.append(_clocks() - evaluated)
            sizes.append(_bytes_in(Path(folder)))
        for name, rounds in (("evaluation", evaluations), ("reset", resets)):
            _print_times(name, np.array(rounds))
        print(f"bytes on disk after the 1st and the last reset: {sizes[0]:,}, {sizes[-1]:,}")
        tsstore.remove_state_layers(model)
        tempfile.tempdir = None


def _clocks() -> np.ndarray:
    """Return seconds on the wall, and of this process's CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def _print_times(name: str, seconds: np.ndarray) -> None:
    """Print medians of the 20 rounds that follow the 1st, whose code is compiled, and the last."""
    for clock, column in (("wall", seconds[1:, 0]), ("CPU", seconds[1:, 1])):
        first, last = np.median(column[:20]), np.median(column[-20:])
        print(
            f"{name}, {clock}: first {1000 * first:.1f} ms, last {1000 * last:.1f} ms, "
            f"ratio {last / first:.2f}, longest {1000 * column.max():.1f} ms"
        )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
