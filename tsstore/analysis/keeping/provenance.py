"""Where an analysis comes from: which run, which commit of it, what was asked, by what."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tsstore import __version__
from tsstore.analysis.request import Request
from tsstore.store.format.documents import mapping, text
from tsstore.store.reading.store import StateStore


@dataclass(frozen=True)
class Provenance:
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

    run_id: str
    commit: str
    samples: str
    layers: tuple[str, ...]
    arguments: Mapping[str, Any]
    software: Mapping[str, str]
    time: str

    @classmethod
    def of(
        cls, store: StateStore, layers: Sequence[str], request: Request, **arguments: Any
    ) -> Self:
        """Say where an analysis that begins now comes from; further arguments if there are some."""
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
            tuple(layers),
            {name: getattr(request, name) for name in names} | arguments,
            {
                "tsstore": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
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

    @classmethod
    def from_dict(cls, value: object, where: str) -> Self:
        """Check and parse; FormatError if something is not valid."""
        said = mapping(value, "provenance", where)
        layers, software = said.get("layers"), mapping(said.get("software"), "software", where)
        names = layers if isinstance(layers, list) else [layers]
        return cls(
            text(said.get("run_id"), "run_id", where),
            text(said.get("commit"), "commit", where),
            text(said.get("samples"), "samples", where),
            tuple(text(name, "layer", where) for name in names),
            mapping(said.get("arguments"), "arguments", where),
            {name: text(version, name, where) for name, version in software.items()},
            text(said.get("time"), "time", where),
        )


def _digest_of_numbers(numbers: npt.NDArray[np.int64]) -> str:
    """Return a digest of numbers that are all different: of a bit each, which are soon read."""
    bits = np.zeros(int(numbers.max()) + 1, np.bool_)
    bits[numbers] = True
    return hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
