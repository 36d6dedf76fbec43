"""A folder of analyses, in which what was asked before is found again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.results.network import Analysis
from tsstore.errors import AnalysisError, StoreError, StoreExistsError, TsstoreError, warn
from tsstore.store.files.base import partial_name
from tsstore.store.files.open import is_url
from tsstore.store.reading.ids import id_dtype
from tsstore.store.reading.store import StateStore
from tsstore.text import printable

_Kept = TypeVar("_Kept", Analysis, GroupedAnalysis)


class Entry:
    """The place of a question's answer in a folder, whether it is there or not.

    Several processes may use a folder: an entry is there as a whole, or not at all.
    """

    def __init__(
        self, folder: str | os.PathLike[str], run: StateStore, provenance: Provenance
    ) -> None:
        self._run = run
        self._question = provenance.question
        self._path = _folder(folder, run.path) / f"{provenance.key[:32]}.analysis.zarr"

    def find(self, kind: type[_Kept]) -> _Kept | None:
        """Return what was kept; what is damaged is removed with a warning."""
        path = self._path
        if not os.path.lexists(path):
            return None
        try:
            found = kind.load(path)
            if found.provenance and found.provenance.question == self._question:
                return found.of_run(self._run.path)
            why = "it answers another question"
        except (TsstoreError, OSError) as error:
            why = str(error)
        warn(f"{printable(str(path))} is of no use ({why}): it is counted anew and replaced")
        _remove(path)
        return None

    def keep(self, found: Analysis | GroupedAnalysis) -> None:
        """Write an answer that more memory would not change; where that cannot be, warn."""
        if not self._is_settled(found):
            return
        try:
            found.save(self._path)
        except StoreExistsError:
            pass  # Another process was faster; what it found is the same.
        except (TsstoreError, OSError) as error:
            warn(f"the analysis is not kept: {error}")

    def _is_settled(self, found: Analysis | GroupedAnalysis) -> bool:
        """Whether more memory would find the same: ids were compared, or cannot be."""
        every = [found] if isinstance(found, Analysis) else found.groups.values()
        if not any(analysis.not_compared for analysis in every):
            return True
        try:
            id_dtype(self._run.parts)
        except StoreError:
            return True
        return False


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
