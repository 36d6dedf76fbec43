"""Several analyses: of runs, by name; of single layers, combined to the numbers of a network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from tsstore.analysis.results.by_layer import Document
from tsstore.analysis.results.layer import HEADINGS
from tsstore.analysis.results.layer_parts import COMMON, CombinedLayer, Part, read_part
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.results.network_numbers import NetworkNumbers, network_document, network_lines
from tsstore.errors import AnalysisError, FormatError, UnknownRunError
from tsstore.statistics.rates import Answers
from tsstore.statistics.verdict import SAMPLE_LIMITED
from tsstore.text import listed, printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False, repr=False)
class Combined(NetworkNumbers[CombinedLayer]):
    """A network whose layers were analysed one by one; made by `combine`.

    A mapping from layer names to what was found in them. Efficiency, aIQ and their intervals are
    those of one analysis of all layers.

    Attributes
    ----------
    run, samples, accuracy, accuracy_by_group
        As of `Analysis`.
    layers
        Layers by name.
    question
        What was asked of which commit of which run.
    """

    run: str
    samples: int
    layers: Mapping[str, CombinedLayer]
    accuracy: float | None
    accuracy_by_group: Answers | None
    question: Mapping[str, Any]

    headings = HEADINGS

    def to_dict(self) -> dict[str, Any]:
        """Return the network's numbers, and those of the layers, as JSON can hold them."""
        plug_ins = [layer.document["efficiency_plug_in"] for layer in self.values()]
        return {
            "run": self.run,
            "samples": self.samples,
            "layers": {
                name: {**layer.document, "verdict": layer.verdict} for name, layer in self.items()
            },
            **network_document(self, plug_ins),
            "question": dict(self.question),
        }

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Lines of the table of layers."""
        return [layer.cells for layer in self.values()]

    @property
    def sentences(self) -> list[str]:
        """What is said of the network."""
        return network_lines(self)

    @property
    def lines(self) -> list[str]:
        """What stands below the table."""
        return [" · ".join(self.sentences)]


def combine(documents: Iterable[str | os.PathLike[str] | Mapping[str, Any]]) -> Combined:
    """Combine analyses of single layers of a run, or of some, to the numbers of the network.

    A layer is analysed where there is room for it, and what is kept of it is its JSON document. The
    network's numbers are then the same, bit for bit, as those of one analysis of all layers.

    Parameters
    ----------
    documents
        Paths of what ``tsstore analyze RUN --layer NAME --json`` or ``Analysis.to_json()`` gave,
        such documents as ``Analysis.to_dict()`` gives them, or analyses themselves.

    Returns
    -------
    Combined
        A mapping from layer names to layers, in the order of the documents.

    Raises
    ------
    AccessError, FormatError
        If a file cannot be read; if it is no such document, or not valid.
    AnalysisError
        If there are none, two have the same layer, or they are not of the same commit of the same
        run with the same arguments and version; or if samples of equal ids were compared by the
        rows of single layers, which says nothing of their rows in all.
    """
    if isinstance(documents, str | os.PathLike | Mapping):
        documents = [documents]
    parts = [read_part(document, number) for number, document in enumerate(documents, 1)]
    if not parts:
        raise AnalysisError("there is nothing to combine; pass documents of analyses")
    first, layers = parts[0], dict[str, CombinedLayer]()
    for part in parts:
        _check_same(first, part)
        for layer in part.layers:
            if layer.name in layers:
                raise AnalysisError(
                    f"{part.where}: layer {printable(layer.name)} was in an earlier document, too; "
                    "pass each layer once"
                )
            layers[layer.name] = layer
    if any(part.dependent for part in parts):
        # Dependent samples are so in all layers, whichever shows it.
        layers = {name: replace(layer, verdict=SAMPLE_LIMITED) for name, layer in layers.items()}
    common, question = first.common, first.question
    combined = Combined(
        first.run, common["samples"], layers, common["accuracy"], first.answers, question
    )
    try:
        combined.to_json()
    except (ArithmeticError, ValueError) as error:
        wheres = listed([part.where for part in parts])
        raise FormatError(f"numbers in {wheres} contradict each other: {error}") from error
    return combined


def _check_same(first: Part, part: Part) -> None:
    """Raise AnalysisError if two analyses are not of the same samples, asked in the same way."""
    mine, theirs = _asked(first), _asked(part)
    for name in mine:
        if mine[name] != theirs.get(name):
            raise AnalysisError(
                f"{part.where} is of another {name} than {first.where}: {theirs.get(name)!r:.80}, "
                f"not {mine[name]!r:.80}; analyse all layers of the same commit of a run, with the "
                "same arguments and version"
            )
    by_rows = part.common["repeats"] == "once" and not part.question["arguments"].get("unique_by")
    if part is not first and by_rows and (repeated := part.common["repeated_samples"]):
        raise AnalysisError(
            f"{part.where}: {repeated:,} samples have the id of another one and other rows in this "
            "layer, which says nothing of their rows in all layers; analyse each layer with "
            'unique_by="id" (--unique-by id) or repeats="each" (--repeats each)'
        )


def _asked(part: Part) -> dict[str, Any]:
    """Return what must be the same in all documents, by what a person would call it."""
    question, answers = part.question, part.answers
    return {
        "run": question["run_id"],
        "commit": question["commit"],
        "view of the samples": question["samples"],
        "version of tsstore": question["tsstore"],
        **question["arguments"],
        **{name.replace("_", " "): part.common[name] for name in COMMON},
        "answers": None if answers is None else [numbers.tolist() for numbers in answers],
    }


class Analyses(Document, Mapping[str, Analysis]):
    """Analyses of several runs by name, in the order asked; made by `analyze` of a mapping."""

    def __init__(self, analyses: Mapping[str, Analysis]) -> None:
        self._analyses = dict(analyses)

    def __getitem__(self, name: str) -> Analysis:
        if name not in self._analyses:
            raise UnknownRunError(
                f"no run {name!r:.80} was analysed; there are {listed(list(self._analyses))}"
            )
        return self._analyses[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._analyses)

    def __len__(self) -> int:
        return len(self._analyses)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them: under ``"runs"`` each analysis by its name."""
        return {"runs": {name: analysis.to_dict() for name, analysis in self.items()}}

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers of all layers, a line each, indexed by run and layer."""
        import pandas as pd

        frames = {name: analysis.to_frame() for name, analysis in self.items()}
        return pd.concat(frames, names=["run"])

    def __repr__(self) -> str:
        return "\n\n".join(f"{printable(name)}\n{analysis!r}" for name, analysis in self.items())

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{escape(printable(name))}</h4>{analysis._repr_html_()}"
            for name, analysis in self.items()
        )
