"""What all trainers' callbacks share: evaluations, recorded batch by batch into one run."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from tsstore.errors import AnalysisError, CaptureError, ColumnsError, StoreError, TsstoreWarning
from tsstore.recording.capture import capture
from tsstore.recording.recorder import Recorder
from tsstore.store.files.open import StorePath
from tsstore.store.reading.store import open_store

Columns = Callable[[Any, Any], Mapping[str, Any]] | Iterable[str]
"""Sample columns: made of a batch and what the model gave for it, or named entries of the batch."""

Log = Callable[[dict[str, float]], object]
"""Takes the numbers of an evaluation by name."""

_NOTHING = ...
"""In a step's place, which may be None; copies of it are itself."""


class Evaluations:
    """Records the evaluations of one trainer into one run, a part and a step each.

    An evaluation that comes again at a step of the trainer is no more of the same: it has other
    data, or the same once more. It is a step of its own, ``"30#2"`` after ``30``. Copies, and what
    comes out of a pickle, have no evaluation under way. Arguments are those of the callbacks; a
    TypeError if an option is none of :func:`tsstore.capture`.
    """

    def __init__(
        self, path: StorePath, columns: Columns = (), module: str = "", **options: Any
    ) -> None:
        # Now, and not hours later at the first evaluation.
        inspect.signature(capture).bind(nn.Identity(), path, **options)
        self._path = path
        self._columns = (columns,) if isinstance(columns, str) else columns
        self._module = module
        self._options = options
        self._begun: Counter[object] = Counter()
        self._step: object = _NOTHING
        self._done: object = _NOTHING
        self._recorder: Recorder | None = None
        self._record: Callable[..., None] | None = None
        self._batch = ExitStack()

    @property
    def is_open(self) -> bool:
        """Whether an evaluation is under way."""
        return self._recorder is not None

    def begin(
        self, model: nn.Module, step: int, rank: int, world_size: int, **attributes: Any
    ) -> None:
        """Begin to record an evaluation."""
        self.close()
        given = self._options
        step = step if given.get("step") is None else given["step"]
        # In a process group capture finds both, and makes up a run id that all processes share.
        distributed = torch.distributed
        is_group = distributed.is_available() and distributed.is_initialized()
        options = dict(given) if is_group else {"rank": rank, "world_size": world_size} | given
        options["step"] = f"{step}#{self._begun[step] + 1}" if self._begun[step] else step
        options["attributes"] = attributes | dict(given.get("attributes") or {})
        if self._begun:
            options |= {"resume": True, "overwrite": False}
        self._recorder = capture(model.get_submodule(self._module), self._path, **options)
        self._begun[step] += 1
        self._step = options["step"] if rank == 0 else _NOTHING

    def begin_batch(self) -> None:
        """Let a batch begin, if an evaluation is under way."""
        if self._recorder is not None:
            self._record = self._batch.enter_context(self._recorder.batch()).record

    def end_batch(self, batch: Any, outputs: Any) -> None:
        """End the batch that was begun, if one was; an error drops it."""
        record, self._record = self._record, None
        with self._batch:
            if record is not None:
                record(**self._columns_of(batch, outputs))

    def close(self, error: BaseException | None = None) -> None:
        """End the evaluation, if one is under way; a batch that has not ended is dropped."""
        self._record = None
        why = error or CaptureError("the batch did not come to its end")
        self._batch.__exit__(type(why), why, why.__traceback__)
        recorder, self._recorder = self._recorder, None
        self._done = _NOTHING
        if recorder is not None:
            recorder.__exit__(type(error), error, None)
            self._done = self._step if error is None else _NOTHING

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the evaluation that has just ended, as `Analysis.to_scalars` does.

        They are counted once, without intervals, on the first rank alone, of what is committed. If
        none has ended, or nothing can be told, there are none; an analysis that fails is a warning,
        and no end of the training.
        """
        step, self._done = self._done, _NOTHING
        if step is _NOTHING:
            return {}
        from tsstore.analysis.analyze import analyze

        try:
            store = open_store(self._path).at_step(step)  # type: ignore[arg-type]
            return analyze(store, intervals=False).to_scalars("tsstore/")
        except (AnalysisError, StoreError) as error:
            warnings.warn(f"nothing is logged of step {step!r}: {error}", TsstoreWarning, 2)
            return {}

    def _columns_of(self, batch: Any, outputs: Any) -> Mapping[str, Any]:
        if callable(self._columns):
            return self._columns(batch, outputs)
        return {name: _entry(batch, name) for name in self._columns}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_recorder": None, "_record": None, "_batch": ExitStack()}


def _entry(batch: Any, name: str) -> Any:
    if isinstance(batch, Mapping) and name in batch:
        return batch[name]
    held = f" with {', '.join(map(str, batch)):.200}" if isinstance(batch, Mapping) else ""
    raise ColumnsError(
        f"column {name!r}: found a batch that is a {type(batch).__name__}{held}, expected a "
        f"mapping with {name!r}; pass columns=, a function of the batch and the model's outputs"
    )
