"""Names of layers and columns of any kind go in and come out unchanged, on any file system."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from helpers import draw_batch, write_run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsstore.store.format.paths import (
    column_directory,
    column_paths,
    commit_path,
    directory_name,
    is_directory,
    part_directory,
    positions_paths,
    seal_path,
    states_paths,
)
from tsstore.store.maintenance.repair import repair
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store

ODD = [
    "", " ", ".", "..", "../..", "/", "/etc/passwd", "a/b", "a\\b", "C:\\x", "\x00", "\x1b[2J",
    "\n", "con", "NUL", "a:before", "a#2", "a" * 300, "A" * 300, "🧠", "🧠" * 300, "é", "e\u0301",
    "\u202eabc", "ﬁ", "ı", "İ", "ß", "SS", "label", "Label", "LABEL", "zarr.json", "c", "commit",
    "-", "_", "0000-a", "a.partial", "part-00000-00000", "\ud7ff\ue000", "\U0010ffff",
]  # fmt: skip
names = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(categories=["Cc", "Cf", "Zs", "Zl"]), min_size=1, max_size=9),
    st.text("aA/.\\:é", max_size=6),
)


def case_folded(directories: list[str]) -> set[str]:
    """Return what is left of names where a file system ignores case and forms of characters."""
    return {unicodedata.normalize("NFKD", name).casefold() for name in directories}


@settings(max_examples=60)
@given(
    layers=st.lists(names, min_size=1, max_size=6, unique=True),
    columns=st.lists(names, max_size=6, unique=True),
)
@example(layers=ODD[:20], columns=ODD[20:])
@example(layers=ODD[20:], columns=ODD[:20])
def test_names_come_out_as_they_went_in(tmp_path_factory, layers, columns):
    path = tmp_path_factory.mktemp("names") / "run.zarr"
    neurons = {name: 1 + index for index, name in enumerate(layers)}
    values = {name: np.arange(3) + 10 * index for index, name in enumerate(columns)}
    batch = draw_batch(np.random.default_rng(0), 3, neurons=neurons, columns=values)
    write_run(path, [batch], neurons=neurons)
    store = open_store(path)
    assert store.layers == tuple(layers)
    assert store.columns == tuple(columns)
    for name in layers:
        assert store[name].name == name
        np.testing.assert_array_equal(store[name][:], batch.layers[name].rows)
    for index, name in enumerate(columns):
        assert store.column(name).tolist() == [10 * index + number for number in range(3)]
    check_files(path)
    assert verify(path).findings == ()
    assert repair(path).reshaped == ()


def check_files(path) -> None:
    """Check that nothing lies outside the run, and that any file system can hold what is in it."""
    assert [item.name for item in path.parent.iterdir()] == ["run.zarr"]
    for folder in [path, *filter(lambda item: item.is_dir(), path.rglob("*"))]:
        held = [item.name for item in folder.iterdir()]
        assert len(case_folded(held)) == len(held)
        assert all(
            len(name.encode()) <= 96 and re.fullmatch(r"[a-z0-9._-]+", name) for name in held
        )


@given(kinds=st.lists(names, min_size=1, max_size=30, unique=True))
@example(kinds=ODD)
def test_directories_are_short_plain_and_unlike_each_other(kinds):
    for make in (directory_name, column_directory):
        directories = [make(index, name) for index, name in enumerate(kinds)]
        assert all(is_directory(name) and len(name.encode()) <= 96 for name in directories)
        assert len(case_folded(directories)) == len(directories)


@given(name=names, rank=st.integers(0, 10**9), attempt=st.integers(0, 10**9))
def test_what_is_a_directory_never_leads_anywhere(name, rank, attempt):
    if is_directory(name):
        assert "/" not in name
        assert name not in (".", "..")
        assert name.isascii()
    assert is_directory(part_directory(rank, attempt))


def test_names_that_differ_in_case_alone_have_directories_that_do_not():
    directories = [column_directory(index, name) for index, name in enumerate(["a", "A", "ａ"])]
    assert directories == ["a", "0001-a", "0002-_"]


def test_text_of_a_record_is_no_directory_where_it_leads_out():
    for name in ("..", "../x", "/x", "a/b", "", ".x", "-x", "A", "a" * 97, "a\n", "é"):
        assert not is_directory(name)


@given(names=st.lists(st.text(st.characters()), max_size=8, unique=True))
def test_names_of_any_kind_get_directories_of_their_own(names):
    layers = [directory_name(index, name) for index, name in enumerate(names)]
    columns = [column_directory(index, name) for index, name in enumerate(names)]
    for directories in (layers, columns):
        assert all(is_directory(directory) for directory in directories)
        # Also where the file system does not tell cases apart.
        assert len({directory.casefold() for directory in directories}) == len(names)
        assert all(directory.isascii() and len(directory) <= 96 for directory in directories)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", "A", "ü", ".hidden", "a\n", "c" * 97, "zarr json"],
)
def test_what_no_directory_is_called(name):
    assert not is_directory(name)


def test_names_that_are_plain_stay_as_they_are():
    assert column_directory(3, "label") == "label"
    assert column_directory(3, "Label") == "0003-label"
    assert column_directory(3, "label ü") == "0003-label_"
    assert directory_name(12, "layer1.0.Conv/1") == "0012-layer1.0.conv_1"


def test_where_things_lie():
    assert part_directory(3, 1) == "part-00003-00001"
    assert states_paths("p", "0000-a").values == "p/layers/0000-a/states"
    assert states_paths("p", "0000-a").checksums == "p/layers/0000-a/checksums"
    positions = positions_paths("p", "0000-a")
    assert positions.values == "p/layers/0000-a/positions"
    assert positions.checksums == "p/layers/0000-a/positions_checksums"
    assert positions.dimension != states_paths("p", "0000-a").dimension
    assert column_paths("p", "label").checksums == "p/sample_checksums/label"
    assert commit_path("p") == "p/commit"
    assert seal_path("p") == "p/sealed"
