"""A folder of analyses, in which what was asked before is found again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tsstore.analysis.keeping.provenance import Provenance
from tsstore.errors import AnalysisError, StoreExistsError, TsstoreError, warn
from tsstore.store.files.base import partial_name
from tsstore.store.files.open import is_url
from tsstore.text import printable


class Kept(Protocol):
    """What can be saved, and loaded again."""

    @property
    def provenance(self) -> Provenance | None:
        """Where it comes from."""

    def save(self, path: Path) -> None:
        """Write it to a new path."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it again."""

    def of_run(self, path: str) -> Self:
        """Return the same, of a run that lies there now."""


_Kept = TypeVar("_Kept", bound=Kept)


class Entry:
    """The place of a question's answer in a folder, whether it is there or not.

    Several processes may use a folder: an entry is there as a whole, or not at all.
    """

    def __init__(self, folder: str | os.PathLike[str], run: str, provenance: Provenance) -> None:
        self._run = run
        self._question = provenance.question
        self._path = _folder(folder, run) / f"{provenance.key[:32]}.analysis.zarr"

    def find(self, kind: type[_Kept]) -> _Kept | None:
        """Return what was kept; what is damaged is removed with a warning."""
        path = self._path
        if not os.path.lexists(path):
            return None
        try:
            found = kind.load(path)
            if found.provenance and found.provenance.question == self._question:
                return found.of_run(self._run)
            why = "it answers another question"
        except (TsstoreError, OSError) as error:
            why = str(error)
        warn(f"{printable(str(path))} is of no use ({why}): it is counted anew and replaced")
        _remove(path)
        return None

    def keep(self, found: Kept) -> None:
        """Write an answer; where that cannot be it is a warning."""
        try:
            found.save(self._path)
        except StoreExistsError:
            pass  # Another process was faster; what it found is the same.
        except (TsstoreError, OSError) as error:
            warn(f"the analysis is not kept: {error}")


def _folder(folder: str | os.PathLike[str], run: str) -> Path:
    """Return a folder that is there, and not within the run."""
    if is_url(folder):
        raise AnalysisError(f"cache is {os.fspath(folder)}; expected a local folder")
    path = Path(folder).absolute()
    if not is_url(run) and path.resolve().is_relative_to(Path(run).resolve()):
        raise AnalysisError(
            f"cache is {printable(str(folder))}, within the run; expected a folder elsewhere: "
            "nothing but its own data is written into a run"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(
            f"cache folder {printable(str(folder))} cannot be used ({error.strerror}); pass another"
        ) from error
    return path


def _remove(path: Path) -> None:
    """Remove an entry at once, so that nobody finds a part of it."""
    aside = path.with_name(partial_name(path.name))
    with suppress(OSError):
        os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        aside.unlink()
