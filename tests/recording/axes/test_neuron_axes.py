"""Which axis holds the neurons: captures of networks of many kinds against plain hooks and NumPy.

A network here is a name, how it is built, its input, and the axis of each layer's neurons as its
author meant it: patterns of names with axes, the first that fits counts. Nothing of the package is
used on the side of the expectation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module
from watching import has_any_global_hook, needs_exported_classes, packed, stored

import tsstore
from tsstore.errors import CaptureError, OutputError, ResumeError


class Network(NamedTuple):
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor] | torch.Tensor]
    axes: dict[str, int]
    exclude: tuple[str, ...] = ()


def images(channels=3, size=16, samples=3):
    return lambda: torch.randn(samples, channels, size, size)


def tokens(samples=3, length=7, width=8):
    return lambda: torch.randn(samples, length, width)


class Wiring(nn.Module):
    """Modules by name, and how they are called."""

    def __init__(self, wire, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.wire = wire

    def forward(self, values):
        return self.wire(self, values)


# Blocks as people write them.


class PermutingNorm(nn.LayerNorm):
    """As in torchvision: takes channels first, and permutes by itself."""

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


class Permute(nn.Module):
    """As in torchvision."""

    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(self.order)


class LayerScale(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return x * self.gamma


class PermutingBlock(nn.Module):
    """A ConvNeXt block that permutes in between, as its authors and timm write it."""

    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.2)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale = LayerScale(width)
        self.path = nn.Identity()

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.scale(self.fc2(self.drop(self.act(self.fc1(y)))))
        return x + self.path(y.permute(0, 3, 1, 2))


class ModulesBlock(nn.Module):
    """A ConvNeXt block of modules alone, as in torchvision."""

    def __init__(self, width):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            Permute(0, 3, 1, 2),
        )

    def forward(self, x):
        return x + self.block(x)


def channels_last(width, size):
    """A stem, a norm that permutes by itself, two blocks and a head."""
    return nn.Sequential(
        nn.Conv2d(3, width, 2, stride=2),
        PermutingNorm(width, eps=1e-6),
        PermutingBlock(width),
        ModulesBlock(width),
        nn.Conv2d(width, 5, 1),
        nn.ReLU(),
    ), size


class Residual(nn.Module):
    def __init__(self, width, in_place, shared=False):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=in_place)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu2 = self.relu1 if shared else nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x):
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self.in_place:
            y += x
        else:
            y = x + y
        return self.relu2(y)


def resnet(width, in_place):
    return nn.Sequential(
        nn.Conv2d(3, width, 1),
        Residual(width, in_place),
        Residual(width, in_place),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(width, 4),
    )


class UNet(nn.Module):
    """Two levels, pooling after a concatenation, activations as modules."""

    def __init__(self):
        super().__init__()
        self.down1, self.act1 = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.down2, self.act2 = nn.Conv2d(8, 12, 3, padding=1), nn.LeakyReLU()
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.pool2 = nn.AvgPool2d(2)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Conv2d(16, 5, 1)
        self.act3 = nn.SiLU()

    def forward(self, x):
        first = self.act1(self.down1(x))
        second = self.up(self.act2(self.down2(self.pool1(first))))
        return self.act3(self.last(self.drop(self.pool2(torch.cat([first, second], 1)))))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax, self.attn_drop = nn.Softmax(dim=-1), nn.Dropout(0.1)
        self.proj_drop = nn.Dropout(0.1)

    def forward(self, x):
        samples, length, width = x.shape
        qkv = self.qkv(x).reshape(samples, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weights = self.attn_drop(self.softmax(query @ key.transpose(-2, -1)))
        mixed = (weights @ value).transpose(1, 2).reshape(x.shape)
        return self.proj_drop(self.proj(mixed))


class Block(nn.Module):
    """A block of a vision transformer, as timm writes it."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc1 = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.act, self.drop = nn.GELU(), nn.Dropout(0.1)
        self.fc2 = nn.Linear(3 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(self.drop(self.act(self.fc1(self.norm2(x)))))


class Vision(nn.Module):
    """A vision transformer: a dropout on tokens comes before the first block."""

    def __init__(self, width, size):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.pos = nn.Parameter(torch.randn(1, (size // 4) ** 2 + 1, width))
        self.pos_drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.norm(self.blocks(self.pos_drop(x)))


class Adapted(nn.Module):
    """A Linear with a low-rank adapter beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def adapted():
    return nn.Sequential(Adapted(nn.Linear(8, 12)), nn.GELU(), Adapted(nn.Linear(12, 8)))


def parametrized():
    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 9, 3))
    weighted = nn.utils.parametrizations.weight_norm(nn.Linear(9, 14))
    return nn.Sequential(spectral, nn.ReLU(), Permute(0, 2, 3, 1), weighted, nn.ReLU())


def quantized():
    """Linear layers with weights of 8 bits, in channels-last."""
    quantize = torch.ao.quantization.quantize_dynamic
    model = nn.Sequential(Permute(0, 2, 3, 1), nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 4))
    return quantize(model, {nn.Linear}, dtype=torch.qint8)


class SharedRelu(nn.Module):
    """One ReLU behind two convolutions and a residual addition."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.block = Residual(6, in_place=True, shared=True)

    def forward(self, x):
        return self.block(self.stem(x))


class Volumes(nn.Module):
    """Five axes, channels first and last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act1 = nn.Conv3d(1, 6, 3), nn.BatchNorm3d(6), nn.ELU()
        self.fc, self.act2 = nn.Linear(6, 11), nn.Mish()

    def forward(self, x):
        return self.act2(self.fc(self.act1(self.norm(self.conv(x))).permute(0, 2, 3, 4, 1)))


def spectrograms():
    """Three axes, channels first."""
    layers = nn.Conv1d(4, 9, 3), nn.ReLU(), nn.Dropout(0.1), nn.MaxPool1d(2), nn.Conv1d(9, 6, 1)
    return nn.Sequential(*layers)


class Mixer(nn.Module):
    """Tokens are mixed along the other axis: there the neurons are what is mixed."""

    def __init__(self, length, width):
        super().__init__()
        self.norm1, self.fc1 = nn.LayerNorm(width), nn.Linear(length, 20)
        self.act1, self.fc2 = nn.GELU(), nn.Linear(20, length)
        self.norm2, self.fc3, self.act2 = nn.LayerNorm(width), nn.Linear(width, 30), nn.GELU()

    def forward(self, x):
        x = x + self.fc2(self.act1(self.fc1(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        return self.act2(self.fc3(self.norm2(x)))


def exported():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Permute(0, 2, 3, 1), nn.Linear(6, 9),
        nn.GELU(), nn.LayerNorm(9),
    ).eval()  # fmt: skip
    program = torch.export.export(model, (torch.randn(3, 3, 16, 16),), strict=False)
    return torch.export.unflatten(program)


NETWORKS = {
    "channels last": Network(
        lambda: channels_last(6, 12)[0], images(size=20),
        {"1": 1, "2.dwconv": 1, "2.path": 1, "2.*": 3, "3.block.0": 1, "3.block.[26]": 3,
         "3.block.*": 3, "*": 1},
        exclude=("3.block.1", "3.block.6"),
    ),
    # Height, width and channels are as many: who made it decides.
    "channels last, cubes": Network(
        lambda: channels_last(6, 12)[0], images(size=12),
        {"1": 1, "2.dwconv": 1, "2.*": 3, "3.block.0": 1, "3.block.*": 3, "*": 1},
        exclude=("3.block.1", "3.block.6", "2.path", "2.scale"),
    ),
    "resnet": Network(lambda: resnet(6, False), images(), {"*": 1}),
    "resnet in place": Network(lambda: resnet(6, True), images(), {"*": 1}),
    "resnet, cubes": Network(lambda: resnet(16, False), images(), {"*": 1}),
    "one ReLU for all": Network(SharedRelu, images(), {"*": 1}),
    "u-net": Network(UNet, images(), {"*": 1}),
    "vision transformer": Network(
        lambda: Vision(8, 16), images(), {"patch": 1, "*": 2}, exclude=("*.softmax", "*.attn_drop"),
    ),
    "vision transformer, squares": Network(
        lambda: Vision(10, 12), images(size=12), {"patch": 1, "*": 2},
        exclude=("*.softmax", "*.attn_drop"),
    ),
    "low-rank adapters": Network(adapted, tokens(), {"*": 2}),
    "parametrisations": Network(parametrized, images(), {"[01]": 1, "*": 3}, exclude=("2",)),
    "quantised": Network(quantized, images(), {"*": 3}, exclude=("0", "*._packed_params")),
    "volumes": Network(
        Volumes, lambda: torch.randn(3, 1, 8, 7, 6), {"fc": 4, "act2": 4, "*": 1},
    ),
    "spectrograms": Network(spectrograms, lambda: torch.randn(3, 4, 10), {"*": 1}),
    "mixer": Network(lambda: Mixer(7, 8), tokens(), {"*": 2}),
    "mixer, squares": Network(lambda: Mixer(8, 8), tokens(length=8), {"*": 2}),
    "exported": Network(exported, images(), {"[012]": 1, "*": 3}, exclude=("3",)),
}  # fmt: skip


VISION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
}  # fmt: skip
PATCHES = VISION | {"image_size": 16, "patch_size": 4}
WORDS = VISION | {"vocab_size": 50}


def words():
    return {"input_ids": torch.randint(1, 49, (3, 7))}


def pixels(size=16):
    return lambda: {"pixel_values": torch.randn(3, 3, size, size)}


def words_and_pixels():
    return words() | pixels()()


def of_transformers(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def build():
        transformers = pytest.importorskip("transformers")
        config = getattr(transformers, f"{name}Config")(**settings)
        return getattr(transformers, f"{name}Model")(config)

    return build


TRANSFORMERS = {
    "ConvNeXt V2": Network(
        of_transformers("ConvNextV2", hidden_sizes=[8, 10, 12], num_stages=3, depths=[1, 2, 1]),
        pixels(32),
        {"embeddings.*": 1, "*.dwconv": 1, "*.drop_path": 1, "*.downsampling_layer.*": 1,
         "encoder.*": 3, "layernorm": 1},
        # Its height, width and channels are as many.
        exclude=("encoder.stages.0.layers.0.drop_path",),
    ),
    "Swin V2": Network(
        of_transformers(
            "Swinv2", image_size=16, patch_size=2, embed_dim=12, depths=[2, 1], num_heads=[2, 3],
            window_size=4,
        ),
        pixels(),
        {"*.projection": 1, "pooler": 1, "*.continuous_position_bias_mlp.*": 2, "*": 2},
        exclude=("*.self.dropout", "*.continuous_position_bias_mlp.*"),
    ),
    "ViT": Network(of_transformers("ViT", **PATCHES), pixels(), {"*.projection": 1, "*": 2}),
    "BERT": Network(
        of_transformers("Bert", **WORDS), words, {"*": 2}, exclude=("*.position_embeddings",)
    ),
    "GPT-2": Network(
        of_transformers("GPT2", vocab_size=50, n_embd=24, n_layer=2, n_head=3, n_positions=20,
                        bos_token_id=0, eos_token_id=49),
        words, {"*": 2}, exclude=("wpe",),
    ),
    "CLIP": Network(
        of_transformers("CLIP", vision_config=PATCHES, projection_dim=16,
                        text_config=WORDS | {"bos_token_id": 0, "eos_token_id": 49}),
        words_and_pixels, {"*.patch_embedding": 1, "*": 2}, exclude=("*.position_embedding",),
    ),
    "ResNet": Network(
        of_transformers("ResNet", embedding_size=8, hidden_sizes=[8, 10], depths=[2, 1],
                        layer_type="basic"),
        pixels(), {"*": 1},
    ),
}  # fmt: skip


def call(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def is_leaf(name: str, module: nn.Module) -> bool:
    children = (child for name, child in module.named_children() if name != "parametrizations")
    return next(children, None) is None


def is_wanted(name: str, module: nn.Module) -> bool:
    """Whether it is a leaf with weights or an activation: neither Permute nor attention's."""
    activation = isinstance(module, (nn.ReLU, nn.GELU, nn.SiLU, nn.ReLU6, nn.Hardswish))
    return is_leaf(name, module) and (activation or any(True for _ in module.parameters()))


def expected_rows(model, inputs, axes, wanted=is_leaf):
    """Rows of all leaves' calls by public name, by plain hooks."""
    seen: dict[str, list[np.ndarray]] = {}

    def keep(name):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            axis = next(axis for pattern, axis in axes.items() if fnmatchcase(name, pattern))
            seen.setdefault(name, []).append(packed(output, min(axis, output.ndim - 1)))

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if name and wanted(name, module)
    ]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        f"{name}#{number}" if len(calls) > 1 else name: rows.reshape(-1, rows.shape[2])
        for name, calls in seen.items()
        for number, rows in enumerate(calls, start=1)
    }


def check_network(network: Network, path, training=False, wanted=is_leaf):
    torch.manual_seed(5)
    model, inputs = network.build().train(training), network.inputs()
    parts = ["*.parametrizations*", "parametrizations*"]
    exclude = [*network.exclude, *parts]
    state = torch.get_rng_state()
    capturing = tsstore.capture(model, path, layers=wanted, exclude=exclude, durable=False)
    with torch.no_grad(), capturing:
        call(model, inputs)
        call(model, inputs)
    torch.manual_seed(5)
    again = network.build().train(training)
    with torch.no_grad():
        torch.set_rng_state(state)
        first = expected_rows(again, inputs, network.axes, wanted=wanted)
        second = expected_rows(again, inputs, network.axes, wanted=wanted)
    store = tsstore.open(path)
    unwanted = [name for name in first if any(fnmatchcase(name, one) for one in exclude)]
    assert set(store.layers) == set(first).difference(unwanted)
    for name in store.layers:
        rows = np.concatenate([first[name], second[name]])
        np.testing.assert_array_equal(stored(path, name), rows, err_msg=name)
    return store


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:torch.quantize_per_tensor:UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_exported_classes if name == "exported" else ())
        for name in NETWORKS
    ],
)
def test_rows_are_those_of_the_true_neurons(name, training, tmp_path):
    if training and name in ("quantised", "exported"):
        pytest.skip("it is for evaluation alone")
    check_network(NETWORKS[name], tmp_path / "run", training)


@pytest.mark.filterwarnings("ignore:selected layers that did not run")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_networks_of_transformers(name, tmp_path):
    check_network(TRANSFORMERS[name], tmp_path / "run")


# Where the first axis of all is that of the neurons, or the last one, but for the patterns before.
ZOO = {
    "torchvision resnet18": {"*": 1},
    "torchvision efficientnet_b0": {"*": 1},
    "torchvision densenet121": {"*": 1},
    "torchvision mobilenet_v3_small": {"*": 1},
    "torchvision vit_b_16": {"conv_proj": 1, "*": 2},
    "torchvision swin_t": {"features.0.0": 1, "*": 3},
    "torchvision convnext_tiny": {"*.block.0": 1, "*.block.*": 3, "*": 1},
    "timm resnet18": {"*": 1},
    "timm tf_efficientnet_b0": {"*": 1},
    "timm vit_tiny_patch16_224": {"patch_embed.proj": 1, "*": 2},
    "timm swin_tiny_patch4_window7_224": {"patch_embed.proj": 1, "*": 3},
    "timm convnext_atto": {"*": 1},
    "timm convnext_tiny": {"*.conv_dw": 1, "stages.*.blocks.*": 3, "*": 1},
    "timm mixer_s32_224": {"stem.proj": 1, "*": 2},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:selected layers that did not run")
@pytest.mark.parametrize("name", ZOO)
def test_networks_of_timm_and_torchvision(name, tmp_path):
    package, model = name.split()
    size = 224 if "224" in model or model.startswith(("vit", "swin")) else 64
    if package == "timm":
        timm = pytest.importorskip("timm")
        build = partial(timm.create_model, model, pretrained=False)
    else:
        build = partial(pytest.importorskip("torchvision").models.get_model, model)
    network = Network(build, images(size=size, samples=2), ZOO[name])
    check_network(network, tmp_path / "run", wanted=is_wanted)


# Refusals: what nothing tells is an error, one for all layers, and says what to paste.


def refusal(model, inputs, path, **options) -> str:
    capturing = tsstore.capture(model, path, durable=False, overwrite=True, **options)
    with torch.no_grad(), capturing as recorder:
        with pytest.raises(OutputError) as error:
            call(model, inputs)
        assert recorder.statistics.batches == 0
    run, message = str(error.value).split(": ", maxsplit=1)
    assert run == str(path)
    return message


def test_attention_weights_are_no_activations_of_neurons(tmp_path):
    model, values = Vision(8, 16), torch.randn(3, 3, 16, 16)
    options = {"layers": [nn.Softmax, nn.Dropout, nn.GELU]}
    message = refusal(model, values, tmp_path / "run", **options)
    assert "blocks.0.attn.softmax, blocks.1.attn.softmax: nothing tells which axis" in message
    assert "(3, 2, 17, 17)" in message
    line = re.search(r"exclude=\[.*?\]", message)[0]
    assert line == 'exclude=["*.softmax", "*.attn_drop"]'
    assert 'neuron_axis={"*.softmax": …, "*.attn_drop": …}' in message
    exclude = eval(line.partition("=")[2])
    with tsstore.capture(model, tmp_path / "other", exclude=exclude, **options):
        model(values)
    names = tsstore.open(tmp_path / "other").layers
    assert len(names) == 7
    assert not any("softmax" in name or "attn_drop" in name for name in names)


def test_the_line_that_the_error_offers_is_enough(tmp_path):
    einsum = Wiring(lambda self, x: self.act(torch.einsum("bchw->bhwc", x)), act=nn.ReLU())
    model = nn.Sequential(*[nn.Sequential(einsum) for _ in range(1)], nn.Flatten())
    values = torch.randn(3, 4, 5, 6)
    message = refusal(model, values, tmp_path / "run", layers=nn.ReLU)
    assert message.endswith("neuron_axis=…")
    with tsstore.capture(model, tmp_path / "run", layers=nn.ReLU, neuron_axis=-1, overwrite=True):
        model(values)
    layer = tsstore.open(tmp_path / "run")["0.0.act"].attributes
    assert (layer.neurons, layer.neuron_axis) == (4, 3)
    assert layer.decided["neuron_axis"] == "by the user"


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_what_nothing_tells_is_refused_whatever_the_number_of_axes(tmp_path, shape):
    model = nn.Sequential(nn.ReLU(), nn.Identity(), LayerScale(1))
    message = refusal(model, torch.randn(shape), tmp_path / "run", layers="*")
    assert all(f"a {kind} with a tensor" in message for kind in ("ReLU", "Identity", "LayerScale"))
    assert message.count("neuron_axis=") == 1


class Words(nn.Module):
    """Dropout of whole words, and of whole channels, before and behind what tells."""

    def __init__(self):
        super().__init__()
        self.embed, self.words, self.linear = nn.Embedding(30, 8), nn.Dropout1d(), nn.Linear(8, 6)
        self.act, self.late = nn.ReLU(), nn.Dropout1d()
        self.conv, self.maps, self.pool = nn.Conv1d(6, 5, 1), nn.Dropout1d(), nn.AvgPool1d(2)
        self.after = nn.SiLU()

    def forward(self, ids):
        x = self.late(self.act(self.linear(self.words(self.embed(ids)))) * 2)
        return self.after(self.pool(self.maps(self.conv(x.transpose(1, 2)))))


@pytest.mark.parametrize("training", [False, True])
def test_dropout_of_whole_channels_follows_what_made_its_tensor(tmp_path, training):
    axes = {"conv": 1, "maps": 1, "pool": 1, "after": 1, "*": 2}
    words = Network(Words, lambda: torch.randint(0, 30, (4, 7)), axes)
    check_network(words, tmp_path / "run", training)


def test_its_class_tells_only_where_nothing_else_does(tmp_path):
    modules = {"drop": nn.Dropout2d(), "act": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    model = Wiring(lambda self, x: self.pool(self.act(self.drop(x * 2))), **modules)
    with tsstore.capture(model, tmp_path / "run", layers=list(modules)):
        model(torch.randn(2, 5, 4, 6))
    store = tsstore.open(tmp_path / "run")
    assert [store[name].attributes.neuron_axis for name in store.layers] == [1, 1, 1]
    assert decisions(tmp_path / "run")["pool"] == "its class"


def test_pooling_along_an_axis_that_is_not_that_of_the_neurons_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(8, 6), nn.MaxPool1d(2), nn.ReLU())
    message = refusal(model, torch.randn(4, 7, 8), tmp_path / "run", layers="*")
    assert "a MaxPool1d works on channels in axis 1, and by the layer it follows: 0" in message
    assert '"0"' not in message
    model = nn.Sequential(nn.Linear(8, 6), nn.MaxPool1d(2), nn.ReLU(), nn.Linear(3, 4))
    with tsstore.capture(model, tmp_path / "other", layers="*", durable=False):
        model(torch.randn(4, 7, 8))
    store = tsstore.open(tmp_path / "other")
    assert {store[name].attributes.neuron_axis for name in store.layers} == {2}


class SplitHeads(nn.Linear):
    """Splits what a Linear gives into heads by itself."""

    def forward(self, x):
        return super().forward(x).unflatten(-1, (2, -1)).transpose(1, 2)


def test_an_axis_that_was_there_before_is_no_width(tmp_path):
    model = nn.Sequential(SplitHeads(4, 8), nn.ReLU())
    message = refusal(model, torch.randn(3, 8, 4), tmp_path / "run", layers="*")
    assert message.startswith("0: nothing tells which axis holds the neurons of a SplitHeads")
    assert "1: nothing tells" in message


def test_weights_of_attention_as_long_as_it_is_wide_are_refused(tmp_path):
    def wire(self, x):
        keys = self.key(x[:, :6])
        return self.drop(self.softmax(self.query(x) @ keys.mT)) @ keys

    modules = {"query": nn.Linear(6, 6), "key": nn.Linear(6, 6)}
    model = Wiring(wire, **modules, softmax=nn.Softmax(-1), drop=nn.Dropout())
    message = refusal(model, torch.randn(3, 9, 6), tmp_path / "run", layers="*")
    assert message.startswith("softmax: nothing tells which axis")
    assert "drop: nothing tells which axis" in message


class Transposed(nn.Module):
    """Keeps the shape of a square, and changes its axes."""

    def forward(self, x):
        return x.transpose(1, 2).contiguous()


def test_what_may_have_changed_axes_of_one_size_inherits_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), Transposed(), nn.ReLU())
    message = refusal(model, torch.randn(3, 6, 4), tmp_path / "run", layers="*")
    assert message.startswith("1: nothing tells which axis holds the neurons of a Transposed")
    assert '"2"' in message
    assert '"0"' not in message


def test_a_number_that_a_module_declares_is_no_proof(tmp_path):
    class Head(nn.Module):
        num_features = out_features = 4

        def forward(self, x):
            return torch.cat([x, x], 2)

    model = nn.Sequential(Head())
    assert "of a Head with" in refusal(model, torch.randn(3, 4, 4), tmp_path / "run", layers="0")


def test_a_known_layer_whose_width_no_axis_has_is_refused(tmp_path):
    class Cut(nn.Linear):
        def forward(self, x):
            return super().forward(x)[..., :3]

    model = nn.Sequential(Cut(4, 6), nn.ReLU())
    message = refusal(model, torch.randn(3, 5, 4), tmp_path / "run", layers="*")
    assert "of a Cut of 6 neurons with a tensor of shape (3, 5, 3)" in message


def test_calls_of_one_module_along_different_axes_are_refused(tmp_path):
    def wire(self, x):
        first = self.act(self.conv(x))
        return self.act(self.fc(first.permute(0, 2, 3, 1)))

    model = Wiring(wire, conv=nn.Conv2d(3, 5, 1), fc=nn.Linear(5, 7), act=nn.GELU())
    message = refusal(model, torch.randn(2, 3, 4, 4), tmp_path / "run", layers="act")
    assert message.startswith("act: one of its calls has its neurons along axis 1")
    assert "exclude the layer" in message


# Where decisions come from, and how long they hold.


def decisions(path) -> dict[str, str]:
    store = tsstore.open(path)
    return {name: store[name].attributes.decided["neuron_axis"] for name in store.layers}


def test_each_layer_says_by_what_it_was_decided(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.MaxPool2d(2), PermutingNorm(6), nn.Flatten(), nn.Dropout()
    )  # fmt: skip
    with tsstore.capture(model, tmp_path / "run", layers="?", neuron_axis={"1": 1}):
        model(torch.randn(2, 3, 8, 8))
    follows = "the only axis beside the samples"
    assert list(decisions(tmp_path / "run").values()) == [
        "its width", "by the user", "its class", "its width", follows, follows,
    ]  # fmt: skip
    table = tsstore.layers(model, torch.randn(2, 3, 8, 8))
    assert table["decided"]["1"] == "the layer it follows: 0"
    assert table["neuron_axis"].tolist() == [1, 1, 1, 1, 1, 1]


def test_the_next_known_module_tells_and_so_does_the_shape(tmp_path):
    def wire(self, x):
        x = self.drop(x.flatten(2).transpose(1, 2))
        y = self.fc(self.norm(x))
        return self.late(y + 1)

    modules = {"drop": nn.Dropout(0.1), "norm": nn.LayerNorm(4), "fc": nn.Linear(4, 6)}
    model = Wiring(wire, **modules, late=nn.ReLU())
    for training in (True, False):
        model.train(training)
        path = tmp_path / f"run{training}"
        with tsstore.capture(model, path, layers=["drop", "late"]):
            model(torch.randn(2, 4, 3, 3))
        assert decisions(path) == {
            "drop": "the layer that takes it: norm", "late": "other tensors of its shape",
        }  # fmt: skip


def test_what_the_user_says_holds_for_what_follows(tmp_path):
    model = nn.Sequential(nn.Tanh(), nn.ReLU())
    with tsstore.capture(model, tmp_path / "run", layers="?", neuron_axis={"0": -1}):
        model(torch.randn(2, 3, 4, 5))
    assert decisions(tmp_path / "run") == {"0": "by the user", "1": "the layer it follows: 0"}


def test_inputs_and_whole_blocks(tmp_path):
    model, values = Vision(8, 16).eval(), torch.randn(3, 3, 16, 16)
    layers = ["blocks", "blocks.0", "blocks.1.attn", "blocks.0.fc2", "blocks.1.act", "Vision"]
    with torch.no_grad(), tsstore.capture(model, tmp_path / "run", layers=layers, where="both"):
        model(values)
    store = tsstore.open(tmp_path / "run")
    axes = {name: store[name].attributes.neuron_axis for name in store.layers}
    assert axes.pop("Vision:before") == 1
    assert set(axes.values()) == {2}
    assert len(axes) == 11
    x = model.pos_drop(model.patch(values).flatten(2).transpose(1, 2))
    x = torch.cat([model.cls.expand(3, -1, -1), x], 1) + model.pos
    np.testing.assert_array_equal(
        stored(tmp_path / "run", "blocks.0:before"), packed(x, 2).reshape(-1, 1)
    )


def test_later_batches_do_not_look_at_other_modules(tmp_path, monkeypatch):
    model, values = Vision(8, 16), torch.randn(3, 3, 16, 16)
    looks = []
    monkeypatch.setattr(
        "tsstore.recording.axes.following.Following.note", lambda *call: looks.append(call)
    )
    with tsstore.capture(model, tmp_path / "run", layers=nn.Linear):
        model(values)
    assert not looks, "a layer of a known kind needs no look at others"
    monkeypatch.undo()
    hooks = torch_module._global_forward_hooks
    with tsstore.capture(model, tmp_path / "other", layers=nn.GELU):
        during = []
        handle = model.norm.register_forward_hook(lambda *call: during.append(len(hooks)))
        model(values)
        model(values)
        handle.remove()
        assert during == [1, 0]
    assert not has_any_global_hook()


def test_a_failed_pass_leaves_no_decision(tmp_path):
    """The first pass fails when the activation has run on channels first; the second is right."""

    def wire(self, x):
        if self.fails:
            self.act(self.conv(x))
            raise RuntimeError("on purpose")
        return self.act(self.fc(x.permute(0, 2, 3, 1)))

    model = Wiring(wire, conv=nn.Conv2d(4, 4, 1), fc=nn.Linear(4, 4), act=nn.GELU())
    values = torch.randn(2, 4, 4, 4)
    for name in ("pass", "block"):
        with tsstore.capture(model, tmp_path / name, layers="act") as recorder:
            model.fails = True
            if name == "pass":
                with pytest.raises(RuntimeError, match="on purpose"):
                    model(values)
                model.fails = False
                model(values)
            else:
                with recorder.batch():
                    with pytest.raises(RuntimeError, match="on purpose"):
                        model(values)
                    model.fails = False
                    model(values)
        expected = packed(model(values), 3).reshape(-1, 1)
        np.testing.assert_array_equal(stored(tmp_path / name, "act"), expected)
        assert not has_any_global_hook()


def test_a_submodule_alone_in_a_block(tmp_path):
    model, values = Vision(8, 16).eval(), torch.randn(3, 5, 8)
    with torch.no_grad(), tsstore.capture(model, tmp_path / "run", layers=["blocks.0.act"]) as rec:
        with rec.batch():
            model.blocks[0](values)
        with rec.batch():
            model.blocks[0](values)
    layer = tsstore.open(tmp_path / "run")["blocks.0.act"]
    assert (layer.neurons, layer.rows, layer.attributes.neuron_axis) == (24, 30, 2)


def test_a_resumed_run_keeps_what_was_decided(tmp_path):
    path = tmp_path / "run"
    model = Wiring(lambda self, x: self.act(x * 2), act=nn.ReLU())
    values = torch.randn(2, 3, 4, 5)
    with tsstore.capture(model, path, layers="act", neuron_axis=-1):
        model(values)
    with tsstore.capture(model, path, layers="act", resume=True):
        model(values)
    store = tsstore.open(path)
    assert [part.attributes.decided["neuron_axis"] for part in store["act"].parts] == [
        "by the user", "by the user",
    ]  # fmt: skip
    assert store["act"].rows == 2 * 24
    message = r"act: neuron_axis: 1 \(by the user\) in this job, 3 \(by the user\) there"
    differing = tsstore.capture(model, path, layers="act", resume=True, neuron_axis=1)
    with differing, pytest.raises(ResumeError, match=message):
        model(values)


def test_a_resumed_run_takes_no_axis_from_tensors_with_other_axes(tmp_path):
    path = tmp_path / "run"
    model = Wiring(lambda self, x: self.act(x * 2), act=nn.ReLU())
    with tsstore.capture(model, path, layers="act", neuron_axis=1):
        model(torch.randn(2, 4, 5, 6))
    with tsstore.capture(model, path, layers="act", resume=True):
        with pytest.raises(OutputError, match=r"act: nothing tells .*\(2, 4, 7\)"):
            model(torch.randn(2, 4, 7))
        model(torch.randn(2, 4, 5, 6))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning")
def test_widths_of_recurrent_modules_count_directions_and_projections(tmp_path):
    def wire(self, x):
        return self.act(self.gru(self.lstm(x)[0])[0])

    lstm = nn.LSTM(3, 8, proj_size=5, bidirectional=True, batch_first=True)
    gru = nn.GRU(10, 6, bidirectional=True, batch_first=True)
    model = Wiring(wire, lstm=lstm, gru=gru, act=nn.Tanh())
    with tsstore.capture(model, tmp_path / "run", layers=["lstm", "gru", "act"]):
        model(torch.randn(4, 7, 3))
    store = tsstore.open(tmp_path / "run")
    assert [store[name].neurons for name in store.layers] == [10, 12, 12]
    assert [store[name].attributes.neuron_axis for name in store.layers] == [2, 2, 2]
    assert tsstore.layers(model)["neurons"].tolist()[:2] == [10, 12]


class InTurn(nn.Module):
    """Turns time to the front by itself, and mixes it there."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        hidden = self.fc(x.transpose(0, 1))
        return self.out(hidden.cumsum(0)).transpose(0, 1)


def test_after_a_first_batch_of_one_sample_the_error_names_the_axis(tmp_path):
    model, path = InTurn().eval(), tmp_path / "run"
    with torch.no_grad(), tsstore.capture(model, path, layers="fc") as recorder:
        model(torch.randn(1, 7, 4))
        with pytest.raises(CaptureError, match=r"say it, as in sample_axis=\{'fc': 1\}"):
            model(torch.randn(3, 7, 4))
        assert recorder.statistics.batches == 1
    with torch.no_grad(), tsstore.capture(model, tmp_path / "b", layers="fc", sample_axis=1):
        model(torch.randn(1, 7, 4))
        model(torch.randn(3, 7, 4))
    assert tsstore.open(tmp_path / "b").samples == 4
