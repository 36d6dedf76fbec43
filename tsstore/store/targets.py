"""Where results are to be written: looked at before they are counted."""

from __future__ import annotations

import os
from pathlib import Path

from tsstore.errors import AccessError, FormatError, StoreError, StoreExistsError
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import StorePath, is_url
from tsstore.store.format.documents import ZARR_JSON
from tsstore.store.run import read_run
from tsstore.text import printable


def check_target(path: str | os.PathLike[str], replaces: bool = False) -> None:
    """Raise at once what writing to a path would raise after hours of counting, if it is known.

    Of URLs nothing is known. AccessError if the folder is missing, cannot be written to, or the
    path itself is a folder that a file would replace; StoreExistsError if something is there that
    must not be replaced; StoreError if the path lies within a run.
    """
    if is_url(path):
        return
    target = Path(path)
    check_outside(target)
    if not replaces:
        check_free(target)
    elif target.is_dir():
        raise not_writable(target, "it is a folder", "move it away")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise not_writable(target, "its folder is missing", "make it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise not_writable(target, "no permission to write to its folder")


def check_outside(path: StorePath) -> None:
    """Raise StoreError if a local path lies within a run."""
    if not isinstance(path, str | os.PathLike) or is_url(path):
        return
    if (run := _run_around(Path(path))) is not None:
        raise StoreError(
            f"{printable(os.fspath(path))} lies within the run {printable(str(run))}; expected a "
            "path elsewhere: nothing but its own data is written into a run"
        )


def check_free(path: Path) -> None:
    """Raise StoreExistsError if there is something at a path, a link to nowhere included."""
    if os.path.lexists(path):
        raise exists_already(path)


def exists_already(path: str | Path) -> StoreExistsError:
    """Return the error that something is at a path, or in an object store."""
    return StoreExistsError(
        f"{printable(str(path))} exists already; choose another path, or remove what is there"
    )


def not_writable(
    path: Path, why: object, advice: str = "make room or get permission there"
) -> AccessError:
    """Return the error that a path cannot be written to."""
    return AccessError(
        f"{printable(str(path))} cannot be written ({why}); {advice}, or choose another path"
    )


def _run_around(path: Path) -> Path | None:
    """Return the run in which a path lies; None if it lies in none."""
    found = None
    for folder in (path.absolute().parent.resolve() / path.name).parents:
        if not os.path.lexists(folder / ZARR_JSON):
            # To read it would look for what else was meant, in all that lies beside it.
            continue
        try:
            read_run(LocalFiles(folder))
        except FormatError:
            found = folder  # A part, or a run of another version, or a damaged one.
        except (StoreError, OSError):
            continue
        else:
            found = folder
    return found
