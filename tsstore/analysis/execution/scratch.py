"""Places for what does not fit into memory: made, found again after a kill, and removed.

They are folders, or what lies below a key of an object store.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tsstore.analysis.execution.scratch_objects import scratch_files
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import AnalysisError, DamageError, StoreError, TsstoreWarning
from tsstore.store.files.open import is_url
from tsstore.store.process import system
from tsstore.text import counted, printable

if TYPE_CHECKING:
    from tsstore.store.files.objects import ObjectFiles

OWNER = "owner.json"
"""Locked by its process as long as that lives."""
DAY = 86_400
FORGOTTEN_DAYS = 7
"""After so long without a new file a folder of which nothing else is known is taken for left."""
_NAME = re.compile(r"tsstore-scratch-[0-9a-f]{12}")
_OBJECTS = re.compile(r"(s3|gs|az)://[^/@?#\s]+(/[^?#\s]*)?")
_MOST_OWNER_BYTES = 4096
_REMOVALS = 20


def scratch_parent(scratch: str | os.PathLike[str] | None) -> str | None:
    """Return the folder or URL in which the user wants scratch, None if any folder will do."""
    parent = None if scratch is None else os.fspath(scratch)
    if parent is not None and is_url(parent) and not _OBJECTS.fullmatch(parent):
        raise AnalysisError(
            f"scratch is {printable(parent)}; expected a folder on a file system that all workers "
            "see, or object storage: s3://, gs:// or az:// with a bucket and a path"
        )
    return parent


def local_parent(scratch: str | os.PathLike[str] | None) -> str | None:
    """Return the folder for what this process alone writes and reads, None if any will do."""
    parent = scratch_parent(scratch)
    return None if parent is None or is_url(parent) else parent


@contextmanager
def planned_scratch(
    plan: Plan, scheduler: Scheduler, scratch: str | os.PathLike[str] | None, room: int = 0
) -> Iterator[str]:
    """Make the scratch that a plan needs, and remove it with all that is in it.

    Its path, or URL, is empty where the plan needs none; where workers hold the records, it is the
    place of these, with so much `room` in each, that of the plan unless given. AnalysisError if it
    cannot be made, or not all workers see it.
    """
    if not plan.spill:
        yield ""
        return
    if plan.room_bytes:
        with scheduler.holding(room or plan.room_bytes) as place:
            yield place
        return
    parent = scratch_parent(scratch)
    if parent is not None and is_url(parent):
        made = scratch_objects(parent)
    else:
        made = scratch_folder(parent, scheduler.seeing)
    with made as folder:
        scheduler.check_scratch(folder)
        yield folder


@contextmanager
def scratch_folder(
    parent: str | os.PathLike[str] | None, seeing: Callable[[str], str] = lambda _: ""
) -> Iterator[str]:
    """Make a scratch folder, and remove it with all that is in it.

    Those beside it that killed processes have left are removed first. AnalysisError if it cannot be
    made, which says what other processes see of the place: `seeing` tells.
    """
    parent = os.path.abspath(parent or tempfile.gettempdir())
    remove_left(parent)
    folder = os.path.join(parent, _new_name())
    # Whoever interrupts does so at any time: also before what was made has been returned.
    lock = None
    try:
        try:
            os.mkdir(folder, 0o700)
            lock = _lock(folder)
        except OSError as error:
            others = f", but {seen}" if (seen := seeing(parent)) else ""
            raise AnalysisError(
                f"scratch folder {parent} cannot be used ({error.strerror}) from "
                f"{socket.gethostname()}, where the analysis was asked for{others}; pass another "
                "one as scratch="
            ) from error
        yield folder
    finally:
        try:
            _remove(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


@contextmanager
def scratch_objects(parent: str) -> Iterator[str]:
    """Give a URL below which scratch may lie, and remove all that is below it then.

    What killed processes have left beside it is removed first. AnalysisError if the place cannot be
    listed or written to.
    """
    parent, name = parent.rstrip("/"), _new_name()
    # Whoever interrupts does so at any time: also before what was made has been returned.
    files: ObjectFiles | None = None
    try:
        try:
            place = scratch_files(parent)
            _remove_left_objects(place)
            files = place
            files.create(f"{name}/{OWNER}", json.dumps(_this_owner() | {"scratch": name}).encode())
        except StoreError as error:
            files = None
            raise AnalysisError(
                f"scratch cannot be used from {socket.gethostname()}, where the analysis was asked "
                f"for: {error}; or pass another place as scratch="
            ) from error
        yield f"{parent}/{name}"
    finally:
        if files is not None:
            _remove_objects(files, name)


def _remove_objects(files: ObjectFiles, name: str) -> None:
    """Remove what is below a name, although tasks that an error left behind may still write."""
    try:
        for _ in range(_REMOVALS):
            files.remove_tree(name)
            if not files.exists(name):
                return
            time.sleep(0.05)
    except StoreError as error:
        warnings.warn(
            f"scratch is left at {files.where(name)}: {error}; an analysis with the same scratch= "
            f"removes it when it is {FORGOTTEN_DAYS} days old",
            TsstoreWarning,
            stacklevel=2,
        )


def _remove_left_objects(files: ObjectFiles) -> None:
    """Remove the scratch below a URL where nothing was written for a week, and say so."""
    for name in filter(_NAME.fullmatch, files.list("")):
        now = time.time()
        newest = files.newest(name, now - FORGOTTEN_DAYS * DAY)
        days = 0 if newest is None else int((now - newest) / DAY)
        if days < FORGOTTEN_DAYS:
            continue
        try:
            owner = _read_owner(bytes(files.read(f"{name}/{OWNER}", most=_MOST_OWNER_BYTES)))
        except (FileNotFoundError, DamageError):
            owner = None
        _say_removed(files.where(name), owner, days)
        files.remove_tree(name)


def remove_left(parent: str) -> None:
    """Remove the scratch folders of this user in a folder whose processes were killed.

    Of this host, since it was started, the lock tells. Of others, and where there are no locks, a
    week without a new file must do, which a warning says.
    """
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left(Path(entry.path), entry.stat(follow_symlinks=False))


def _remove_if_left(folder: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        return
    owner = _owner(folder)
    if owner == _this_owner():
        if _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)
        return
    days = int((time.time() - status.st_mtime) / DAY)
    if days >= FORGOTTEN_DAYS:
        _say_removed(str(folder), owner, days)
        shutil.rmtree(folder, ignore_errors=True)


def _say_removed(place: str, owner: dict[str, str | None] | None, days: int) -> None:
    host = printable(str((owner or {}).get("host", "an unknown host")))
    warnings.warn(
        f"{printable(place)} is removed: scratch of an analysis on {host}, which has written "
        f"nothing there for {counted(days, 'day')}",
        TsstoreWarning,
        stacklevel=3,
    )


def _lock(folder: str) -> int:
    """Say whose folder it is in a file, locked before it has its name; return its descriptor."""
    path = os.path.join(folder, OWNER)
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, json.dumps(_this_owner()).encode())
        # Not every file system has locks: there, only age tells that a folder was left.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(path + ".new", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _new_name() -> str:
    return f"tsstore-scratch-{uuid.uuid4().hex[:12]}"


def _this_owner() -> dict[str, str | None]:
    return {"host": socket.gethostname(), "system": system()}


def _owner(folder: Path) -> dict[str, str | None] | None:
    """Return what is said of a folder's process; None where nothing is, or no sense."""
    try:
        descriptor = os.open(folder / OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return _read_owner(file.read(_MOST_OWNER_BYTES))
    except OSError:
        return None


def _read_owner(data: bytes) -> dict[str, str | None] | None:
    try:
        owner = json.loads(data)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and owner.get("system") else None


def _is_free(folder: Path) -> bool:
    """Whether the process that locked a folder has ended."""
    # Network file systems lock only what is open for writing.
    descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove(folder: str) -> None:
    """Remove a folder, although tasks that an error left behind may still be writing to it."""
    # The system frees large files page after page: several at once.
    with suppress(OSError, RuntimeError), ThreadPoolExecutor() as pool:
        list(pool.map(os.unlink, [entry.path for entry in os.scandir(folder)]))
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.05)
