"""SIGTERM, on request: noted when it comes, obeyed when what was recorded is on disk."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from tsstore.errors import CaptureError


def check_can_hold() -> None:
    """Raise CaptureError where SIGTERM's handler cannot be set, or not be restored."""
    if threading.current_thread() is not threading.main_thread():
        raise CaptureError(
            "commit_on_sigterm=True was asked for in another thread, but Python sets handlers of "
            "signals in the main thread only; call tsstore.capture there, or leave it out"
        )
    if signal.getsignal(signal.SIGTERM) is None:
        raise CaptureError(
            "commit_on_sigterm=True was asked for, but SIGTERM has a handler that was not set "
            "from Python and could not be restored; leave it out"
        )


class Termination:
    """Holds SIGTERM back from the moment it is made until it is released.

    The handler only notes the signal and passes it on to Python code that handled it before: it
    runs between any two instructions, where taking a lock, writing or logging could wait for ever.
    """

    def __init__(self) -> None:
        check_can_hold()
        self._requested = False
        self._released = False
        self._process = os.getpid()
        # One object: each look at a method makes a new one.
        self._handler = self._note
        self._previous = signal.signal(signal.SIGTERM, self._handler)

    def is_requested(self) -> bool:
        """Whether SIGTERM has come, and waits."""
        return self._requested and not self._released

    def obey(self, commit: Callable[[], object]) -> None:
        """If SIGTERM has come, commit, then let it act: in the main thread, elsewhere it waits."""
        if self.is_requested() and threading.current_thread() is threading.main_thread():
            commit()
            self._pass_on()

    def release(self) -> None:
        """Give the signal back, unless somebody has set a handler since; what came acts now."""
        if not self._released:
            self._released = True
            self._pass_on()

    def _pass_on(self) -> None:
        """Restore the handler of before if ours is set and this is the main thread, and obey it."""
        if os.getpid() != self._process or signal.getsignal(signal.SIGTERM) is not self._handler:
            return
        self._released = True
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous)
        if self._requested and self._previous == signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A forked child has no writer that could commit: it ends as it would have.
        here = not self._released and os.getpid() == self._process
        self._requested = self._requested or here
        if callable(self._previous):
            self._previous(number, frame)
            return
        is_ours = signal.getsignal(signal.SIGTERM) is self._handler
        if is_ours and not here and self._previous == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
