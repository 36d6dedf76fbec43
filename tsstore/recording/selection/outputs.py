"""Finding tensors in what a module takes or gives, however nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import PackedSequence

from tsstore.errors import OutputError

OutputChoice = str | Mapping[str, str] | None
"""A path for all layers, or by layer name (globs allowed), or None for the first tensor."""


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors in a module's input or output."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)


def first_tensor(value: Any) -> torch.Tensor | None:
    """Return the first tensor in a module's input or output, or None; of sequences their data."""
    found = first_value(value)
    return found.data if isinstance(found, PackedSequence) else found


def first_value(value: Any, with_axes: bool = False) -> torch.Tensor | PackedSequence | None:
    """Return the first tensor or packed sequences in a value; `with_axes` none that is a number."""
    if isinstance(value, torch.Tensor):
        return value if value.ndim or not with_axes else None
    if isinstance(value, PackedSequence):
        return value
    # Mappings last: to ask for them takes longer than for all the others.
    if not isinstance(value, list | tuple):
        value = tuple(value.values()) if isinstance(value, Mapping) else ()
    for item in value:
        if (found := first_value(item, with_axes)) is not None:
            return found
    return None


def version_of(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor was written to; None where nobody counts."""
    return None if tensor.is_inference() else tensor._version


def samples_of_entries(sequences: PackedSequence) -> npt.NDArray[np.int64]:
    """Return the sample, int64 (entries,), of each entry of packed sequences.

    All first entries come first, then all second ones, each from the longest sequence to the
    shortest; ``sorted_indices`` says whose these are.
    """
    sizes = sequences.batch_sizes.numpy()
    order = np.arange(sizes[0])
    if sequences.sorted_indices is not None:
        order = sequences.sorted_indices.cpu().numpy()
    return np.concatenate([order[:size] for size in sizes])


def value_at(value: Any, path: str) -> Any:
    """Return what is at a place in a module's output; OutputError says what there is instead.

    A path has keys, indices (from the end, if negative) and names of attributes, with dots between
    them: ``"1.0"``, ``"last_hidden_state"``, ``"hidden_states.-1"``.
    """
    steps = path.split(".")
    for number, step in enumerate(steps):
        if isinstance(value, PackedSequence) and step in ("0", "data"):
            # Its tensor alone would not say which entry is whose.
            continue
        inside = _inside(value)
        if step not in inside:
            where = f"in {'.'.join(steps[:number])!r} of the output" if number else "in the output"
            raise OutputError(
                f"there is no {step!r} {where}, a {_described(value, inside)}; pass another "
                f"outputs= than {path!r}"
            )
        value = inside[step]
    return value


def _inside(value: Any) -> dict[str, Any]:
    """Return what a value holds, by what a path calls it."""
    if isinstance(value, torch.Tensor):
        return {}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return dict(getattr(value, "__dict__", {}))
    named = {name: getattr(value, name) for name in getattr(value, "_fields", ())}
    counted = {str(index): item for index, item in enumerate(value)}
    from_the_end = {str(index - len(value)): item for index, item in enumerate(value)}
    return counted | from_the_end | named


def _described(value: Any, inside: dict[str, Any]) -> str:
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return f"{kind} of shape {tuple(value.shape)}"
    shown = [name for name in inside if not name.startswith("-")]
    return f"{kind} with {', '.join(shown) or 'nothing in it'}"
