"""Text that came from elsewhere, fit to be printed."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with control characters escaped, fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
