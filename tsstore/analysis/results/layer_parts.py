"""What combining needs of an analysis: kept in its JSON document, and read again, from anyone.

What the network's interval needs of a layer is its entropy with those without each group of
samples, and what the samples may have missed: some 70 numbers. Accuracy and groups are those of the
samples, the same in all layers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.results.layer import LayerResult, bounded_text
from tsstore.errors import AccessError, FormatError
from tsstore.statistics.intervals import Jackknifed
from tsstore.statistics.missed import Missed
from tsstore.statistics.rates import Answers
from tsstore.statistics.verdict import SAMPLE_LIMITED
from tsstore.store.format.documents import mapping, number, real, text
from tsstore.text import printable

VERSION = 1
MOST_BYTES = 64 << 20
"""Of a document: each layer takes a few KiB."""
MOST = 2**63 - 1
COMMON = "samples", "samples_where", "samples_left_out", "repeated_samples", "repeats", "accuracy"


def for_combining(
    provenance: Provenance | None, answers: Answers | None, layers: Mapping[str, LayerResult]
) -> dict[str, Any] | None:
    """Return what combining needs besides an analysis's numbers; None if it is not known whose."""
    if provenance is None:
        return None
    question = provenance.question
    del question["layers"]
    # It changes no number.
    question["arguments"] = {**question["arguments"]}
    question["arguments"].pop("exact", None)
    return {
        "version": VERSION,
        "question": question,
        "answers": None if answers is None else [numbers.tolist() for numbers in answers],
        "layers": {
            name: {"dependence": layer.own_dependence, "entropy": _entropy(layer.jackknifed)}
            for name, layer in layers.items()
        },
    }


def _entropy(found: Jackknifed | None) -> dict[str, Any] | None:
    if found is None:
        return None
    missed = None
    if found.missed is not None:
        missed = asdict(found.missed)
        left = missed["states_left"]
        missed["states_left"] = left if math.isfinite(left) else None
    return {
        "estimate": found.estimate,
        "lowest": found.lowest,
        "highest": found.highest,
        "without": found.without.tolist(),
        "samples": found.samples.tolist(),
        "missed": missed,
    }


@dataclass(frozen=True)
class CombinedLayer:
    """A layer of a combined network: what `analyze` has found in it.

    Attributes
    ----------
    name, neurons, clusters, verdict
        As of `LayerResult`; where any layer shows that samples depend on each other, all are
        sample-limited.
    efficiency_lower_bound
        As of `LayerResult`.
    jackknifed
        The entropy, with those without each group of samples.
    document
        All numbers of the layer's own analysis.
    """

    name: str
    neurons: int
    clusters: int | None
    verdict: str
    efficiency_lower_bound: float
    jackknifed: Jackknifed | None
    document: Mapping[str, Any]

    @property
    def sample_limited(self) -> bool:
        """Whether the samples are too few even for an interval: there is a lower bound alone."""
        return self.verdict == SAMPLE_LIMITED

    def efficiency(self) -> float:
        """Return the estimate of the efficiency."""
        return float(self.document["efficiency"])

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        said, interval = self.document, self.document.get("efficiency_interval")
        shown = f"{self.efficiency():.3f}"
        if self.sample_limited:
            shown = bounded_text(self.efficiency_lower_bound)
        elif interval:
            shown += f" [{interval['lower']:.3f}, {interval['upper']:.3f}]"
        counts = (f"{said[name]:,}" for name in ("samples", "distinct"))
        return printable(self.name), f"{self.neurons:,}", *counts, shown, self.verdict


@dataclass(frozen=True)
class Part:
    """What one document says: where it is, what was asked, and what was found."""

    where: str
    run: str
    question: Mapping[str, Any]
    common: Mapping[str, Any]
    answers: Answers | None
    layers: list[CombinedLayer]
    dependent: bool


def read_part(document: str | os.PathLike[str] | Mapping[str, Any], place: int) -> Part:
    """Read and check a document, or the file of one; FormatError, or AccessError, if it is none."""
    if isinstance(document, Mapping):
        where = f"document {place}"
        said = document.to_dict() if isinstance(document, ByLayer) else dict(document)
        try:
            data = json.dumps(said).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise FormatError(f"{where} is no JSON document of an analysis ({error})") from error
    else:
        where = printable(os.fspath(document))
        data = _load(Path(document), where)
    try:
        said = mapping(json.loads(data, parse_constant=_no_number), "the document", where)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is no JSON document of an analysis ({error})") from error
    known = said.get("for_combining")
    if not isinstance(known, Mapping) or known.get("version") != VERSION:
        raise FormatError(
            f"{where} is no analysis that can be combined by this version; expected what "
            "tsstore analyze RUN --layer NAME --json prints"
        )
    try:
        return _part(where, said, known)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where} is no valid analysis: {error!r:.120}") from error


def _load(path: Path, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{where} cannot be read ({error.strerror}); check the path") from error
    if len(data) > MOST_BYTES:
        raise FormatError(f"{where} has more than {MOST_BYTES:,} bytes: it is no such document")
    return data


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _part(where: str, said: Mapping[str, Any], known: Mapping[str, Any]) -> Part:
    answers, documents = known["answers"], mapping(said["layers"], "layers", where)
    parts = mapping(known["layers"], "layers", where)
    if parts.keys() != documents.keys():
        raise ValueError("its layers are not those of its parts")
    if answers is not None:
        right, samples = (_integers(numbers, where) for numbers in answers)
        answers = Answers(right, samples)
    common = {name: said.get(name) for name in COMMON}
    number(common["samples"], "samples", where, 1, MOST)
    if common["accuracy"] is not None:
        real(common["accuracy"], "accuracy", where)
    return Part(
        where,
        text(said["run"], "run", where),
        _question(known["question"], where),
        common,
        answers,
        [_layer(name, documents[name], parts[name], where) for name in documents],
        any(text(part["dependence"], "dependence", where) for part in parts.values()),
    )


def _question(value: object, where: str) -> dict[str, Any]:
    said = mapping(value, "the question", where)
    mapping(said["arguments"], "arguments", where)
    names = "run_id", "commit", "samples", "tsstore"
    return {"arguments": said["arguments"]} | {
        name: text(said[name], name, where) for name in names
    }


def _layer(name: str, said: Any, part: Any, where: str) -> CombinedLayer:
    for real_one in ("efficiency", "efficiency_lower_bound", "efficiency_plug_in"):
        real(said[real_one], real_one, where)
    for count in ("samples", "distinct"):
        number(said[count], count, where, 0, MOST)
    clusters, interval = said["clusters"], said["efficiency_interval"]
    for end in ("lower", "upper") if interval is not None else ():
        real(interval[end], end, where)
    return CombinedLayer(
        name,
        number(said["neurons"], "neurons", where, 1),
        None if clusters is None else number(clusters, "clusters", where, 0, MOST),
        text(said["verdict"], "verdict", where),
        said["efficiency_lower_bound"],
        _jackknifed(part["entropy"], where),
        said,
    )


def _jackknifed(said: Any, where: str) -> Jackknifed | None:
    if said is None:
        return None
    without = np.array([real(value, "without", where) for value in said["without"]])
    samples, missed = _integers(said["samples"], where), said["missed"]
    if len(without) != len(samples) or np.count_nonzero(samples) < 2:
        raise ValueError(f"{len(without)} entropies without each of {len(samples)} groups")
    if missed is not None:
        left = missed["states_left"]
        missed = Missed(**{**missed, "states_left": -math.inf if left is None else left})
        for name, value in vars(missed).items():
            if name != "states_left" or left is not None:
                real(float(value), name, where)
    estimate, lowest, highest = (
        real(said[name], name, where) for name in ("estimate", "lowest", "highest")
    )
    return Jackknifed(estimate, lowest, highest, without, samples, missed)


def _integers(values: Any, where: str) -> Any:
    return np.array([number(value, "a number", where, 0, MOST) for value in values], np.int64)
