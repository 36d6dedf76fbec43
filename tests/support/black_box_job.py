"""An evaluation on several ranks, and what watches it: real processes, forked where torch is."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from watching import packed

import tsstore
from tsstore.analysis.analyze import analyze
from tsstore.errors import EmptyStoreError, NotAStoreError, TsstoreError
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.reading.part import Part

LAYERS = ("0", "3", "5")
CLASSES = 5
BATCH = 8
SAMPLES = 3000
LEAST_LOOKS = 14


def network() -> nn.Sequential:
    """Return a small network; whole numbers, so that no batch rounds differently from another."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 4)
    )
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=drawn))
    return model.eval()


def images(ids: list[int]) -> torch.Tensor:
    """Return the images of samples, float32 (samples, 1, 6, 6): they follow from the ids."""
    pixels = torch.arange(36) ** 2 + 1
    return (torch.tensor(ids)[:, None] * pixels % 7 - 3.0).reshape(-1, 1, 6, 6)


@cache
def expected_rows() -> dict[str, np.ndarray]:
    """Return the rows of all samples by layer, uint8 (samples, positions, row_bytes)."""
    values, rows = images(list(range(SAMPLES))), {}
    with torch.no_grad():
        for name, module in network().named_children():
            values = module(values)
            rows[name] = packed(values)
    return {name: rows[name] for name in LAYERS}


def columns_of(ids: list[int]) -> dict[str, list[Any]]:
    """Return the sample columns of samples."""
    return {"id": ids, "label": [i % CLASSES for i in ids], "name": [f"{i}ü" for i in ids]}


def record(
    path: str, oracle: str, seed: int, durable: bool, pause: float, rank: int, world_size: int
) -> None:
    """Evaluate a rank's share; note what is given, and what a commit has acknowledged."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    drawn, model = random.Random(seed), network()
    options = {"layers": LAYERS, "durable": durable, "resume": True, "run_id": "job"}
    with torch.no_grad(), tsstore.capture(model, path, commit_every=0.05, **options) as recorder:
        given = os.open(f"{oracle}/{recorder.part}.given", os.O_CREAT | os.O_WRONLY)
        acknowledged = os.open(f"{oracle}/{recorder.part}.acknowledged", os.O_CREAT | os.O_WRONLY)
        left = recorder.missing(range(rank, SAMPLES, world_size)).tolist()
        waiting: list[int] = []
        for start in range(0, len(left), BATCH):
            ids = left[start : start + BATCH]
            os.write(given, np.array(ids).tobytes())
            with recorder.batch(**columns_of(ids)):
                model(images(ids))
            waiting += ids
            if drawn.random() < 0.15:
                recorder.commit()
                os.write(acknowledged, np.array(waiting).tobytes())
                os.fsync(acknowledged)
                waiting.clear()
            time.sleep(drawn.random() * pause)


def check_part(part: Part) -> list[int]:
    """Check that all layers and columns of a part are those of its ids; return these."""
    columns = {name: column.read(0, part.samples) for name, column in part.columns.items()}
    ids = columns["id"].tolist() if part.samples else []
    if part.samples:
        assert {name: column.tolist() for name, column in columns.items()} == columns_of(ids)
        assert tuple(part.layers) == LAYERS
    for name, layer in part.layers.items():
        expected = expected_rows()[name][ids]
        rows = layer.states.read(0, layer.rows)
        np.testing.assert_array_equal(rows.reshape(expected.shape), expected)
        assert (layer.read_positions(0, part.samples) == expected.shape[1]).all()
    return ids


def rows_of(samples: int) -> int:
    """Return the number of rows that so many samples have in all layers."""
    return samples * sum(rows.shape[1] for rows in expected_rows().values())


def spectrum_of(layer: str, ids: list[int]) -> Spectrum:
    """Count a layer's states in samples with NumPy."""
    rows = expected_rows()[layer][ids]
    samples, positions, width = rows.shape
    whole = rows.reshape(-1, width).view(f"V{width}")
    _, places, counts = np.unique(whole, return_inverse=True, return_counts=True)
    pairs = np.unique(places.reshape(-1) * samples + np.repeat(np.arange(samples), positions))
    return Spectrum.from_counts(counts, np.bincount(pairs // samples))


class Reader:
    """Follows a run, reads all of it, and verifies it now and then."""

    def __init__(self, path: str) -> None:
        self.path, self.followed = path, None
        self.seen: dict[str, tuple[list[int], bool]] = {}

    def __call__(self, turn: int) -> str:
        if turn % 7 == 6:
            report = tsstore.verify(self.path)
            assert report.ok, str(report)
            return "verified"
        if turn % 2 or self.followed is None:
            self.followed = tsstore.open(self.path)
        store = self.followed.refresh()
        for part in store.parts:
            self.check_order(part, check_part(part))
        assert store.status in ("live", "finished", "cut off")
        samples = sum(part.samples for part in store.parts)
        for name in store.layers:
            assert store[name][:].shape[0] == samples * expected_rows()[name].shape[1]
        return "read"

    def check_order(self, part: Part, ids: list[int]) -> None:
        """Samples come after those before; a seal alone may take some back."""
        before, was_sealed = self.seen.get(part.directory, ([], False))
        common = min(len(before), len(ids))
        assert ids[:common] == before[:common]
        assert len(ids) >= len(before) or (part.seal is not None and not was_sealed)
        assert not was_sealed or ids == before
        self.seen[part.directory] = ids, part.seal is not None


class Analyst:
    """Analyses a run again and again, and counts with NumPy what it then held."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, turn: int) -> str:
        store = tsstore.open(self.path)
        # Rows follow from ids: a sample that was recorded again is a copy.
        options = ({}, {"unique_by": "id"}, {"repeats": "each"})[turn % 3]
        analysis = analyze(store, scheduler="synchronous", intervals=turn % 2 == 0, **options)
        ids = store.column("id").tolist()
        ids = ids if "repeats" in options else sorted(set(ids))
        assert analysis.samples == len(ids)
        for name, result in analysis.items():
            assert result.spectrum == spectrum_of(name, ids)
        return "analysed"


def watch(path: str, report: str, stop: str, kind: str) -> None:
    """Look at a run again and again until told to stop, and some times even on a busy machine.

    Report how often, and what was wrong.
    """
    look = {"reader": Reader, "analyst": Analyst}[kind](path)
    done: Counter[str] = Counter()
    wrong = []
    turn = 0
    while not Path(stop).exists() or (turn < LEAST_LOOKS and not wrong):
        try:
            done[look(turn)] += 1
            turn += 1
        except (NotAStoreError, EmptyStoreError) as error:
            if turn:
                wrong.append(repr(error))
        except (TsstoreError, AssertionError) as error:
            wrong.append(repr(error))
        # The jobs need the processors more.
        time.sleep(0.06)
    Path(report).write_text(json.dumps({"done": done, "wrong": wrong}), encoding="utf-8")


TASKS: dict[str, Callable[..., None]] = {"record": record, "watch": watch}


def warm_up() -> None:
    """Import, compile and count what all processes need, so that they begin at once."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        record(f"{folder}/run", folder, seed=0, durable=False, pause=0, rank=0, world_size=1)
        for turn in range(7):
            Reader(f"{folder}/run")(turn)
        for turn in range(2):
            Analyst(f"{folder}/run")(turn)


def serve() -> None:
    """Fork a process for each task that is asked for, and say how processes have ended."""
    warm_up()
    for line in sys.stdin:
        command = json.loads(line)
        if task := command.get("task"):
            pid = os.fork()
            if not pid:
                # What is printed would be taken for an answer.
                os.dup2(2, 1)
                TASKS[task](**command["arguments"])
                return
            answer: int | None = pid
        else:
            pid, status = os.waitpid(command["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)
