"""What the demo's network shows on subsets of MNIST, beside what it shows on all images.

`python benchmarks/estimators.py --mnist` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from counted import GROUPS, SEED, Counted

from tsstore.statistics.estimators import plug_in
from tsstore.statistics.intervals import Interval
from tsstore.statistics.verdict import SATURATED, USABLE

SIZES = (1_000, 3_000, 5_000, 10_000, 20_000, 40_000, 60_000)

HEADINGS = {
    "layer": 8,
    "images": 8,
    "plug-in": 9,
    "estimate": 10,
    "interval": 18,
    "width": 8,
    "if rare": 9,
    "lower bound": 13,
    "verdict": 16,
    "subsets": 9,
    "limited": 9,
    "hold": 7,
    "inside": 8,
    "above": 7,
}

LEGEND = """\
The demo's network. Bits and verdict are those of the first images of one random order, each line's
among those of the next. Of all disjoint subsets of that size, width: the median width of the shown
interval, in efficiency; if rare: that of the one which assumes unseen states like the rare ones
seen. Counted are all these subsets. limited: too few. Of the others, hold: intervals that
hold the estimate of all images; inside: estimates inside the interval of all images. Of all, above:
lower bounds above the estimate of all images."""


@dataclass
class Said:
    """What the images of one subset say of a layer, in bits."""

    plug_in: float
    interval: Interval
    if_rare: Interval
    lower_bound: float
    verdict: str

    @classmethod
    def by(cls, rows, neurons: int, rng) -> Said:
        """Count rows of shape (images, positions)."""
        counted = Counted.of(rows, rng.integers(0, GROUPS, len(rows)), neurons)
        entropy = counted.entropy()
        return cls(
            plug_in(counted.spectrum),
            entropy.interval(largest=float(neurons)),
            entropy.interval(largest=float(neurons), unseen_like_rare=True),
            counted.lower_bound(),
            counted.verdict(entropy).name,
        )

    @property
    def limited(self) -> bool:
        """Whether the images are too few for the estimate."""
        return self.verdict not in (SATURATED, USABLE)


def lenet_states(training: Path | None) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield each layer's name and neurons, and its states as whole numbers (images, positions).

    The images are the training images, or those of the demo. Different states get different
    numbers but for a chance of less than one in a million.
    """
    import torch

    from tsstore.demo import mnist
    from tsstore.demo.model import load_lenet5
    from tsstore.demo.run import LAYERS

    images, _ = mnist.load_split(training, "train") if training else mnist.test_images()
    images = images[np.random.default_rng(SEED).permutation(len(images))]
    inputs = torch.from_numpy(mnist.to_model_input(images))
    model, found = load_lenet5().eval(), {name: [] for name in LAYERS}
    rng = np.random.default_rng(SEED)

    def listen(name: str, neurons: int) -> None:
        # A sum of random 62-bit numbers, one for each neuron that is on, modulo 2**64.
        code = rng.integers(0, 1 << 62, neurons).astype(np.uint64)

        def keep(module, arguments, output) -> None:
            on = (output > 0).flatten(2).transpose(1, 2).numpy()
            found[name].append(on.astype(np.uint64) @ code)

        getattr(model, name).register_forward_hook(keep)

    for name in LAYERS:
        listen(name, getattr(model, name).out_channels)
    with torch.inference_mode():
        for start in range(0, len(inputs), 500):
            model(inputs[start : start + 500])
    for name in LAYERS:
        codes = np.concatenate(found.pop(name))
        _, numbers = np.unique(codes, return_inverse=True)
        yield name, getattr(model, name).out_channels, numbers.reshape(codes.shape)


def lenet(training: Path | None) -> None:
    """Print what subsets say beside what all images say."""
    print(LEGEND)
    print_cells(HEADINGS)
    for name, neurons, rows in lenet_states(training):
        rng = np.random.default_rng(SEED)
        sizes = [size for size in SIZES if size <= len(rows)]
        said = {
            size: [
                Said.by(rows[start : start + size], neurons, rng)
                for start in range(0, len(rows) - size + 1, size)
            ]
            for size in sizes
        }
        for size, subsets in said.items():
            print_line(name, neurons, size, subsets, said)


def print_line(
    name: str, neurons: int, size: int, subsets: list[Said], said: dict[int, list[Said]]
) -> None:
    """Print what the first subset of a size says, and how many agree with all images."""
    whole = max(said.items())[1][0]
    truth = whole.interval.estimate
    enough = [one for one in subsets if not one.limited]
    first = subsets[0]
    bits = first.interval
    print_cells(
        [
            name,
            f"{size:,}",
            f"{first.plug_in:.3f}",
            f"{bits.estimate:.3f}",
            f"{bits.lower:.3f} {bits.upper:.3f}",
            width([one.interval for one in subsets], neurons),
            width([one.if_rare for one in subsets], neurons),
            f"{first.lower_bound:.3f}",
            first.verdict,
            str(len(subsets)),
            str(len(subsets) - len(enough)),
            str(sum(holds(one.interval, truth) for one in enough)),
            str(sum(holds(whole.interval, one.interval.estimate) for one in enough)),
            str(sum(one.lower_bound > truth for one in subsets)),
        ]
    )


def width(intervals: list[Interval], neurons: int) -> str:
    """Return the median width, in efficiency."""
    return f"{np.median([one.upper - one.lower for one in intervals]) / neurons:.4f}"


def holds(interval: Interval, value: float) -> bool:
    """Return whether an interval holds a value."""
    return interval.lower <= value <= interval.upper


def print_cells(cells) -> None:
    """Print one line of the table."""
    widths = HEADINGS.values()
    print(
        "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True
    )
