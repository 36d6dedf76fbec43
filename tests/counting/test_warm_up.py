from __future__ import annotations

import pkgutil
import tracemalloc
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore.counting
from tsstore.analysis.analyze import analyze
from tsstore.analysis.layers import count_layer
from tsstore.analysis.random_groups import RandomGroups
from tsstore.analysis.request import Request
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.warm_up import warm_up
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore

#: Bytes of a row, and whether keys are exact: one, two and more words, and fingerprints.
SCHEMES = [(3, False), (8, False), (16, True), (24, False), (24, True), (80, True), (200, False)]
#: Of them, those that are counted by group in the fast tests; the slow ones do the other half.
BY_GROUP = {(8, False), (16, True), (24, True), (200, False)}


def loops() -> dict[str, Any]:
    """All loops of counting, where they are defined."""
    found = {}
    for info in pkgutil.walk_packages(tsstore.counting.__path__, "tsstore.counting."):
        for name, value in vars(import_module(info.name)).items():
            if hasattr(value, "py_func") and value.__module__ == info.name:
                found[f"{info.name}.{name}"] = value
    return found


def compiled() -> dict[str, list[Any]]:
    """For which types of arguments each loop has been compiled, or loaded, in this process."""
    return {name: list(loop.signatures) for name, loop in loops().items()}


@pytest.fixture
def nothing_compiled() -> None:
    """Let loops forget what other tests have compiled; what calls them keeps its own."""
    warm_up.cache_clear()
    for loop in loops().values():
        loop._reset_overloads()
        loop.overloads.clear()


def stores_of(folder: Path, row_bytes: int) -> list[StateStore]:
    """Runs with samples of one position and of several.

    Rows are all distinct; or there is a hot one; or nearly all are equal.
    """
    numbers = np.arange(320)
    kinds = {
        "distinct": numbers,
        "hot": np.where(numbers % 5 == 0, numbers, 0),
        "equal": numbers // 319,
    }
    rows = {name: numbered_rows(kind, row_bytes) for name, kind in kinds.items()}
    return [
        write_layers(
            folder / f"{positions}", {name: layer(own, positions) for name, own in rows.items()}
        )
        for positions in (1, 4)
    ]


def test_all_modules_with_loops_are_looked_at() -> None:
    modules = {name.rsplit(".", 2)[1] for name in loops()}
    assert modules >= {"hashing", "keys", "partition"}
    assert modules >= {"parts", "direct_index", "hot_keys", "samples", "cold_keys"}
    assert modules >= {"grouped", "grouped_parts", "buckets", "singletons"}
    assert modules >= {"plain", "plain_parts", "spectra"}


@pytest.mark.usefixtures("nothing_compiled", "small_sizes")
@pytest.mark.parametrize(
    ("row_bytes", "exact", "grouped"),
    [
        pytest.param(*scheme, grouped, marks=[] if grouped == fast else pytest.mark.slow)
        for scheme in SCHEMES
        for grouped in (False, True)
        for fast in [scheme in BY_GROUP]
    ],
)
def test_nothing_is_compiled_while_a_layer_is_counted(
    tmp_path, row_bytes, exact, grouped, monkeypatch
) -> None:
    stores = stores_of(tmp_path, row_bytes)
    groups = RandomGroups(5) if grouped else None
    parts = (part for store in stores for part in store.parts)
    nothing, some = SampleFilter(), SampleFilter({part.directory: np.arange(5) for part in parts})
    request = Request(1 << 28, scratch=str(tmp_path), exact=exact)
    for in_memory in (True, False):
        warm_up(row_bytes, exact, grouped, not in_memory)
        before = compiled()
        assert sum(map(len, before.values())) > 10
        monkeypatch.setattr(LocalScheduler, "shared_memory", in_memory)
        for store, name, sample_filter in product(stores, stores[0], (nothing, some)):
            result = count_layer(
                store[name], request, LocalScheduler(2), Samples(sample_filter, groups)
            )
            assert result.spectrum.rows == sample_filter.kept_rows(store[name])
            assert compiled() == before, (in_memory, name)


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("sets", [3, 20])
def test_nothing_is_compiled_while_sets_of_samples_are_counted(tmp_path, sets) -> None:
    columns = {"own": np.arange(900) % sets}
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 900, 8)}, columns=columns)
    warm_up(8, False, 32 * (sets + 1), False, sets=True)
    before = compiled()
    assert len(analyze(store, by="own", scheduler="synchronous")) == sets
    assert compiled() == before


@pytest.mark.usefixtures("nothing_compiled")
def test_loops_are_run_once_in_a_process() -> None:
    warm_up(8, False, False, False)
    assert warm_up.cache_info().misses == 1
    warm_up(8, False, False, False)
    assert warm_up.cache_info().hits == 1
    scheme = KeyScheme.create(8)
    before = compiled()
    scheme.keys(np.zeros((5, 8), np.uint8))
    assert compiled() == before


@pytest.mark.usefixtures("nothing_compiled")
def test_every_loop_is_run_at_the_sizes_of_large_layers() -> None:
    for row_bytes, grouped in product((3, 16), (False, True)):
        warm_up(row_bytes, False, grouped, True)
        warm_up(row_bytes, False, 2, True, sets=True)
    run = [loop for loop in loops().values() if loop.signatures]
    # Loops call others, by their names.
    while called := [
        loop
        for loop in loops().values()
        if loop not in run and any(loop.__name__ in own.py_func.__code__.co_names for own in run)
    ]:
        run += called
    left = {
        name.removeprefix("tsstore.counting.") for name, loop in loops().items() if loop not in run
    }
    # Rows of other widths have other loops for keys; what is said of neurons and of two runs is
    # another count.
    others = (
        "keys.",
        "firing.",
        "joint.",
        "by_position.",
        "nearest.",
        "tables.grouped._look_up",
        "premerge.samples.append_samples",
    )
    assert {name for name in left if not name.startswith(others)} == set()


def test_wide_rows_take_little_memory() -> None:
    warm_up(200, False, False, True)  # the same loops
    tracemalloc.start()
    warm_up(100_000, False, False, True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert warm_up.cache_info().currsize >= 2
