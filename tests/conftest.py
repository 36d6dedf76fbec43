"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

# torch's threads wait for more to do by turning in circles, on cores that other processes of the
# tests need: let them sleep. It is read when torch is loaded, here and in what tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Pictures are drawn for nobody; what Hypothesis could draw from other packages, no test asks for.
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")
# Where no bytecode is kept, as in many containers, each of the many processes that tests start
# would compile all that it loads, and each of pytest's own all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Nothing becomes garbage while tests are collected.
gc.disable()

MEMORY = "/dev/shm"
"""Where files lie in memory: on a disk they take more time than all else that is done with them."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis have its settings, commands be there, and files have their place."""
    _draw_examples()
    _build_commands_once()
    _keep_in_memory(config)


def _draw_examples() -> None:
    """Let a busy machine be no failure; and a change be judged by the same examples each time.

    Of a property that does not say how many examples it takes, 50 find what 100 do nearly always;
    where time is no matter, `-m hypothesis --hypothesis-profile thorough` takes 300.
    """
    # pytest compiles it to asserts of its own: imported above, each time anew.
    from hypothesis import HealthCheck, settings

    for profile, examples in (("tsstore", 50), ("thorough", 300)):
        settings.register_profile(
            profile,
            deadline=None,
            derandomize=os.environ.get("CI") == "true",
            max_examples=examples,
            suppress_health_check=[HealthCheck.too_slow],
        )
    settings.load_profile("tsstore")


def _build_commands_once() -> None:
    """Let typer build its tree of all commands once in a process, not for each that is called.

    A user's process calls one; to build them takes longer than what most tests call.
    """
    import typer.main

    typer.main.get_command = cache(typer.main.get_command)


def _keep_in_memory(config: pytest.Config) -> None:
    """Keep files in memory where there are GiB of it; not those of slow tests, which are large.

    Who sets TMPDIR, PYTEST_DEBUG_TEMPROOT or --basetemp has them there.
    """
    small = "not slow" in config.option.markexpr and "TMPDIR" not in os.environ
    if small and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all that is made in a temporary folder be where pytest tidies up, whoever was killed."""
    folder = str(tmp_path_factory.mktemp("tmp", numbered=False))
    os.environ["TMPDIR"] = tempfile.tempdir = folder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the slow tests out, the longest first: nobody waits for one of them in the end.

    Each process would have neighbouring tests else: one all that wait, others all that compute.
    """
    if config.option.markexpr == "slow":
        processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        items.sort(key=_minutes, reverse=True)
        items[:] = [item for first in range(processes) for item in items[first::processes]]


def _minutes(item: pytest.Item) -> float:
    mark = item.get_closest_marker("slow")
    return mark.kwargs.get("minutes", 0) if mark else 0


def pytest_collection_finish() -> None:
    """Let nobody look for garbage among what stays: tests, their modules and the packages.

    They are millions of objects, and each search for garbage would go through all of them.
    """
    gc.enable()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Nor among what a module's tests leave, as the packages that they were the first to load."""
    done = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return done


def pytest_runtest_setup() -> None:
    """Let a test draw the same numbers each time, whichever tests this process did before."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        # For a device not in use, `torch.manual_seed` notes it down with its whole stack: 1 ms.
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)


def pytest_report_header(config: pytest.Config) -> str:
    """Say beforehand how long it will take."""
    if "not slow" in config.option.markexpr:
        return "tsstore: all tests take up to 6 minutes on 2 cores; `-m slow` runs those left out"
    return "tsstore: slow tests take about 12 minutes on 2 cores"


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Give a client of two worker processes on this machine; it is not the current client."""
    from clusters import workers

    with workers(memory_limit="2GiB") as client:
        yield client


@pytest.fixture(scope="module")
def immortal() -> Iterator[Any]:
    """Give a client of two workers, in whose places others come when they are killed."""
    from clusters import workers

    with workers() as client:
        yield client


@pytest.fixture
def fragile(immortal: Any) -> Any:
    """Give a client whose workers may be killed: others take their places."""
    immortal.wait_for_workers(2, timeout=120)
    return immortal


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let programs that are started meanwhile heed Ctrl-C, though pytest itself may not.

    A shell ignores it for what it starts in the background, and what is ignored is inherited.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans have many blocks, pieces, partitions, shares and passes of but a few rows."""
    from counting_cases import sample_few_rows

    sizes = {"MAX_PIECE_ROWS": 64, "MIN_PIECE_ROWS": 8, "SUBPARTITION_RECORDS": 16}
    partitions = {"PARTITION_RECORDS": {False: 64, True: 128}, "PARALLEL_ROWS": 32}
    sample_few_rows(monkeypatch, 16)
    monkeypatch.setattr("tsstore.analysis.planning.cost.MIN_TABLE_SLOTS", 16)
    for name, value in {**sizes, **partitions}.items():
        monkeypatch.setattr(f"tsstore.analysis.planning.fitting.{name}", value)
