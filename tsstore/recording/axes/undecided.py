"""What the first batch does not tell of its layers: one error, with a line to paste."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from tsstore.errors import OutputError

Argument = Literal["neuron_axis", "sample_axis", "sample_index"]
"""What a user can say of a layer; see :func:`tsstore.capture`."""


class _Finding(NamedTuple):
    layer: str
    found: str
    value: str


_ADVICE: dict[Argument, str] = {
    "neuron_axis": "say which axis holds the neurons, as in",
    "sample_axis": "say which axis holds the samples, as in",
    "sample_index": (
        'say which sample each entry belongs to: "contiguous" (the first entries are all of sample '
        '0), "interleaved" (entry i is of sample i mod n, as cat([x, x]) gives), the number of '
        "entries of each sample, or the sample of each entry (-1: of none); at capture, at "
        "recorder.batch(…), or late by batch.record(…), as in"
    ),
}


@dataclass
class Undecided:
    """What cannot be told of the `layers` of one batch, collected so that one error says it all."""

    layers: Iterable[str]
    _findings: dict[Argument, list[_Finding]] = field(default_factory=dict)

    def add(self, argument: Argument, layer: str, found: str, value: str) -> None:
        """Note what was found of a layer, and what the user can write for it in an argument."""
        findings = self._findings.setdefault(argument, [])
        if not any(finding.layer == layer for finding in findings):
            findings.append(_Finding(layer, found, value))

    def check(self) -> None:
        """Raise one OutputError that names all that was found, and what to paste."""
        if self._findings:
            parts = [self._part(argument, found) for argument, found in self._findings.items()]
            raise OutputError("; ".join(parts))

    def _part(self, argument: Argument, findings: list[_Finding]) -> str:
        names = [finding.layer for finding in findings]
        others = set(self.layers).difference(names)
        values = {finding.layer: finding.value for finding in findings}
        patterns = globs(names, others, values)
        shown = "; ".join(_listed(findings))
        if not others and len(set(values.values())) == 1:
            return f"{shown}: {_ADVICE[argument]} {argument}={findings[0].value}"
        pairs = ", ".join(f'"{name}": {value}' for name, value in patterns.items())
        advice = f"{shown}: {_ADVICE[argument]} {argument}={{{pairs}}}"
        if not others:
            return advice
        exclude = ", ".join(f'"{name}"' for name in patterns)
        return f"{advice}, or leave out what are no activations of neurons: exclude=[{exclude}]"


def globs(names: list[str], others: Iterable[str], values: dict[str, str]) -> dict[str, str]:
    """Return few names or globs that fit exactly some layers, and what is to be said of each."""
    others = list(others)
    found: dict[str, str] = {}
    left = list(names)
    while left:
        value = values[left[0]]
        apart = [*others, *(name for name in names if values[name] != value)]
        fitting = {
            pattern: [name for name in left if fnmatchcase(name, pattern)]
            for pattern in _candidates(left[0])
            if not any(fnmatchcase(name, pattern) for name in apart)
        }
        # The first of those that fit most: the plainest.
        pattern = max(fitting, key=lambda one: len(fitting[one]), default=left[0])
        if len(fitting.get(pattern, ())) <= 1:
            pattern = left[0]
        found[pattern] = value
        left = [name for name in left if name != left[0] and name not in fitting.get(pattern, ())]
    return found


def _candidates(name: str) -> list[str]:
    """Return globs that fit a name, from the plainest to the widest."""
    steps = name.split(".")
    first, *others = re.split(r"(?<![^.])(?=\d+(?:\.|$))", name, maxsplit=1)
    numbers = _without_numbers(name)
    later_numbers = re.sub(r"^(\d*)(.*)$", lambda m: m[1] + _without_numbers(m[2]), "".join(others))
    ends = ["*." + ".".join(steps[start:]) for start in range(1, len(steps))]
    begins = [".".join(steps[:end]) + ".*" for end in range(len(steps) - 1, 0, -1)]
    return [*reversed(ends), *begins, numbers, first + later_numbers]


def _without_numbers(name: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def _listed(findings: list[_Finding], most: int = 6) -> list[str]:
    """Return what was found by layer; layers of which the same was found come together."""
    by_found: dict[str, list[str]] = {}
    for finding in findings:
        by_found.setdefault(finding.found, []).append(finding.layer)
    lines = []
    for found, layers in by_found.items():
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        lines.append(f"{', '.join(layers[:3])}{more}: {found}")
    return lines[:most] + [f"and {len(lines) - most} more"] * (len(lines) > most)
