"""What an analysis needs of the place where its graphs run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""


def task_keys(graph: dict[Any, Any]) -> set[Any]:
    """Return the keys of a graph that stand for tasks, not for constants."""
    return {key for key, value in graph.items() if isinstance(value, tuple)}


class Scheduler(Protocol):
    """What an analysis needs of a scheduler."""

    threads: int
    all_threads: int
    shared_memory: bool

    def memory(self, asked: int | None) -> int:
        """Return the memory that one process may use, in bytes."""

    def check_scratch(self, folder: str) -> None:
        """Raise AnalysisError if not all processes see the folder."""

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph and return the value of a key."""

    def close(self) -> None:
        """Let go of what was opened."""
