"""What TensorState's hooks need: a run that is read while it is recorded, tensors by hand."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import OutputError, StoreExistsError, WriterError, warn
from tsstore.recording.axes import kinds
from tsstore.recording.axes.tensor import Axes, Side
from tsstore.recording.hooks.hook import ModelHook
from tsstore.recording.recorder import Recorder
from tsstore.recording.selection.outputs import first_tensor
from tsstore.recording.selection.select import Target, select
from tsstore.recording.settings import Settings
from tsstore.store.files.base import Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.documents import ZARR_JSON
from tsstore.store.format.paths import directory_name
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.part import Part, open_parts
from tsstore.store.run import create_run
from tsstore.store.targets import check_outside

_SETTINGS = Settings(calls="merge", missing="empty")


class Session:
    """A run of one model, a part after the other; what runs outside the model is a batch as well.

    It lies at `path`, if that ends in ``.zarr``; else in that folder, under the first name like
    `name` that is free. Without a path the run is temporary.
    """

    def __init__(
        self, model: nn.Module, targets: list[Target], path: StorePath | None, name: str
    ) -> None:
        self.handles: list[RemovableHandle] = []
        self._model = model
        self._targets = targets
        self._is_temporary = path is None
        self._files = _temporary_files() if path is None else _new_run(path, name)
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._is_attached = self._is_closed = False
        self._number = -1
        self._parts: tuple[Part, ...] = ()
        self._first_part = dict.fromkeys((target.name for target in targets), 0)
        self._empty: dict[str, LayerStates] = {}
        self._begin_part()

    def attach(self, captures: list[Callable[[nn.Module, Any, Any], None]]) -> None:
        """Register hooks that stay over all parts: others' come before or after them as ever."""
        for target, capture in zip(self._targets, captures, strict=True):
            self.handles.append(target.register(ModelHook(target.module, capture)))
        self._is_attached = True
        self._recorder.attach(layers=False)

    def take(self, layer: str, module: nn.Module, arguments: Any, value: Any) -> None:
        """Capture a call of a target's module, which is a batch if the model is not running."""
        if self._is_closed or os.getpid() != self._process:
            return
        with self._lock, nullcontext() if self._recorder.in_batch else self._recorder.batch():
            self._recorder.hooks[layer](module, arguments, value)

    def states(self, layer: str) -> LayerStates | None:
        """Commit, and return what a layer holds since it was begun anew; None if it never ran."""
        if not self._recorder.closed:
            self._recorder.commit()
        # Those that are sealed were opened already.
        self._parts = open_parts(self._files, self._parts)
        since = [p for p in self._parts if p.attributes.attempt >= self._first_part[layer]]
        held = tuple(part.layers[layer] for part in since if layer in part.layers)
        if not sum(part.rows for part in held):
            return self._empty.get(layer)
        return LayerStates(self._files.location, layer, held)

    def forget(self, layer: str) -> None:
        """Begin a layer anew; of a temporary run, parts that no layer needs are removed."""
        if (states := self.states(layer)) is not None:
            part = states.parts[0]
            empty = part.without_rows(part.directory, 0)
            self._empty[layer] = LayerStates(states.location, layer, (empty,))
        if not self._is_closed and self._recorder.statistics.samples:
            self._recorder.close()
            self._begin_part(self._recorder.settings)
        self._first_part[layer] = self._number + self._is_closed
        if self._is_temporary:
            self._remove_parts(before=min(self._first_part.values()))

    def close(self) -> None:
        """Remove the hooks, and seal the run."""
        for handle in self.handles:
            handle.remove()
        self._is_closed = True
        try:
            self._recorder.close()
        except WriterError as error:
            if self._files.exists(ZARR_JSON):
                raise
            warn(f"the run is gone: {error}")

    def _begin_part(self, settings: Settings = _SETTINGS) -> None:
        self._number += 1
        part = PartAttributes(step=self._number)
        self._recorder = Recorder(self._model, self._files, self._targets, part, settings)
        if self._is_attached:
            self._recorder.attach(layers=False)

    def _remove_parts(self, before: int) -> None:
        for part in self._parts:
            if part.attributes.attempt < before:
                self._files.remove_tree(part.directory)
        self._parts = tuple(part for part in self._parts if part.attributes.attempt >= before)


def _new_run(path: StorePath, name: str) -> Files:
    """Create a run at a path that ends in ``.zarr``, or in a folder, whatever else that holds."""
    software = {"torch": torch.__version__}
    if not isinstance(path, str | os.PathLike) or os.fspath(path).rstrip("/").endswith(".zarr"):
        check_outside(path)
        files = open_files(path)
        create_run(files, software)
        return files
    slug = directory_name(0, name)[5:]
    check_outside(f"{os.fspath(path)}/{slug}")
    for number in count(1):
        # Not pathlib's way, which makes one slash of the two of a URL.
        free = f"{slug}-{number}" if number > 1 else slug
        files = open_files(f"{os.fspath(path)}/{free}.zarr")
        with suppress(StoreExistsError):
            create_run(files, software)
            return files
    raise AssertionError


def _temporary_files() -> Files:
    """Create a run that lasts as long as somebody writes or reads it."""
    directory = tempfile.mkdtemp(prefix="tsstore-")
    # What is temporary need not survive a loss of power.
    files = open_files(Path(directory) / "run.zarr", durable=False)
    weakref.finalize(files, _remove, directory, os.getpid())
    create_run(files, {"torch": torch.__version__})
    return files


def _remove(directory: str, process: int) -> None:
    """Remove a temporary run, unless a process that was forked off ends."""
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class ByHand:
    """Finds the tensor in what torch calls a hook with; samples and neurons come to the front."""

    name: str
    neuron_axis: int | None = None
    sample_axis: int | None = None
    _axes: dict[tuple[nn.Module, Side], Axes] = field(default_factory=dict)

    def target(self, module: nn.Module | None, side: Side) -> Target:
        """Return where to capture tensors whose axes are (sample, neuron, ...)."""
        # The axes of an Identity: no class says anything against those that were chosen.
        axes = Axes(self.name, nn.Identity(), neuron_axis=1, sample_axis=0)
        return Target(self.name, axes.module if module is None else module, side, True, axes)

    def side(
        self, hook: Callable[..., object], module: nn.Module | None, values: tuple[Any, ...]
    ) -> Side:
        """Return whether a hook was called before its module or after it."""
        if len(values) == 2 and module is not None:
            # Before the call, with keyword arguments, or after it without them.
            before = hook in module._forward_pre_hooks.values()
            return "before" if before and hook not in module._forward_hooks.values() else "after"
        return "before" if len(values) == 1 else "after"

    def tensor(self, module: nn.Module | None, side: Side, values: tuple[Any, ...]) -> torch.Tensor:
        """Return what there is to capture, with axes (sample, neuron, ...); else OutputError."""
        tensor = first_tensor(values if side == "before" else values[-1])
        if tensor is None:
            raise OutputError(f"{self.name}: found no tensor {side} the call; remove the hook")
        try:
            neurons, samples = self._axes_of(module, side, tensor).of(tensor)
        except OutputError as error:
            raise OutputError(
                f"{self.name}: {error}; tell the hook, as in "
                f"StateCaptureHook({self.name!r}, neuron_axis=…)"
            ) from None
        return tensor.movedim((samples, neurons), (0, 1))

    def _axes_of(self, module: nn.Module | None, side: Side, tensor: torch.Tensor) -> Axes:
        # As in TensorState, but for three axes: (sample, token, neuron) is as usual.
        fallback = None if tensor.ndim == 3 else 1
        choices = self.neuron_axis, self.sample_axis
        if module is None:
            return Axes(self.name, nn.Identity(), *choices, fallback=fallback)
        if (module, side) not in self._axes:
            (target,) = select(module, module, (), side, *choices)
            self._axes[module, side] = replace(target.axes, layer=self.name)
        axes = self._axes[module, side]
        # What it was given is not seen: (sample, height, width, neuron) is as usual as well.
        return replace(axes, fallback=None if kinds.keeps_layout(module) else fallback)
