"""Hooks of others that were registered after ours: what they change is not what was stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import warn
from tsstore.recording.hooks.hook import CaptureHook, ModelHook
from tsstore.recording.selection.outputs import first_tensor, version_of


class LaterHooks:
    """Looks for hooks that are called after ours and change what was captured.

    Most of them only look. So where there is one, another hook of ours is put behind it, which
    compares what comes out with what was captured.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._behind: dict[CaptureHook, _Behind] = {}
        self._warned = False
        self._latest = RemovableHandle.next_id

    def look(self, hooks: Iterable[CaptureHook]) -> None:
        """Look for them before a forward pass, where hooks have been registered since the last."""
        if RemovableHandle.next_id == self._latest:
            return
        for hook in hooks:
            registered = _registered(hook)
            if next(reversed(registered.values()), None) is hook or self._warned:
                continue
            if hook in self._behind:
                # Behind hooks that have come since.
                registered.move_to_end(self._behind[hook].handle.id)
            elif _is_followed(hook, registered.values()):
                self._behind[hook] = _Behind(hook)
        self._latest = RemovableHandle.next_id

    def warn(self) -> None:
        """Warn, once, of the layers where one has changed something."""
        changed = [hook.target.name for hook, behind in self._behind.items() if behind.changed]
        if not changed or self._warned:
            return
        self.remove()
        self._warned = True
        warn(
            f"{self._run}: a hook that was registered on {', '.join(changed)} after tsstore's "
            "changes what the layers that follow see, and not what is stored; register it before "
            "tsstore.capture, or with prepend=True",
        )

    def forget(self) -> None:
        """Let go what was kept for a comparison that a failed pass has left out."""
        for behind in self._behind.values():
            behind.captured = None

    def remove(self) -> None:
        """Remove the hooks that were put behind others."""
        for behind in self._behind.values():
            behind.remove()
        self._behind.clear()


class _Behind:
    """A hook behind all others of a module, which compares its value with what was captured."""

    def __init__(self, hook: CaptureHook) -> None:
        self.changed = False
        self._hook = hook
        self._capture = hook.call
        self.captured: Any = None
        self._version: int | None = None
        hook.call = self._remember
        self.handle = hook.target.register(ModelHook(hook.target.module, self._compare))

    def remove(self) -> None:
        """Leave the module as it was."""
        self.handle.remove()
        self._hook.call = self._capture

    def _remember(self, module: nn.Module, arguments: Any, value: Any) -> None:
        self.captured = self._taken(arguments, value)
        self._version = _version(self.captured)
        self._capture(module, arguments, value)

    def _compare(self, module: nn.Module, arguments: Any, value: Any) -> None:
        captured, self.captured = self.captured, None
        if captured is not None and not self.changed:
            same = self._taken(arguments, value) is captured
            self.changed = not same or _version(captured) != self._version

    def _taken(self, arguments: Any, value: Any) -> Any:
        return value if self._hook.target.where == "after" else (arguments or value)


def _registered(hook: CaptureHook) -> Any:
    module = hook.target.module
    after = hook.target.where == "after"
    return module._forward_hooks if after else module._forward_pre_hooks


def _is_followed(ours: CaptureHook, registered: Iterable[Any]) -> bool:
    """Whether a hook of somebody else comes after ours."""
    found = False
    for hook in list(registered):
        if found and not str(getattr(hook, "__module__", "")).startswith("tsstore."):
            return True
        found = found or hook is ours
    return False


def _version(value: Any) -> int | None:
    """Return how often a value's first tensor was changed in place; None where nobody counts."""
    tensor = first_tensor(value)
    return None if tensor is None else version_of(tensor)
