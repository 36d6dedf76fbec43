"""Compiling loops, and keeping their machine code for the next process where that can be done."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import FunctionCache

_Function = TypeVar("_Function", bound=Callable[..., Any])

_UNUSABLE = (OSError, EOFError, pickle.UnpicklingError, ImportError, AttributeError)
"""No folder, no right to read or write there, a full disk, a file that was cut off, or one that
another version of Numba has put in the place of this one's meanwhile."""


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a function when it is called with new types of arguments.

    Machine code is kept in Numba's cache for the next process. Where that cannot be read or
    written to, Numba would raise whatever happened there to whoever makes the first call; here
    the function is compiled in each process instead.

    Parameters
    ----------
    **options
        Of :func:`numba.njit`, but for ``cache``.
    """

    def compile_later(function: _Function) -> _Function:
        dispatcher = njit(**options)(function)
        # Numba's own cache=True raises where there is no folder to keep anything in.
        with suppress(RuntimeError, OSError):
            cache = _ForgivingCache if options.get("_nrt", True) else _PlainLoopsCache
            dispatcher._cache = cache(function)  # type: ignore[no-untyped-call]
        return cast(_Function, dispatcher)

    return compile_later


class _ForgivingCache(FunctionCache):
    """Numba's cache, which holds nothing where it cannot be used."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled by another process, or None."""
        with suppress(*_UNUSABLE):
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, if that can be done."""
        with suppress(*_UNUSABLE):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


class _PlainLoopsCache(_ForgivingCache):
    """A cache of loops that allocate nothing: they are loaded without what Numba compiles with.

    All it knows to compile, and the memory manager that it compiles first, would take 35 MiB more
    and four times as long. It comes with the first loop that is not in the cache.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled by another process, or None."""
        with suppress(*_UNUSABLE):
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        return None


kernel = compiled(nogil=True, _nrt=False)
"""Compile a function of arrays and numbers that allocates nothing, without the lock of Python.

Kernels call small functions for each row. Numba would count a reference to each array in each
of these calls, with atomic instructions that take longer than all the rest, and cannot always
leave that out where there is a branch; what allocates nothing needs no counting. See
https://github.com/numba/numba/issues/2345.
"""

inlined = compiled(nogil=True, _nrt=False, forceinline=True)
"""Compile a small function that kernels call for each row, into each of them.

An array is seven numbers to whom it is passed: a call that LLVM does not inline of its own accord
takes longer than what these functions do.
"""
