"""The commands that count, and say how they would; most of `analyze` is in commands/test_cli.py."""

from __future__ import annotations

import json
from collections import namedtuple

import numpy as np
import pytest
from synthetic import draw_layer, write_layers
from typer.testing import CliRunner

import tsstore
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.cli import in_options
from tsstore.commands import analysing
from tsstore.commands import app as commands
from tsstore.errors import AnalysisError, StoreError
from tsstore.store.format.attributes import PartAttributes

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("analysing") / "run.zarr"
    layers = {"conv_1": draw_layer(0, 6_000, 3), "conv_2": draw_layer(1, 6_000, 16, 5_000)}
    columns = {"id": np.arange(6_000), "patient": np.arange(6_000) // 7}
    return write_layers(path, layers, columns=columns, chunk_bytes=1 << 14).path


def invoke(*arguments):
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def test_a_plan_is_its_totals_and_reasons_and_a_table_when_asked_for(run):
    options = ["--memory", "1GiB", "--scheduler", "synchronous"]
    short = invoke("plan", run, *options)
    result = invoke("plan", run, *options, "--verbose")
    assert short.exit_code == result.exit_code == 0
    work, memory, records = short.stdout.splitlines()
    assert work.startswith("41,983 rows of 2 layers are read once, in ")
    assert work.endswith(" on 1 thread; a report reads them as often.")
    assert memory.endswith(
        " of the 1 GiB that it may, and when it starts with this 40 MiB of libraries."
    )
    assert records in result.stdout.splitlines()
    heading, first, second, totals, *reasons, whole = result.stdout.splitlines()
    assert heading.split()[:5] == ["layer", "rows", "bytes", "a", "row"]
    assert first.startswith("conv_1  ")
    assert second.startswith("conv_2  ")
    found = tsstore.plan(run, memory="1GiB", scheduler="synchronous")
    assert totals.startswith(f"{found.rows:,} rows · {found.tasks} tasks · 1 thread · memory 1 GiB")
    assert reasons == found.sentences
    assert whole.startswith("The command tsstore analyze takes ")
    assert "Scratch folder" not in result.stdout


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("analysing") / "other.zarr"
    return write_layers(path, {"conv_1": draw_layer(3, 300, 3)}).path


def test_several_runs_are_tables_under_each_other_and_one_document(run, other):
    options = ["--layer", "conv_1", "--no-intervals", "--scheduler", "threads"]
    shown = invoke("analyze", other, run, *options)
    assert shown.exit_code == 0
    tables = [invoke("analyze", path, *options).stdout for path in (other, run)]
    assert shown.stdout == f"{other}\n{tables[0]}{run}\n{tables[1]}"
    document = json.loads(invoke("analyze", other, run, *options, "--json").stdout)
    assert list(document["runs"]) == [other, run]
    alone = json.loads(invoke("analyze", other, *options, "--json").stdout)
    assert alone == {"schema": 1, "tsstore": tsstore.__version__, **document["runs"][other]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN", "RUN"], "analysing.*run.zarr is given twice; expected each run once"),
        (["RUN", "OTHER", "--by", "label"], "--save are for one run"),
        (["RUN", "OTHER", "--save", "out.zarr"], "--save are for one run"),
        (["RUN", "nowhere.zarr"], "nowhere.zarr is no tsstore run"),
        (["RUN", "OTHER", "--layer", "conv_2"], "other.zarr has no layer 'conv_2'"),
    ],
)
def test_what_makes_no_sense_of_several_runs_is_an_error(run, other, arguments, words):
    paths = {"RUN": run, "OTHER": other}
    result = invoke("analyze", *(paths.get(word, word) for word in arguments))
    with pytest.raises((AnalysisError, StoreError), match=words):
        raise result.exception
    assert result.stdout == ""


def test_options_of_a_plan_are_those_of_the_function(run):
    options = ["--layer", "conv_2", "--memory", "64MiB", "--scheduler", "threads"]
    others = ["--unique-by", "id", "--no-intervals", "--exact", "--json"]
    result = invoke("plan", run, *options, *others)
    expected = tsstore.plan(
        run,
        "conv_2",
        memory="64MiB",
        scheduler="threads",
        unique_by="id",
        intervals=False,
        exact=True,
    )
    assert json.loads(result.stdout).items() >= expected.to_dict().items()
    clustered = invoke("plan", run, "--cluster", "patient", "--json")
    assert (
        json.loads(clustered.stdout).items()
        >= tsstore.plan(run, dependent_by="patient").to_dict().items()
    )


@pytest.fixture
def through_files(monkeypatch, small_sizes):
    """Let a plan say that records go through files, however few."""

    class Workers(LocalScheduler):
        shared_memory = False

    monkeypatch.setattr("tsstore.analysis.planning.plan.choose", lambda scheduler: Workers(2))
    return ["--layer", "conv_2", "--memory", "1GiB"]


@pytest.mark.parametrize(
    ("free", "words"),
    [(1 << 30, ": 1 GiB free, which is enough."), (1 << 10, ": 1 KiB free, but up to ")],
)
def test_where_records_go_through_files_it_says_whether_there_is_room(
    run, tmp_path, monkeypatch, through_files, free, words
):
    folders = []
    monkeypatch.setattr(
        analysing.shutil, "disk_usage", lambda folder: folders.append(folder) or Usage(0, 0, free)
    )
    asked = ("plan", run, *through_files, "--scratch", tmp_path)
    last = invoke(*asked, "--verbose").stdout.splitlines()[-1]
    assert (last in invoke(*asked).stdout) == (free < 1 << 20), "what is enough needs no word"
    assert last.startswith(f"Scratch folder {tmp_path}{words}")
    assert last.endswith(" as --scratch.") == (free < 1 << 20)
    assert set(folders) == {str(tmp_path)}


def test_without_a_folder_the_one_for_temporary_files_is_looked_at(
    run, tmp_path, monkeypatch, through_files
):
    monkeypatch.setattr(analysing.tempfile, "gettempdir", lambda: str(tmp_path))
    assert f"Scratch folder {tmp_path}: " in invoke("plan", run, *through_files, "--verbose").stdout


def test_of_object_storage_it_says_that_records_go_there_and_looks_at_no_disk(run, through_files):
    shown = invoke("plan", run, *through_files, "--scratch", "s3://bucket/x", "--verbose").stdout
    words = " ".join(shown.split())
    assert "Records go through objects whatever the memory, because workers share" in words
    assert "they lie below s3://bucket/x." in words
    assert "Scratch s3://bucket/x: up to " in words


@pytest.mark.parametrize(
    ("folder", "words"),
    [("nowhere", "cannot be used"), ("hdfs://host/x", "scratch is hdfs://host/x; expected a")],
)
def test_a_scratch_folder_that_cannot_be_one_is_an_error(run, through_files, folder, words):
    error = invoke("plan", run, *through_files, "--scratch", folder).exception
    assert isinstance(error, AnalysisError)
    assert words in str(error)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], {"exact": False, "seed": None, "scratch": None}),
        (
            ["--exact", "--seed", "7", "--scratch", "/data", "--no-intervals"],
            {"exact": True, "seed": 7, "scratch": "/data", "intervals": False},
        ),
    ],
)
def test_options_of_an_analysis_are_those_of_the_function(run, monkeypatch, options, given):
    analyze, seen = tsstore.analyze, {}

    def note(*arguments, **others):
        seen.update(others)
        return analyze(run, "conv_1")

    monkeypatch.setattr(tsstore, "analyze", note)
    assert invoke("analyze", run, *options).exit_code == 0
    assert {name: seen[name] for name in given} == given


def test_no_number_depends_on_the_seed_or_on_whether_rows_are_counted_themselves(run):
    options = ([], ["--seed", "1"], ["--seed", "2", "--exact"])
    first, *others = [invoke("analyze", run, "--json", *some).stdout for some in options]
    assert json.loads(first)["layers"]["conv_2"]["distinct"] > 1
    assert all(other == first for other in others)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    path = tmp_path_factory.mktemp("steps") / "run.zarr"
    for rank, step in enumerate([1, 1, "last"]):
        layers = {name: draw_layer(rank, 90, 2) for name in ("conv_1", "conv_2", "fc")}
        columns = {"label": np.arange(90) % 3}
        part = PartAttributes(rank, 3, step=step)
        store = write_layers(path, layers, columns=columns, part=part)
    return store


def test_steps_samples_and_layers_are_chosen_by_options(steps, tmp_path):
    chosen = ["--step", "1", "--filter", "label=2"]
    view = steps.at_step(1).filter(label=2)
    result = invoke("analyze", steps.path, *chosen, "--layer", "conv*", "--json")
    found = json.loads(result.stdout)
    assert found.items() >= tsstore.analyze(view.select("conv*")).to_dict().items()
    assert (list(found["layers"]), found["samples"]) == (["conv_1", "conv_2"], 60)
    assert found["samples_where"] == "label = 2"
    result = invoke("neurons", steps.path, *chosen, "--json")
    assert json.loads(result.stdout).items() >= tsstore.neurons(view).to_dict().items()
    result = invoke("plan", steps.path, *chosen, "--layer", "fc", "--json")
    assert list(json.loads(result.stdout)["layers"]) == ["fc"]
    result = invoke("states", steps.path, *chosen, "--layer", "f*", "--json")
    assert json.loads(result.stdout)["rows"] == view["fc"].rows
    result = invoke(
        "export", steps.path, "--step", "last", "--layer", "fc", "--states", tmp_path / "out.zarr"
    )
    assert f"of the {steps.at_step('last')['fc'].rows:,} rows of fc" in result.stdout
    page = tmp_path / "report.html"
    assert invoke("report", steps.path, *chosen, "--layer", "fc", "-o", page).exit_code == 0
    text = page.read_text()
    assert "conv_1" not in text
    assert "Samples where label = 2" in text
    assert invoke("report", steps.path, "--step", "1", "-o", page).exit_code == 0
    assert f"tsstore report {steps.path} --step 1<" in page.read_text()


def test_what_options_choose_must_be_there(steps):
    for options, why in [
        (["--step", "3"], "no part of step '3'; it has 1, 'last'"),
        (["--step", "1", "--filter", "label=7"], "no sample has label = 7; it has 0, 1, 2"),
        (["--step", "1", "--filter", "label"], "expected COLUMN=VALUE"),
        (["--step", "1", "--layer", "x*"], "has no layer 'x*'"),
    ]:
        assert why in str(invoke("analyze", steps.path, *options).exception)
    assert json.loads(invoke("plan", steps.path, "--json").stdout)["sample_groups"] == 2
    with pytest.raises(AnalysisError) as error:
        tsstore.plan(steps)
    several = in_options(str(error.value))
    assert "analyse each, tsstore analyze --by step, or choose one, --step (of" in several
    result = invoke("states", steps.path, "--step", "1", "--layer", "conv*")
    assert "conv_1 and conv_2; expected one layer" in str(result.exception)


def test_an_analysis_is_saved_and_answered_again_from_a_cache(run, tmp_path):
    out, cache = tmp_path / "out.analysis.zarr", tmp_path / "cache"
    first = invoke("analyze", run, "--json", "--cache", cache, "--save", out)
    again = invoke("analyze", run, "--json", "--cache", cache)
    assert first.stdout == again.stdout
    assert len(list(cache.iterdir())) == 1
    assert tsstore.Analysis.load(out).to_dict().items() <= json.loads(first.stdout).items()
    # What cannot be saved is told before anything is counted.
    for target in (out, "s3://bucket/out.zarr", tmp_path / "nowhere" / "out.zarr"):
        refused = invoke("analyze", run, "--save", target)
        assert isinstance(refused.exception, StoreError)
        assert refused.output == ""


def test_a_run_of_several_steps_is_analysed_by_step_with_a_note(steps):
    result = invoke("analyze", steps.path)
    assert result.exit_code == 0
    assert "holds 2 steps: analysed --by step; see --step" in result.stderr
    heading, *lines = result.stdout.splitlines()
    assert heading.split()[:3] == ["layer", "step", "samples"]
    assert [line.split()[:3] for line in lines[:2]] == [
        ["conv_1", "1", "180"],
        ["conv_1", "last", "90"],
    ]
    found = json.loads(invoke("analyze", steps.path, "--json").stdout)
    assert list(found["groups"]) == ["1", "last"]


def test_groups_are_chosen_by_options(steps):
    view = steps.at_step("last")
    result = invoke("analyze", steps.path, "--step", "last", "--by", "label", "--json")
    assert json.loads(result.stdout).items() >= tsstore.analyze(view, by="label").to_dict().items()
    result = invoke("analyze", steps.path, "--step", "last", "--window", "45")
    assert "holds" not in result.stderr
    assert result.stdout.splitlines()[0].split()[:2] == ["layer", "window"]
    result = invoke("analyze", steps.path, "--step", "last", "--by", "label", "--bins", "2")
    assert "0 to 1" in result.stdout
