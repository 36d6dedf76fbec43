"""An analysis as tables and a document, and back: every number is the same, bit for bit.

What was counted is kept, and of it all else follows again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tsstore.analysis.keeping.arrays import Table, read_tables, write_tables
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.samples import Dealt
from tsstore.errors import FormatError
from tsstore.statistics.efficiency import Answers
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.spectrum_delta import SpectrumDelta
from tsstore.store.format.documents import mapping, number, real, text
from tsstore.store.format.paths import directory_name

MOST = 2**63 - 1
WORD = 2**64 - 1
ANSWERS = "answers"


def save_analysis(path: str | os.PathLike[str], told: Mapping[str, Any]) -> None:
    """Write an analysis, given by the names of what it was made of."""
    about, layers = dict(told), []
    tables: dict[str, Table] = {}
    for index, (name, layer) in enumerate(about.pop("layers").items()):
        folder = f"layers/{directory_name(index, name)}"
        tables |= {f"{folder}/{kind}": table for kind, table in _tables_of(layer).items()}
        layers.append(_document_of(layer) | {"folder": folder})
    if (answers := about.pop("accuracy_by_group")) is not None:
        tables[ANSWERS] = np.stack(answers, axis=1)
    provenance, dealt = about.pop("provenance"), about.pop("dealt")
    about |= {
        "layers": layers,
        "provenance": provenance and provenance.to_dict(),
        "dealt": dealt and {"by": dealt.by, "digests": dealt.digests, "joined": dealt.joined},
    }
    write_tables(path, about, tables)


def load_analysis(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an analysis is made of, by name, checked; errors as of `read_tables`."""
    where = os.fspath(path)
    about, tables = read_tables(path)
    try:
        layers = [_layer(said, tables, where) for said in _list(about, "layers", where)]
        answers = tables.get(ANSWERS)
        if answers is not None and (answers.shape[1] != 2 or (answers < 0).any()):
            raise ValueError(f"answers are of shape {answers.shape}")
        accuracy, repeated = about.get("accuracy"), about.get("repeated_samples")
        provenance = about.get("provenance")
        return {
            "run": text(about.get("run"), "run", where),
            "samples": number(about.get("samples"), "samples", where, 0, MOST),
            "layers": {layer.name: layer for layer in layers},
            "accuracy": None if accuracy is None else real(accuracy, "accuracy", where),
            "accuracy_by_group": None if answers is None else Answers(*answers.T),
            "samples_left_out": number(about.get("samples_left_out"), "left out", where, 0, MOST),
            "repeated_samples": None if repeated is None else number(repeated, "repeated", where),
            "repeats": text(about.get("repeats"), "repeats", where),
            "not_compared": text(about.get("not_compared"), "not_compared", where),
            "dealt": _dealt(about.get("dealt"), where),
            "chosen": text(about.get("chosen"), "chosen", where),
            "provenance": provenance and Provenance.from_dict(provenance, where),
        }
    except (ValueError, KeyError) as error:
        raise FormatError(f"{where} is no valid analysis: {error}") from error


def _tables_of(layer: LayerResult) -> dict[str, Table]:
    spectrum, changes = layer.spectrum, layer.changes
    tables = {"spectrum": _stacked(spectrum.multiplicity, spectrum.incidence, spectrum.states)}
    if changes is not None:
        entries = changes.group, changes.multiplicity, changes.incidence, changes.states
        tables |= {"groups": _stacked(*changes.numbers), "changes": _stacked(*entries)}
    return tables


def _stacked(*columns: Table) -> Table:
    return np.stack(columns, axis=1)


def _document_of(layer: LayerResult) -> dict[str, Any]:
    return {
        "name": layer.name,
        "neurons": layer.neurons,
        "samples": layer.samples,
        "equal_pairs_within_samples": layer.equal_pairs_within_samples,
        "pairs_within_samples": layer.pairs_within_samples,
        "collision_bound": layer.collision_bound,
        "threshold": layer.threshold,
        "sampling": None if layer.sampling is None else dict(layer.sampling),
        "clusters": layer.clusters,
        "dependence": layer.dependence,
    }


def _layer(value: object, tables: Mapping[str, Table], where: str) -> LayerResult:
    said = mapping(value, "a layer", where)
    folder = text(said.get("folder"), "folder", where)
    changes = None
    if f"{folder}/groups" in tables:
        entries = _columns(tables[f"{folder}/changes"], 4)
        changes = SpectrumDelta.from_arrays(_columns(tables[f"{folder}/groups"], 4), *entries)
    sampling, clusters = said.get("sampling"), said.get("clusters")
    layer = LayerResult(
        text(said.get("name"), "name", where),
        number(said.get("neurons"), "neurons", where, 1),
        number(said.get("samples"), "samples", where, 0),
        Spectrum.from_arrays(*_columns(tables[f"{folder}/spectrum"], 3)),
        number(said.get("equal_pairs_within_samples"), "equal pairs", where, 0, MOST),
        number(said.get("pairs_within_samples"), "pairs", where, 0, MOST),
        real(said.get("collision_bound"), "collision_bound", where),
        real(said.get("threshold"), "threshold", where),
        None if sampling is None else mapping(sampling, "sampling", where),
        changes,
        None if clusters is None else number(clusters, "clusters", where),
        text(said.get("dependence"), "dependence", where),
    )
    _check(layer)
    return layer


def _columns(table: Table, count: int) -> list[Table]:
    if table.shape[1] != count:
        raise ValueError(f"a table has {table.shape[1]} columns; expected {count}")
    return list(table.T)


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
    left = changes.rows.copy()
    np.add.at(left, changes.group, changes.states * changes.multiplicity)
    sums = int(changes.rows.sum()), int(changes.samples.sum())
    if left.any() or sums != (spectrum.rows, layer.samples):
        raise ValueError(f"the groups of layer {layer.name!r:.80} do not add up to its rows")


def _dealt(value: object, where: str) -> Dealt | None:
    if value is None:
        return None
    said = mapping(value, "dealt", where)
    digests = []
    for pair in _list(said, "digests", where):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"a digest is {pair!r:.80}")
        digests.append(tuple(number(part, "digest", where, 0, WORD) for part in pair))
    return Dealt(text(said.get("by"), "by", where), tuple(digests), said.get("joined") is True)  # type: ignore[arg-type]


def _list(said: Mapping[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(value := said.get(name), list):
        raise FormatError(f"{where}: {name} is {value!r:.80}; expected a list")
    return value
