"""What all places of a store have in common: names, errors, a limit, the type of bytes."""

from __future__ import annotations

from tsstore.errors import StoreError

Bytes = bytes | bytearray | memoryview

MAX_FILE_BYTES = 512 << 20
"""Twice what the largest decoded chunk takes: nothing that is read at once is as large."""


class AccessError(StoreError, OSError):
    """The place cannot be read or written, or must not be: the message names the cause.

    It is an OSError as well, so that what handles a failing disk handles a failing network, too.
    """


class Place:
    """A place that has a name.

    Parameters
    ----------
    location
        The name, as a person would write it, without credentials.
    """

    def __init__(self, location: str) -> None:
        self._location = location

    @property
    def location(self) -> str:
        """The place, as a person would write it."""
        return self._location

    def where(self, key: str) -> str:
        """Return the name of what lies under `key`, for messages."""
        return f"{self._location}/{key}" if key else self._location

    def refusal(self, key: str, found: str) -> AccessError:
        """Return the error that what lies under `key` cannot be used."""
        return AccessError(f"{self.where(key)} cannot be used: {found}")

    def check_key(self, key: str) -> None:
        """Refuse a key that leads out of the store.

        Raises
        ------
        AccessError
            If the key is absolute, or has a component ``.`` or ``..`` or an empty one.
        """
        if key and any(component in ("", ".", "..") for component in key.split("/")):
            raise AccessError(
                f"{self._location}: {key!r:.200} is no key; expected names with / between them"
            )
