"""How a network developed: accuracy, efficiency and dead neurons by step of its training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore.analysis.analyze import analyze
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.neurons.count import neurons as count_neurons
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.neurons.results import GroupedNeurons
from tsstore.analysis.request import Layers, Run, countable, with_layers
from tsstore.analysis.results.by_layer import Shown
from tsstore.analysis.results.layer import bounded_text, interval_document, interval_text
from tsstore.text import Progress, counted, printable

if TYPE_CHECKING:
    import pandas as pd

NETWORK = "all layers"
HEADINGS = (
    "layer",
    "step",
    "samples",
    "accuracy",
    "efficiency",
    "verdict",
    "dead",
    "always on",
    "duplicates",
)


class Steps(Shown):
    """What was found at each step of a run; made by `steps`.

    Attributes
    ----------
    analysis
        The analysis of each step.
    neurons
        What the neurons did at each step.
    """

    headings = HEADINGS

    def __init__(self, analysis: GroupedAnalysis, neurons: GroupedNeurons) -> None:
        self.analysis, self.neurons = analysis, neurons

    def to_frame(self) -> pd.DataFrame:
        """Return a table indexed by layer and step, of which the first lines are of all layers.

        Columns are `samples` and `accuracy`, which are the network's; the `efficiency`, the ends
        `lower` and `upper` of its interval, and whether it `is_lower_bound`; the `verdict`; how
        many `neurons` there are, and how many of them are `dead`, `always_on` and `duplicates`.
        """
        import pandas as pd

        lines = []
        for line in self._lines():
            interval = line.pop("efficiency_interval")
            ends = {end: getattr(interval, end, np.nan) for end in ("lower", "upper")}
            lines.append(line | ends)
        frame = pd.DataFrame.from_records(lines, index=["layer", "step"])
        return frame.astype({"accuracy": float})

    def to_dict(self) -> dict[str, Any]:
        """Return the lines of `to_frame` as JSON can hold them; a step is a text."""
        lines = [
            line
            | {
                "step": str(line["step"]),
                "efficiency_interval": interval_document(line["efficiency_interval"]),
            }
            for line in self._lines()
        ]
        return {"run": self.analysis.run, "lines": lines}

    def _lines(self) -> Iterator[dict[str, Any]]:
        for step, analysis in self.analysis.items():
            found = list(self.neurons.groups[step].values())
            whole = {
                "efficiency": analysis.network_efficiency(),
                "efficiency_interval": analysis.network_interval(),
                "is_lower_bound": analysis.is_lower_bound,
                "verdict": "",
            }
            yield self._line(NETWORK, step, whole, found)
        for layer in self.analysis.layers:
            for step, analysis in self.analysis.items():
                own = analysis[layer]
                of_layer = {
                    "efficiency": own.shown_efficiency,
                    "efficiency_interval": own.efficiency_interval(),
                    "is_lower_bound": own.sample_limited,
                    "verdict": own.verdict,
                }
                yield self._line(layer, step, of_layer, [self.neurons.groups[step][layer]])

    def _line(
        self, layer: str, step: Any, efficiency: dict[str, Any], neurons: list[LayerNeurons]
    ) -> dict[str, Any]:
        analysis = self.analysis.groups[step]
        return {
            "layer": layer,
            "step": step,
            "samples": analysis.samples,
            "accuracy": analysis.accuracy,
            **efficiency,
            "neurons": sum(own.neurons for own in neurons),
            "dead": sum(len(own.dead) for own in neurons),
            "always_on": sum(len(own.always_on) for own in neurons),
            "duplicates": sum(own.duplicates for own in neurons),
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw accuracy, the network's efficiency and the share of dead neurons by step.

        Lower bounds of the efficiency are arrows; all as `Analysis.plot`.
        """
        from tsstore.analysis.results.plots import plot_steps

        frame = self.to_frame()
        return plot_steps(frame[frame.index.get_level_values("layer") == NETWORK], ax)

    def cells(self) -> list[tuple[str, ...]]:
        """Return the lines of a table, as `HEADINGS` names its columns; of many steps some."""
        shown = {step for step, _ in self.analysis.shown}
        lines = [line | {"step": printable(str(line["step"]))} for line in self._lines()]
        return [
            (
                printable(line["layer"]),
                line["step"],
                f"{line['samples']:,}",
                _accuracy(line),
                bounded_text(line["efficiency"])
                if line["is_lower_bound"]
                else interval_text(line["efficiency"], line["efficiency_interval"]),
                line["verdict"],
                *(f"{line[kind]:,}" for kind in ("dead", "always_on", "duplicates")),
            )
            for line in lines
            if line["step"] in shown
        ]

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        return [
            "Efficiency: entropy of the states in bits, by neurons; of all layers the geometric "
            "mean; ≥ a lower bound. Dead, always on: neurons that fired in none or all of the "
            "rows. Duplicates: neurons that do what one of a lower index does.",
            *self.analysis.left_out,
        ]

    @property
    def subject(self) -> str:
        """The run, and how many steps it has."""
        return f"{self.analysis.run}: {counted(len(self.analysis), 'step')}"


def _accuracy(line: dict[str, Any]) -> str:
    is_shown = line["layer"] == NETWORK and line["accuracy"] is not None
    return f"{line['accuracy']:.4f}" if is_shown else ""


def steps(
    store: Run,
    layers: Layers = None,
    *,
    intervals: bool = True,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Steps:
    """Say how a network developed: accuracy, efficiency and dead neurons at each step of a run.

    The rows are read twice: to count states, and to count what single neurons do.

    Parameters
    ----------
    store, layers, intervals, memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Returns
    -------
    Steps
        The analysis of each step, and what its neurons did.

    Raises
    ------
    StoreError, AnalysisError
        As `tsstore.analyze` does.
    """
    store = with_layers(countable(store, "step"), layers)
    where: dict[str, Any] = {"memory": memory, "scheduler": scheduler, "progress": progress}
    analysis = analyze(store, by="step", intervals=intervals, scratch=scratch, **where)
    return Steps(analysis, count_neurons(store, by="step", **where))
