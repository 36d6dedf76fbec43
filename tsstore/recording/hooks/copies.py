"""Copies of a captured model, whose hooks store nothing, and why else a model may say nothing."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import torch

from tsstore.errors import warn

_KNOWN: Final[WeakValueDictionary[str, Copies]] = WeakValueDictionary()
"""Of this process: what comes out of a pickle finds here whose copy it is."""

COMPILED: Final = (
    "it was compiled and called before the hooks were there (call torch.compiler.reset(), or pass "
    "reset_compiler=True), or exported (capture torch.export.unflatten(…))"
)
CALLED_DIRECTLY: Final = "forward() was called, which runs no hooks (call the module)"
COPIED: Final = "a copy of it ran (call the one that was captured, or capture the copy)"


class Copies:
    """The copies of one captured model, however they were made.

    To run a copy beside the model is common (averaged weights, a teacher). So they are silent
    where the model itself has run, or where nobody has set `watched`.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.watched = False
        self.original_ran = False
        self.copy_ran = False
        self._process = os.getpid()
        self.key = uuid.uuid4().hex
        _KNOWN[self.key] = self

    def note(self) -> None:
        """Note that a copy runs; the first time it is said."""
        if not self.watched or self.original_ran or self.copy_ran or os.getpid() != self._process:
            return
        self.copy_ran = True
        warn(
            f"{self.run}: a copy of the captured model ran, and its states are not stored; call "
            "the model that was captured, or capture the copy",
        )


class CopiedHook:
    """Stands where a copied model had a hook: it notes that the copy runs, and stores nothing."""

    def __init__(self, copies: Copies) -> None:
        self.copies = copies

    def __call__(self, *arguments: Any) -> None:
        """Note a call; code that is compiled leaves it out."""
        if not torch.compiler.is_compiling():
            self.copies.note()

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiedHook:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return hook_of_a_copy, (self.copies.key,)


def do_nothing(*arguments: Any) -> None:
    """Stand where a copied model had a hook of which nobody in this process knows."""


def hook_of_a_copy(key: str = "") -> Callable[..., None]:
    """Return what a copy that comes out of a pickle has in a hook's place."""
    copies = _KNOWN.get(key)
    return do_nothing if copies is None else CopiedHook(copies)


def why_nothing_ran(copies: Copies | None = None) -> str:
    """Return what may be the cause of a model's silence; one thing alone where that is known."""
    if copies is not None and copies.copy_ran:
        return f"the model was not called, but {COPIED}"
    return (
        f"the model was not called within a batch; or {COPIED}; or {COMPILED}; or its "
        f"{CALLED_DIRECTLY}"
    )


def why_no_sample(batches: int, calls_outside: int, copies: Copies) -> str:
    """Return what may be the cause of a capture's having no sample when it ends."""
    if batches:
        return f"its {batches:,} batches were empty"
    if calls_outside:
        return (
            f"captured layers were called {calls_outside:,} times outside of any batch: call the "
            "model instead of a part of it or its forward(), or wrap the calls in recorder.batch()"
        )
    return why_nothing_ran(copies)
