"""What the pages on trainers show is what happens."""

from __future__ import annotations

import pytest
from pages import blocks, read
from trainers import WARNINGS

import tsstore

FIRST, *SECTIONS = read("how-to/trainers.md").split("\n## ")
PACKAGES = {
    "A plain loop": "torch",
    "Accelerate": "accelerate",
    "skorch": "skorch",
    "lightning": "lightning",
    "hugging-face": "transformers",
    "ignite": "ignite",
    "keras": "keras",
}
WITHOUT_COLUMNS = {"skorch"}
WITHOUT_PREDICTIONS = {"skorch", "Accelerate", "keras"}

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


CODE = {section.splitlines()[0]: blocks(section) for section in SECTIONS if blocks(section)}
CODE |= {name: blocks(read(f"how-to/{name}.md")) for name in list(PACKAGES)[-4:]}


def test_each_section_is_tried_here():
    assert list(CODE) == list(PACKAGES)
    assert [len(code) for code in CODE.values()] == [1] * len(PACKAGES)


@pytest.mark.parametrize("section", PACKAGES)
def test_the_code_runs_and_records_all_samples(section, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip(PACKAGES[section])
    monkeypatch.chdir(tmp_path)
    (first,) = blocks(FIRST)
    names = {"__name__": "page"}
    for code in (first, *CODE[section]):
        exec(compile(code, section, "exec"), names)
    (path,) = tmp_path.glob("*.zarr")
    store = tsstore.open(path)
    assert (store.samples, store.status, len(store.layers)) == (100, "finished", 1)
    if section not in WITHOUT_COLUMNS:
        assert store.column("id").tolist() == list(range(100))
        assert store.column("label").tolist() == [number % 3 for number in range(100)]
    assert ("prediction" in store.columns) == (section not in WITHOUT_PREDICTIONS)
