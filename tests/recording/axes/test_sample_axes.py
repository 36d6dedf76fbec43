"""Which axis holds the samples where time comes first: as a tensor is followed, not by its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from watching import packed, stored, watched

import tsstore
from tsstore.errors import TsstoreWarning


class LanguageModel(nn.Module):
    """As in PyTorch's examples: (time, sample) tokens."""

    def __init__(self, recurrent=nn.LSTM):
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(30, 8)
        self.rnn = recurrent(8, 10)
        self.norm, self.decoder, self.act = nn.LayerNorm(10), nn.Linear(10, 30), nn.GELU()

    def forward(self, tokens):
        output, _ = self.rnn(self.drop(self.encoder(tokens)))
        return self.act(self.decoder(self.norm(self.drop(output))))


class Resblock(nn.Module):
    """A block of CLIP as OpenAI wrote it: (token, sample, neuron)."""

    def __init__(self, width):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, 2)
        self.ln_2, self.c_fc = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.gelu, self.c_proj = nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.c_proj(self.gelu(self.c_fc(self.ln_2(x))))


class Tower(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(Resblock(width), Resblock(width))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, x):
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        return self.ln_post(self.blocks(x)[0])


def check(model, values, path, axes):
    """Compare the rows of layers with plain hooks; axes are those of the samples."""
    layers = [name for name, _ in model.named_modules() if name in axes]
    with (
        torch.no_grad(),
        watched(*(model.get_submodule(name) for name in layers)) as seen,
        tsstore.capture(model, path, layers=layers, durable=False),
    ):
        model(values)
        model(values)
    store = tsstore.open(path)
    for name, tensors in zip(layers, seen, strict=True):
        neurons = 1 if tensors[0].ndim == 4 else tensors[0].ndim - 1
        rows = [packed(tensor, neurons, axes[name]) for tensor in tensors]
        states = store[name]
        assert states.attributes.sample_axis == axes[name]
        assert states.read_positions().tolist() == [rows[0].shape[1]] * store.samples
        flat = np.concatenate(rows).reshape(-1, rows[0].shape[2])
        np.testing.assert_array_equal(stored(path, name), flat, err_msg=name)
    return store


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(("time", "samples"), [(60, 12), (12, 12), (7, 12)])
def test_a_language_model_with_time_first(time, samples, recurrent, tmp_path):
    model = LanguageModel(recurrent)
    layers = ["encoder", "norm", "decoder", "act"]
    tokens = torch.randint(30, (time, samples))
    store = check(model.eval(), tokens, tmp_path / "run", dict.fromkeys(layers, 1))
    assert store.samples == 2 * samples
    why = {name: store[name].attributes.decided["sample_axis"] for name in store.layers}
    assert why["encoder"] == "the layer that takes it: rnn"
    assert why["decoder"] == why["act"] == "the layer it follows: rnn"


@pytest.mark.parametrize("samples", [2, 8])
def test_attention_with_tokens_first_in_the_middle_of_a_network(samples, tmp_path):
    axes = {"patch": 0, "ln_post": 0}
    for number in "01":
        for name in ("ln_1", "ln_2", "c_fc", "gelu", "c_proj"):
            axes[f"blocks.{number}.{name}"] = 1
    store = check(Tower().eval(), torch.randn(samples, 3, 16, 16), tmp_path / "run", axes)
    assert store.samples == 2 * samples


def test_where_no_module_has_time_first_samples_come_first(tmp_path):
    model = nn.Sequential(nn.LSTM(3, 5, batch_first=True), First(), nn.Linear(5, 6), nn.ReLU())
    with pytest.warns(TsstoreWarning, match="2: .* axis 0 is taken for the samples"):
        store = check(model, torch.randn(12, 12, 3), tmp_path / "run", {"2": 0, "3": 0})
    assert store.samples == 24


class First(nn.Module):
    def forward(self, values):
        return values[0]
