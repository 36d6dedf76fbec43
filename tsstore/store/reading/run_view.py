"""The parts of a run as of their last commits, and moving on to later ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import Self

from tsstore.errors import StoreError
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import RunAttributes
from tsstore.store.reading.ids import ID
from tsstore.store.reading.part import Part, has_begun
from tsstore.store.reading.repeats import repeated
from tsstore.store.reading.status import (
    FINISHED,
    PartStatus,
    is_alive,
    last_commit,
    part_statuses,
    run_status,
)
from tsstore.store.run import read_run

_OWN = {"_files", "_steps", "run", "parts"}


def open_parts(files: Files, known: Iterable[Part] = ()) -> tuple[Part, ...]:
    """Open the parts of a run; of those that are known, look for later commits only."""
    parts = {part.directory: part.refreshed() for part in known}
    for name in files.list(""):
        if name.startswith("part-") and name not in parts and has_begun(files, name):
            parts[name] = Part.open(files, name)
    return tuple(parts[name] for name in sorted(parts))


class RunView:
    """A run as of the last commits of its parts, when it was opened or refreshed.

    Parameters
    ----------
    files
        Where the run lies.
    run
        What its root says.
    parts
        Its parts, with the records that this reader believes.
    steps
        Which steps' parts it is to show; all unless given.
    """

    def __init__(
        self,
        files: Files,
        run: RunAttributes,
        parts: tuple[Part, ...],
        steps: tuple[int | str | None, ...] | None = None,
    ) -> None:
        self._files = files
        self._steps = steps
        self.run = run
        self.parts = parts

    @property
    def path(self) -> str:
        """Where the run lies."""
        return self._files.location

    @property
    def samples(self) -> int:
        """Number of committed samples in all parts."""
        return sum(part.samples for part in self.parts)

    @property
    def steps(self) -> tuple[int | str | None, ...]:
        """The steps of the parts that hold samples, in order of their first part."""
        return tuple(dict.fromkeys(part.step for part in self.parts if part.samples))

    @property
    def status(self) -> str:
        """Whether the run is ``"live"``, ``"finished"`` or ``"cut off"``, as far as is known here.

        A part that is not sealed is live while its process is. Of a process on another host,
        only commits can be seen: it counts as cut off when it has been silent for five times what
        it usually takes from one to the next, ten minutes at least and a day at most.
        """
        return run_status(self.parts, self.run.created, datetime.now(UTC), is_alive)

    @property
    def part_statuses(self) -> tuple[PartStatus, ...]:
        """The status of each part, and why those that were cut off were."""
        return part_statuses(self.parts, datetime.now(UTC), is_alive)

    @property
    def finished(self) -> bool:
        """Whether, at every step, every rank's newest part was closed by its own writer."""
        return self.status == FINISHED

    @property
    def last_commit(self) -> datetime | None:
        """When there was a commit last; None if there has been none."""
        return last_commit(self.parts)

    @cached_property
    def repeated_samples(self) -> int:
        """How many samples repeat another one of their step and id; 0 where there are no ids.

        Raises
        ------
        StoreError
            If ids are neither integers nor text, or some parts have none.
        DamageError
            If ids are not what was committed.
        """
        has_ids = any(ID in part.columns for part in self.parts)
        return repeated(self.parts).samples if has_ids else 0

    def refresh(self) -> Self:
        """Move on to the latest commits, new parts included, and return this store.

        Layers, arrays and columns that were handed out before stay as they were. Samples never
        become fewer, but for those that a process committed in the very moment in which another
        one sealed its part: they do not count, and the other process records them again.

        Raises
        ------
        DamageError
            If a part's record went back, or a file is not what was written; the store then
            stays as it was.
        StoreError
            If another run lies at the path by now.
        """
        run = read_run(self._files)
        if run.run_id != self.run.run_id:
            raise StoreError(
                f"{self.path} is another run now: found run id {run.run_id!r:.80}, expected "
                f"{self.run.run_id!r:.80}; open it again"
            )
        parts = open_parts(self._files, self.parts)
        if self._steps is not None:
            parts = tuple(part for part in parts if part.step in self._steps)
        for name in vars(self).keys() - _OWN:
            # It was derived from the earlier parts.
            delattr(self, name)
        self.parts = parts
        return self

    def pinned(self) -> Self:
        """Return this store as it is now, which no :meth:`refresh` of this one moves."""
        return copy.copy(self)
