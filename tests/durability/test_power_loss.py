"""Power is lost after each step of a job, and with it any part of what was not synced."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import check_finished, check_run, quick_folder, run_job
from power import LoggedFiles, Step, Trials, log_job, lose_power, moments

from tsstore.errors import TsstoreError
from tsstore.store.files.local import LocalFiles


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        (folder / "base").mkdir()
        yield folder


@pytest.fixture
def run(folder) -> Path:
    return folder / "base" / "run.zarr"


def check_and_go_on(path: Path, acknowledged: int | None) -> None:
    check_run(path, acknowledged)
    run_job(LocalFiles(path, durable=False))
    check_finished(path)


class Tolerant:
    """Checks that what can be read is right, and counts what cannot."""

    def __init__(self) -> None:
        self.late_commits_lost = 0
        self.errors = 0

    def __call__(self, path: Path, acknowledged: int | None) -> None:
        try:
            self.late_commits_lost += check_run(path, None) < (acknowledged or 0)
            run_job(LocalFiles(path, durable=False))
            check_run(path, None)
        except TsstoreError:
            self.errors += 1


def test_the_model_holds_what_the_disk_holds(run):
    log: list[Step] = []
    log_job(run, log, stop=300)
    log_job(run, log)
    *_, last = moments(log, run.parent)
    there = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    there |= {path: None for path in run.parent.rglob("*") if path.is_dir()}
    assert last.disk.whole() == there
    assert last.acknowledged == 12


def test_the_model_loses_what_is_not_synced_and_nothing_else(run):
    log: list[Step] = []
    files = LoggedFiles(run, log, durable=False)
    for name in ("lost", "kept"):
        files.write(name, b"0123456789")
    synced = [step for step in log if step.path.name.startswith("kept")]
    log.insert(log.index(synced[-1]), Step("sync", synced[0].path))
    log += [Step("sync_directory", run.parent), Step("sync_directory", run)]
    *_, last = moments(log, run.parent)
    drawn = random.Random(0)
    disks = [last.disk.lose_power(drawn) for _ in range(100)]
    assert all(disk[run / "kept"] == b"0123456789" for disk in disks)
    contents = {disk[run / "lost"] for disk in disks}
    assert {b"", bytes(10), b"0123456789", b"01234", b"01234" + bytes(5)} <= contents
    *_, earlier = moments(log[:-1], run.parent)
    names = {frozenset(earlier.disk.lose_power(drawn)) for _ in range(200)}
    assert {frozenset([run]), frozenset([run, run / "kept"])} <= names


def test_what_was_committed_is_there_after_a_loss_of_power(run, folder):
    log: list[Step] = []
    log_job(run, log)
    trials = Trials(run, folder, check_run)
    lose_power(log, trials, random.Random(0), 1)
    assert trials.violations == []
    assert len(trials.states) > 200


def test_the_job_goes_on_after_a_loss_of_power(run, folder):
    log: list[Step] = []
    log_job(run, log)
    trials = Trials(run, folder, check_and_go_on)
    lose_power(log, trials, random.Random(1), 0.1)
    assert trials.violations == []
    assert len(trials.states) > 20


def test_without_syncing_commits_may_be_lost_but_no_number_is_wrong(run, folder):
    log: list[Step] = []
    log_job(run, log, durable=False)
    assert not any(step.operation.startswith("sync") for step in log)
    check = Tolerant()
    trials = Trials(run, folder, check)
    lose_power(log, trials, random.Random(2), 1)
    assert trials.violations == []
    # Or else the model has lost nothing.
    assert check.late_commits_lost > 10
    assert check.errors > 10


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 11, 20, 160, 290, 416, 420, 460])
def test_a_job_loses_nothing_of_one_that_was_killed_before(run, folder, stop):
    trials = Trials(run, folder, check_run)
    kill_then_lose_power(trials, stop, random.Random(stop), 0.1)
    assert trials.violations == []


def kill_then_lose_power(trials: Trials, stop: int, drawn: random.Random, draws: float) -> None:
    """Kill a job, let another go on, and lose power meanwhile, or right after it."""
    log: list[Step] = []
    log_job(trials.run, log, stop=stop)
    killed = len(log)
    log_job(trials.run, log)
    lose_power(log, trials, drawn, draws, killed)
    shutil.rmtree(trials.run)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "draws"), [(check_run, 40), (check_and_go_on, 2)])
def test_many_losses_of_power(run, folder, check, draws):
    log: list[Step] = []
    log_job(run, log)
    trials = Trials(run, folder, check)
    lose_power(log, trials, random.Random(3), draws)
    print(f"\n{trials}")
    assert trials.violations == []


@pytest.mark.slow
def test_many_losses_of_power_without_syncing(run, folder):
    log: list[Step] = []
    log_job(run, log, durable=False)
    check = Tolerant()
    trials = Trials(run, folder, check)
    lose_power(log, trials, random.Random(4), 10)
    print(f"\n{trials}, {check.late_commits_lost:,} with fewer commits, {check.errors:,} errors")
    assert trials.violations == []


@pytest.mark.slow(minutes=0.5)
def test_many_losses_of_power_after_a_job_was_killed(run, folder):
    trials = Trials(run, folder, check_run)
    drawn = random.Random(5)
    log: list[Step] = []
    log_job(run, log)
    shutil.rmtree(run)
    # What was not synced may be lost or not: nothing else may be left by who is killed after that.
    stops = [done for done, step in enumerate(log, 1) if not step.operation.startswith("sync")]
    for stop in stops:
        kill_then_lose_power(trials, stop, drawn, 0.1)
    print(f"\n{len(stops):,} jobs killed, {trials}")
    assert trials.violations == []
