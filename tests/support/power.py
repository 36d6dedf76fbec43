"""A disk that loses what was not synced: a model of file systems that promise no more than fsync.

What a store does to its disk is logged, and what the disk may hold after any of these steps is
drawn: of each file that was not synced anything or nothing, of each directory that was not synced
any of the names that changed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crashing import run_job

from tsstore.errors import TsstoreError
from tsstore.store.files.local import LocalFiles


@dataclass(frozen=True)
class Step:
    """One step that changed a disk, or a mark of the test's.

    Attributes
    ----------
    operation
        See :class:`tsstore.store.files.local.DiskSteps`; or ``"mark"``.
    path
        What was changed.
    argument
        The bytes of a write, the source of a rename or link, the value of a mark.
    """

    operation: str
    path: Path
    argument: Any = None


class Killed(BaseException):
    """The process is no more."""


class LoggedFiles(LocalFiles):
    """Logs the steps that change the disk; from one of them on it does nothing, as if killed.

    Parameters
    ----------
    root, durable
        See the class above.
    log
        Where to append the steps.
    stop
        After how many steps to be killed.
    skip
        Operations that are left out: a safeguard that is not there.
    """

    def __init__(
        self,
        root: Path,
        log: list[Step],
        stop: int | None = None,
        durable: bool = True,
        skip: Sequence[str] = (),
    ) -> None:
        super().__init__(root, durable)
        self._log = log
        self._stop: int | None = None
        self._skip = skip
        if stop is not None:
            self.stop_after(stop)

    def stop_after(self, steps: int) -> None:
        """Be killed after so many steps from now on."""
        self._stop = len(self._log) + steps

    def mark(self, value: int) -> None:
        """Note that so many samples are committed for certain."""
        self._log.append(Step("mark", self.root, value))

    def _step(self, operation: str, path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._stop is not None and len(self._log) >= self._stop:
            raise Killed
        if operation in self._skip:
            return None
        # The model syncs: the real disk keeps what it has, as its machine goes on.
        result = None if operation.startswith("sync") else call(*arguments)
        argument = {"write": -1, "rename": 0, "link": 0}.get(operation)
        value = None if argument is None else arguments[argument]
        self._log.append(Step(operation, path, bytes(value) if operation == "write" else value))
        return result


@dataclass(eq=False)
class _File:
    data: bytes = b""
    synced: bool = True


_Entry = _File | None
_DIRECTORY = _File()
"""Stands for any directory: they are never renamed, so that their paths tell them apart."""


@dataclass
class _Directory:
    """The paths in a directory that are there for certain, and the changes that may be lost."""

    paths: dict[Path, _Entry] = field(default_factory=dict)
    changes: list[tuple[int, Path, _Entry]] = field(default_factory=list)

    def after(self, keep: Callable[[int], bool]) -> dict[Path, _Entry]:
        """Return the paths with those changes that are kept."""
        kept = {path: entry for number, path, entry in self.changes if keep(number)}
        return {path: entry for path, entry in (self.paths | kept).items() if entry is not None}


class Disk:
    """What a disk holds, and what of it is there for certain.

    Parameters
    ----------
    base
        A directory that is there from the beginning.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._directories = {base: _Directory()}
        self._done = 0

    def do(self, step: Step) -> None:
        """Change the disk by one step."""
        self._done += 1
        if step.operation == "open":
            self._change(step.path, _File())
        elif step.operation == "write":
            file = self._entry(step.path)
            file.data, file.synced = step.argument, False
        elif step.operation == "sync":
            self._entry(step.path).synced = True
        elif step.operation == "sync_directory":
            directory = self._directories[step.path]
            directory.paths, directory.changes = directory.after(lambda number: True), []
        elif step.operation == "make_directory":
            self._directories[step.path] = _Directory()
            self._change(step.path, _DIRECTORY)
        elif step.operation == "unlink":
            self._change(step.path, None)
        else:
            assert step.operation in ("rename", "link")
            assert step.argument.parent == step.path.parent
            self._change(step.path, self._entry(step.argument))
            if step.operation == "rename":
                self._change(step.argument, None)

    def whole(self) -> dict[Path, bytes | None]:
        """Return what there is while the machine goes on: contents by path, None of directories."""
        return dict(self._tree(self._base, lambda number: True, lambda file: file.data))

    def lose_power(self, drawn: random.Random) -> dict[Path, bytes | None]:
        """Draw what there is after a loss of power: contents by path, None of directories."""
        share = drawn.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        kept = {number for number in range(self._done + 1) if drawn.random() < share}
        if drawn.random() < 0.3:
            # Many file systems keep changes in their order.
            kept = set(range(drawn.randrange(self._done + 1)))
        return dict(
            self._tree(self._base, kept.__contains__, lambda file: _remains_of(file, drawn))
        )

    def _tree(
        self, path: Path, keep: Callable[[int], bool], read: Callable[[_File], bytes]
    ) -> Iterator[tuple[Path, bytes | None]]:
        for inner, entry in self._directories[path].after(keep).items():
            if entry is _DIRECTORY:
                yield inner, None
                yield from self._tree(inner, keep, read)
            elif entry is not None:
                yield inner, read(entry)

    def _change(self, path: Path, entry: _Entry) -> None:
        self._directories[path.parent].changes.append((self._done, path, entry))

    def _entry(self, path: Path) -> _File:
        entry = self._directories[path.parent].after(lambda number: True)[path]
        assert entry is not None
        return entry


def _remains_of(file: _File, drawn: random.Random) -> bytes:
    """Draw what is left of a file: all of it where it was synced."""
    size = len(file.data)
    if file.synced or not size:
        return file.data
    length = drawn.randrange(size)
    remains = [file.data, b"", file.data[:length], bytes(size)]
    remains.append(file.data[:length] + bytes(size - length))
    return drawn.choice(remains)


def build(tree: dict[Path, bytes | None], base: Path, target: Path) -> None:
    """Make the directories and files of a tree below `base` anew below `target`."""
    # To join paths would take longer than to write files.
    above = len(str(base))
    for path, data in tree.items():
        copy = f"{target}{str(path)[above:]}"
        if data is None:
            os.mkdir(copy)
        else:
            with open(copy, "wb") as file:
                file.write(data)


@dataclass(frozen=True)
class Moment:
    """A disk at one step of a log, and what was committed for certain by then."""

    disk: Disk
    acknowledged: int | None


def moments(log: Sequence[Step], base: Path, first: int = 0) -> Iterator[Moment]:
    """Yield the disk, which changes meanwhile, after each step but so many first ones."""
    disk, acknowledged = Disk(base), None
    for number, step in enumerate(log):
        if step.operation == "mark":
            acknowledged = step.argument
        else:
            disk.do(step)
        if number >= first:
            yield Moment(disk, acknowledged)


def log_job(run: Path, log: list[Step], **options: Any) -> None:
    """Run the job, up to its end or to where it is killed, and log its steps."""
    files = LoggedFiles(run, log, **options)
    with suppress(Killed):
        run_job(files, files.mark)


@dataclass
class Trials:
    """Builds what a disk may hold, and checks it.

    Attributes
    ----------
    run
        The run whose steps were logged; its parent was there before.
    folder
        Where to build it anew.
    check
        Takes a run and how many samples were committed for certain; returns how many there are.
    enough
        After so many violations no more are looked for.
    count, states
        How many trials there were, and how many different disks among them.
    violations
        What checks have raised.
    """

    run: Path
    folder: Path
    check: Callable[[Path, int | None], object]
    enough: int | None = None
    count: int = 0
    violations: list[Exception] = field(default_factory=list)
    states: set[int] = field(default_factory=set)

    def __call__(self, tree: dict[Path, bytes | None], acknowledged: int | None) -> None:
        """Check a disk, unless it has been checked."""
        if self.decided:
            return
        self.count += 1
        state = hash((frozenset(tree.items()), acknowledged))
        if state in self.states:
            return
        self.states.add(state)
        base = self.folder / "disk"
        base.mkdir()
        build(tree, self.run.parent, base)
        try:
            self.check(base / self.run.name, acknowledged)
        except (AssertionError, TsstoreError) as error:
            self.violations.append(error)
        shutil.rmtree(base)

    @property
    def decided(self) -> bool:
        """Whether there are as many violations as are looked for."""
        return len(self.violations) == self.enough

    def __str__(self) -> str:
        return (
            f"{self.count:,} trials, {len(self.states):,} different disks, "
            f"{len(self.violations):,} violations"
        )


def lose_power(
    log: Sequence[Step], trials: Trials, drawn: random.Random, draws: float = 1, first: int = 0
) -> None:
    """Lose power after each step but the first, `draws` times on the average; often at the end."""
    for moment in moments(log, trials.run.parent, first):
        if trials.decided:
            return
        for _ in range(int(draws + drawn.random())):
            trials(moment.disk.lose_power(drawn), moment.acknowledged)
    for _ in range(10):
        trials(moment.disk.lose_power(drawn), moment.acknowledged)


def kill_everywhere(log: Sequence[Step], trials: Trials) -> None:
    """Kill the process after each step: what it has written is there, synced or not."""
    for moment in moments(log, trials.run.parent):
        if trials.decided:
            return
        trials(moment.disk.whole(), moment.acknowledged)
