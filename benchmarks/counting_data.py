"""States to count, batch by batch: of convolutions of images, all distinct, few distinct.

``conv``, ``random`` and ``hold`` are the states of a convolution of 5 × 5 pixels with random,
somewhat smooth filters, as trained ones are, in 16 × 16 positions of an image. The images are
MNIST's, each turned, moved and dimmed anew, or filtered noise, half of which ``random`` cuts off;
of ``hold``'s states of 64 neurons, a fifth to two fifths are distinct. ``demo`` are those of the
demo's trained conv_2, of 50 neurons in 8 × 8 positions. ``distinct`` and ``few`` are made of
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from tsstore import bits
from tsstore.demo import mnist

CLASSES = 10
FEW = 4096
SEED = 1

KERNEL = 5
SIDE = 16
CONV_POSITIONS = SIDE * SIDE
PIXELS = SIDE + KERNEL - 1
FILTER_SMOOTHNESS, BIAS = 0.7, 0.3

TURN, MOVE, DIMMEST = np.deg2rad(15), 2, 0.6
NOISE_SMOOTHNESS, HOLD_SMOOTHNESS = 2.5, 1.5

DEMO_POSITIONS, DEMO_PIXELS, DEMO_SAMPLES, DEMO_WIDTH = 64, 28, 256, 8

BATCH_ROWS, BATCH_BYTES = 1 << 19, 1 << 26
PRODUCT_BYTES = 1 << 27

Images = Callable[[np.random.Generator, int], tuple[Any, Any]]
"""Returns so many images, float32 (samples, pixels, pixels), and their labels."""
Draw = Callable[[np.random.Generator, int, int], tuple[Any, Any]]
"""Takes the first row and the number of samples; returns packed rows, and a label a sample."""


def batches(kind: str, width: int, rows: int, positions: int) -> Iterator[tuple[Any, Any]]:
    """Yield packed rows, uint8 (n, width), and labels, uint8 (n / positions,), the same each time.

    `rows` are whole samples of so many positions.
    """
    generator = np.random.default_rng(SEED)
    draw = KINDS[kind](width, positions)
    step = max(min(BATCH_ROWS, BATCH_BYTES // width) // positions, 1) * positions
    for first in range(0, rows, step):
        yield draw(generator, first, min(step, rows - first) // positions)


def positions_of(kind: str, positions: int) -> int:
    """Return the rows of a sample: those of the images are given, others are asked for."""
    own = dict.fromkeys(("conv", "random", "hold"), CONV_POSITIONS) | {"demo": DEMO_POSITIONS}
    return own.get(kind, positions)


def has_width(kind: str, width: int) -> bool:
    """Whether there are rows of so many bytes: a trained layer has as many neurons as it has."""
    return kind != "demo" or width == DEMO_WIDTH


def most_rows(kind: str, width: int) -> int | None:
    """Return how many rows there can be, None for any number."""
    return 1 << 8 * width if kind == "distinct" and width < 8 else None


def conv(width: int, positions: int) -> Draw:
    """Return what draws the states of a convolution of MNIST's test images."""
    pool, labels = mnist.test_images()
    pool = pool.astype(np.float32) / 256

    def images(generator: np.random.Generator, samples: int) -> tuple[Any, Any]:
        which = generator.integers(0, len(pool), samples)
        return varied(pool, which, generator), labels[which]

    return convolved(images, width)


def random(width: int, positions: int) -> Draw:
    """Return what draws the states of a convolution of smooth noise, half of which is cut off."""

    def images(generator: np.random.Generator, samples: int) -> tuple[Any, Any]:
        noise, labels = smooth_noise(generator, samples, NOISE_SMOOTHNESS)
        return np.maximum(noise, 0), labels

    return convolved(images, width)


def hold(width: int, positions: int) -> Draw:
    """Return what draws the states of a convolution of less smooth noise."""
    return convolved(lambda rng, samples: smooth_noise(rng, samples, HOLD_SMOOTHNESS), width)


def smooth_noise(
    generator: np.random.Generator, samples: int, smoothness: float
) -> tuple[Any, Any]:
    """Return images of filtered noise, and labels by chance."""
    edge = round(4 * smoothness)
    side = PIXELS + 2 * edge
    noise = generator.standard_normal((samples, side, side), dtype=np.float32)
    for axis in (1, 2):
        noise = ndimage.gaussian_filter1d(noise, smoothness, axis)
    noise = noise[:, edge:-edge, edge:-edge]
    labels = generator.integers(0, CLASSES, samples, dtype=np.uint8)
    return noise / noise.std(), labels


def demo(width: int, positions: int) -> Draw:
    """Return what draws the states of the demo's second convolution, of MNIST's test images."""
    import torch

    from tsstore.demo.model import load_lenet5

    model = load_lenet5().eval()
    pool, labels = mnist.test_images()
    pool = pool.astype(np.float32) / 256

    def draw(generator: np.random.Generator, first: int, samples: int) -> tuple[Any, Any]:
        which, pieces = generator.integers(0, len(pool), samples), []
        for start in range(0, samples, DEMO_SAMPLES):
            own = which[start : start + DEMO_SAMPLES]
            planes = torch.from_numpy(varied(pool, own, generator, DEMO_PIXELS)[:, None])
            with torch.inference_mode():
                for name in ("conv_1", "elu_1", "norm_1", "maxp_1", "conv_2"):
                    planes = getattr(model, name)(planes)
            on = (planes > 0).permute(0, 2, 3, 1).reshape(len(own) * DEMO_POSITIONS, -1).numpy()
            pieces.append(bits.pack(np.pad(on, ((0, 0), (0, 8 * width - on.shape[1])))))
        return np.concatenate(pieces), labels[which]

    return draw


def distinct(width: int, positions: int) -> Draw:
    """Return what draws states that are all different, in no order."""
    return numbered(width, positions, lambda _, first, count: np.arange(first, first + count))


def few(width: int, positions: int) -> Draw:
    """Return what draws one of 4,096 states, the most frequent ones by Zipf's law."""
    shares = 1 / np.arange(1, FEW + 1)
    limits = np.cumsum(shares / shares.sum())
    # The last limit need not be 1 to the last digit.
    limits[-1] = 1
    return numbered(
        width, positions, lambda rng, _, count: np.searchsorted(limits, rng.random(count))
    )


KINDS: dict[str, Callable[[int, int], Draw]] = {
    "conv": conv,
    "random": random,
    "hold": hold,
    "demo": demo,
    "distinct": distinct,
    "few": few,
}


def varied(pool: Any, which: Any, generator: np.random.Generator, pixels: int = PIXELS) -> Any:
    """Return images of the pool, each turned, moved and dimmed at random, of so many pixels."""
    angle = generator.uniform(-TURN, TURN, (len(which), 1, 1)).astype(np.float32)
    down, right = generator.uniform(-MOVE, MOVE, (2, len(which), 1, 1)).astype(np.float32)
    centre = (pool.shape[1] - 1) / 2
    grid = np.linspace(-centre, centre, pixels, dtype=np.float32)
    y, x = grid[:, None], grid[None, :]
    rows = np.cos(angle) * y - np.sin(angle) * x + centre + down
    columns = np.sin(angle) * y + np.cos(angle) * x + centre + right
    images = np.broadcast_to(which[:, None, None], rows.shape)
    light = generator.uniform(DIMMEST, 1, (len(which), 1, 1)).astype(np.float32)
    return light * ndimage.map_coordinates(pool, [images, rows, columns], order=1)


def convolved(images: Images, width: int) -> Draw:
    """Return what draws the states of a convolution of images."""
    neurons = 8 * width
    generator = np.random.default_rng(SEED)
    filters = generator.standard_normal((neurons, KERNEL, KERNEL)).astype(np.float32)
    filters = ndimage.gaussian_filter(filters, (0, FILTER_SMOOTHNESS, FILTER_SMOOTHNESS))
    filters = filters.reshape(neurons, -1)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    bias = generator.normal(0, BIAS, neurons).astype(np.float32)
    step = max(PRODUCT_BYTES // (4 * neurons * CONV_POSITIONS), 1)

    def draw(generator: np.random.Generator, first: int, samples: int) -> tuple[Any, Any]:
        pictures, labels = images(generator, samples)
        pieces = []
        for start in range(0, samples, step):
            windows = sliding_window_view(pictures[start : start + step], (KERNEL, KERNEL), (1, 2))
            pieces.append(bits.pack(windows.reshape(-1, KERNEL**2) @ filters.T + bias > 0))
        return np.concatenate(pieces), labels

    return draw


def numbered(
    width: int, positions: int, numbers: Callable[[np.random.Generator, int, int], Any]
) -> Draw:
    """Return what draws states that differ where their numbers do, with labels by chance."""

    def draw(generator: np.random.Generator, first: int, samples: int) -> tuple[Any, Any]:
        drawn = numbers(generator, first, samples * positions)
        labels = generator.integers(0, CLASSES, samples, dtype=np.uint8)
        return rows_of(drawn.astype(np.uint64), width), labels

    return draw


def rows_of(numbers: Any, width: int) -> Any:
    """Return rows, uint8 (n, width), that look random and differ where the numbers do.

    Of numbers below 2 ** (8 * width): each step is a permutation of those.
    """
    words = np.empty((len(numbers), -(-width // 8)), dtype="<u8")
    size = min(8 * width, 64)
    mask = np.uint64((1 << size) - 1)
    for word in range(words.shape[1]):
        mixed = numbers * np.uint64(0x9E3779B97F4A7C15 + 2 * word) & mask
        for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
            mixed ^= mixed >> np.uint64(size // 2)
            mixed = mixed * np.uint64(factor) & mask
        words[:, word] = mixed ^ mixed >> np.uint64(size // 2)
    return np.ascontiguousarray(words.view(np.uint8)[:, :width])
