"""Errors of a recorder name its run: there may be several, and one that was forgotten."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from tsstore.errors import TsstoreError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Entered = TypeVar("_Entered")


class _Recording(Protocol):
    path: str


_Self = TypeVar("_Self", bound=_Recording)


def names_run(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Let the errors of a recorder's method name its run."""

    @wraps(method)
    def named(
        self: _Self, /, *arguments: _Parameters.args, **keywords: _Parameters.kwargs
    ) -> _Result:
        try:
            return method(self, *arguments, **keywords)
        except TsstoreError as error:
            error.of_run(self.path)
            raise

    return named


class NamedBlock(AbstractContextManager[_Entered]):
    """A block whose own errors name a run; what is raised inside it stays as it is.

    Parameters
    ----------
    block
        What is entered.
    run
        Where the run lies.
    """

    def __init__(self, block: AbstractContextManager[_Entered], run: str) -> None:
        self._block = block
        self._run = run

    def __enter__(self) -> _Entered:
        try:
            return self._block.__enter__()
        except TsstoreError as error:
            error.of_run(self._run)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return self._block.__exit__(kind, error, traceback)
        except TsstoreError as raised:
            if raised is not error:
                raised.of_run(self._run)
            raise
