from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tsstore.errors import FormatError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.format.record import CommitRecord, Seal
from tsstore.store.process import this_process
from tsstore.store.reading.part import Part
from tsstore.store.reading.status import (
    QUIET,
    PartStatus,
    is_alive,
    last_commit,
    parse_time,
    part_statuses,
    run_status,
)

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LONG_AGO = (NOW - timedelta(days=3)).isoformat()
JUST_NOW = (NOW - QUIET).isoformat()
TOO_LONG = (NOW - QUIET - timedelta(seconds=1)).isoformat()


def part(seal: str | None = None, committed: str = "", commits: int = 10_000, **attributes) -> Part:
    """Return a part that was sealed for a reason, or not at all."""
    attributes = PartAttributes(**{"started": LONG_AGO, **attributes})
    record = CommitRecord(commits if committed else 0, time=committed)
    directory = f"part-{attributes.rank:05d}-{attributes.attempt:05d}"
    frozen = None if seal is None else Seal(record, seal, "somebody", LONG_AGO)
    return Part(LocalFiles("nowhere"), directory, attributes, record, frozen)


def unknown(process) -> None:
    return None


def gone(process) -> bool:
    return False


def own_status(part: Part, probe=unknown) -> str:
    return str(part_statuses([part], NOW, probe)[0])


def status_of(*parts: Part, probe=unknown, created: str = LONG_AGO) -> str:
    return run_status(parts, created, NOW, probe)


def test_a_sealed_part_is_finished_or_says_why_it_was_cut_off():
    assert own_status(part("closed")) == "finished"
    assert own_status(part("closed: max_bytes=9 reached")) == "finished"
    assert status_of(part("closed: max_bytes=9 reached")) == "finished"
    assert own_status(part("closed by mistake")) == "cut off: closed by mistake"
    assert own_status(part("stopped by KeyboardInterrupt")) == (
        "cut off: stopped by KeyboardInterrupt"
    )
    assert part_statuses([], NOW, unknown) == ()


@pytest.mark.parametrize("committed", ["", LONG_AGO, JUST_NOW])
def test_a_part_that_is_not_sealed_is_live_while_its_process_is(committed):
    assert own_status(part(committed=committed), lambda process: True) == "live"
    assert own_status(part(committed=committed), gone) == "cut off: its process is gone"


def test_the_process_that_the_part_names_is_asked_for():
    process, asked = {"host": "a", "pid": 1, "started": "2"}, []
    part_statuses([part(process=process), part("closed")], NOW, asked.append)
    assert asked == [process]


def test_of_a_process_elsewhere_the_last_commit_decides():
    assert own_status(part(committed=JUST_NOW)) == "live"
    assert own_status(part(committed=TOO_LONG)) == "cut off: no commit for a long time"
    assert own_status(part(started=JUST_NOW)) == "live"
    assert own_status(part(started=TOO_LONG)) == "cut off: no commit for a long time"
    ahead = NOW + timedelta(hours=5)
    assert own_status(part(committed=ahead.isoformat())) == "live"


def test_a_writer_whose_commits_are_rare_may_be_silent_for_longer():
    def silent(hours: float, commits: int) -> Part:
        """Return a part that began three days before its last commit."""
        last = NOW - timedelta(hours=hours)
        begun = (last - timedelta(days=3)).isoformat()
        return part(committed=last.isoformat(), commits=commits, started=begun)

    assert own_status(silent(hours=4, commits=72)) == "live"
    assert own_status(silent(hours=6, commits=72)) == "cut off: no commit for a long time"
    assert own_status(silent(hours=23, commits=1)) == "live"
    assert own_status(silent(hours=25, commits=1)) == "cut off: no commit for a long time"


def test_a_later_attempt_continues_one_that_was_cut_off():
    first, second = part("resumed"), part("closed", attempt=1)
    assert part_statuses([first, second], NOW, unknown) == (
        PartStatus("continued", "resumed", "part-00000-00001"), PartStatus("finished"),
    )  # fmt: skip
    assert status_of(first) == "cut off"
    assert status_of(first, second) == "finished"
    assert status_of(second, replace(first, attributes=replace(first.attributes, attempt=2))) == (
        "cut off"
    )


def test_a_part_that_was_continued_says_by_which_one():
    attempts = [part("resumed by rank 0 of 1"), part("the writer failed: x", attempt=1)]
    attempts += [part(attempt=2), part("closed", attempt=4)]
    assert [str(status) for status in part_statuses(attempts[::-1], NOW, gone)][::-1] == [
        "continued by part-00000-00001",
        "continued by part-00000-00002: the writer failed: x",
        "continued by part-00000-00004: its process is gone",
        "finished",
    ]


def test_of_a_smaller_world_the_first_that_began_continues():
    old = part("resumed by rank 1 of 2", rank=3, world_size=4)
    new = [
        part("closed", rank=1, world_size=2, attempt=attempt, started=started)
        for attempt, started in ((1, JUST_NOW), (2, NOW.isoformat()))
    ]
    assert str(part_statuses([*new, old], NOW, unknown)[2]) == "continued by part-00001-00001"


@pytest.mark.parametrize("other", [{"step": 1}, {"rank": 1}, {"attempt": 0}])
def test_a_part_of_another_step_or_rank_replaces_nothing(other):
    first = part("resumed", attempt=1)
    later = part("closed", **{"attempt": 2, "world_size": 2, **other})
    assert part_statuses([first, later], NOW, unknown)[0].state == "cut off"


def test_in_a_smaller_world_a_rank_replaces_several():
    old = [part("resumed", rank=rank, world_size=4) for rank in range(4)]
    new = [part("closed", rank=rank, world_size=2, attempt=1, started=JUST_NOW) for rank in (0, 1)]
    states = [status.state for status in part_statuses([*old, *new], NOW, unknown)]
    assert states == ["continued"] * 4 + ["finished"] * 2
    assert status_of(*old, *new) == "finished"
    assert status_of(*old, new[0]) == "cut off"
    assert part_statuses([*old, new[0]], NOW, unknown)[3].state == "cut off"


def test_a_run_is_finished_when_every_rank_of_every_step_is():
    ranks = [part("closed", rank=rank, world_size=3) for rank in range(3)]
    assert status_of(*ranks) == "finished"
    assert status_of(*ranks[:2]) == "cut off"
    assert status_of(*ranks, part("closed", step=1, world_size=2)) == "cut off"
    assert status_of(*ranks, part("closed", step=1)) == "finished"
    assert status_of(part("closed", world_size=1 << 53)) == "cut off"


def test_a_run_is_live_while_one_of_its_parts_is():
    assert status_of(part("closed", world_size=2), part(rank=1, committed=JUST_NOW)) == "live"
    assert status_of(part("closed", world_size=2), part(rank=1, committed=TOO_LONG)) == "cut off"


def test_a_run_without_parts_is_live_while_it_is_new():
    assert status_of(created=JUST_NOW) == "live"
    assert status_of(created=TOO_LONG) == "cut off"


def test_the_last_commit_is_that_of_all_parts():
    assert last_commit([]) is None
    assert last_commit([part("closed"), part()]) is None
    east = NOW.astimezone(timezone(timedelta(hours=14)))
    parts = [part(committed=LONG_AGO), part(committed=east.isoformat()), part(committed=TOO_LONG)]
    assert last_commit(parts) == NOW


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-02", "2026-01-02T12:00:00", "9" * 100, "\x1b"]
)
def test_a_time_that_is_none_is_an_error(text):
    with pytest.raises(FormatError, match=r"created is .*; expected ISO 8601"):
        parse_time(text, "created")
    with pytest.raises(FormatError, match="its last sign of life is"):
        own_status(part(started=text))
    with pytest.raises(FormatError, match="created"):
        status_of(created=text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_the_ends_of_time_are_times(text):
    assert own_status(part(started=text)) in ("live", "cut off: no commit for a long time")
    assert last_commit([part(committed=text), part(committed=JUST_NOW)]) is not None


def test_this_process_is_alive():
    assert is_alive(this_process()) is True


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_process_that_ended_is_not_alive_and_its_number_is_not_enough():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_alive({**this_process(), "pid": child.pid}) is False
    assert is_alive({**this_process(), "started": "1"}) is False


@pytest.mark.parametrize("process", [
    {}, {**this_process(), "host": "elsewhere"}, {**this_process(), "pid": str(os.getpid())},
    {**this_process(), "pid": True}, {**this_process(), "started": None},
    # In another container, or before the host was booted, the number is another process's.
    {**this_process(), "pid": 1 << 30, "system": "another"},
])  # fmt: skip
def test_what_cannot_be_known_is_not_guessed(process):
    assert is_alive(process) is None
