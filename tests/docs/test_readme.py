"""What the README says is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "conv_3" in out
    assert "sample-limited" in out


def test_the_table_is_what_the_demo_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0
    (shown,) = re.findall(r"prints\n\n```\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    printed = [line.rstrip() for line in result.stdout.splitlines()]
    for line in shown.splitlines():
        assert line in printed
    found = tsstore.analyze("demo.zarr", ["conv_1", "conv_3"])
    text = " ".join(README.read_text("utf-8").split())
    assert f"uses {found['conv_1'].entropy():.1f} bits of its 20" in text
    plug_in, bound = found["conv_3"].efficiency("plug-in"), found["conv_3"].shown_efficiency
    assert f"gives {plug_in:.3f} for conv_3" in text
    assert f"proves at least {bound:.3f}" in text


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README.read_text("utf-8")))
def test_links_lead_somewhere(link):
    assert (README.parent / link).exists()
