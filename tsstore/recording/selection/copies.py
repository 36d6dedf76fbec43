"""Copies of a captured model: their hooks store nothing, and say so where nothing else does."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import torch

from tsstore.errors import TsstoreWarning

_KNOWN: Final[WeakValueDictionary[str, Copies]] = WeakValueDictionary()
"""Of this process: what comes out of a pickle finds here whose copy it is."""


class Copies:
    """The copies of one captured model, however they were made.

    To run a copy beside the model is common (averaged weights, a teacher). So they are silent
    where the model itself has run.

    Parameters
    ----------
    run
        Where the model's states are recorded.

    Attributes
    ----------
    watched
        Whether the model is being captured, and what its copies do matters.
    original_ran
        Whether it has run.
    ran
        Whether a copy has, before it.
    key
        What a pickle calls them.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.watched = False
        self.original_ran = False
        self.ran = False
        self._process = os.getpid()
        self.key = uuid.uuid4().hex
        _KNOWN[self.key] = self

    def note(self) -> None:
        """Note that a copy runs; the first time it is said."""
        if not self.watched or self.original_ran or self.ran or os.getpid() != self._process:
            return
        self.ran = True
        warnings.warn(
            f"{self.run}: a copy of the captured model ran, and its states are not stored; call "
            "the model that was captured, or capture the copy",
            TsstoreWarning,
            stacklevel=4,
        )


class CopiedHook:
    """Stands where a copied model had a hook: it notes that the copy runs, and stores nothing.

    Parameters
    ----------
    copies
        Which the copy is one of.
    """

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
