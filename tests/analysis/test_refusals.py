from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.memory import all_fit, too_small
from tsstore.errors import MemoryTooSmallError


def refuse(needed):
    raise too_small("run", 1 << 20, "for this", needed)


def test_of_several_refusals_the_one_that_needs_most_is_raised():
    said = r"run: memory of 1 MiB is too small for this; give at least memory='3KiB'"
    with pytest.raises(MemoryTooSmallError, match=re.escape(said)) as error:
        all_fit([lambda: refuse(2048), lambda: refuse(2049), lambda: 1, lambda: refuse(5)])
    assert error.value.needed == 2049
    assert pickle.loads(pickle.dumps(error.value)).needed == 2049


def test_what_all_checks_give_is_returned():
    assert all_fit([lambda: 1, lambda: 2]) == [1, 2]


@pytest.mark.parametrize("function", [tsstore.analyze, tsstore.plan])
def test_the_memory_that_is_named_suffices_for_all_layers(tmp_path, function):
    layers = {"small": draw_layer(0, 50, 5), "wide": draw_layer(1, 50, 300, distinct=40)}
    run = write_layers(tmp_path / "run", layers, columns={"id": np.arange(50)})
    with pytest.raises(MemoryTooSmallError, match="layer wide: ") as error:
        function(run, memory="1KiB")
    least = int(re.search(r"at least memory='(\d+)KiB'", str(error.value))[1])
    assert function(run, memory=f"{least}KiB")


MIB = 1 << 20


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A run whose layers take more the later they come: what was counted is held."""
    rng = np.random.default_rng(0)
    shapes = {"first": 60, "second": 300, "third": 400}
    layers = {
        name: layer(rng.integers(0, 256, (300, n), np.uint8), 2) for name, n in shapes.items()
    }
    columns = {"id": np.arange(150), "label": np.arange(150) % 5}
    return write_layers(tmp_path_factory.mktemp("wide") / "run", layers, columns=columns)


def refusal_of(function, *arguments, memory="1KiB", **options):
    """Return what a refusal names, once it has been tried that it suffices, and less does not."""
    done = []
    watched = options | {"progress": lambda *told: done.append(told)}
    with pytest.raises(MemoryTooSmallError) as error:
        function(*arguments, memory=memory, **watched)
    needed = error.value.needed
    assert function(*arguments, memory=needed, **options)
    with pytest.raises(MemoryTooSmallError) as again:
        function(*arguments, memory=needed - MIB, **watched)
    # Where ids cannot be compared, it is not known how many samples will be left out.
    assert needed - MIB < again.value.needed <= needed
    assert not done, "something was counted before the memory was refused"
    return needed


@pytest.mark.parametrize(
    "asked",
    [{}, {"joint": True}, {"maps": True}, {"joint": True, "maps": True}, {"by": "label"}],
    ids=str,
)
def test_the_memory_that_is_named_suffices_for_the_neurons_of_all_layers(wide, asked):
    refusal_of(tsstore.neurons, wide, scheduler="synchronous", **asked)


@pytest.mark.parametrize("samples", [200, 400_000])
def test_the_memory_that_is_named_suffices_for_ids_and_for_counting(tmp_path, samples):
    """Few ids take less than counting does, many take more."""
    rows = np.zeros((samples, 40), np.uint8)
    columns = {"name": np.arange(samples)}
    run = write_layers(tmp_path / "run", {"a": layer(rows)}, columns=columns, chunk_bytes=MIB)
    asked = {"unique_by": "name", "scheduler": "synchronous", "scratch": tmp_path}
    needed = refusal_of(tsstore.analyze, run, **asked)
    assert tsstore.plan(run, memory=needed, **asked)
    said = "layer a: " if samples < 1000 else "to compare the ids of 400,000 samples"
    with pytest.raises(MemoryTooSmallError, match=said) as error:
        tsstore.plan(run, memory="1KiB", **asked)
    assert error.value.needed == needed


@pytest.mark.parametrize(
    "asked",
    [{"by": "label"}, {"by": "label", "intervals": False}, {"window": 40}],
    ids=str,
)
def test_the_memory_that_is_named_suffices_for_groups_in_all_layers(wide, tmp_path, asked):
    refusal_of(tsstore.analyze, wide, scheduler="synchronous", scratch=tmp_path, **asked)


@pytest.mark.parametrize("ids", [np.arange(150) // 2, np.arange(150) % 149], ids=["many", "one"])
def test_the_memory_that_is_named_suffices_where_groups_are_counted_one_by_one(tmp_path, ids):
    """Which samples of an id count differs from group to group."""
    rng = np.random.default_rng(0)
    shapes = {"first": 60, "last": 400}
    layers = {name: layer(rng.integers(0, 256, (150, n), np.uint8)) for name, n in shapes.items()}
    columns = {"id": ids, "label": np.arange(150) % 5}
    run = write_layers(tmp_path / "run", layers, columns=columns)
    asked = {"scheduler": "synchronous", "scratch": tmp_path, "by": "label"}
    # So much is enough to compare ids, and too little to count.
    refusal_of(tsstore.analyze, run, memory="1MiB", unique_by="id", **asked)
    # Where each is a draw of its own, groups are counted in one pass all the same.
    refusal_of(tsstore.analyze, run, memory="1MiB", repeats="each", **asked)
    # Where samples cannot be compared it is not known how groups will be counted.
    for memory in ("1KiB", "1MiB"):
        with pytest.raises(MemoryTooSmallError) as error:
            tsstore.analyze(run, memory=memory, **asked)
        assert tsstore.analyze(run, memory=error.value.needed, **asked)


@pytest.mark.parametrize("function", [tsstore.analyze, tsstore.plan])
@pytest.mark.parametrize("by", [None, "label"])
def test_the_memory_that_is_named_suffices_once_ids_are_compared_in_it(tmp_path, function, by):
    """With so little that ids are not compared, nothing is held of samples that are left out."""
    rows = np.random.default_rng(0).integers(0, 256, (30_000, 4), np.uint8)
    columns = {"id": np.arange(30_000) // 2, "label": np.arange(30_000) % 2}
    run = write_layers(tmp_path / "run", {"a": layer(rows)}, columns=columns, chunk_bytes=MIB)
    asked = {"by": by, "scheduler": "synchronous", "scratch": tmp_path, "intervals": False}
    with pytest.raises(MemoryTooSmallError) as error:
        function(run, memory="1KiB", **asked)
    assert function(run, memory=error.value.needed, **asked)
