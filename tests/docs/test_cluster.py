"""What the pages on clusters say is so."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import pytest
from clusters import workers_environment
from object_stores import fresh_url, s3_environment, s3_server, s3_settings
from pages import blocks, read
from synthetic import draw_layer, write_layers
from typer.main import get_command

import tsstore
from tsstore import errors
from tsstore.analysis import client, cluster, workers
from tsstore.analysis.execution import exchange, recounting, scratch, worker_records
from tsstore.analysis.memory import DEFAULT_SHARE
from tsstore.analysis.request import choose
from tsstore.commands.app import app
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import open_files

ROOT = Path(__file__).parents[2]
TEXT = read("how-to/cluster.md", "how-to/kubernetes.md", "explanation/scaling.md")
LOCAL, SLURM, HELD, VOLUME, S3, ONE_LAYER = blocks(TEXT)
MEASURED, PLANNED = blocks(TEXT, "text")
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PROSE)))
SAID = re.findall(r'"([^"`]+)"', PROSE.partition("## When something fails")[2])
MODULES = client, cluster, workers, exchange, recounting, scratch, worker_records
SOURCE = "".join(map(inspect.getsource, MODULES))
PARAMETERS = inspect.signature(tsstore.analyze).parameters


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_script_of_a_local_cluster_prints_what_threads_count(tmp_path):
    store = write_layers(tmp_path / "run.zarr", {"a": draw_layer(1, 100, 3)})
    (tmp_path / "script.py").write_text(LOCAL, encoding="utf-8")
    shown = run(tmp_path, "script.py").stdout
    expected = str(tsstore.analyze(store, scheduler="threads"))
    assert shown.splitlines()[1:] == expected.splitlines()[1:]
    assert shown.startswith("<Analysis run.zarr>")


SCRIPTS = {"SLURM": SLURM, "HELD": HELD, "VOLUME": VOLUME, "S3": S3}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_other_scripts_call_what_is_there(script):
    calls = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == "tsstore.analyze"]
    given = {keyword.arg for keyword in call.keywords}
    assert {"scheduler", "memory"} <= given <= PARAMETERS.keys()
    assert ("scratch" in given) == (script is not HELD)


@pytest.mark.slow
def test_the_script_of_s3_alone_counts_what_threads_count(client, tmp_path):
    here = LocalFiles(tmp_path / "run")
    expected = tsstore.analyze(write_layers(tmp_path / "run", {"a": draw_layer(1, 100, 3)}))
    names: dict[str, Any] = {}
    with (
        s3_server() as endpoint,
        s3_environment(endpoint),
        workers_environment(client, s3_settings()),
    ):
        run_url, url = fresh_url(), fresh_url()
        there = open_files(run_url)
        for key in here.walk():
            there.write(key, here.read(key))
        script = S3.replace("s3://bucket/run.zarr", run_url).replace("s3://bucket/scratch", url)
        script = script.replace("tcp://tsstore-scheduler:8786", client.scheduler.address)
        exec(script.replace("4GiB", "256MiB"), names)
        assert list(open_files(url).walk()) == []
    assert names["analysis"]["a"].spectrum == expected["a"].spectrum


def test_a_job_for_each_layer_gives_documents_that_combine(tmp_path, monkeypatch):
    layers = {name: draw_layer(seed, 100, 3) for seed, name in enumerate(("conv_1", "fc/2"))}
    store = write_layers(tmp_path / "run.zarr", layers)
    kept = []
    monkeypatch.setattr("obstore.store.S3Store", lambda bucket: bucket)
    monkeypatch.setattr("obstore.put", lambda *document: kept.append(document))
    script = ONE_LAYER.replace("s3://bucket/run.zarr", str(tmp_path / "run.zarr"))
    for number in range(2):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(number))
        exec(script, {})
    assert [key for _, key, _ in kept] == ["layers/conv_1.json", "layers/fc_2.json"]
    combined = tsstore.combine([json.loads(document) for _, _, document in kept])
    assert combined.network_efficiency() == tsstore.analyze(store).network_efficiency()


@pytest.mark.parametrize("name", [name for name in CODE if re.fullmatch("[a-z_]+=", name)])
def test_settings_exist(name):
    assert name[:-1] in PARAMETERS


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    shown = re.findall(r"^\$ tsstore (\w+) (.*)$", TEXT, re.MULTILINE)
    named = [(name.split()[1], "") for name in CODE if re.fullmatch(r"tsstore \w+ RUN", name)]
    assert {name for name, _ in named} == {"plan", "analyze"}
    for command, arguments in [*shown, *named]:
        options = {option for one in commands[command].params for option in one.opts}
        assert set(re.findall(r"--\w+", arguments)) <= options
    for program, options in re.findall(r"python (benchmarks/\w+\.py)([^`]*)`", TEXT):
        source = (ROOT / program).read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in re.findall(r"--\w+", options))


def test_names_of_schedulers_mean_what_they_say():
    for name in ("threads", "synchronous"):
        assert f'`"{name}"`' in TEXT
        assert choose(name).shared_memory
    assert choose(None).threads == choose("threads").threads


def test_errors_exist_and_say_what_is_quoted():
    named = [name for name in CODE if re.fullmatch(r"\w+Error", name)]
    assert len(named) == 4
    assert all(issubclass(getattr(errors, name), errors.TsstoreError) for name in named)
    assert len(SAID) >= 7
    assert [words for words in SAID if words not in SOURCE] == []


def test_the_numbers_are_those_of_the_code():
    assert f"{DEFAULT_SHARE:.0%}".replace("%", " %") + " of the smallest worker's limit" in TEXT
    assert f"More than {cluster.WORKER_SHARE * 100:.0f} % is refused" in TEXT
    assert TEXT.count(f"{cluster.SETTLING_SECONDS:.0f} seconds at") == 2
    assert "exits with 130" in TEXT
    assert "`tsstore-scratch-…`" in TEXT
    with scratch.scratch_folder(None) as folder:
        assert Path(folder).name.startswith("tsstore-scratch-")


def test_the_plan_of_very_many_rows_is_that_of_the_program():
    script = """
    import runpy, sys
    sys.path.insert(0, "benchmarks")
    runpy.run_path("benchmarks/cluster_overhead.py", run_name="__main__")
    """
    done = children.run(script, "--plan", cwd=ROOT)
    assert (done.stdout, done.stderr) == (PLANNED, "")


@pytest.mark.slow
def test_what_a_task_costs_is_what_the_program_prints(tmp_path):
    small = ("--blocks", "40", "--partitions", "8")
    printed = run(ROOT, "benchmarks/cluster_overhead.py", *small).stdout
    shown = [re.findall(r"^  (\D+?) +[\d,]+$", text, re.MULTILINE) for text in (printed, MEASURED)]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 20
    sizes = re.findall(r"(?:task|result|constants) +([\d,]+)$", MEASURED, re.MULTILINE)
    assert max(int(size.replace(",", "")) for size in sizes) < 20_000
