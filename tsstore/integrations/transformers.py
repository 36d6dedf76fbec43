"""Recording the evaluations of Hugging Face's Trainer."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, Self

from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from tsstore.errors import CaptureError
from tsstore.integrations.evaluations import Columns, Evaluations, Log
from tsstore.recording.hooks.hook import ModelHook
from tsstore.store.files.open import StorePath


class CaptureCallback(TrainerCallback):
    """Records what ``trainer.evaluate()``, also within ``train()``, and ``trainer.predict()`` do.

    Each becomes a part of one run, with ``state.global_step`` as its step; another one at the same
    step, such as a prediction after the last evaluation, is the step ``"30#2"``. A batch is one
    prediction step. Training is not recorded.

    Give it to ``Trainer(callbacks=[…])``. The trainer does not tell its callbacks when an
    evaluation begins or fails. So a hook on the model looks out for the one, until :meth:`close`;
    for the other, use the callback as a context manager around the job: then what is under way is
    closed with the batches that had ended. Else that happens at the next evaluation, or when the
    interpreter ends.

    Parameters
    ----------
    path
        Where to create the run, at the first evaluation.
    columns
        A function ``(inputs, outputs) -> {name: one entry a sample}`` of the model's inputs by
        name and its outputs; or names of inputs.
    extra
        Inputs that are for the columns only: they are taken out on their way to a model whose
        ``forward`` has no parameters of these names. They come from the data set, which takes
        ``TrainingArguments(remove_unused_columns=False)``.
    module
        Name of the submodule whose layers are captured; all of the model unless given.
    log
        A function that takes the numbers of each evaluation when it has ended, a dict of such as
        ``"tsstore/conv_1/efficiency"``: ``lambda numbers: trainer.log(numbers)``. It is analysed as
        what the first rank sees committed by then.
    **options
        Of :func:`tsstore.capture`, such as `layers`. With `step`, all evaluations have that step
        and not the trainer's.

    Attributes
    ----------
    closed
        Whether it records no more.

    Raises
    ------
    TypeError
        If an option is none of ``tsstore.capture``.
    """

    def __init__(
        self,
        path: StorePath,
        *,
        columns: Columns = (),
        extra: Iterable[str] = ("id",),
        module: str = "",
        log: Log | None = None,
        **options: Any,
    ) -> None:
        self.closed = False
        self._log = log
        self._extra = tuple(extra)
        self._evaluations = Evaluations(path, columns, module, **options)
        self._lookout: _Lookout | None = None

    def on_init_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        """Look out for evaluations of the model.

        Raises
        ------
        CaptureError
            If the trainer spreads the model over several devices in this process, compiles it, or
            generates.
        """
        if not self.closed and model is not None:
            _check(args)
            self._stop(None)
            self._lookout = _Lookout(model, self._extra, self._evaluations, args, state)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        """Look out for evaluations of the model, which may be another one now."""
        self.on_init_end(args, state, control, model)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """End a batch, and begin the next one.

        Raises
        ------
        CaptureError
            If nothing was seen of the step.
        """
        if self.closed:
            return
        if self._lookout is None or self._lookout.loop is None:
            raise CaptureError(
                "a prediction step has ended of which the CaptureCallback saw nothing; expected a "
                "call of the trainer's model: pass the callback to Trainer(callbacks=[…]), not to "
                "add_callback(), and to one trainer only"
            )
        self._lookout.next_batch()

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Close the part, and log its numbers if that was asked for."""
        if self._lookout is not None:
            self._lookout.end(None)
        if self._log is not None and (scalars := self._evaluations.scalars()):
            self._log(scalars)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **others: Any) -> None:
        """Close the part."""
        self.on_evaluate(args, state, control)

    def close(self) -> None:
        """End the evaluation that is under way, if any, and remove the hooks for good."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.closed = True
        self._stop(error)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_lookout": None}

    def _stop(self, error: BaseException | None) -> None:
        lookout, self._lookout = self._lookout, None
        if lookout is not None:
            lookout.remove(error)


class _Lookout:
    """Watches one model for evaluations, whose beginning no event tells."""

    def __init__(
        self,
        model: nn.Module,
        extra: Iterable[str],
        evaluations: Evaluations,
        args: TrainingArguments,
        state: TrainerState,
    ) -> None:
        self.loop: FrameType | None = None
        self._parameters = list(inspect.signature(model.forward).parameters)
        self._extra = set(extra).difference(self._parameters)
        self._evaluations = evaluations
        self._args, self._state = args, state
        self._inputs: dict[str, Any] = {}
        self._outputs: Any = None
        before, after = ModelHook(model, self._before_call), ModelHook(model, self._after_call)
        self._handles = [
            model.register_forward_pre_hook(before, with_kwargs=True),
            model.register_forward_hook(after),
        ]

    def next_batch(self) -> None:
        inputs, outputs, self._inputs, self._outputs = self._inputs, self._outputs, {}, None
        self._evaluations.end_batch(inputs, outputs)
        self._evaluations.begin_batch()

    def end(self, error: BaseException | None) -> None:
        self.loop, self._inputs, self._outputs = None, {}, None
        self._evaluations.close(error)

    def remove(self, error: BaseException | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._cut_off(error)

    def _cut_off(self, error: BaseException | None) -> None:
        if self.loop is not None:
            self.end(error or CaptureError("the evaluation did not come to its end"))

    def _before_call(self, model: nn.Module, arguments: Any, keywords: Any) -> None:
        inputs = dict(zip(self._parameters, arguments, strict=False)) | keywords
        for name in self._extra:
            # In place: it is the mapping with which torch is about to call forward.
            keywords.pop(name, None)
        loop = _evaluation_loop()
        if loop is None:
            return
        if loop is not self.loop:
            self._cut_off(None)
            self.loop = loop
            self._begin(model, arguments, keywords)
        self._inputs = inputs

    def _after_call(self, model: nn.Module, arguments: Any, outputs: Any) -> None:
        if self.loop is not None:
            self._outputs = outputs

    def _begin(self, model: nn.Module, arguments: Any, keywords: Any) -> None:
        """Begin an evaluation, whose first call of the model is under way."""
        earlier = set(model._forward_pre_hooks)
        rank, world_size = self._args.process_index, self._args.world_size
        self._evaluations.begin(model, self._state.global_step, rank, world_size)
        self._evaluations.begin_batch()
        # torch listed this call's hooks when there were none of the recorder yet.
        for number, hook in list(model._forward_pre_hooks.items()):
            if number not in earlier:
                hook(model, arguments, keywords)


def _evaluation_loop() -> FrameType | None:
    """Return the frame of the Trainer's evaluation that has led here, if one has."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "evaluation_loop":
        frame = frame.f_back
    return frame


def _check(args: Any) -> None:
    """Refuse what would record something else, or nothing."""
    if args.n_gpu > 1:
        raise CaptureError(
            f"the Trainer would spread each batch over {args.n_gpu} devices by DataParallel; "
            "expected one device a process: start the job by torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
    if args.torch_compile:
        raise CaptureError(
            "found torch_compile=True; expected a model that is not compiled: hooks that come "
            "later do not run in compiled code. Evaluate without it"
        )
    if getattr(args, "predict_with_generate", False):
        raise CaptureError(
            "found predict_with_generate=True; expected one call of the model a batch: generate "
            "in a loop of your own, within recorder.batch()"
        )
