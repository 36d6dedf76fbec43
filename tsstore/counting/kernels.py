"""How the loops of this room are compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def kernel(function: _Function) -> _Function:
    """Compile a function of arrays and numbers that allocates nothing, without the lock of Python.

    Kernels call small functions for each row. Numba would count a reference to each array in each
    of these calls, with atomic instructions that take longer than all the rest, and cannot always
    leave that out where there is a branch; what allocates nothing needs no counting. See
    https://github.com/numba/numba/issues/2345.
    """
    # Numba's stubs do not know the option.
    options: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
    compiled: _Function = njit(**options)(function)
    return compiled
