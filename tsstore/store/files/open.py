"""From a path or URL to the files of the store there."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, TypeAlias

from tsstore.errors import StoreError
from tsstore.store.files.base import Files
from tsstore.store.files.local import LocalFiles

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_URL = re.compile("://|^(s3|gs|az):/")  # pathlib makes one slash of two
StorePath: TypeAlias = "str | os.PathLike[str] | ObjectStore"
"""A local path; a URL such as ``s3://bucket/run.zarr``; or a store object of obstore."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, such as of an object store."""
    return _URL.search(os.fspath(path)) is not None


def open_files(path: StorePath, durable: bool = True) -> Files:
    """Return the files of a store at `path`.

    Parameters
    ----------
    path
        See :data:`StorePath`.
    durable
        Whether :meth:`Files.sync` waits for the disk; an object store always does.

    Raises
    ------
    StoreError
        If `path` is no path, no URL of an object store and no store object; or obstore is missing.
    """
    if isinstance(path, str | os.PathLike) and not is_url(path):
        return LocalFiles(path, durable)
    try:
        from tsstore.store.files.objects import ObjectFiles
    except ModuleNotFoundError as error:
        raise StoreError(
            f"a store in an object store needs the package {error.name}, which is not installed; "
            "install tsstore[s3]"
        ) from error
    return ObjectFiles(path)
