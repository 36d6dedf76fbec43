"""The demo: how well a small trained network uses its neurons."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

import tsstore
from tsstore.analysis.results.network import Analysis
from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5
from tsstore.text import Progress, silent

BATCH_SIZE = 200
LAYERS = ["conv_1", "conv_2", "conv_3"]


def capture_demo(
    path: str | os.PathLike[str],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    report: Callable[[int, int], None] = lambda done, total: None,
    *,
    overwrite: bool = False,
) -> None:
    """Run the demo's network on images and record its states, labels and predictions.

    Parameters
    ----------
    path
        Where to create the store.
    images, labels
        uint8 (n, 28, 28) and (n,).
    report
        Called with the number of images done, and of all.
    overwrite
        Whether to replace a run that is there already.
    """
    model = load_lenet5()
    inputs = torch.from_numpy(mnist.to_model_input(images))
    recorder = tsstore.capture(model, path, layers=LAYERS, overwrite=overwrite)
    with torch.inference_mode(), recorder:
        for start in range(0, len(inputs), BATCH_SIZE):
            stop = min(start + BATCH_SIZE, len(inputs))
            ids, label = np.arange(start, stop), labels[start:stop].astype(np.int64)
            with recorder.batch(id=ids, label=label) as batch:
                batch.record(prediction=model(inputs[start:stop]).argmax(1))
            report(stop, len(inputs))


def run_demo(
    path: str | os.PathLike[str],
    directory: str | None = None,
    progress: Progress = silent,
    *,
    overwrite: bool = False,
) -> Analysis:
    """Capture, open again and analyse: the demo in one call.

    Parameters
    ----------
    path
        Where to create the store.
    directory
        Where idx files of MNIST's layout lie; the shipped ones unless given.
    progress
        Called as ``progress(name, done, all)``, of images and then of each layer's tasks.

    Returns
    -------
    Analysis
        The results of all three convolutions.
    """
    images = mnist.test_images() if directory is None else mnist.load_split(directory, "t10k")
    capture_demo(path, *images, partial(progress, "capture"), overwrite=overwrite)
    return tsstore.analyze(tsstore.open(path), progress=progress)
