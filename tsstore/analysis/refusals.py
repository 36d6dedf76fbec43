"""How memory that is too small is refused: the error names what suffices, for all that is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from tsstore.errors import MemoryTooSmallError
from tsstore.text import format_memory


def too_small(what: str, memory: int, purpose: str, needed: int) -> MemoryTooSmallError:
    """Return the error that so many bytes are too few for a purpose, which needs more of them."""
    return MemoryTooSmallError(
        f"{what}: memory of {format_memory(memory)} is too small {purpose}; give at least "
        f"memory='{-(-needed // 1024)}KiB'",
        needed,
    )


def all_fit(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """Return what all checks give; of several refusals the one that needs most is raised."""
    found, refused = [], []
    for check in checks:
        try:
            found.append(check())
        except MemoryTooSmallError as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.needed)
    return found


def refuse(refused: MemoryTooSmallError, checks: Iterable[Callable[[], Any]]) -> NoReturn:
    """Raise a refusal, or that of a check which needs more."""

    def again() -> NoReturn:
        raise refused

    all_fit([again, *checks])
    raise refused
