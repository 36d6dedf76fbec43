"""Several writers of one store in one process, one file operation at a time, in a drawn order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from tsstore.store.files.base import Bytes
from tsstore.store.files.local import LocalFiles


class Actor(threading.Thread):
    """Does its work up to its next file operation each time it is told to."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self.finished = False
        self._work = work
        self._go = threading.Semaphore(0)
        self._rest = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self.finished = True
        self._rest.release()

    def step(self) -> None:
        """Let the actor go on, and wait until it is before its next operation, or finished."""
        self._go.release()
        self._rest.acquire()

    def wait_for_step(self) -> None:
        """Let others act."""
        self._rest.release()
        self._go.acquire()


class SteppedFiles(LocalFiles):
    """Files that let others act before an operation of an actor.

    Not before it reads: cached properties hold a lock meanwhile, up to Python 3.11 one for all.
    """

    def write(self, key: str, data: Bytes) -> None:
        pause()
        super().write(key, data)

    def create(self, key: str, data: Bytes) -> None:
        pause()
        super().create(key, data)

    def exists(self, key: str) -> bool:
        pause()
        return super().exists(key)

    def list(self, key: str) -> list[str]:
        pause()
        return super().list(key)

    def sync(self) -> None:
        pause()
        super().sync()


def pause() -> None:
    """Wait for the next step, in an actor's own thread."""
    current = threading.current_thread()
    if isinstance(current, Actor):
        current.wait_for_step()


def interleave(
    drawn: random.Random, actors: Sequence[Actor], between: Callable[[], None] = lambda: None
) -> None:
    """Let actors act in a drawn order, some more often than others, until all have finished."""
    weights = [drawn.random() ** 2 + 0.02 for _ in actors]
    while waiting := [actor for actor in actors if not actor.finished]:
        shares = [weights[actors.index(actor)] for actor in waiting]
        drawn.choices(waiting, shares)[0].step()
        between()
    for actor in actors:
        actor.join()
        if actor.error is not None:
            raise actor.error
