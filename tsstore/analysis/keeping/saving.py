"""Analyses as tables and a document, and back: every number is the same, bit for bit.

What was counted is kept, and of it all else follows again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from tsstore.analysis.keeping.arrays import Table, read_tables, write_tables
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.random_groups import Dealt
from tsstore.analysis.results.layer import LayerResult
from tsstore.errors import FormatError
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.rates import Answers
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.format.documents import Stored, mapping, number, real, sequence, stored, text

MOST = 2**63 - 1
WORD = 2**64 - 1
COLUMNS = {"spectrum": 3, "groups": 4, "changes": 4, "answers": 2}
"""Of each table, without the first column: the number of the layer's result, of answers that of the
analysis, from 0 through all."""

Told = Mapping[str, Any]
"""What an analysis is made of, by name."""


def _flag(value: object, _what: str, _where: str) -> bool:
    return value is True


def _from_1(value: object, what: str, where: str) -> int:
    return number(value, what, where, 1)


def _count(value: object, what: str, where: str) -> int:
    return number(value, what, where, 0, MOST)


def _dealt(value: object, _what: str, where: str) -> Dealt:
    said, digests = mapping(value, "dealt", where), []
    for pair in sequence(said.get("digests"), "digests", where):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"a digest is {pair!r:.80}")
        digests.append(tuple(number(part, "digest", where, 0, WORD) for part in pair))
    return Dealt(text(said.get("by"), "by", where), tuple(digests), said.get("joined") is True)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _KeptLayer(Stored):
    """What the document says of a layer, beside its tables."""

    name: str = stored(text)
    neurons: int = stored(_from_1)
    samples: int = stored(number)
    equal_pairs_within_samples: int = stored(_count)
    pairs_within_samples: int = stored(_count)
    collision_bound: float = stored(real)
    threshold: float = stored(real)
    dependence: str = stored(text)
    has_groups: bool = stored(_flag)
    sampling: Mapping[str, Any] | None = stored(mapping, None)
    clusters: int | None = stored(number, None)


@dataclass(frozen=True)
class _KeptAnalysis(Stored):
    """What the document says of an analysis, beside its layers and tables."""

    run: str = stored(text)
    samples: int = stored(_count)
    samples_left_out: int = stored(_count)
    repeats: str = stored(text)
    not_compared: str = stored(text)
    chosen: str = stored(text)
    has_answers: bool = stored(_flag)
    accuracy: float | None = stored(real, None)
    repeated_samples: int | None = stored(number, None)
    dealt: Dealt | None = stored(_dealt, None)
    provenance: Provenance | None = stored(Provenance.from_json, None)


def save_analyses(
    path: str | os.PathLike[str], kind: str, analyses: Iterable[Told], about: Told
) -> None:
    """Write analyses of one kind, and what is said of all of them; errors as of `write_tables`."""
    tables: dict[str, list[Table]] = {name: [] for name in COLUMNS}
    documents, results = [], 0
    for place, told in enumerate(analyses):
        document = dict(told)
        layers = document.pop("layers").values()
        for result, layer in enumerate(layers, results):
            for name, table in _tables_of(layer).items():
                tables[name].append(_numbered(result, table))
        results += len(layers)
        if (answers := document.pop("accuracy_by_group")) is not None:
            tables["answers"].append(_numbered(place, np.stack(answers, axis=1)))
        provenance, dealt = document["provenance"], document["dealt"]
        documents.append(
            document
            | {"layers": [_document_of(layer) for layer in layers]}
            | {"provenance": provenance and provenance.to_dict()}
            | {"dealt": dealt and asdict(dealt)}
            | {"has_answers": answers is not None}
        )
    joined = {
        name: np.concatenate([np.empty((0, 1 + COLUMNS[name]), np.int64), *own])
        for name, own in tables.items()
    }
    write_tables(path, {"kind": kind, "analyses": documents} | dict(about), joined)


def load_analyses(path: str | os.PathLike[str], kind: str) -> tuple[list[Told], Told]:
    """Return what the analyses are made of, and what is said of all of them, checked.

    Errors are as of `read_tables`; a FormatError if they are of another kind.
    """
    where = os.fspath(path)
    about, tables = read_tables(path)
    if about.get("kind") != kind:
        raise FormatError(
            f"{where} holds {about.get('kind')!r:.80}; expected {kind!r}: load it as what it is"
        )
    try:
        kept = _Tables(tables)
        found = [
            _analysis(place, mapping(said, "an analysis", where), kept, where)
            for place, said in enumerate(sequence(about.get("analyses"), "analyses", where))
        ]
        kept.check_all_taken(len(found))
    except (ValueError, KeyError) as error:
        raise FormatError(f"{where} is no valid analysis: {error}") from error
    return found, about


class _Tables:
    """Tables of which each result takes its own part."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self.results = 0
        for name, columns in COLUMNS.items():
            shape, first = tables[name].shape, tables[name][:, 0]
            if shape[1] != 1 + columns or (np.diff(first) < 0).any():
                raise ValueError(f"{name} has {shape[1]} columns, or is in no order")

    def take(self, name: str, number: int) -> list[Table]:
        """Return the columns of a table of one result."""
        start, stop = np.searchsorted(self._tables[name][:, 0], [number, number + 1])
        return list(self._tables[name][start:stop, 1:].T)

    def check_all_taken(self, analyses: int) -> None:
        """Raise ValueError if there is anything of results that there are not."""
        for name, table in self._tables.items():
            count = analyses if name == "answers" else self.results
            if len(table) and not 0 <= table[0, 0] <= table[-1, 0] < count:
                raise ValueError(f"{name} is of results that are not there")


def _analysis(place: int, said: Told, tables: _Tables, where: str) -> Told:
    layers = [_layer(one, tables, where) for one in sequence(said.get("layers"), "layers", where)]
    own, answers = vars(_KeptAnalysis.from_json(said, "an analysis", where)).copy(), None
    if own.pop("has_answers"):
        answers = Answers(*tables.take("answers", place))
        if min(int(column.min(initial=0)) for column in answers) < 0:
            raise ValueError("answers are fewer than none")
    return {
        **own,
        "layers": {layer.name: layer for layer in layers},
        "accuracy_by_group": answers,
    }


def _tables_of(layer: LayerResult) -> dict[str, Table]:
    spectrum, changes = layer.spectrum, layer.changes
    tables = {"spectrum": _stacked(spectrum.multiplicity, spectrum.incidence, spectrum.states)}
    if changes is not None:
        entries = changes.group, changes.multiplicity, changes.incidence, changes.states
        tables |= {"groups": _stacked(*changes.numbers), "changes": _stacked(*entries)}
    return tables


def _stacked(*columns: Table) -> Table:
    return np.stack(columns, axis=1)


def _numbered(number: int, table: Table) -> Table:
    return np.column_stack([np.full(len(table), number), table])


def _document_of(layer: LayerResult) -> dict[str, Any]:
    said = {own.name: getattr(layer, own.name) for own in fields(LayerResult)}
    return {name: said[name] for name in said if name not in ("spectrum", "changes")} | {
        "sampling": layer.sampling and dict(layer.sampling),
        "has_groups": layer.changes is not None,
    }


def _layer(value: object, tables: _Tables, where: str) -> LayerResult:
    said, own = vars(_KeptLayer.from_json(value, "a layer", where)).copy(), tables.results
    tables.results += 1
    changes = None
    if said.pop("has_groups"):
        groups = tables.take("groups", own)
        changes = SpectrumDelta.from_arrays(groups, *tables.take("changes", own))
    spectrum = Spectrum.from_arrays(*tables.take("spectrum", own))
    layer = LayerResult(**said, spectrum=spectrum, changes=changes)
    _check(layer)
    return layer


def _check(layer: LayerResult) -> None:
    """Raise ValueError if a layer's numbers contradict each other."""
    spectrum, changes = layer.spectrum, layer.changes
    if not spectrum.rows or spectrum.incidence.max() > layer.samples:
        raise ValueError(f"layer {layer.name!r:.80} has no rows, or too few samples")
    if layer.neurons < 63 and spectrum.distinct > 2**layer.neurons:
        raise ValueError(f"layer {layer.name!r:.80} has more states than {layer.neurons} neurons")
    if changes is None:
        return
    for group in range(changes.groups):
        changes.without(spectrum, group)
    sums = int(changes.rows.sum()), int(changes.samples.sum())
    if changes.rows_left.any() or sums != (spectrum.rows, layer.samples):
        raise ValueError(f"the groups of layer {layer.name!r:.80} do not add up to its rows")


def value_document(value: Any) -> Any:
    """Return a group's value as JSON can hold it, which holds no infinite number but as text."""
    if hasattr(value, "mid"):
        ends = float(value.left), float(value.right)
        left, right = (end if math.isfinite(end) else str(end) for end in ends)
        return {"left": left, "right": right, "closed": value.closed}
    value = value.item() if isinstance(value, np.generic) else value
    is_infinite = isinstance(value, float) and math.isinf(value)
    return {"number": str(value)} if is_infinite else value


def _number(value: object, what: str, where: str) -> float:
    return float(str(value)) if value in ("inf", "-inf") else real(value, what, where)


def read_value(value: Any, where: str) -> Any:
    """Return the value of a group that `value_document` has made such of."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise FormatError(f"{where}: {value!r:.80} is no group's value")
        return value
    if "number" in value:
        return _number(value["number"], "a group's value", where)
    import pandas as pd

    left, right = (_number(value.get(side), side, where) for side in ("left", "right"))
    closed = value.get("closed")
    if closed not in ("left", "right", "both", "neither") or not left <= right:
        raise FormatError(f"{where}: {value!r:.80} is no interval")
    return pd.Interval(left, right, closed)
