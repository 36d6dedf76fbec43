"""Where results may be written, told before they are counted."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run
from torch import nn
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AccessError, StoreError, StoreExistsError
from tsstore.store.targets import check_target

LAYERS = {"conv_1": 4, "fc": 9}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "run.zarr"
    write_run(path, [draw_batch(np.random.default_rng(0), 20, neurons=LAYERS)], neurons=LAYERS)
    return path


def test_a_path_that_is_free_or_may_be_replaced_is_no_error(tmp_path):
    (tmp_path / "there.html").write_text("")
    check_target(tmp_path / "there.html", replaces=True)
    check_target(tmp_path / "new.zarr")
    check_target("s3://bucket/new.zarr")


def test_what_is_there_is_not_replaced_by_what_must_be_new(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(StoreExistsError, match="exists already"):
            check_target(path)
    with pytest.raises(AccessError, match="it is a folder"):
        check_target(tmp_path, replaces=True)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(AccessError, match=r"its folder is missing\); make it, or choose another"):
        check_target(tmp_path / "nowhere" / "page.html", replaces=True)


def test_nothing_is_written_into_a_run(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    part = tsstore.open(run).parts[0].directory
    for path in (run / "new", run / part / "a" / "b", tmp_path / "link" / "new"):
        with pytest.raises(StoreError, match=r"lies within the run .*run\.zarr; expected a path"):
            check_target(path, replaces=True)
    with pytest.raises(StoreError, match="within the run"):
        tsstore.analyze(run).save(run / "run.analysis.zarr")
    with pytest.raises(StoreError, match="within the run"):
        tsstore.export(run, "fc", run / "states.zarr")
    with pytest.raises(StoreError, match="within the run"):
        tsstore.compact(run, run / "smaller.zarr")
    with pytest.raises(StoreError, match="within the run"):
        tsstore.capture(nn.Sequential(nn.Linear(2, 3)), run / "new.zarr", layers=["Linear"])
    assert tsstore.verify(run).ok


@pytest.mark.parametrize(
    "command",
    [
        ["analyze", "--save"],
        ["report", "--output"],
        ["neurons", "--output"],
        ["surprising", "--layer", "fc", "--output"],
        ["samples", "--layer", "fc", "--output"],
        ["export", "--layer", "fc", "--states"],
    ],
)
def test_commands_look_where_they_write_before_they_count(command, run, tmp_path, monkeypatch):
    def count(*arguments, **options):
        raise AssertionError("something was read")

    monkeypatch.setattr("tsstore.store.chunked.reader.CommittedArray.read", count)
    name, *options = command
    state = ["00"] if name == "samples" else []
    end = "states.zarr" if name == "export" else "out"
    for folder, words in ((tmp_path / "nowhere", "cannot be written"), (run, "within the run")):
        arguments = [name, str(run), *state, *options, str(folder / end)]
        result = CliRunner().invoke(app, arguments)
        assert words in str(result.exception)
    assert not list(tmp_path.iterdir())
