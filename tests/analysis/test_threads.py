"""Threads that are kept for several analyses, with the memory that these have used."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import draw_layer, layer, write_layers

import tsstore
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.request import choose
from tsstore.counting.arena import LEAST_BYTES
from tsstore.errors import AnalysisError, CountingError, DamageError
from tsstore.text import format_memory

GIB = 1 << 30


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of layers of short rows and long ones, with samples of one row and of several."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("one", "two")):
        wide = draw_layer(seed, 2000, 40, distinct=1500)
        rows = {
            "few bits": draw_layer(seed + 10, 2000, 1),
            "narrow": draw_layer(seed + 20, 2000, 8, distinct=3000),
            "single": layer(draw_layer(seed + 30, 2000, 16).rows[:2000]),
            "wide": wide,
        }
        write_layers(folder / name, rows)
    return folder


def only_ours() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name.startswith("tsstore")}


def numbers(analysis: Any) -> Any:
    """What an analysis found."""
    return analysis.to_dict()["layers"]


@pytest.mark.parametrize("memory", ["4GiB", "40MiB"])
@pytest.mark.parametrize("intervals", [True, False])
def test_results_are_those_of_any_other_scheduler(runs, memory, intervals):
    options: dict[str, Any] = {"memory": memory, "intervals": intervals, "seed": 3}
    expected = [tsstore.analyze(runs / name, **options) for name in ("one", "two")]
    with tsstore.Threads(3) as threads:
        for _ in range(2):
            for name, own in zip(("one", "two"), expected, strict=True):
                found = tsstore.analyze(runs / name, scheduler=threads, **options)
                assert numbers(found) == numbers(own)
                assert threads.arena.free_bytes <= parse_memory(memory) // 2
        both = {name: runs / name for name in ("one", "two")}
        together = tsstore.analyze(both, scheduler=threads, **options)
        assert [numbers(own) for own in together.values()] == list(map(numbers, expected))


@pytest.mark.usefixtures("small_sizes")
def test_many_small_blocks_and_partitions_change_nothing(runs):
    expected = numbers(tsstore.analyze(runs / "one", seed=3, scheduler="synchronous"))
    with tsstore.Threads(2) as threads:
        for _ in range(3):
            assert numbers(tsstore.analyze(runs / "one", seed=3, scheduler=threads)) == expected


def test_whatever_takes_a_scheduler_takes_threads_that_are_kept(runs):
    with tsstore.Threads(2) as threads:
        for function, arguments in (
            (tsstore.states, (runs / "one", "narrow")),
            (tsstore.neurons, (runs / "one",)),
            (partial(tsstore.compare, novelty=True), (runs / "one", runs / "two")),
        ):
            own = function(*arguments, scheduler=threads)  # type: ignore[operator]
            assert repr(own) == repr(function(*arguments, scheduler="synchronous"))  # type: ignore[operator]


def test_threads_stay_and_end_when_they_are_closed(runs):
    before = only_ours()
    with tsstore.Threads(2) as threads:
        tsstore.analyze(runs / "one", scheduler=threads)
        first = only_ours() - before
        tsstore.analyze(runs / "two", scheduler=threads)
        assert only_ours() - before == first
        assert len(first) == 2
    assert only_ours() == before


@pytest.mark.parametrize("count", [1, 2])
def test_memory_is_kept_until_they_are_closed(tmp_path, count):
    rows = np.random.default_rng(1).integers(0, 256, (40_000, 8), np.uint8)
    write_layers(tmp_path / "run", {"a": layer(rows, 4)})
    with tsstore.Threads(count) as threads:
        assert repr(threads) == f"<tsstore.Threads: {count} kept, 0 bytes of memory>"
        tsstore.analyze(tmp_path / "run", scheduler=threads, memory="4GiB")
        kept = threads.arena.free_bytes
        assert kept > rows.nbytes
        assert repr(threads) == f"<tsstore.Threads: {count} kept, {format_memory(kept)} of memory>"
        tsstore.analyze(tmp_path / "run", scheduler=threads, memory="4GiB")
        # Of two threads one may have done by itself the first time what both do now.
        assert rows.nbytes < threads.arena.free_bytes <= count * kept
        assert threads.arena.free_bytes == kept or count > 1
        assert choose("threads").arena.free_bytes == 0
    assert threads.arena.free_bytes == 0
    assert repr(threads) == "<tsstore.Threads: closed, 0 bytes of memory>"


@pytest.mark.parametrize("kind", ["count", "states", "neurons", "overlap"])
def test_no_analysis_begins_with_more_than_half_of_its_memory_in_use(
    runs, tmp_path, monkeypatch, kind
):
    functions: dict[str, Any] = {
        "count": lambda **options: tsstore.analyze(runs / "one", **options),
        "states": lambda **options: tsstore.states(runs / "one", "narrow", **options),
        "neurons": lambda **options: tsstore.neurons(runs / "one", **options),
        "overlap": lambda **options: tsstore.compare(
            runs / "one", runs / "two", novelty=True, **options
        ),
    }
    memory, held = 48 << 20, []
    with tsstore.Threads(2) as threads:
        scheduler = type(choose(threads))
        run = scheduler.run

        def spy(self: Any, *others: Any) -> Any:
            held.append(threads.arena.free_bytes)
            return run(self, *others)

        for _ in range(40):
            _ = threads.arena.empty((1 << 20,), np.uint8), threads.arena.empty((3 << 20,), np.uint8)
            rooms = [threads.arena.empty((2 << 20,), np.uint8) for _ in range(40)]
        del rooms, _
        assert threads.arena.free_bytes > 2 * memory
        monkeypatch.setattr(scheduler, "run", spy)
        functions[kind](scheduler=threads, memory=memory)
    assert held
    assert max(held) <= memory // 2


def test_closed_threads_are_refused(runs):
    threads = tsstore.Threads(2)
    threads.close()
    threads.close()
    with pytest.raises(AnalysisError, match=r"<tsstore.Threads: closed, .*>; make another one"):
        tsstore.analyze(runs / "one", scheduler=threads)


def test_two_analyses_at_once_share_them(runs):
    expected = {name: numbers(tsstore.analyze(runs / name, seed=3)) for name in ("one", "two")}
    found: dict[str, Any] = {}

    def analyze(name: str) -> None:
        for number in range(3):
            own = tsstore.analyze(runs / name, seed=3, scheduler=threads, memory="1GiB")
            found[f"{name} {number}"] = numbers(own)

    with tsstore.Threads(3) as threads:
        others = [threading.Thread(target=analyze, args=(name,)) for name in expected]
        for one in others:
            one.start()
        for one in others:
            one.join()
    assert found == {f"{name} {number}": expected[name] for name in expected for number in range(3)}


def nap(folder: str, number: int) -> None:
    Path(folder, f"{number} begun").touch()
    time.sleep(0.05)
    Path(folder, f"{number} done").touch()


def fail(*_: object) -> None:
    raise CountingError("task 1")


@pytest.fixture
def napping(tmp_path):
    """A graph of many tasks that take a while, and one that fails."""
    graph: dict[Any, Any] = {("nap", number): (nap, str(tmp_path), number) for number in range(50)}
    graph["bad"] = (fail, ("nap", 49))
    graph["all"] = (max, *graph)
    return graph


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_after_an_error_no_task_is_left_and_the_threads_serve_on(runs, napping, tmp_path):
    with tsstore.Threads(4) as threads:
        with pytest.raises(CountingError, match=r"^task 1$"):
            choose(threads).run(napping, "all", 4, None)
        seen = names(tmp_path)
        assert len([name for name in seen if "begun" in name]) == len(seen) / 2 < 50
        time.sleep(0.15)
        assert names(tmp_path) == seen
        assert choose(threads).run({"a": (max, 1, 2)}, "a", 4, None) == 2


def test_after_an_interrupt_no_task_is_left_and_the_threads_serve_on(
    napping, tmp_path, interruptible
):
    napping["bad"] = 1
    with tsstore.Threads(4) as threads:
        timer = threading.Timer(0.15, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            choose(threads).run(napping, "all", 4, None)
        timer.join()
        seen = names(tmp_path)
        assert len([name for name in seen if "begun" in name]) == len(seen) / 2 < 50
        time.sleep(0.15)
        assert names(tmp_path) == seen
        assert choose(threads).run({"a": (max, 1, 2)}, "a", 4, None) == 2


def test_damage_leaves_nothing_and_does_not_hurt_what_follows(tmp_path):
    good = write_layers(tmp_path / "good", {"a": draw_layer(1, 900, 8)})
    write_layers(tmp_path / "bad", {"a": draw_layer(1, 900, 8)})
    chunk = sorted((tmp_path / "bad").rglob("states/c/*/0"))[0]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    expected = numbers(tsstore.analyze(good, seed=3))
    with tsstore.Threads(2) as threads:
        for _ in range(2):
            with pytest.raises(DamageError):
                tsstore.analyze(tmp_path / "bad", scheduler=threads)
            assert numbers(tsstore.analyze(good, seed=3, scheduler=threads)) == expected


def test_threads_that_are_closed_meanwhile_are_an_error_of_the_analysis(napping):
    napping["bad"] = 1
    threads, raised = tsstore.Threads(2), []

    def run() -> None:
        try:
            choose(threads).run(napping, "all", 2, None)
        except AnalysisError as error:
            raised.append(str(error))

    other = threading.Thread(target=run)
    other.start()
    time.sleep(0.1)
    threads.close()
    other.join()
    (message,) = raised
    assert message.startswith("tsstore.Threads were closed while an analysis used them; close")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2"])
def test_fewer_than_one_thread_are_refused(wrong):
    with pytest.raises(AnalysisError, match="expected a number, 1 at least"):
        tsstore.Threads(wrong)


def test_one_thread_is_enough(runs):
    with tsstore.Threads(1) as threads:
        found = tsstore.analyze(runs / "one", seed=3, scheduler=threads)
    assert numbers(found) == numbers(tsstore.analyze(runs / "one", seed=3))


def test_small_arrays_are_not_kept():
    with tsstore.Threads(1) as threads:
        _ = threads.arena.empty((LEAST_BYTES - 1,), np.uint8)
        del _
        assert threads.arena.free_bytes == 0
