"""A job is killed before and halfway through each of its steps and at its end, and run again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import (
    SAMPLES,
    Crasher,
    check_finished,
    check_run,
    quick_folder,
    run_job,
    steps_of_job,
)
from power import Step, Trials, kill_everywhere, log_job

from tsstore.errors import NotAStoreError, TsstoreError
from tsstore.store.files.local import LocalFiles
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store

FAST = 12
SERIES = 300

Point = tuple[int, str]


@pytest.fixture(scope="module")
def crasher() -> Iterator[Crasher]:
    with Crasher() as crasher:
        yield crasher


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> list[str]:
    """The steps of a job that nobody stops."""
    return steps_of_job(tmp_path_factory.mktemp("job") / "run.zarr")[0]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, crasher) -> Path:
    """A run whose job was killed between its second and its third commit."""
    path = tmp_path_factory.mktemp("stopped") / "run.zarr"
    _, done = steps_of_job(path.with_name("whole"))
    assert crasher.crash(path, (done[2] + done[3]) // 2, "before") == 8
    return path


@pytest.fixture(scope="module")
def later_steps(tmp_path_factory, stopped) -> list[str]:
    """The steps of the job that goes on with it."""
    return steps_of_job(copy_of(stopped, tmp_path_factory.mktemp("later")))[0]


def copy_of(run: Path, folder: Path) -> Path:
    """Copy a run, and what its jobs acknowledged."""
    shutil.copytree(run, folder / run.name)
    shutil.copy(run.with_name("acknowledged"), folder)
    return folder / run.name


def points_of(steps: list[str]) -> list[Point]:
    """Return where a job can stop and leave something else; only a write can be done by half.

    After a step there is what there is before the next one, when more may be acknowledged; and a
    sync changes nothing for who is killed.
    """
    points = []
    for number, operation in enumerate(steps, 1):
        if not operation.startswith("sync"):
            points.append((number, "before"))
        if operation == "write":
            points.append((number, "halfway"))
    return [*points, (len(steps), "after")]


def some_of(points: list[Point], number: int) -> Point:
    return points[number * (len(points) - 1) // (FAST - 1)]


def crash_and_check(crasher: Crasher, path: Path, point: Point) -> int:
    """Kill the job at a point and look what is there; return the number of samples."""
    acknowledged = crasher.crash(path, *point)
    samples = check_run(path, acknowledged)
    try:
        report = verify(path)
    except NotAStoreError:
        assert acknowledged is None
    else:
        assert report.ok, str(report)
    return samples


def go_on(path: Path) -> None:
    run_job(LocalFiles(path, durable=False))
    check_finished(path)


def count_violations(
    crasher: Crasher, path: Path, series: list[list[Point]], begun: Path | None = None
) -> None:
    """Kill the jobs of each series one after the other, then let one finish; count what fails."""
    violations = []
    for points in series:
        run = path / "job" / "run.zarr"
        run.parent.mkdir()
        if begun:
            copy_of(begun, run.parent)
        try:
            for point in points:
                crash_and_check(crasher, run, point)
            go_on(run)
        except (AssertionError, TsstoreError) as error:
            violations.append((points, error))
        shutil.rmtree(run.parent)
    print(f"\n{len(series):,} runs, {crasher.crashed:,} crashes, {len(violations):,} violations")
    assert not violations


def test_a_job_that_nobody_stops_is_whole(folder):
    steps, done = steps_of_job(folder / "run.zarr")
    check_finished(folder / "run.zarr")
    assert open_store(folder / "run.zarr").parts[0].record.generation == 3
    assert len(done) == 5
    assert {"write", "sync", "rename", "link", "make_directory", "sync_directory"} < set(steps)


def test_what_was_committed_is_there_after_each_step(folder):
    """All in one process: what it has written after a step is built anew elsewhere."""
    run = folder / "base" / "run.zarr"
    run.parent.mkdir()
    log: list[Step] = []
    log_job(run, log)
    trials = Trials(run, folder, check_run)
    kill_everywhere(log, trials)
    assert trials.violations == []
    assert len(trials.states) > 250


@pytest.mark.parametrize("number", range(FAST))
def test_what_was_committed_is_there_wherever_the_job_was_killed(folder, crasher, steps, number):
    path = folder / "run.zarr"
    crash_and_check(crasher, path, some_of(points_of(steps), number))
    go_on(path)


@pytest.mark.parametrize("number", range(0, FAST, 2))
def test_the_job_that_goes_on_may_be_killed_too(folder, crasher, stopped, later_steps, number):
    path = copy_of(stopped, folder)
    samples = crash_and_check(crasher, path, some_of(points_of(later_steps), number))
    assert 8 <= samples <= SAMPLES
    go_on(path)


def test_a_run_whose_creation_was_stopped_is_created_by_the_next_job(folder, crasher, steps):
    path = folder / "run.zarr"
    for step in range(1, steps.index("link") + 1):
        assert crasher.crash(path, step, "before") is None
        with pytest.raises(NotAStoreError):
            open_store(path)
    go_on(path)
    assert len(open_store(path).parts) == 1


@pytest.mark.slow(minutes=0.5)
def test_every_point_of_a_job(folder, steps):
    points = points_of(steps)
    with Crasher() as crasher:
        count_violations(crasher, folder, [[point] for point in points])
    assert (crasher.crashed, crasher.finished) == (len(points), 0)


@pytest.mark.slow(minutes=0.5)
def test_every_point_of_a_job_that_goes_on(folder, stopped, later_steps):
    points = points_of(later_steps)
    with Crasher() as crasher:
        count_violations(crasher, folder, [[point] for point in points], stopped)
    assert (crasher.crashed, crasher.finished) == (len(points), 0)


@pytest.mark.slow(minutes=0.5)
def test_jobs_that_are_killed_again_and_again(folder, steps):
    drawn = random.Random(0)
    points = points_of(steps)
    series = [[drawn.choice(points) for _ in range(drawn.randrange(2, 6))] for _ in range(SERIES)]
    with Crasher() as crasher:
        count_violations(crasher, folder, series)
    assert crasher.crashed > 2 * SERIES
