"""Contenders that take turns, each in a process of its own, and must give the same answer."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from counting_rivals import Task

WORKER = Path(__file__).with_name("counting_worker.py")


class Player:
    """A contender's process.

    Attributes
    ----------
    name
        Of the contender.
    first
        What it said of its first call; None if that failed.
    rounds
        What it said of each other call.
    pooled
        What it said of all labels together, where it was asked for each.
    failure
        Why it takes no more part; empty while it does.
    """

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.first: dict[str, Any] | None = None
        self.rounds: list[dict[str, Any]] = []
        self.pooled: dict[str, Any] | None = None
        self.failure = ""
        command = [sys.executable, str(WORKER), json.dumps({"contender": name, **asdict(task)})]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: str, timeout: float) -> dict[str, Any] | None:
        """Return what the process says; None if it fails, now or before."""
        if self.failure:
            return None
        reply = self._answer(command, timeout)
        if "error" in reply:
            self.failure = reply["error"].strip().splitlines()[0]
            self.close()
            return None
        return reply

    def median(self, amount: str) -> float:
        """Return the median of all rounds."""
        return statistics.median(reply[amount] for reply in self.rounds)

    @property
    def replies(self) -> list[dict[str, Any]]:
        """All that it has said."""
        said = [self.first, *self.rounds, self.pooled]
        return [reply for reply in said if reply is not None]

    @property
    def peak(self) -> int:
        """Most memory beyond the libraries, in bytes, but for the pooled call."""
        return max(reply["peak"] for reply in [self.first or {"peak": 0}, *self.rounds])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _answer(self, command: str, timeout: float) -> dict[str, Any]:
        late = threading.Event()
        timer = threading.Timer(timeout, lambda: (late.set(), self._process.kill()))
        timer.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(command, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        if late.is_set():
            return {"error": f"it took more than {timeout:g} s"}
        return {"error": f"its process ended with {self._process.wait()}"}


def compete(names: Iterable[str], task: Task, rounds: int, timeout: float) -> list[Player]:
    """Let contenders count once each, then `rounds` times in turns; check that all say the same.

    Raises
    ------
    SystemExit
        If one says something else.
    """
    players = []
    try:
        for name in names:
            rehearse(name, task, timeout)
            players.append(player := Player(name, task))
            player.first = player.ask("first", timeout)
        order = random.Random(1)
        for _ in range(rounds):
            for player in order.sample(players, len(players)):
                if reply := player.ask("again", timeout):
                    player.rounds.append(reply)
        for player in players:
            if task.groups and "label" in (player.first or {}).get("columns", ()):
                player.pooled = player.ask("pooled", timeout)
    finally:
        for player in players:
            player.close()
    check(players)
    return players


def rehearse(name: str, task: Task, timeout: float) -> None:
    """Let tsstore compile what it has not compiled for an earlier process."""
    if name.startswith("tsstore"):
        player = Player(name, task)
        player.ask("first", timeout)
        player.close()


def check(players: Iterable[Player]) -> None:
    """Exit where two contenders, or two calls of one, do not say the same."""
    known: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
    for player in players:
        for reply in player.replies:
            if "columns" not in reply:
                continue
            name, first = known.setdefault(tuple(reply["columns"]), (player.name, reply))
            if reply["digest"] != first["digest"]:
                raise SystemExit(
                    f"{player.name} differs from {name} in {', '.join(reply['columns'])}: "
                    f"{reply['distinct']:,} distinct of {reply['rows']:,} rows, and "
                    f"{first['distinct']:,} of {first['rows']:,}"
                )
