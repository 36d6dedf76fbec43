"""Watching all modules of a model while one batch runs, also those that are not captured."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from tsstore.recording.axes.following import Clues, Following
from tsstore.recording.axes.tensor import Axes
from tsstore.recording.selection.select import Target, public_modules, time_first_modules


class Watch:
    """Watches the modules of a model from :meth:`begin` to :meth:`end`.

    One hook for all modules of the process is registered for that while, and lets those of other
    models pass: hooks on each would make a TransformerEncoderLayer leave its fast path. Compiled
    parts of the model run as they are written meanwhile: they would be compiled with the hook, and
    once more without it.
    """

    def __init__(self, model: nn.Module, targets: Iterable[Target]) -> None:
        self._model = model
        self._targets = list(targets)
        self._until_end = ExitStack()
        self.following: Following | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether the model or a part of it is compiled."""
        return any(
            module._compiled_call_impl is not None or hasattr(module, "_orig_mod")
            for module in self._model.modules()
        )

    def leave_compiled_code(self) -> None:
        """Let a model compiled in place run as written: its own hooks come too late for that."""
        if (compiled := self._model._compiled_call_impl) is not None:
            self._model._compiled_call_impl = None
            self._until_end.callback(setattr, self._model, "_compiled_call_impl", compiled)

    def begin(self) -> None:
        """Begin to watch, with nothing known."""
        self.end()
        self.following = Following(axes_of_modules(self._model, self._targets))
        self._until_end.callback(_hook_all_modules(self._note))
        # Whoever has not imported it has compiled nothing.
        if "torch._dynamo" in sys.modules:
            self._until_end.callback(_ignore_warning_of_global_hooks())
            self._until_end.enter_context(as_written())

    def end(self) -> None:
        """Watch no longer, and forget all."""
        self._until_end.close()
        self.following = None

    def clues_of(self, tensor: torch.Tensor) -> Clues | None:
        """Return what is known of a tensor's axes; None while nobody watches."""
        return None if self.following is None else self.following.clues_of(tensor)

    def _note(self, module: nn.Module, arguments: Any, keywords: Any, output: Any) -> None:
        if self.following is not None:
            self.following.note(module, (arguments, keywords), output)


@contextmanager
def as_written() -> Iterator[None]:
    """Let what is compiled run as it was written for a while, where this torch can do that."""
    with ExitStack() as until_end:
        # Whoever has not imported it has compiled nothing.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            with suppress(RuntimeError):
                until_end.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def axes_of_modules(model: nn.Module, targets: Iterable[Target]) -> dict[int, Axes]:
    """Return how the axes of each module's output are found, by the module's ``id``."""
    time_first = time_first_modules(model)
    axes = {
        id(module): Axes(name, module, time_first=time_first(module))
        for name, module in public_modules(model)
    }
    for target in targets:
        if target.where == "after" and target.output is None:
            axes[id(target.module)] = target.axes
    return axes


def _hook_all_modules(note: Callable[[nn.Module, Any, Any, Any], None]) -> Callable[[], None]:
    """Register a hook on all modules of the process; return what removes it."""
    handle = torch_module.register_module_forward_hook(note, with_kwargs=True)

    def remove() -> None:
        handle.remove()
        # torch forgets to, and would go on saying that there are such hooks.
        getattr(torch_module, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)

    return remove


def _ignore_warning_of_global_hooks() -> Callable[[], None]:
    """Silence what torch says of compiled modules and such hooks; return what ends that."""
    warnings.filterwarnings("ignore", r"Using `torch\.compile\(module\)` when there are global")
    added = warnings.filters[0]

    def end() -> None:
        with suppress(ValueError):
            warnings.filters.remove(added)  # type: ignore[attr-defined]

    return end
