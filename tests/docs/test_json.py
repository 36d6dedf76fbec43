"""Documents of --json have the keys that docs/reference/json.md names, and no others."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.metadata import version

import made_results
import numpy as np
import pytest
from helpers import draw_batch, write_run
from made_results import even
from pages import read
from typer.main import get_command
from typer.testing import CliRunner

from tsstore.commands.app import app
from tsstore.commands.terminal import SCHEMA
from tsstore.errors import StoreError
from tsstore.store.maintenance.findings import Finding

_, *SECTIONS = read("reference/json.md").split("\n## ")
SAID = {
    section.splitlines()[0].strip("`"): re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    for section in SECTIONS
}
LAYERS = {"conv_1": 5, "fc": 9}
COLUMNS = ("id", "label")
OPEN = ("software", "sampling", "for_combining", "question", "entropy_by_rows_bits")
"""Keys whose values are documents of which no keys are promised, or said elsewhere."""
DEMO = "tsstore.demo.model:load_lenet5"
COMMANDS = {
    "layers": (DEMO, "--input", "1,1,28,28"),
    "info": ("run",),
    "verify": ("run",),
    "repair": ("run",),
    "compact": ("run", "out.zarr"),
    "plan": ("run", "--joint", "--novelty", "other"),
    "analyze": ("run",),
    "analyze several": ("run", "other"),
    "analyze --by": ("run", "--by", "label"),
    "combine": ("conv_1.json", "fc.json"),
    "neurons": ("run", "--near", "0", "--maps"),
    "neurons --by": ("run", "--by", "label"),
    "information": ("run", "--by", "label"),
    "shared-states": ("run", "--by", "label"),
    "compare": ("run", "other", "--novelty"),
    "steps": ("run",),
    "report": ("run",),
    "states": ("run", "--layer", "conv_1"),
    "samples": ("run", "00", "--layer", "conv_1"),
    "surprising": ("run", "--layer", "fc", "-n", "3"),
    "export": ("run", "--layer", "fc", "--states", "states.zarr"),
}


def paths(value, inside=""):
    """Yield the keys of a document, those of documents in it as ``parts[].rank``.

    NAME stands for a name that is the user's: of a layer, of a group, of a column.
    """
    if isinstance(value, dict):
        for key, held in value.items():
            path = inside + (
                "NAME"
                if inside.endswith(("layers.", "pairs.", "novelty.", "runs.", "maps."))
                or key in COLUMNS
                else key
            )
            yield path
            if "interval" in key:
                known = {"lower", "upper", "standard_error", "estimate", "level"}
                assert not isinstance(held, dict) or set(held) <= known
            elif key not in OPEN:
                yield from paths(held, path + ".")
    elif isinstance(value, list):
        for held in value:
            yield from paths(held, inside[:-1] + "[].")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(150), "label": np.arange(150) % 3}
    for name in ("run", "other"):
        batch = draw_batch(rng, 150, neurons=LAYERS, columns=columns)
        batch.layers["conv_1"].rows[:30] = 0
        write_run(folder / name, [batch], neurons=LAYERS)
    return folder


@pytest.fixture(scope="module")
def run_command(folder):
    def run(name, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            done = CliRunner().invoke(app, [name.split()[0], *arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    for layer in LAYERS:
        document = run("analyze", "run", "--layer", layer)
        (folder / f"{layer}.json").write_text(json.dumps(document), encoding="utf-8")
    return run


def test_every_command_has_json_and_a_section():
    commands = get_command(app).commands
    for name, command in commands.items():
        assert "--json" in {option for one in command.params for option in one.opts}, name
    assert {name.split()[0] for name in SAID if name != "every document"} == set(commands) - {
        "demo"
    }
    assert set(SAID) - {"every document"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_are_those_that_the_page_names(name, run_command):
    document = run_command(name, *COMMANDS[name])
    assert document.pop("schema") == SCHEMA
    assert document.pop("tsstore") == version("tsstore")
    if "whole" in document:
        alone = name.split()[0]
        for found in (document["whole"], *document["groups"].values()):
            assert set(paths(found)) <= set(SAID[alone])
        document |= {"groups": {}, "whole": None}
    if "runs" in document:
        for found in document["runs"].values():
            assert set(paths(found)) == set(SAID["analyze"])
        document["runs"] = {}
    if name == "combine":
        layers = {f"layers.NAME.{key}" for found in document["layers"].values() for key in found}
        assert layers <= set(SAID["analyze"])
        document["layers"] = {}
    if name == "verify":
        document["findings"] = [asdict(Finding("note", "", "", "", "", ""))]
    assert set(paths(document)) == set(SAID[name])


def test_the_demo_says_what_analyze_does(tmp_path, monkeypatch):
    monkeypatch.setattr("tsstore.demo.run.run_demo", lambda *_, **__: made_results.analysis(even()))
    done = CliRunner().invoke(app, ["demo", "--json"])
    assert set(json.loads(done.stdout)) >= {"schema", "tsstore", "layers", "network_efficiency"}


def test_a_run_is_not_followed_in_json(run_command, folder):
    done = CliRunner().invoke(app, ["info", str(folder / "run"), "--json", "--watch", "1"])
    assert isinstance(done.exception, StoreError)
