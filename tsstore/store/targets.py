"""Where results are written: looked at before they are counted, there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tsstore.errors import AccessError, FormatError, StoreError, StoreExistsError
from tsstore.store.files.base import partial_name
from tsstore.store.files.local import LocalFiles, sync_directory
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


@contextmanager
def new_place(path: Path) -> Iterator[Path]:
    """Yield a path; what is there when the block has ended takes its name, for good.

    StoreExistsError if that is taken meanwhile. Whatever stops the block, nothing is left.
    """
    temporary = path.with_name(partial_name(path.name))
    try:
        yield temporary
        with naming(path):
            check_free(path)
            os.rename(temporary, path)
            sync_directory(path.absolute().parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name what is written, and say what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        # A folder that another process has put there meanwhile is not empty.
        if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
            raise exists_already(path) from error
        raise not_writable(path, error) from error


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
