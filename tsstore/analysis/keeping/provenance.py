"""Where an analysis comes from: which run, which commit of it, what was asked, by what."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tsstore import __version__
from tsstore.analysis.request import Request
from tsstore.store.format.documents import Stored, mapping, stored, text
from tsstore.store.reading.store import StateStore


def _names(value: object, what: str, where: str) -> tuple[str, ...]:
    return tuple(
        text(name, what, where) for name in (value if isinstance(value, list) else [value])
    )


def _versions(value: object, what: str, where: str) -> dict[str, str]:
    said = mapping(value, what, where)
    return {name: text(version, name, where) for name, version in said.items()}


@dataclass(frozen=True)
class Provenance(Stored):
    """Where an analysis comes from.

    Attributes
    ----------
    run_id, commit
        The run's, and a digest of what was committed of all parts that were read: it is another one
        after each commit.
    samples
        A digest of which samples of these a view left out; empty if none.
    layers, arguments
        Names of the layers, and what else was asked that a number may depend on, by name.
    software
        Versions, by name.
    time
        When it was analysed, ISO 8601.
    """

    run_id: str = stored(text)
    commit: str = stored(text)
    samples: str = stored(text)
    layers: tuple[str, ...] = stored(_names)
    arguments: Mapping[str, Any] = stored(mapping)
    software: Mapping[str, str] = stored(_versions)
    time: str = stored(text)

    @classmethod
    def of(cls, store: StateStore, request: Request, **arguments: Any) -> Self:
        """Say where an analysis of the layers that a store shows comes from."""
        records = [(part.directory, part.record.digest) for part in store.parts]
        left_out = {
            directory: _digest_of_numbers(own)
            for directory, own in sorted(store.view.samples.left_out.items())
            if len(own)
        }
        names = ("intervals", "dependent_by", "unique_by", "repeats", "exact")
        return cls(
            store.run.run_id,
            _digest(records),
            _digest(left_out) if left_out else "",
            store.layers,
            {name: getattr(request, name) for name in names} | arguments,
            {"tsstore": __version__, "numpy": np.__version__, "python": platform.python_version()},
            datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def question(self) -> dict[str, Any]:
        """What was asked of what, by which version: equal ones have equal answers."""
        said = self.to_dict()
        return {name: said[name] for name in said if name not in ("time", "software")} | {
            "tsstore": self.software.get("tsstore", "")
        }

    @property
    def key(self) -> str:
        """A digest of the question, hexadecimal."""
        return _digest(self.question)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        said = asdict(self)
        return said | {"layers": list(self.layers), "arguments": dict(self.arguments)}


def _digest_of_numbers(numbers: npt.NDArray[np.int64]) -> str:
    """Return a digest of numbers that are all different: of a bit each, which are soon read."""
    bits = np.zeros(int(numbers.max()) + 1, np.bool_)
    bits[numbers] = True
    return hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
