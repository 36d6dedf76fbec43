"""What all places of a store have in common: names, refusals, a limit, the type of bytes."""

from __future__ import annotations

from collections.abc import Callable

from tsstore.errors import AccessError as AccessError

Bytes = bytes | bytearray | memoryview

Room = Callable[[int], memoryview]
"""Gives memory for so many bytes, to be written to; what it gave before may be lost."""

MAX_FILE_BYTES = 512 << 20
"""Twice what the largest decoded chunk takes: nothing that is read at once is as large."""


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
