"""When the background writer commits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

COMMIT_COST_RATIO = 50
"""Commits come no more often than so many times what the last one took."""

HURRY_SECONDS = 0.5
"""Seconds between commits, and between looks for a reason to, in a hurry."""


class Schedule:
    """Says when a commit is due: by time and by what the last one cost, or soon, in a hurry.

    Parameters
    ----------
    every
        Seconds between commits.
    in_a_hurry
        Asked now and then; while it says so, the other rules do not hold.
    """

    def __init__(self, every: float, in_a_hurry: Callable[[], bool] | None = None) -> None:
        self._every = every
        self._in_a_hurry = in_a_hurry
        self._last = time.monotonic()
        self._due = self._last + every

    @property
    def patience(self) -> float:
        """Seconds that one may wait for something else before one looks again."""
        longest = threading.TIMEOUT_MAX if self._in_a_hurry is None else HURRY_SECONDS
        return min(max(self._due - time.monotonic(), 0), longest)

    @property
    def is_due(self) -> bool:
        """Whether to commit now."""
        hurry = self._in_a_hurry is not None and self._in_a_hurry()
        return time.monotonic() >= (self._last + HURRY_SECONDS if hurry else self._due)

    def run(self, commit: Callable[[], object]) -> None:
        """Commit, and learn from what it takes when the next one is due."""
        begun = time.monotonic()
        commit()
        self._last = time.monotonic()
        self._due = self._last + max(self._every, COMMIT_COST_RATIO * (self._last - begun))
