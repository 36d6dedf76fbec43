"""What is found when a run is read back: damage, what cannot be read, notes, and the report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tsstore.errors import AccessError, TsstoreError
from tsstore.store.files.base import PARTIAL, Bytes, Files
from tsstore.text import counted, printable

ERROR = "error"
UNREADABLE = "unreadable"
NOTE = "note"
RESTORE = "restore the file from a copy"

NAMED_FILES = 10
"""So many files of a kind are named in each part; of more, the number is."""

_ARRAY = (
    r"(layers/[^/]+/(states|checksums|positions|positions_checksums)|sample(s|_checksums)/[^/]+)"
)
_OF_A_PART = re.compile(
    rf"((commit|sealed|layers(/[^/]+)?|samples|sample_checksums|{_ARRAY})/)?zarr\.json"
    rf"|{_ARRAY}/c/\d{{1,16}}(/0)?"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    severity
        ``"error"``: something committed is damaged. ``"unreadable"``: it cannot be read just now,
        and may be sound. ``"note"``: no number is wrong.
    part
        Directory of the part; empty where it is none's.
    layer
        Public name of the layer; empty where it is none's.
    file
        The file or directory, relative to the run.
    what
        What was found.
    advice
        What to do.
    """

    severity: str
    part: str
    layer: str
    file: str
    what: str
    advice: str

    def __str__(self) -> str:
        layer = f" (layer {self.layer})" if self.layer else ""
        return printable(f"{self.severity}: {self.file}{layer}: {self.what}; {self.advice}")


@dataclass
class Findings:
    """Collects findings, tells whose each is, and counts what has been read.

    `layers` are public names by the paths of the layers' groups.
    """

    location: str
    layers: dict[str, str] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)
    chunks: int = 0
    bytes_read: int = 0

    def beside(self) -> Findings:
        """Return new findings of the same run, of what is looked at meanwhile."""
        return Findings(self.location, self.layers)

    def extend(self, other: Findings) -> None:
        """Add what another one has collected."""
        self.layers |= other.layers
        self.found += other.found
        self.chunks += other.chunks
        self.bytes_read += other.bytes_read

    def count_chunk(self, data: Bytes) -> None:
        """Count a chunk that has been read, as it is stored."""
        self.chunks += 1
        self.bytes_read += len(data)

    def error(self, file: str, what: str, advice: str = RESTORE) -> None:
        """Add something that is damaged."""
        self._add(ERROR, file, what, advice)

    def note(self, file: str, what: str, advice: str) -> None:
        """Add something that does no harm."""
        self._add(NOTE, file, what, advice)

    @contextmanager
    def catching(self, file: str) -> Iterator[None]:
        """Take an error of the block as something that is wrong with a file, and go on.

        What cannot be read just now is no damage.
        """
        try:
            yield
        except FileNotFoundError:
            self.error(file, "it is missing")
        except AccessError as error:
            self._add(UNREADABLE, file, *self._said(file, error, "try again later"))
        except TsstoreError as error:
            self._add(ERROR, file, *self._said(file, error, RESTORE))
        except OSError as error:
            self._add(UNREADABLE, file, f"it cannot be read ({error})", "try again later")

    def _said(self, file: str, error: TsstoreError, advice: str) -> tuple[str, str]:
        """Return what an error says of a file, and what it advises."""
        message = str(error).removeprefix(f"{self.location}/")
        message = message.removeprefix(file).strip(" :")
        message = message.removeprefix("is damaged: ").removeprefix("cannot be used: ")
        what, _, said = message.rpartition("; ")
        return (what, said) if what else (said, advice)

    def troubles(self, part: str) -> int:
        """Return how much of a part is damaged or cannot be read."""
        return sum(finding.severity != NOTE for finding in self.found if finding.part == part)

    def drop_notes(self, part: str) -> None:
        """Forget the notes on one part."""
        self.found = [
            finding for finding in self.found if finding.part != part or finding.severity != NOTE
        ]

    def _add(self, severity: str, file: str, what: str, advice: str) -> None:
        folders = file.split("/")
        part = folders[0] if folders[0].startswith("part-") else ""
        layer = self.layers.get("/".join(folders[:3]), "")
        self.found.append(Finding(severity, part, layer, file, what, advice))


@dataclass(frozen=True)
class Report:
    """What was found in a run, or done to it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        return json.dumps(self.to_dict(), indent=2)


@dataclass(frozen=True)
class VerifyReport(Report):
    """What reading a run back has shown.

    Attributes
    ----------
    run
        Where it lies.
    parts, layers, chunks
        How many were read; layers and chunks in all parts together.
    bytes_read
        Of chunks, as they are stored.
    samples
        How many are committed, as far as the records can be read.
    findings
        What is not as it should be.
    """

    run: str
    parts: int
    layers: int
    chunks: int
    bytes_read: int
    samples: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all was read and nothing is damaged; notes there may be."""
        return not self.errors and not self.unreadable

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors: damage."""
        return self._of(ERROR)

    @property
    def unreadable(self) -> tuple[Finding, ...]:
        """The findings that something cannot be read just now: it may be sound."""
        return self._of(UNREADABLE)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings that do no harm."""
        return self._of(NOTE)

    def _of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {"ok": self.ok, **super().to_dict()}

    def __str__(self) -> str:
        unreadable = f"{len(self.unreadable):,} unreadable, " if self.unreadable else ""
        summary = (
            f"{printable(self.run)}: {counted(self.parts, 'part')} with "
            f"{counted(self.layers, 'layer')} in all, {counted(self.chunks, 'chunk')}, "
            f"{self.bytes_read:,} bytes read, {counted(self.samples, 'sample')}: "
            f"{counted(len(self.errors), 'error')}, {unreadable}{counted(len(self.notes), 'note')}"
        )
        return "\n".join([*map(str, self.findings), summary])


def is_array(path: str) -> bool:
    """Whether format 1 has an array at `path`, relative to its part."""
    return re.fullmatch(_ARRAY, path) is not None


def note_other_files(files: Files, part: str, nodes: Mapping[str, int], findings: Findings) -> None:
    """Note the files of a part that do not count.

    `nodes` are the paths of all groups and arrays that its record implies, with their numbers of
    files that hold chunks.
    """
    leftover, foreign, later = [], [], []
    for key in files.walk(part):
        # From the right: a column may be called "c".
        node, of_array, chunk = key.removesuffix("/zarr.json").rpartition("/c/")
        if key.endswith(PARTIAL):
            leftover.append(key)
        elif not _OF_A_PART.fullmatch(key.removeprefix(f"{part}/")):
            foreign.append(key)
        elif int(chunk.partition("/")[0]) >= nodes.get(node, 0) if of_array else chunk not in nodes:
            later.append(key)
    note_files(findings, leftover, foreign)
    if later:
        findings.note(
            part,
            f"{len(later):,} files are from after the last commit, such as {later[0]}",
            "nothing needs to be done: what they hold does not count",
        )


def note_files(findings: Findings, leftover: Sequence[str], foreign: Sequence[str]) -> None:
    """Note files that a stopped process left, and files that are none of the store's."""
    kinds = (
        (leftover, "a process was stopped while it wrote this file", "tsstore repair removes it"),
        (foreign, "it is not of the store", "nothing needs to be done: no reader looks at it"),
    )
    for keys, what, advice in kinds:
        for key in keys[:NAMED_FILES]:
            findings.note(key, what, advice)
        if len(keys) > NAMED_FILES:
            more = f"{what}; there are {len(keys) - NAMED_FILES - 1:,} more of this kind"
            findings.note(keys[NAMED_FILES], more, advice)
