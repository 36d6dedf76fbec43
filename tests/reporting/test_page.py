"""The page: one file, what it says, and names from a store that would do harm."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore.commands.app import app
from tsstore.errors import AccessError, AnalysisError, UnknownLayerError

EVIL = "<script>alert(1)</script>\x1b[31m\u202e"
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Collects elements and texts; each element must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self._may_break = False
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        if tag == "wbr":  # The text goes on.
            self._may_break = True
            return
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        text = " ".join(data.split())
        if self._may_break:
            text = self.texts.pop() + text
        self.texts.append(text)
        self._may_break = False


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two layers: one with enough samples, a dead and a duplicate neuron, one with an evil name."""
    path = tmp_path_factory.mktemp("report") / "run.zarr"
    rng = np.random.default_rng(0)
    layers = {"few": 5, EVIL: 40}
    batch = draw_batch(
        rng, 400, neurons=layers, columns={"id": np.arange(400), "label": np.arange(400) % 2}
    )
    rows = batch.layers["few"].rows
    rows[:] &= 0b0111
    rows[:] |= (rows & 1) << 3
    write_run(path, [batch], neurons=layers)
    return path


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert tsstore.report(run, path) == path.stat().st_size
    return Page(path.read_text(encoding="utf-8"))


def test_the_first_screen_answers_three_questions(page):
    texts = page.texts
    places = [
        texts.index(question)
        for question in (
            "Which layers use their neurons?",
            "How sure is that?",
            "What to do next?",
            "Layers",
        )
    ]
    assert places == sorted(places)
    said = "\n".join(texts[places[0] : places[-1]])
    assert "few: 0." in said
    assert "1 layer saturated" in said or "1 layer usable" in said
    assert "1 layer sample-limited" in said
    assert "1 dead neuron in few" in said
    assert "1 duplicate neuron in few" in said
    assert "need" in said


def test_numbers_are_those_of_the_analysis(page, run):
    analysis = tsstore.analyze(run)
    joined = "\n".join(page.texts)
    assert tsstore.open(run).run.run_id in joined
    for layer in analysis.values():
        assert f"{layer.distinct:,}" in joined
        assert layer.reason in joined
    assert f"{analysis.network_efficiency():.3f}" in joined


def test_the_page_needs_nothing_else_and_names_do_no_harm(page):
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "iframe", "object"})
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert not (value or "").startswith(("http:", "https:", "//")), (tag, name)
    joined = "".join(page.texts)
    assert "\x1b" not in joined
    assert "\u202e" not in joined
    assert "<script>alert(1)</script>\\x1b[31m\\u202e" in joined


def test_charts_have_names_and_tables_and_headings_are_in_order(page):
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(drawings) == 2 * 4
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == 2 + 2 * 3
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.index("h1") < tags.index("h2")
    assert ("html", {"lang": "en"}) in page.elements


def test_an_analysis_that_is_there_is_not_made_again(run, tmp_path, monkeypatch):
    analysis = tsstore.analyze(run, "few")
    monkeypatch.setattr("tsstore.reporting.page.analyze_with_neurons", None)
    tsstore.report(run, tmp_path / "few.html", analysis=analysis)
    assert EVIL[:8] not in (tmp_path / "few.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(run, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(AccessError, match="it is a folder"):
        tsstore.report(run, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_page_that_cannot_be_written_is_an_error_before_anything_is_counted(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr("tsstore.reporting.page.analyze_with_neurons", None)
    with pytest.raises(AccessError, match="cannot be written"):
        tsstore.report(run, tmp_path / "nowhere" / "report.html")
    with pytest.raises(UnknownLayerError, match="has no few, so"):
        tsstore.report(
            run, tmp_path / "page.html", compare=tsstore.open(run).select(EVIL), by="label"
        )
    with pytest.raises(AnalysisError, match="a page is on one step"):
        tsstore.report(run, tmp_path / "page.html", by="step")
    assert not list(tmp_path.iterdir())


def test_groups_and_another_run_have_their_sections(run, tmp_path):
    path = tmp_path / "report.html"
    tsstore.report(run, path, by="label", compare=run)
    page = Page(path.read_text(encoding="utf-8"))
    drawings = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert "few: efficiency by label" in drawings
    joined = "\n".join(page.texts)
    for group, layer in tsstore.analyze(run, "few", by="label").items():
        assert f"{group}\n" in joined
        assert f"{layer['few'].distinct:,}" in joined
    assert f"Compared with {run}" in joined
    assert "Bits of the same samples" in joined
    assert "--by label --compare" in joined


def test_groups_are_of_bins_and_windows_as_well(run, tmp_path):
    path = str(tmp_path / "report.html")
    for options in (["--by", "id", "--bins", "2"], ["--window", "200"]):
        done = CliRunner().invoke(app, ["report", str(run), "-o", path, *options])
        assert done.exit_code == 0, done.output
        page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert f"tsstore report {run} {' '.join(options)}" in page.texts
    tsstore.report(run, path, by="id", bins=[0, 100, 400])
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not [text for text in page.texts if text.startswith("tsstore report")]


def test_an_analysis_alone_makes_a_page_when_its_run_is_gone(run, tmp_path):
    tsstore.analyze(run).save(tmp_path / "run.analysis.zarr")
    analysis = tsstore.Analysis.load(tmp_path / "run.analysis.zarr")
    tsstore.report(analysis, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert analysis.provenance.run_id in "".join(page.texts)
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == 2 * 3
    with pytest.raises(AnalysisError, match="give its run as well"):
        tsstore.report(analysis, tmp_path / "report.html", by="label")


def test_the_command_takes_groups_and_another_run(run, tmp_path):
    path = tmp_path / "report.html"
    options = ["--layer", "few", "--by", "label", "--compare", str(run)]
    done = CliRunner().invoke(app, ["report", str(run), "-o", str(path), *options])
    assert done.exit_code == 0, done.output
    assert "Compared with" in path.read_text(encoding="utf-8")


def test_without_jinja_the_error_names_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(AnalysisError, match=r"install tsstore\[report\]"):
        tsstore.report(run, tmp_path / "report.html")


@pytest.mark.slow
def test_two_hundred_layers_make_less_than_2_megabytes(tmp_path):
    layers = {f"encoder.layers.{index}.self_attn": 16 for index in range(200)}
    columns = {"label": np.arange(300) % 4}
    batch = draw_batch(np.random.default_rng(0), 300, neurons=layers, columns=columns)
    write_run(tmp_path / "run.zarr", [batch], neurons=layers)
    # With groups there is all that there is without, and more.
    size = tsstore.report(tmp_path / "run.zarr", tmp_path / "report.html", by="label")
    assert size < 2_000_000


def test_long_names_break_after_their_dots_and_numbers_do_not(run, tmp_path):
    tsstore.report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<wbr>" in page
    assert not re.search(r"\d\.<wbr>\d", page)
    assert "&lt;wbr&gt;" not in page
