"""The forward pass of a model that is under way, and the batch that its layers' rows go to."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from tsstore.errors import CaptureError, warn
from tsstore.recording.axes.layer import Waiting
from tsstore.recording.batches.open_batch import NO_INPUT, ModelInput, OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies
from tsstore.recording.packing.packed import Packed, Transfer
from tsstore.recording.samples.inputs import Arguments
from tsstore.recording.selection.select import Target


class Passes:
    """The forward passes of one model that are under way, one inside the other.

    The hook after a call may be left out, as by an interrupt: the next pass must notice.
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
        """Whether a call is over, and nobody noted it; CaptureError if another thread runs it."""
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


class CurrentBatch:
    """The batch that is open, if there is one: hooks ask whether to capture, and give it rows.

    In a process that was forked off there is none: the rows would have no writer.
    """

    def __init__(self, copies: Copies, sampler: Sampler | None = None) -> None:
        self.batch: OpenBatch | None = None
        self.passes = Passes()
        self.model_input = NO_INPUT
        self.calls_outside = 0
        self.copies = copies
        self.sampler = sampler
        self.transfer = Transfer()
        self._process = os.getpid()
        self._has_warned_of_order = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process was forked off from the one that captures."""
        return os.getpid() != self._process

    def takes_rows(self) -> bool:
        """Whether the rows of a call that happens now are wanted."""
        # What runs inside a backward pass runs again, for activation checkpointing.
        if os.getpid() != self._process or torch._C._current_graph_task_id() != -1:
            return False
        if self.batch is not None:
            return self.batch.wanted
        self.calls_outside += 1
        if self.calls_outside == 1:
            warn(
                "a captured layer was called outside of any batch: its states are not stored; "
                "wrap the call in recorder.batch()",
            )
        return False

    def begin_forward(self, model: nn.Module, arguments: Arguments, keep: bool) -> None:
        """Note what the model is called with, and keep it where it may be run on that again."""
        assert self.batch is not None
        self.copies.original_ran = True
        self.model_input = ModelInput.of(model, arguments)
        # Only where no gradients are wanted may the model be run on some of it once more.
        kept = keep and not torch.is_grad_enabled()
        self.batch.begin_forward(self.model_input, arguments if kept else None)

    def take(self, target: Target, rows: Packed | Waiting) -> None:
        """Take the rows of one call, or what they are to be made of when the batch is over."""
        if self.batch is None:
            return
        if not self.passes.depth:
            # A part of the model was called by itself: that is a pass of its own.
            self.copies.original_ran = True
            self.batch.begin_forward()
        if isinstance(rows, Packed):
            if rows.may_be_sorted:
                self._warn_of_order(target)
            if not isinstance(rows.rows, np.ndarray):
                rows = self.transfer.start(rows)
        self.batch.add(target, rows)

    def _warn_of_order(self, target: Target) -> None:
        if not self.model_input.is_packed and not self._has_warned_of_order:
            self._has_warned_of_order = True
            warn(
                f"{target.name}: its packed sequences do not say whether they were sorted by "
                "length; they are taken to be in the order of the batch. If the model sorts them, "
                "let it pack them unsorted: pack_padded_sequence(…, enforce_sorted=False)",
            )


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
