"""What the pages on capturing say is so."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path

import children
import pytest
import torch
from pages import blocks, read
from torch import nn

import tsstore
from tsstore.errors import OutputError
from tsstore.recording.background import arena
from tsstore.recording.background import thread as background
from tsstore.recording.background.sink import Statistics
from tsstore.recording.recorder import Recorder
from tsstore.store.format.arrays import CODECS
from tsstore.store.writing.batch import BUFFER_BYTES, CHUNK_BYTES

ROOT = Path(__file__).parents[2]
TEXT = read(
    "explanation/capture.md",
    "how-to/layers.md",
    "how-to/transformer.md",
    "how-to/less.md",
    "how-to/nothing-recorded.md",
)
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PROSE)))
SCRIPT, *EXAMPLES = blocks(TEXT)
SHOWN_TEXTS = blocks(TEXT, "text")
(SHOWN,) = blocks(TEXT, "console")


def test_the_script_says_what_is_shown(tmp_path):
    done = children.run(SCRIPT, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "".join(SHOWN.splitlines(keepends=True)[1:])
    store = tsstore.open(tmp_path / "run.zarr")
    assert store.samples == 2_000
    assert store.parts[0].seal.waited == 0


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The stores that the examples write, one after the other, by name."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("examples")
    names = {"torch": torch, "tsstore": tsstore}
    with contextlib.chdir(folder):
        torch.manual_seed(0)
        for example in EXAMPLES:
            exec(example, names)
    return {path.stem: tsstore.open(path) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("cached", [8, 10, 10, 10]),
        ("anew", [30, 40, 40, 40]),
        ("beams", [24, 30, 30, 30]),
        ("proposals", [12, 0, 7]),
        ("graphs", [3, 1, 0, 2]),
    ],
)
def test_examples_store_what_they_say(stores, name, positions):
    (states,) = stores[name].values()
    assert states.read_positions().tolist() == positions


def test_examples_of_tokens_store_some_of_them(stores):
    (states,) = stores["tokens"].values()
    counts = states.read_positions()
    assert counts[:4].tolist() == [1] * 4
    assert counts[4] >= 1
    experts = [states.read_positions() for states in stores["experts"].values()]
    assert sum(experts).tolist() == [7] * 12


@pytest.mark.parametrize("name", [name for name in CODE if re.fullmatch("[a-z_]+=.*", name)])
def test_settings_exist(name):
    setting, _, value = name.partition("=")
    parameters = inspect.signature(tsstore.capture).parameters
    assert setting in parameters
    if setting == "codec":
        assert value.strip('"') in CODECS


def test_commands_exist():
    programs = re.findall(r"python (benchmarks/\w+\.py)([^`]*)`", TEXT)
    assert len(programs) == 3
    for program, options in programs:
        source = (ROOT / program).read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in re.findall(r"--\w+", options))


def test_the_numbers_are_those_of_the_code():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(tsstore.capture).parameters.items()
    }
    assert f"`queue_bytes=`, {defaults['queue_bytes'] >> 20} MiB" in TEXT
    assert defaults["codec"] == "lz4"
    assert defaults["writer_threads"] == 1
    assert f"({CODECS['zstd']} unless given)" in TEXT
    assert f"chunks of {CHUNK_BYTES >> 20} MiB a layer" in TEXT
    most = BUFFER_BYTES // CHUNK_BYTES
    assert f"less from {most} layers on" in TEXT
    kept = arena.SPARE_BYTES >> 20
    assert f"up to {kept} MiB of blocks" in TEXT
    assert f"as soon as there are {background.WORTH_WAKING >> 20} MiB" in TEXT
    assert background.LINGER_SECONDS == 0.1
    assert "every tenth of a second" in TEXT


def test_what_is_named_exists():
    assert "waited" in Statistics.__dataclass_fields__
    for name in ("batch", "statistics", "projected_bytes"):
        assert hasattr(Recorder, name)
        assert f"recorder.{name}" in TEXT


def test_the_error_about_axes_is_what_is_shown(tmp_path):
    shown = next(block for block in SHOWN_TEXTS if "nothing tells" in block)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.attn = nn.ModuleDict({"drop": nn.Dropout()})

        def forward(self, x):
            query = self.fc(x).reshape(8, 65, 3, 2).transpose(1, 2)
            return x + self.attn["drop"](query @ query.mT).sum((1, 3))[..., None]

    model = nn.ModuleDict({"blocks": nn.Sequential(Block(), Block())})
    model.forward = lambda x: model["blocks"](x)
    capturing = tsstore.capture(model, tmp_path / "run", layers=[nn.Dropout, nn.Linear])
    with capturing, pytest.raises(OutputError) as error:
        model(torch.randn(8, 65, 6))
    assert str(error.value) == f"{tmp_path / 'run'}: {' '.join(shown.split())}"
