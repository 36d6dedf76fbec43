"""Interrupting what is done at any line of tsstore, in a process of its own.

An exception out of a trace function leaves Python's record of what is being handled in disorder.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tsstore
from tsstore.analysis.schedulers import LocalScheduler

WHOLE = ("states.parquet", "states.zarr")
"""Take their names when they are complete: an interrupt a moment later leaves them there."""


class Stopper:
    """Interrupts this thread when so many lines of tsstore have been run."""

    def __init__(self, line: float) -> None:
        self.lines = 0
        self.line = line

    def __call__(self, frame: Any, event: str, argument: object) -> Any:
        if "/tsstore/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def lines_of(call: Callable[[], object], stop_at: float = float("inf")) -> int:
    """Return how many lines are run; a KeyboardInterrupt comes at one of them."""
    stopper = Stopper(stop_at)
    sys.settrace(stopper)
    try:
        call()
    finally:
        sys.settrace(None)
    return stopper.lines


def what_is_left(call: Callable[[], object], folder: Path, points: int) -> list[str]:
    """Interrupt a call at so many lines of all its phases; return what it has left at which."""
    call()  # what is imported or compiled once is not counted
    clear(folder)
    lines, left, stopped = lines_of(call), [], 0
    for point in np.unique(np.linspace(1, lines, points).astype(int)).tolist():
        clear(folder)
        try:
            lines_of(call, point)
        except KeyboardInterrupt:
            stopped += 1
            left += [
                f"{path.name} at line {point} of {lines}"
                for path in folder.iterdir()
                if path.name not in WHOLE
            ]
    assert stopped > points / 2
    return left


def clear(folder: Path) -> None:
    """Let a folder be empty."""
    shutil.rmtree(folder)
    folder.mkdir()


def main(kind: str, run: str, folder: Path) -> None:
    """Print what is left of an analysis, an export or a compaction, a line each."""
    # An interrupt between the opening of a file and its first holder leaves the closing to Python.
    warnings.simplefilter("ignore", ResourceWarning)
    LocalScheduler.shared_memory = False
    calls = {
        "analyze": lambda: tsstore.analyze(run, scratch=folder, scheduler="threads"),
        "compact": lambda: tsstore.compact(run, folder / "compacted.zarr"),
        "parquet": lambda: tsstore.export(
            run, "a", folder / "states.parquet", scratch=folder, scheduler="threads"
        ),
        "zarr": lambda: tsstore.export(
            run, "a", folder / "states.zarr", scratch=folder, scheduler="threads"
        ),
    }
    for line in what_is_left(calls[kind], folder, 40):
        print(line)
