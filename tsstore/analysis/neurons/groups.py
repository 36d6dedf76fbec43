"""What neurons did in groups of samples: a table of layers by groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore import text
from tsstore.analysis.groups.results import Grouped
from tsstore.analysis.neurons.layer import HEADINGS, RATES
from tsstore.analysis.neurons.results import Neurons

if TYPE_CHECKING:
    import pandas as pd


class GroupedNeurons(Grouped[Neurons]):
    """What neurons did in groups of a run's samples; made by `neurons` with ``by=`` or ``window=``.

    Parameters
    ----------
    by, groups, whole, ungrouped
        As of `GroupedAnalysis`, with a `Neurons` for each group.
    """

    @property
    def run(self) -> str:
        """Path of the run."""
        return next(iter(self.groups.values())).path

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of all neurons, indexed by layer, group and neuron.

        Columns as of `LayerNeurons.to_frame`: limits are by the samples of the group.
        """
        import pandas as pd

        every = [
            (layer, value, found[layer].to_frame(level))
            for layer in self.layers
            for value, found in self.items()
        ]
        lengths = [len(frame) for *_, frame in every]
        places = np.repeat(np.arange(len(every)), lengths)
        arrays = [pd.Index(own).take(places) for own in list(zip(*every, strict=True))[:2]]
        numbers = np.concatenate([np.arange(length) for length in lengths])
        frame = pd.concat([frame for *_, frame in every])
        by = self.by if self.by not in ("layer", "neuron", *frame) else "group"
        frame.index = pd.MultiIndex.from_arrays([*arrays, numbers], names=["layer", by, "neuron"])
        return frame

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; a group's value is a text."""
        return self._document(level=level)

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's firing rates in each group, a line a neuron; as `Analysis.plot`."""
        from tsstore.analysis.results.plots import plot_rates, short

        shown = [(name, group, found[name]) for name in self.layers for group, found in self.shown]
        ax = plot_rates({f"{name}   {group}": layer.rate for name, group, layer in shown}, ax)
        ax.set_title(f"by layer and {short(self.by)}")
        return ax

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the table."""
        layer, *others = HEADINGS
        return layer, text.printable(self.by), "samples", *others

    def cells(self) -> list[tuple[str, ...]]:
        """Return a line of the table for each layer and group; of all together where they are."""
        lines = []
        for layer in self.layers:
            for group, found in self.shown:
                name, *others = found[layer].cells
                lines.append((name, group, f"{found[layer].samples:,}", *others))
        return lines

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        lines = [line for name in self.layers for line in self._of_some(name)]
        return [RATES, *lines, *self.left_out]

    def _of_some(self, layer: str) -> list[str]:
        """Say how many neurons of a layer are dead in some groups and not in others."""
        dead = np.zeros(next(iter(self.groups.values()))[layer].neurons, np.int64)
        for found in self.groups.values():
            dead[found[layer].dead] += 1
        some = int(np.count_nonzero((dead > 0) & (dead < len(self))))
        if not some:
            return []
        least = min((found[layer] for found in self.groups.values()), key=lambda own: own.samples)
        return [
            f"{text.printable(layer)}: {text.counted(some, 'neuron')} dead in some groups alone; "
            f"the smallest has {text.counted(least.samples, 'sample')}."
        ]
