"""Telling the outermost forward pass of a model from those inside it."""

from __future__ import annotations

import sys
import threading
from types import FrameType

from torch.nn.modules import module as torch_module

from tsstore.errors import CaptureError


class Passes:
    """The forward passes of one model that are under way.

    Hooks before and after the model's calls report to it. The hook after a call may be left out,
    as by an interrupt: then nobody says so, and the next pass must notice.

    Attributes
    ----------
    depth
        Calls of the model that are under way, one inside the other.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._thread: threading.Thread | None = None
        self._frame: FrameType | None = None
        self._exception: BaseException | None = None

    def begin(self) -> bool:
        """Note that a call of the model begins; whether it is the outermost."""
        self.depth += 1
        if self.depth > 1:
            return False
        self._thread = threading.current_thread()
        self._frame = _calling_frame()
        self._exception = sys.exception()
        return True

    def end(self) -> bool:
        """Note that a call of the model ends; whether it was the outermost."""
        if not self.depth or self._thread is not threading.current_thread():
            return False
        self.depth -= 1
        return self.depth == 0

    def failed(self) -> bool:
        """Whether the outermost call ends by an exception: hooks that are always called see it."""
        return sys.exception() is not self._exception

    def cut_off(self) -> bool:
        """Whether a call that was noted is over, without anyone having noted its end.

        Raises
        ------
        CaptureError
            If it goes on in another thread: rows of two batches cannot be told apart.
        """
        if not self.depth:
            return False
        if self._thread is threading.current_thread():
            return not _is_running(self._frame)
        if self._thread is not None and self._thread.is_alive():
            raise CaptureError(
                "the model was called in two threads at once; expected one batch at a time: "
                "capture in one thread, or wrap the calls in a lock"
            )
        return True

    def reset(self) -> None:
        """Forget all calls."""
        self.__init__()  # type: ignore[misc]


def _calling_frame() -> FrameType | None:
    """Return torch's frame that calls the hook we are in; it lasts as long as the forward pass."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename != torch_module.__file__:
        frame = frame.f_back
    return frame


def _is_running(wanted: FrameType | None) -> bool:
    """Whether a frame is among those that led here."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is wanted
