"""Recording the evaluations of Lightning's Trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tsstore.errors import CaptureError
from tsstore.integrations.evaluations import Columns, Evaluations, Log
from tsstore.store.files.open import StorePath

# Two names of one package, whose trainers take callbacks of their own name.
if TYPE_CHECKING or "lightning.pytorch" in sys.modules or "pytorch_lightning" not in sys.modules:
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback

STAGES = ("validate", "test", "predict")
"""What may be recorded: the trainer's methods, and the validations within ``fit``."""


class CaptureCallback(Callback):
    """Records what a Trainer's validations, tests and predictions do; training is not recorded.

    Each becomes a part of one run, with ``trainer.global_step`` as its step; another one at the
    same step, such as a test after the last validation, is the step ``"30#2"``, and so is another
    data loader. The part's attributes say `stage` and `dataloader`. A batch is one of the data
    loader; the sanity check leaves nothing. An evaluation that fails is closed with the batches
    that had ended.

    Parameters
    ----------
    path
        Where to create the run, at the first evaluation.
    stages
        Which of ``"validate"``, ``"test"``, ``"predict"``.
    columns
        A function ``(batch, outputs) -> {name: one entry a sample}`` of the batch and what the
        module's step returned; or names of entries of a batch that is a mapping.
    module
        Name of the submodule whose layers are captured, such as ``"net"``: what ``forward`` is
        called on. All of the module unless given.
    log
        Whether each evaluation is analysed when it has ended, and the trainer's loggers are given
        its numbers, as ``"tsstore/conv_1/efficiency"``; or a function that takes them, a dict. It
        is what the first rank sees committed by then.
    **options
        Of :func:`tsstore.capture`, such as `layers`. With `step`, all evaluations have that step
        and not the trainer's.

    Raises
    ------
    CaptureError
        If a stage is none of these.
    TypeError
        If an option is none of ``tsstore.capture``.
    """

    def __init__(
        self,
        path: StorePath,
        *,
        stages: str | Iterable[str] = STAGES,
        columns: Columns = (),
        module: str = "",
        log: bool | Log = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self._log = log
        self._stages = _checked_stages(stages)
        self._evaluations = Evaluations(path, columns, module, **options)
        self._dataloader = 0

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record, unless it is the sanity check or a stage that was not asked for."""
        if trainer.state.stage.value in self._stages:
            self._begin(trainer, 0)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a batch; the first one of another data loader begins another part."""
        if self._evaluations.is_open and dataloader_idx != self._dataloader:
            self._begin(trainer, dataloader_idx)
        self._evaluations.begin_batch()

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the batch, and record its columns."""
        self._evaluations.end_batch(batch, outputs)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the part, and log its numbers if that was asked for."""
        self._evaluations.close()
        scalars = self._evaluations.scalars() if self._log else {}
        if scalars and callable(self._log):
            self._log(scalars)
        elif scalars:
            for logger in trainer.loggers:
                logger.log_metrics(metrics=scalars, step=trainer.global_step)

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the part, and say in its seal why."""
        self._evaluations.close(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the part, if it is still open."""
        self._evaluations.close()

    def _begin(self, trainer: Any, dataloader: int) -> None:
        self._dataloader = dataloader
        self._evaluations.begin(
            trainer.lightning_module,
            trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
            stage=trainer.state.stage.value,
            dataloader=dataloader,
        )


def _checked_stages(stages: str | Iterable[str]) -> tuple[str, ...]:
    given = (stages,) if isinstance(stages, str) else tuple(stages)
    if not given or not set(given) <= set(STAGES):
        raise CaptureError(f"stages is {stages!r:.80}; expected some of {', '.join(STAGES)}")
    return given
