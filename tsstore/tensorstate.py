"""The API of the TensorState tutorial, on top of recording and analysis.

``import tsstore as ts`` serves it. States are streamed to a store instead of being held in memory;
the numbers are plug-ins, as they were there. Without a path the store is temporary.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tsstore import bits
from tsstore.analysis.analyze import count_layer
from tsstore.analysis.schedulers import choose
from tsstore.counting.distinct import distinct_rows, sort_rows
from tsstore.errors import EmptyStoreError, TsstoreError
from tsstore.recording.axes import Axes
from tsstore.recording.recorder import Recorder, Settings
from tsstore.recording.select import Selector, Target, Where, select
from tsstore.statistics.entropy import plug_in
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.files import StorePath, open_files
from tsstore.store.layers import LayerStates
from tsstore.store.layout import PartAttributes, directory_name
from tsstore.store.run import create_run
from tsstore.store.run_view import open_parts

_SETTINGS = Settings(calls="merge", missing="empty")


class StateCaptureHook:
    """Captures the states of one place of a model, and evaluates them.

    Made by :func:`build_efficiency_model`, or placed by hand::

        hook = StateCaptureHook("conv_1")
        module.register_forward_hook(hook)

    Parameters
    ----------
    name
        Its name.
    disk_path
        Directory, or URL, for a store ``<name>.zarr``, which stays; without it the store is
        temporary.
    **options
        Options of TensorState that have no meaning here, such as ``memory_device``.

    Attributes
    ----------
    name
        Its name: ``conv_1_post_states`` for the output of ``conv_1``, ``conv_1_pre_states`` for
        its input.
    """

    def __init__(
        self, name: str, disk_path: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        self.name = name
        self._disk_path = disk_path
        self._layer = name
        self._session: _Session | None = None
        self._capture_on = True
        self._first_part = 0
        self._counted: tuple[int, Spectrum] | None = None
        self._distinct: tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None = None

    def __call__(self, module: nn.Module, *values: Any) -> None:
        """Capture a call of the module that the hook was registered on by hand."""
        where = "before" if len(values) == 1 else "after"
        if self._session is None:
            axes = Axes(self.name, module, otherwise=1)
            target = Target(self.name, module, where, True, axes)  # type: ignore[arg-type]
            path = None
            if self._disk_path is not None:
                # Not pathlib's way, which makes one slash of the two of a URL.
                path = f"{os.fspath(self._disk_path)}/{directory_name(0, self.name)[5:]}.zarr"
            self._session = _Session(module, [target], [self], path, attach=False)
        recorder = self._session.recorder
        with recorder.batch():
            arguments, value = (values[0], {}) if where == "before" else values[:2]
            recorder.hooks[self.name](module, arguments, value)

    @property
    def capture_on(self) -> bool:
        """Whether states are captured."""
        return self._capture_on

    @capture_on.setter
    def capture_on(self, value: bool) -> None:
        self._capture_on = bool(value)
        if self._session is not None:
            self._session.recorder.hooks[self._layer].enabled = self._capture_on

    @property
    def state_count(self) -> int:
        """Number of states captured, repeats included."""
        captured = self._captured()
        return captured.rows if captured is not None else 0

    @property
    def raw_states(self) -> LayerStates:
        """All captured states as packed rows, read when they are sliced."""
        return self._required()

    @property
    def states(self) -> npt.NDArray[np.bool_]:
        """The distinct states, bool (distinct, neurons), in the order of :meth:`state_ids`."""
        return bits.unpack(self._distinct_rows()[0], self._required().neurons)

    def counts(self, index: int | Sequence[int] | npt.NDArray[Any] | None = None) -> Any:
        """Return how often each distinct state was captured, in the order of :meth:`state_ids`.

        Parameters
        ----------
        index
            Numbers of samples, or a mask over them: only their states count.

        Returns
        -------
        numpy.ndarray
            int64 (distinct,), states in byte-lexicographic order of the packed row.
        """
        if index is None:
            return self._distinct_rows()[1] if self._captured() is not None else np.empty(0, int)
        return distinct_rows(self._rows_of_samples(index))[1]

    def state_ids(self) -> list[bytes]:
        """Return the packed rows of the distinct states, in byte-lexicographic order."""
        if self._captured() is None:
            return []
        return [row.tobytes() for row in self._distinct_rows()[0]]

    def max_entropy(self) -> float:
        """Return the most bits that the layer could have: its neurons."""
        return float(self._required().neurons)

    def entropy(self, alpha: float | None = 1) -> float:
        """Return the plug-in Rényi entropy of order `alpha`, in bits; None is the maximum."""
        return self.max_entropy() if alpha is None else plug_in(self._spectrum(), alpha)

    def efficiency(self, alpha1: float = 1, alpha2: float | None = None) -> float:
        """Return the entropy of order `alpha1` by that of order `alpha2`, or by the neurons."""
        above, below = self.entropy(alpha1), self.entropy(alpha2)
        return above / below if below else 0.0

    def states_per_instance(self) -> float:
        """Return the mean number of states of a sample."""
        captured = self._required()
        return captured.rows / max(int(np.count_nonzero(captured.read_positions())), 1)

    def reset_states(self, input_shape: Any = None) -> None:
        """Forget what was captured so far; in the store a new part begins."""
        if self._session is not None:
            self._first_part = self._session.begin_part()
        self._counted = self._distinct = None

    def __deepcopy__(self, memo: dict[int, Any]) -> StateCaptureHook:
        return StateCaptureHook(self.name)

    def __reduce__(self) -> tuple[type[StateCaptureHook], tuple[str]]:
        # What is captured stays with the model that was captured: a copy begins with nothing.
        return StateCaptureHook, (self.name,)

    def __repr__(self) -> str:
        return f"<StateCaptureHook {self.name}>"

    def _captured(self) -> LayerStates | None:
        if self._session is None:
            return None
        return self._session.layer(self._layer, self._first_part)

    def _required(self) -> LayerStates:
        captured = self._captured()
        if captured is None:
            raise EmptyStoreError(f"{self.name} has captured nothing yet; run the model first")
        return captured

    def _spectrum(self) -> Spectrum:
        captured = self._required()
        if self._counted is None or self._counted[0] != captured.rows:
            scheduler = choose("threads")
            counts, _ = count_layer(captured, scheduler.memory(None), scheduler)
            self._counted = captured.rows, counts.spectrum
        return self._counted[1]

    def _distinct_rows(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        captured = self._required()
        if self._distinct is None or self._distinct[0] != captured.rows:
            self._distinct = captured.rows, *distinct_rows(captured[:])
        return self._distinct[1:]

    def _rows_of_samples(self, index: Any) -> npt.NDArray[np.uint8]:
        captured = self._required()
        positions = captured.read_positions()
        positions = positions[positions > 0]
        ends = np.cumsum(positions)
        wanted = np.atleast_1d(np.arange(len(positions))[index])
        ranges = [np.arange(ends[i] - positions[i], ends[i]) for i in wanted]
        rows = np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)
        held: npt.NDArray[np.uint8] = captured[:][rows]
        return held


def build_efficiency_model(
    model: nn.Module,
    attach_to: Selector | Iterable[Selector],
    exclude: Selector | Iterable[Selector] = (),
    method: Where = "after",
    storage_path: StorePath | None = None,
    **options: Any,
) -> nn.Module:
    """Attach a :class:`StateCaptureHook` to each chosen module.

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
        Where to keep the store: a local path, or a URL of an object store. Without it the store is
        temporary.
    **options
        Options of TensorState that have no meaning here, such as ``memory_device``.

    Returns
    -------
    torch.nn.Module
        The same model, with the list of its hooks as ``efficiency_layers``.

    Raises
    ------
    SelectionError
        If nothing is chosen, or a name matches nothing.
    StoreExistsError
        If there is something at `storage_path`.
    """
    targets = select(model, attach_to, exclude, method)
    remove_state_layers(model)
    hooks = [StateCaptureHook(_hook_name(target)) for target in targets]
    session = _Session(model, targets, hooks, storage_path)
    for hook, target in zip(hooks, targets, strict=True):
        hook._session, hook._layer = session, target.name
    model.efficiency_layers = hooks  # type: ignore[assignment]
    return model


def reset_efficiency_model(model: nn.Module) -> None:
    """Forget what all hooks of a model have captured; in the store a new part begins."""
    for hook in _hooks(model):
        hook.reset_states()


def remove_state_layers(model: nn.Module) -> nn.Module:
    """Remove the hooks of :func:`build_efficiency_model`, and no others; return the model."""
    for hook in _hooks(model):
        if hook._session is not None:
            hook._session.close()
    if hasattr(model, "efficiency_layers"):
        del model.efficiency_layers
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


class _Session:
    """A store that some hooks of one model share, and the recorder that writes it."""

    def __init__(
        self,
        model: nn.Module,
        targets: list[Target],
        hooks: list[StateCaptureHook],
        path: StorePath | None,
        attach: bool = True,
    ) -> None:
        self._targets = targets
        self._hooks = hooks
        self._attach = attach
        self._parts = 0
        self._endings: list[Callable[[], object]] = []
        durable = path is not None
        if path is None:
            # What is temporary need not survive a loss of power.
            temporary = tempfile.mkdtemp(prefix="tsstore-")
            weakref.finalize(self, _remove, self._endings, temporary)
            path = Path(temporary) / "run.zarr"
        self._files = open_files(path, durable)
        create_run(self._files, {"torch": torch.__version__})
        self.recorder = self._record(model)

    def begin_part(self) -> int:
        """Begin a new part if this one holds anything; return its number."""
        if self.recorder.statistics.samples:
            self.recorder.close()
            self._parts += 1
            self.recorder = self._record(self.recorder.model)
        return self._parts

    def layer(self, name: str, first_part: int) -> LayerStates | None:
        """Commit, and return a layer's states since a part; None if there are none."""
        if not self.recorder.closed:
            self.recorder.commit()
        parts = open_parts(self._files)[first_part:]
        held = tuple(part.layers[name] for part in parts if name in part.layers)
        if not sum(part.rows for part in held):
            return None
        return LayerStates(self._files.location, name, held)

    def close(self) -> None:
        """Remove the hooks and seal the store."""
        self.recorder.close()

    def _record(self, model: nn.Module) -> Recorder:
        part = PartAttributes(step=self._parts)
        recorder = Recorder(model, self._files, self._targets, part, _SETTINGS)
        for hook, target in zip(self._hooks, self._targets, strict=True):
            recorder.hooks[target.name].enabled = hook.capture_on
        self._endings[:] = [recorder.abandon]
        if self._attach:
            recorder.attach()
        return recorder


def _remove(endings: list[Callable[[], object]], directory: str) -> None:
    """End the recorder that writes into a temporary directory, then remove that."""
    for end in endings:
        end()
    shutil.rmtree(directory, ignore_errors=True)


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
