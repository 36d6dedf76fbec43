"""Whole captures against NumPy's own packing and counting of what plain hooks saw in the same run.

Nothing of the package is used on the side of the expectation.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from watching import as_numpy, watched

import tsstore

# 0.1 as each type holds it; that of bfloat16, which NumPy lacks, by hand: 1.6015625 / 16.
TENTHS = {
    torch.float64: np.float64(0.1),
    torch.float32: np.float32(0.1),
    torch.float16: np.float16(0.1),
    torch.bfloat16: np.float32(0.10009765625),
}
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
KINDS = ("linear", "tokens", *CONVOLUTIONS)
SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.1, -0.1, 1.0, 1e-30]


def input_shape(kind: str, samples: int, features: int, extent: int) -> tuple[int, ...]:
    if kind == "linear":
        return samples, features
    if kind == "tokens":
        return samples, extent, features
    return samples, features, *[extent] * int(kind[4])


def build(kind: str, features: int, neurons: int, dtype: torch.dtype) -> nn.Module:
    if kind in CONVOLUTIONS:
        return CONVOLUTIONS[kind](features, neurons, 1, dtype=dtype)
    return nn.Linear(features, neurons, dtype=dtype)


def on_patterns(tensor: torch.Tensor, kind: str, threshold: float) -> np.ndarray:
    """On/off patterns of a batch, (samples, positions, neurons)."""
    limit = TENTHS.get(tensor.dtype, np.float64(0.1)) if threshold else 0
    on = as_numpy(tensor) > limit
    if kind in CONVOLUTIONS:
        on = np.moveaxis(on, 1, -1)
    return on.reshape(len(on), -1, on.shape[-1])


def check_run(path: Path, layer: str, batches: list[np.ndarray]) -> None:
    """Compare rows bit for bit, then all that is counted from them."""
    packed = [np.packbits(on, axis=-1, bitorder="little") for on in batches]
    rows = np.concatenate([batch.reshape(-1, batch.shape[-1]) for batch in packed])
    states = tsstore.open(path)[layer]
    assert states.neurons == batches[0].shape[-1]
    np.testing.assert_array_equal(states[:], rows)
    assert states.read_positions().tolist() == [b.shape[1] for b in batches for _ in b]

    result = tsstore.analyze(path, scheduler="synchronous")[layer]
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    assert result.distinct == len(distinct)
    assert result.rows == len(rows)

    samples_of = defaultdict(set)
    for number, sample in enumerate(sample for batch in packed for sample in batch):
        for row in sample:
            samples_of[row.tobytes()].add(number)
    incidence = [len(samples_of[row.tobytes()]) for row in distinct]
    spectrum = result.spectrum
    pairs = zip(spectrum.multiplicity.tolist(), spectrum.incidence.tolist(), strict=True)
    found = dict(zip(pairs, spectrum.states.tolist(), strict=True))
    assert found == Counter(zip(counts.tolist(), incidence, strict=True))

    p = counts / counts.sum()
    assert result.entropy("plug-in") == pytest.approx(max(-(p * np.log2(p)).sum(), 0.0), abs=1e-12)
    assert result.entropy("plug-in", 2) == pytest.approx(-np.log2((p**2).sum()), abs=1e-12)
    assert result.entropy("plug-in", 0.5) == pytest.approx(2 * np.log2(np.sqrt(p).sum()), abs=1e-12)
    assert result.efficiency() == pytest.approx(result.entropy() / states.neurons, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(list(TENTHS)),
    neurons=st.integers(1, 300),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    extent=st.integers(1, 3),
    threshold=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_layers_that_compute(kind, dtype, neurons, sizes, extent, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    special = torch.tensor(SPECIAL, dtype=dtype)
    layer = build(kind, 2, neurons, dtype).requires_grad_(False)
    layer.weight.copy_(torch.randint(-1, 2, layer.weight.shape, generator=generator))
    layer.bias.copy_(special[torch.randint(len(special), (neurons,), generator=generator)])
    model = nn.Sequential(layer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        # As many tokens as samples: nothing but the user can tell the two axes apart.
        sample_axis = 0 if kind == "tokens" and extent in sizes else None
        with (
            watched(layer) as (seen,),
            tsstore.capture(
                model,
                path,
                layers="0",
                threshold=threshold,
                sample_axis=sample_axis,
                durable=False,
            ),
        ):
            for size in sizes:
                shape = input_shape(kind, size, 2, extent)
                model(special[torch.randint(len(special), shape, generator=generator)])
        assert all(tensor.dtype == dtype for tensor in seen)
        check_run(path, "0", [on_patterns(tensor, kind, threshold) for tensor in seen])


class GivenLinear(nn.Linear):
    """A layer that gives what it takes: values of any type, none of them computed."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.clone()


class GivenConv(nn.Conv2d):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.clone()


def draw_values(
    generator: torch.Generator, dtype: torch.dtype, patterns: int, shape: tuple[int, ...]
) -> torch.Tensor:
    """Draw (…, neurons) from few patterns, so that states repeat within and across samples."""
    size = (patterns, shape[-1])
    if dtype == torch.bool:
        pool = torch.randint(0, 2, size, generator=generator).bool()
    elif dtype in INTEGERS:
        info = torch.iinfo(dtype)
        edges = torch.tensor([info.min, info.max, 0, 1, max(info.min, -1)], dtype=dtype)
        pool = edges[torch.randint(len(edges), size, generator=generator)]
    else:
        pool = torch.tensor(SPECIAL, dtype=dtype)[
            torch.randint(len(SPECIAL), size, generator=generator)
        ]
    return pool[torch.randint(patterns, shape[:-1], generator=generator)]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["linear", "tokens", "conv2d"]),
    dtype=st.sampled_from([*TENTHS, *INTEGERS, torch.bool]),
    neurons=st.integers(1, 300),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    extent=st.integers(1, 4),
    patterns=st.integers(1, 6),
    threshold=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_layers_that_give_any_values(
    kind, dtype, neurons, sizes, extent, patterns, threshold, seed
):
    generator = torch.Generator().manual_seed(seed)
    layer = GivenConv(1, 1, 1) if kind == "conv2d" else GivenLinear(1, 1)
    model = nn.Sequential(layer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with (
            watched(layer) as (seen,),
            tsstore.capture(
                model,
                path,
                layers=layer,
                threshold=threshold,
                neuron_axis=1 if kind == "conv2d" else -1,
                sample_axis=0,
                durable=False,
            ),
        ):
            for size in sizes:
                shape = input_shape("tokens" if kind == "conv2d" else kind, size, neurons, extent)
                values = draw_values(generator, dtype, patterns, shape)
                if kind == "conv2d":
                    values = values.movedim(-1, 1).unsqueeze(-1)
                model(values)
        check_run(path, "0", [on_patterns(tensor, kind, threshold) for tensor in seen])


def test_several_layers_of_a_network_at_once(tmp_path):
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 13, 3), nn.ReLU(), nn.Conv2d(13, 70, 3), nn.Flatten(), nn.Linear(1120, 5)
    ).eval()
    watching = watched(model[0], model[2], model[4])
    capture = tsstore.capture(model, tmp_path / "run", layers=[nn.Conv2d, "Linear"])
    with torch.no_grad(), watching as seen, capture as recorder:
        for size in (5, 5, 2):
            with recorder.batch(id=range(size)):
                model(torch.rand(size, 1, 8, 8))
    kinds = {"0": "conv2d", "2": "conv2d", "4": "linear"}
    for (name, kind), tensors in zip(kinds.items(), seen, strict=True):
        check_run(tmp_path / "run", name, [on_patterns(tensor, kind, 0.0) for tensor in tensors])
