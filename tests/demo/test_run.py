"""The demo, held against independent hooks on all 10,000 images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tsstore
from tsstore.demo import mnist
from tsstore.demo.model import load_lenet5
from tsstore.demo.run import LAYERS, run_demo
from tsstore.errors import StoreExistsError, TsstoreError
from tsstore.statistics.spectrum import Spectrum


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.zarr"
    return path, run_demo(path)


@pytest.fixture(scope="module")
def seen():
    """Packed outputs of each convolution, as plain hooks see them in a run of their own."""
    model = load_lenet5()
    packed = {name: [] for name in LAYERS}
    for name in LAYERS:
        getattr(model, name).register_forward_hook(
            lambda _, __, output, name=name: packed[name].append(
                np.packbits((output > 0).numpy(), axis=1, bitorder="little")
            )
        )
    images, _ = mnist.test_images()
    with torch.inference_mode():
        for batch in torch.from_numpy(mnist.to_model_input(images)).split(200):
            model(batch)
    return {name: np.moveaxis(np.concatenate(packed[name]), 1, -1) for name in LAYERS}


@pytest.mark.parametrize("name", LAYERS)
def test_counts_equal_numpys(demo, seen, name):
    path, analysis = demo
    samples, height, width, row_bytes = seen[name].shape
    rows = seen[name].reshape(-1, row_bytes)
    np.testing.assert_array_equal(tsstore.open(path)[name][:], rows)
    # Numbers are sorted many times faster than bytes.
    whole = rows.view({1: "u1", 2: "u2"}.get(row_bytes, f"V{row_bytes}")).ravel()
    _, state, multiplicity = np.unique(whole, return_inverse=True, return_counts=True)
    sample = np.repeat(np.arange(samples), height * width)
    pairs, repeats = np.unique(sample * len(multiplicity) + state.ravel(), return_counts=True)
    incidence = np.bincount(pairs % len(multiplicity))
    assert analysis[name].distinct == len(multiplicity)
    assert analysis[name].spectrum == Spectrum.from_counts(multiplicity, incidence)
    shares = multiplicity / multiplicity.sum()
    plug_in = analysis[name].entropy("plug-in")
    assert plug_in == pytest.approx(-(shares * np.log2(shares)).sum(), rel=1e-12)
    equal_pairs = int((repeats * (repeats - 1) // 2).sum())
    assert analysis[name].equal_pairs_within_samples == equal_pairs


def test_the_demo_says_what_its_sample_cannot(demo):
    _, analysis = demo
    assert [layer.rows for layer in analysis.values()] == [5_760_000, 640_000, 10_000]
    verdicts = ["saturated", "sample-limited", "sample-limited"]
    assert [layer.verdict for layer in analysis.values()] == verdicts
    assert analysis["conv_3"].efficiency("plug-in") == pytest.approx(np.log2(10_000) / 100)
    assert analysis["conv_3"].efficiency("plug-in") < analysis["conv_3"].efficiency_lower_bound
    assert analysis.is_lower_bound
    assert analysis.network_interval() is analysis.aiq_interval() is None
    assert analysis.accuracy > 0.98


def test_the_demo_s_first_layer_has_a_narrow_interval(demo):
    conv_1 = demo[1]["conv_1"]
    found = conv_1.efficiency_interval()
    assert found.lower < conv_1.efficiency("plug-in") < conv_1.efficiency() < found.upper
    assert found.upper - found.lower < 0.005
    assert conv_1.coverage > 0.99
    assert conv_1.distinct < conv_1.richness().lower
    assert conv_1.rarefied(1_000).distinct < conv_1.distinct / 2


def test_it_runs_on_any_idx_files_and_refuses_a_path_that_is_taken(demo, tmp_path):
    with pytest.raises(StoreExistsError, match="exists already"):
        run_demo(demo[0])
    with pytest.raises(TsstoreError, match="t10k"):
        run_demo(tmp_path / "run.zarr", tmp_path)
