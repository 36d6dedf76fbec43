"""How to record, and whether that makes sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, get_args

from tsstore.errors import CaptureError, FormatError
from tsstore.recording.packing.positions import is_share
from tsstore.recording.samples.differences import Findings
from tsstore.recording.samples.index import SampleIndex
from tsstore.store.chunked.writer import Compression
from tsstore.store.format.documents import dump

Calls = Literal["separate", "merge"]
"""What several calls of a module in one forward pass are: layers, or positions of one."""

Missing = Literal["error", "empty"]
"""What a layer is that gives no rows in a batch: an error, or a layer without positions."""

Begin = Literal["next", "first", "resume"]
"""Which part it is: another one, the first of its rank, or one that goes on from earlier ones."""

OnError = Literal["raise", "detach"]
"""What the writer's error does: it reaches the job, or ends the recording with a warning."""


@dataclass(frozen=True)
class Sampling:
    """What is left out on purpose, as :func:`tsstore.capture` is told."""

    positions: int | float | None = None
    every: int = 1
    max_bytes: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise CaptureError where a setting makes no sense."""
        for name, least in (("positions", 1), ("every", 1), ("max_bytes", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name in ("positions", "max_bytes"):
                continue
            if name == "positions" and is_share(value):
                continue
            integral = isinstance(value, Integral) and not isinstance(value, bool)
            if not integral or not least <= value < 1 << 64:
                share = ", or a share between 0 and 1" if name == "positions" else ""
                raise CaptureError(
                    f"{name} is {value!r:.80}; expected a whole number of at least {least}{share}"
                )

    def attributes(self, has_positions: bool) -> dict[str, Any] | None:
        """Return what a layer says of it; None where nothing is left out."""
        said: dict[str, Any] = {}
        if self.positions is not None and has_positions:
            share = is_share(self.positions)
            positions = float(self.positions) if share else int(self.positions)
            said |= {"positions": positions, "seed": int(self.seed)}
        if self.every > 1:
            said["every"] = int(self.every)
        if self.max_bytes is not None:
            said["max_bytes"] = int(self.max_bytes)
        return said or None


@dataclass(frozen=True)
class Settings:
    """How to record; see :func:`tsstore.capture`."""

    threshold: float = 0.0
    calls: Calls = "separate"
    missing: Missing = "error"
    commit_every: float = 10.0
    queue_bytes: int = 256 << 20
    compression: Compression = field(default_factory=Compression)
    begin: Begin = "next"
    on_error: OnError = "raise"
    commit_on_sigterm: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    sample_index: SampleIndex | Mapping[str, SampleIndex] | None = None
    probe: bool = True
    findings: Findings = field(default_factory=Findings)

    def check(self) -> None:
        """Raise TsstoreError where a setting makes no sense."""
        if not math.isfinite(self.threshold):
            raise CaptureError(f"threshold is {self.threshold}; expected a finite number")
        for name, kind in (("calls", Calls), ("missing", Missing), ("on_error", OnError)):
            if getattr(self, name) not in (choices := get_args(kind)):
                expected = " or ".join(map(repr, choices))
                raise CaptureError(f"{name} is {getattr(self, name)!r}; expected {expected}")
        for name in ("commit_every", "queue_bytes"):
            if not getattr(self, name) > 0:
                raise CaptureError(f"{name} is {getattr(self, name)}; expected more than 0")
        threads = self.compression.threads
        if not (isinstance(threads, int) and threads >= 1):
            raise CaptureError(f"writer_threads is {threads!r}; expected 1 or a few more")
        self.sampling.check()


def checked_step(step: object) -> int | str | None:
    """Return a step as it is stored."""
    if step is None or isinstance(step, str):
        return step
    if isinstance(step, Integral):
        return int(step)
    raise CaptureError(f"step is {step!r:.80}; expected an integer, text or None")


def checked_total(total: object) -> int | None:
    """Return how many samples there are to be as it is stored."""
    if total is None:
        return None
    samples = int(total) if isinstance(total, Integral) and not isinstance(total, bool) else 0
    if not 1 <= samples < 1 << 53:
        raise CaptureError(f"total is {total!r:.80}; expected a number of samples, or None")
    return samples


def checked_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the user's attributes as they are stored."""
    try:
        plain = dict(attributes or {})
        dump(plain)
    except (TypeError, ValueError, FormatError) as error:
        raise CaptureError(
            f"attributes cannot be stored: {error}; expected what JSON can hold: text, finite "
            "numbers, True, False, None, lists and mappings of them"
        ) from None
    return plain
