"""The demo: how well a small trained network uses its neurons."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import tsstore
from tsstore.analysis.results.network import Analysis
from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5

BATCH_SIZE = 200
LAYERS = ["conv_1", "conv_2", "conv_3"]


def capture_demo(
    path: str | os.PathLike[str],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    report: Callable[[int, int], None] | None = None,
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
            part = slice(start, start + BATCH_SIZE)
            ids = np.arange(start, min(start + BATCH_SIZE, len(inputs)))
            with recorder.batch(id=ids, label=labels[part].astype(np.int64)) as batch:
                batch.record(prediction=model(inputs[part]).argmax(1))
            if report is not None:
                report(len(ids) + start, len(inputs))


def demo_images(
    directory: str | os.PathLike[str] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the shipped test images and labels, or those of the idx files in a directory."""
    if directory is None:
        return mnist.test_images()
    return mnist.load_split(Path(directory), "t10k")


def run_demo(
    path: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None
) -> Analysis:
    """Capture, open again and analyse: the demo in one call.

    Parameters
    ----------
    path
        Where to create the store.
    directory
        Where idx files of MNIST's layout lie; the shipped ones unless given.

    Returns
    -------
    Analysis
        The results of all three convolutions.
    """
    capture_demo(path, *demo_images(directory))
    return tsstore.analyze(tsstore.open(path))
