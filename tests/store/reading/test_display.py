from __future__ import annotations

import numpy as np
import pytest
from helpers import draw_batch, write_run
from pages import Tags

from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading.store import open_store
from tsstore.store.run import create_run
from tsstore.text import printable

HOSTILE = "\x1b[2J<img src=x onerror='alert(1)'>&\r\n\u202e\ud800"


@pytest.fixture
def hostile(tmp_path):
    neurons = {HOSTILE: 3}
    batch = draw_batch(
        np.random.default_rng(0), 4, neurons=neurons, columns={HOSTILE: [1, 2, 3, 4]}
    )
    write_run(tmp_path, [batch], neurons=neurons, part=PartAttributes(step=HOSTILE))
    return open_store(tmp_path)


def test_a_store_in_text(tmp_path):
    rng = np.random.default_rng(0)
    batches = [draw_batch(rng, 1500, positions={"fc.2": rng.integers(0, 2, 1500).tolist()})]
    write_run(tmp_path / "run.zarr", batches, part=PartAttributes(step=3))
    lines = repr(open_store(tmp_path / "run.zarr")).splitlines()
    assert lines[0] == f"<StateStore {tmp_path / 'run.zarr'}>"
    assert lines[1] == "  1,500 samples · 1 part · steps 3 · finished, last commit 0 s ago"
    assert lines[2] == "  layer   neurons  positions   rows  threshold    dtype"
    assert lines[3] == "  conv_1        6          1  1,500          0  float32"
    assert lines[4].startswith("  fc.2         13    varying    ")
    assert len({len(line) for line in lines[2:]}) == 1


def test_an_empty_store_has_no_table(tmp_path):
    create_run(LocalFiles(tmp_path))
    summary = "  0 samples · 0 parts · live, nothing committed"
    assert repr(open_store(tmp_path)).splitlines()[1:] == [summary]
    assert "<td>" not in open_store(tmp_path)._repr_html_()


def test_hostile_names_do_nothing_to_a_terminal(hostile):
    for shown in (repr(hostile), repr(hostile[HOSTILE])):
        assert all(line.isprintable() for line in shown.split("\n"))
        assert shown.encode()
        assert "\\x1b[2J<img" in shown
    assert len(repr(hostile).split("\n")) == 4


def test_hostile_names_do_nothing_to_a_page(hostile):
    for page in (hostile._repr_html_(), hostile[HOSTILE]._repr_html_()):
        parsed = Tags(page)
        assert parsed.tags <= {"b", "code", "br", "table", "thead", "tbody", "tr", "th", "td"}
        assert printable(HOSTILE) in " ".join(parsed.text)
        assert page.isprintable()


def test_a_run_says_why_it_was_cut_off(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 4)
    write_run(tmp_path, [batch], close=False).seal(HOSTILE)
    summary = repr(open_store(tmp_path)).splitlines()[1]
    assert summary.startswith(f"  4 samples · 1 part · cut off ({printable(HOSTILE)}), last commit")
