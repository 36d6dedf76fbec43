"""Small networks and data, and the trainers that evaluate them, behind one face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import DataLoader

BATCH = 4
WARNINGS = (
    # torch has another name for it, and Lightning uses the old one.
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",
    # Hugging Face asks for pinned memory where there is no GPU.
    "ignore:'pin_memory' argument is set as true but no accelerator is found:UserWarning",
    # Advice on the speed of loading data.
    "ignore:The '.*' does not have many workers:UserWarning",
    "ignore:The number of training batches .* is smaller than the logging interval:UserWarning",
)
"""What the trainers' packages warn of in their own code, or by way of advice."""


class Failure(Exception):
    """What goes wrong in a job that is not ours."""


def make_data(count: int, first: int = 0, fail: int | None = None) -> list[dict[str, Any]]:
    """Return samples with ids that count up from the first one; the model fails at one of them."""
    draw = torch.Generator().manual_seed(first + 1)
    samples = torch.randn(count, 3, 6, 6, generator=draw)
    if fail is not None:
        samples[fail - first] = torch.nan
    return [{"x": x, "labels": i % 5, "id": i} for i, x in enumerate(samples, first)]


def add_layers(module: nn.Module) -> None:
    """Give a module its layers; one of them is called twice."""
    torch.manual_seed(0)
    module.conv = nn.Conv2d(3, 9, 3)
    module.relu = nn.ReLU()
    module.tail = nn.Sequential(nn.Linear(9 * 16, 11), module.relu, nn.Linear(11, 5))


def logits_of(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what the layers make of some samples; the last layer never sees what fails."""
    hidden = module.relu(module.conv(x)).flatten(1)
    if hidden.isnan().any():
        raise Failure
    return module.tail(hidden)


class LightningTrainer:
    """Lightning's Trainer."""

    ranks: ClassVar[dict[str, Any]] = {"devices": 2, "strategy": "ddp"}

    def __init__(self, folder: Path) -> None:
        import lightning.pytorch as pl

        from tsstore.integrations.lightning import CaptureCallback

        class Module(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                add_layers(self)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return logits_of(self, x)

            def training_step(self, batch: Any) -> torch.Tensor:
                return nn.functional.cross_entropy(self(batch["x"]), batch["labels"])

            def validation_step(self, batch: Any, batch_idx: int) -> Any:
                return {"logits": self(batch["x"])}

            test_step = predict_step = validation_step

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=2.0)

        self.model = Module()
        self.callback_class = CaptureCallback
        self._pl = pl
        self._folder = folder

    def callback(self, path: Path, **options: Any) -> Any:
        """Return a callback."""
        return self.callback_class(path, durable=False, **options)

    @contextmanager
    def over(self, callback: Any) -> Iterator[None]:
        """Do what a job does around all that it does with the callback: nothing."""
        yield

    def trainer(self, callback: Any, **options: Any) -> Any:
        """Return a trainer, quiet and on the CPU."""
        options = {"num_sanity_val_steps": 0} | options
        return self._pl.Trainer(
            accelerator="cpu",
            callbacks=[callback],
            default_root_dir=self._folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            **options,
        )

    def evaluate(self, callback: Any, data: Any, **options: Any) -> None:
        """Evaluate the model on data."""
        self.trainer(callback, **options).test(self.model, loader(data), verbose=False)

    def train(self, callback: Any, data: Any, evaluation: Any) -> None:
        """Train for two epochs, with an evaluation after each."""
        trainer = self.trainer(callback, max_epochs=2)
        trainer.fit(self.model, loader(data), loader(evaluation))


class HuggingFaceTrainer:
    """Hugging Face's Trainer."""

    ranks: ClassVar[dict[str, Any]] = {"ddp_backend": "gloo"}

    def __init__(self, folder: Path) -> None:
        import transformers

        from tsstore.integrations.transformers import CaptureCallback

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                add_layers(self)

            def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
                logits = logits_of(self, x)
                if labels is None:
                    return {"logits": logits}
                return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

        self.model = Module()
        self.callback_class = CaptureCallback
        self._transformers = transformers
        self._folder = folder

    def callback(self, path: Path, **options: Any) -> Any:
        """Return a callback."""
        return self.callback_class(path, durable=False, **options)

    @contextmanager
    def over(self, callback: Any) -> Iterator[None]:
        """Do what a job does around all that it does with the callback: enter it."""
        with callback:
            yield

    def trainer(self, callback: Any, model: Any = None, **options: Any) -> Any:
        """Return a trainer, quiet and on the CPU."""
        data = {name: options.pop(name, None) for name in ("train_dataset", "eval_dataset")}
        settings = self._transformers.TrainingArguments(
            output_dir=str(self._folder),
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            learning_rate=0.3,
            **options,
        )
        trainer = self._transformers.Trainer(
            self.model if model is None else model,
            settings,
            data_collator=self._transformers.default_data_collator,
            callbacks=[] if callback is None else [callback],
            **data,
        )
        trainer.remove_callback(self._transformers.PrinterCallback)
        return trainer

    def evaluate(self, callback: Any, data: Any, **options: Any) -> None:
        """Evaluate the model on data."""
        self.trainer(callback, **options).evaluate(data)

    def train(self, callback: Any, data: Any, evaluation: Any) -> None:
        """Train for two epochs, with an evaluation after each."""
        options = {"train_dataset": data, "eval_dataset": evaluation}
        options |= {"eval_strategy": "epoch", "num_train_epochs": 2}
        self.trainer(callback, **options).train()


def loader(data: Any) -> DataLoader[Any]:
    """Return batches of data, in order."""
    return DataLoader(data, batch_size=BATCH)


PACKAGES = {"lightning": LightningTrainer, "transformers": HuggingFaceTrainer}
"""The trainers, by the name of their package."""
