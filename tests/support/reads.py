"""Runs that note down which chunks of states are read, in whatever process."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from tsstore.store.files.local import LocalFiles
from tsstore.store.reading.part import open_parts
from tsstore.store.reading.store import StateStore
from tsstore.store.run import read_run


class NotedFiles(LocalFiles):
    """Files of a run, beside which each chunk of states that is read gets a line."""

    def read(self, key: str, *given: Any, **named: Any) -> Any:
        if "/states/c/" in key:
            with open(f"{self.location}.reads", "a") as notes:
                notes.write(f"{key}\n")
        return super().read(key, *given, **named)


def open_noted(path: str | os.PathLike[str]) -> StateStore:
    """Open a run whose reads are noted down."""
    files = NotedFiles(path)
    return StateStore(files, read_run(files), open_parts(files))


def take_reads(store: StateStore) -> Counter[str]:
    """Return how often each chunk was read since this was asked last."""
    notes = Path(f"{store.path}.reads")
    lines = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return Counter(lines)


def chunks_of(store: StateStore) -> Counter[str]:
    """Return all chunks of states of a run, each once."""
    root = Path(store.path)
    return Counter(str(file.relative_to(root)) for file in root.glob("*/layers/*/states/c/*/*"))
