"""What is found when a run is read back: errors, and notes on what does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from tsstore.errors import TsstoreError
from tsstore.text import printable

ERROR = "error"
NOTE = "note"
RESTORE = "restore the file from a copy"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    severity
        ``"error"``: something committed is damaged. ``"note"``: no number is wrong.
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
    """Collects findings, and tells whose each is.

    Attributes
    ----------
    location
        Where the run lies.
    layers
        Public names of layers by the paths of their groups.
    found
        What was found so far.
    """

    location: str
    layers: dict[str, str] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)

    def error(self, file: str, what: str, advice: str = RESTORE) -> None:
        """Add something that is damaged."""
        self._add(ERROR, file, what, advice)

    def note(self, file: str, what: str, advice: str) -> None:
        """Add something that does no harm."""
        self._add(NOTE, file, what, advice)

    @contextmanager
    def catching(self, file: str) -> Iterator[None]:
        """Take an error of the block as something that is wrong with a file, and go on."""
        try:
            yield
        except TsstoreError as error:
            message = str(error).removeprefix(f"{self.location}/")
            message = message.removeprefix(file).strip(" :").removeprefix("is damaged: ")
            what, _, advice = message.rpartition("; ")
            self.error(file, what or advice, advice if what else RESTORE)
        except FileNotFoundError:
            self.error(file, "it is missing")
        except OSError as error:
            self.error(file, f"it cannot be read ({error})")

    def errors(self, part: str | None = None) -> int:
        """Return the number of errors, of one part or of all."""
        return sum(
            finding.severity == ERROR and part in (None, finding.part) for finding in self.found
        )

    def drop_notes(self, part: str) -> None:
        """Forget the notes on one part."""
        self.found = [
            finding for finding in self.found if finding.part != part or finding.severity == ERROR
        ]

    def _add(self, severity: str, file: str, what: str, advice: str) -> None:
        part = file.partition("/")[0]
        layer = self.layers.get("/".join(file.split("/")[:3]), "")
        part = part if part.startswith("part-") else ""
        self.found.append(Finding(severity, part, layer, file, what, advice))


@dataclass(frozen=True)
class VerifyReport:
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
        """Whether there are no errors; notes there may be."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == ERROR)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings that are no errors."""
        return tuple(finding for finding in self.findings if finding.severity == NOTE)

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)

    def __str__(self) -> str:
        summary = (
            f"{printable(self.run)}: {self.parts:,} parts, {self.layers:,} layers, "
            f"{self.chunks:,} chunks, {self.bytes_read:,} bytes read, {self.samples:,} samples: "
            f"{len(self.errors):,} errors, {len(self.notes):,} notes"
        )
        return "\n".join([*map(str, self.findings), summary])
