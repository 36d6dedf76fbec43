"""Where a graph runs: what an analysis needs of this process's threads, or of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tsstore.counting.arena import Arena
from tsstore.store.files.base import Files

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

PATIENCE_SECONDS = 600.0
"""How long a cluster that has no workers any more is waited for, unless told."""


class Scheduler(ABC):
    """What an analysis needs of the place where its graphs run; it is closed at the end.

    Of tasks one process runs so many at a time, `threads`, and all of them `all_threads`; with
    shared memory that is this process, and there is no other one that might not see a file. So
    many other processes hold records for each other, `holders`. Tasks of this process use memory
    again that an arena has.
    """

    threads: int
    all_threads: int
    shared_memory = True
    holders = 0
    arena: Arena | None = None

    @abstractmethod
    def memory(self, requested: int | str | None) -> int:
        """Return the memory that one process may use, in bytes: a quarter unless requested."""

    @abstractmethod
    def run(
        self,
        graph: dict[Any, Any],
        key: Any,
        threads: int,
        report: Report | None,
        kept: Collection[Any] = (),
    ) -> Any:
        """Run a graph and return the value of a key, or those of a list of keys.

        What tasks have given is `kept` to the end, so that a worker that is lost does not make all
        of them run again.
        """

    def leave_room(self, memory: int, peak: int) -> None:
        """Keep no more used memory than what a graph leaves of it that takes so much; half at most.

        Call it before each graph, unless all of that memory is given back.
        """
        if self.arena is not None:
            self.arena.trim(max(min(memory // 2, memory - peak), 0))

    def holding(self, room: int) -> AbstractContextManager[str]:
        """Let each worker hold so many bytes of records, and give the place of these."""
        raise NotImplementedError

    @property
    def is_holding(self) -> bool:
        """Whether workers hold records now."""
        return False

    def keep_records(self, files: Collection[str]) -> set[str]:
        """Return which files of records workers hold, and let them hold no others."""
        raise NotImplementedError

    def check_scratch(self, folder: str) -> None:  # noqa: B027 - one process sees its own
        """Raise AnalysisError if not all processes see the folder."""

    def seeing(self, folder: str) -> str:
        """Say in a clause which other processes see a folder; empty if there are none."""
        return ""

    def reading(self, files: Files, parts: Sequence[str]) -> AbstractContextManager[None]:
        """Check that all processes see these parts of a store, before it is read.

        It is an AccessError at once if one does not, and later where a file is missing for one that
        another one sees.
        """
        return nullcontext()

    def close(self) -> None:  # noqa: B027 - nothing need be open
        """Let go of what was opened."""


def task_keys(graph: dict[Any, Any]) -> set[Any]:
    """Return the keys of a graph that stand for tasks, not for constants."""
    return {key for key, value in graph.items() if isinstance(value, tuple)}
