"""The API of the TensorState tutorial, on top of recording and analysis.

``import tsstore as ts`` serves it. States are streamed to a store instead of being held in memory;
the numbers are plug-ins, as they were there. Without a path the store is temporary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tsstore import bits
from tsstore.analysis.states.plug_ins import PlugIns, sort_rows
from tsstore.errors import OutputError, TsstoreError
from tsstore.recording.axes.tensor import AxisChoice, Side, choose
from tsstore.recording.hooks.hook import outside_compiled_code
from tsstore.recording.selection.outputs import OutputChoice
from tsstore.recording.selection.select import Selector, Target, Where, select, unwrapped
from tsstore.recording.session import ByHand, Session
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates

_WITHOUT_EFFECT = {"memory_device", "memory_limit", "backend"}
"""Options of TensorState about where it keeps states, which change no number."""


class StateCaptureHook(PlugIns):
    """Captures the states of one place of a model, and evaluates them.

    Made by `build_efficiency_model`, or placed by hand::

        hook = StateCaptureHook("conv_1")
        module.register_forward_hook(hook)

    On several modules it keeps the rows of all, which must have as many neurons. Also
    ``hook(None, None, tensor)`` captures a tensor.

    Parameters
    ----------
    name
        Its name.
    disk_path
        Where the store stays that a hook placed by hand fills: see `storage_path` of
        `build_efficiency_model`. Without it the store is temporary.
    neuron_axis, sample_axis
        Where the hook is placed by hand, and the module's class does not tell. Of a tensor without
        its module, other than with three axes, neurons are in axis 1, as in TensorState.
    **options
        Options of TensorState about where it keeps states, such as ``memory_device``: they have no
        effect.

    Attributes
    ----------
    name
        Its name: ``conv_1_post_states`` for the output of ``conv_1``, ``conv_1_pre_states`` for
        its input.
    capture_on
        Whether states are captured.
    """

    def __init__(
        self,
        name: str,
        disk_path: StorePath | None = None,
        *,
        neuron_axis: AxisChoice = None,
        sample_axis: AxisChoice = None,
        **options: Any,
    ) -> None:
        _check_options(options)
        super().__init__(name)
        self.capture_on = True
        self._disk_path = disk_path
        self._by_hand = ByHand(name, choose(neuron_axis, name), choose(sample_axis, name))
        self._target: Target | None = None
        self._session: Session | None = None
        self._lock = threading.Lock()

    @outside_compiled_code
    def __call__(self, module: nn.Module | None, *values: Any) -> None:
        """Capture a call of a module that the hook was registered on by hand, or a tensor.

        Parameters
        ----------
        module
            The module; None if there is none.
        *values
            What torch gives to a hook: of one before the call its arguments, else these, keyword
            arguments if it wants them, and the output.

        Raises
        ------
        OutputError
            If there is no tensor, or nothing tells where its neurons are.
        CaptureError
            If the number of neurons is another one than before.
        """
        if not self.capture_on:
            return
        side = self._by_hand.side(self, module, values)
        tensor = self._by_hand.tensor(module, side, values)
        with self._lock:
            target = self._target or self._begin(module, side)
        if target.axes.of(tensor) != (1, 0):
            raise OutputError(f"{self.name} was attached to a model; place another hook by hand")
        self._capture(target.module, (tensor,), tensor)

    def reset_states(self, input_shape: Any = None) -> None:
        """Forget what was captured so far; in a store that stays a new part begins.

        A temporary store gives back the disk: `raw_states` from before cannot be read any more.
        """
        if self._session is not None and self._target is not None:
            self._session.forget(self._target.name)
        self._found.clear()

    def __reduce__(self) -> tuple[Callable[..., StateCaptureHook], tuple[str]]:
        # What is captured stays with the model that was captured: a copy begins with nothing.
        axes = self._by_hand.neuron_axis, self._by_hand.sample_axis
        new = partial(StateCaptureHook, neuron_axis=axes[0], sample_axis=axes[1])
        return new, (self.name,)

    def __repr__(self) -> str:
        return f"<StateCaptureHook {self.name}>"

    def _begin(self, module: nn.Module | None, side: Side) -> Target:
        """Begin a store of its own for a hook that was placed by hand."""
        target = self._by_hand.target(module, side)
        self._attach(Session(target.module, [target], self._disk_path, self.name), target)
        return target

    def _attach(self, session: Session, target: Target) -> None:
        self._session, self._target = session, target

    def _capture(self, module: nn.Module, arguments: Any, value: Any) -> None:
        if self.capture_on and self._session is not None and self._target is not None:
            self._session.take(self._target.name, module, arguments, value)

    def _captured(self) -> LayerStates | None:
        if self._session is None or self._target is None:
            return None
        return self._session.states(self._target.name)


def build_efficiency_model(
    model: nn.Module,
    attach_to: Selector | Iterable[Selector],
    exclude: Selector | Iterable[Selector] = (),
    method: Where = "after",
    storage_path: StorePath | None = None,
    *,
    neuron_axis: AxisChoice = None,
    sample_axis: AxisChoice = None,
    outputs: OutputChoice = None,
    **options: Any,
) -> nn.Module:
    """Attach a `StateCaptureHook` to each chosen module.

    A forward pass of the model is a batch; a chosen module that is called outside of one is, too.

    Parameters
    ----------
    model
        The model. Hooks that an earlier call has attached are removed.
    attach_to
        Class names, module names, globs, classes, predicates, mixed or one of them.
    exclude
        Likewise; it wins.
    method
        ``"after"``, ``"before"`` or ``"both"``.
    storage_path
        Where to keep the store: itself, if the path ends in ``.zarr``, where nothing may be yet;
        else a folder, in which it is named after the model's class, and numbered where that is
        taken. A local path, or a URL of an object store. Without it the store is temporary.
    neuron_axis, sample_axis, outputs
        See `tsstore.capture`.
    **options
        Options of TensorState about where it keeps states, such as ``memory_device``: they have no
        effect.

    Returns
    -------
    torch.nn.Module
        The same model, with the list of its hooks as ``efficiency_layers``, and of torch's handles
        of them as ``state_capture_hooks``.

    Raises
    ------
    SelectionError
        If nothing is chosen, or a name matches nothing.
    StoreExistsError
        If there is something at `storage_path`.
    """
    _check_options(options)
    targets = select(model, attach_to, exclude, method, neuron_axis, sample_axis, outputs)
    session = Session(model, targets, storage_path, type(unwrapped(model)).__name__)
    hooks = [StateCaptureHook(_hook_name(target)) for target in targets]
    for hook, target in zip(hooks, targets, strict=True):
        hook._attach(session, target)
    remove_state_layers(model)
    session.attach([hook._capture for hook in hooks])
    model.efficiency_layers = hooks  # type: ignore[assignment]
    model.state_capture_hooks = session.handles  # type: ignore[assignment]
    return model


def reset_efficiency_model(model: nn.Module) -> None:
    """Forget what all hooks of a model have captured; in a store that stays a new part begins."""
    for hook in _hooks(model):
        hook.reset_states()


def remove_state_layers(model: nn.Module) -> nn.Module:
    """Remove the hooks of `build_efficiency_model`, and no others; return the model."""
    sessions = dict.fromkeys(hook._session for hook in _hooks(model))
    try:
        for session in sessions:
            if session is not None:
                session.close()
    finally:
        for name in ("efficiency_layers", "state_capture_hooks"):
            if hasattr(model, name):
                delattr(model, name)
    return model


def compress_states(states: Any) -> Any:
    """Pack values into rows: a neuron is on where its value is greater than 0.

    Parameters
    ----------
    states
        NumPy array or tensor of shape (n, neurons).

    Returns
    -------
    numpy.ndarray or torch.Tensor
        uint8 (n, ceil(neurons / 8)), of the kind that was given.
    """
    if isinstance(states, torch.Tensor):
        return torch.from_numpy(bits.pack((states.detach() > 0).cpu().numpy())).to(states.device)
    return bits.pack(np.asarray(states) > 0)


def decompress_states(states: Any, num_neurons: int) -> npt.NDArray[np.bool_]:
    """Decode packed rows, uint8 (n, ceil(num_neurons / 8)), into bool (n, num_neurons)."""
    return bits.unpack(_as_rows(states), num_neurons)


def sort_states(
    states: Any, state_count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sort the first `state_count` packed rows.

    Returns
    -------
    edges, index
        ``states[index]`` is sorted, and ``numpy.diff(edges)`` counts each distinct state.
    """
    return sort_rows(_as_rows(states)[:state_count])


def _check_options(options: Mapping[str, Any]) -> None:
    if unknown := options.keys() - _WITHOUT_EFFECT:
        raise TsstoreError(
            f"found the option {', '.join(sorted(unknown))}; of TensorState's that are not named "
            f"here only {', '.join(sorted(_WITHOUT_EFFECT))} are taken, without effect: for "
            "others use tsstore.capture"
        )


def _hooks(model: nn.Module) -> list[StateCaptureHook]:
    hooks = getattr(model, "efficiency_layers", [])
    if not all(isinstance(hook, StateCaptureHook) for hook in hooks):
        raise TsstoreError(
            "model.efficiency_layers holds something else than StateCaptureHooks; expected what "
            "build_efficiency_model puts there"
        )
    return list(hooks)


def _hook_name(target: Target) -> str:
    if target.where == "before":
        return f"{target.name.removesuffix(':before')}_pre_states"
    return f"{target.name}_post_states"


def _as_rows(states: Any) -> npt.NDArray[np.uint8]:
    array = states.detach().cpu().numpy() if isinstance(states, torch.Tensor) else states
    return np.ascontiguousarray(array, dtype=np.uint8)
