"""Deciding which axes hold what, in the first batch that reaches a layer, and for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tsstore.errors import OutputError
from tsstore.recording.axes.layer import Waiting
from tsstore.recording.axes.tensor import BY_EXPERIMENT, UndecidedAxisError
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.axes.watch import Watch
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.hooks.hook import CaptureHook
from tsstore.recording.packing.packed import Form, Packed
from tsstore.recording.selection.select import Target

_IN_COMPILED_CODE: Final = " (seen from compiled code; call the model in recorder.batch() first)"


_MOST_LOOKS: Final = 16
"""Batches after the first that are watched for a layer that has not run yet."""


class FirstLook:
    """Decides of the axes of layers, with a look at all modules where they do not tell themselves.

    Parameters
    ----------
    watch
        Watches all modules while a batch lasts.
    hooks
        What captures, by public name of the layer.
    """

    def __init__(self, watch: Watch, hooks: Mapping[str, CaptureHook]) -> None:
        self._watch = watch
        self._hooks = hooks
        self._has_open = any(not hook.axes.are_fixed for hook in hooks.values())
        self._is_first = True
        self._later_looks = 0

    def begin(self, batch: OpenBatch) -> None:
        """Watch all modules while a batch lasts, if they may tell of a layer what it does not."""
        if batch.wanted and self._needs_clues and (self._is_first or not self._watch.is_compiled):
            self._watch.begin()
            self._later_looks += not self._is_first

    def end(self) -> None:
        """Watch no longer; before the first batch is complete, be ready to."""
        self._watch.end()
        if self._is_first and self._needs_clues:
            self._watch.leave_compiled_code()

    def decide(
        self,
        batch: OpenBatch,
        undecided: Undecided,
        start: Callable[[Packed], Packed],
        is_compiled: bool,
    ) -> None:
        """Pack what had to wait for the end of the batch, now that all that ran is known.

        Parameters
        ----------
        batch
            The batch, which is over.
        undecided
            Takes what nothing tells.
        start
            Sends rows on their way to the CPU's memory.
        is_compiled
            Whether the model itself ran in compiled code.

        Raises
        ------
        OutputError
            If calls of one layer have their neurons along different axes.
        """
        try:
            if self._watch.following is not None:
                self._watch.following.conclude()
            batch.wait_no_longer(partial(self._pack, undecided, start, is_compiled))
        finally:
            self.end()
        _check_alike(batch)

    def fix(self, batch: OpenBatch) -> None:
        """Let what was decided in a batch that is complete hold for all that follow."""
        for target, form in batch.by_target:
            hook = self._hooks.get(target.name)
            found = (form.decided or {}).get("sample_axis", "").startswith(BY_EXPERIMENT)
            if hook is not None and (found or not hook.axes.are_fixed):
                hook.fix(form)
        self._is_first = False
        self._has_open = any(not hook.axes.are_fixed for hook in self._hooks.values())
        self._watch.end()

    @property
    def _needs_clues(self) -> bool:
        return (
            self._has_open
            and self._later_looks < _MOST_LOOKS
            and any(hook.axes.need_clues for hook in self._hooks.values())
        )

    def _pack(
        self,
        undecided: Undecided,
        start: Callable[[Packed], Packed],
        is_compiled: bool,
        target: Target,
        waiting: Waiting,
    ) -> Packed | None:
        """Return the rows of a call that waited; None where nothing tells its axes."""
        try:
            return start(self._hooks[target.name].pack_at_last(waiting))
        except UndecidedAxisError as error:
            hidden = waiting.clues is None and is_compiled
            found = str(error) + (_IN_COMPILED_CODE if hidden else "")
            undecided.add("neuron_axis", target.axes.layer, found, "…")
            return None


def _check_alike(batch: OpenBatch) -> None:
    """Refuse calls of a layer whose tensors have as many axes, and others for the neurons."""
    known: dict[tuple[str, int], Form] = {}
    for target, form in batch.by_target:
        first = known.setdefault((target.name, len(form.position_shape)), form)
        if (form.neuron_axis, form.sample_axis) != (first.neuron_axis, first.sample_axis):
            raise OutputError(
                f"{target.name}: one of its calls has its neurons along axis "
                f"{first.neuron_axis} and its samples along axis {first.sample_axis}, another "
                f"along axes {form.neuron_axis} and {form.sample_axis}; expected the same in "
                "all: let each call have a module of its own, or exclude the layer"
            )
