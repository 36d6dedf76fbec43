"""What was found of neurons: how often each fires, which never do, and which do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tsstore import text
from tsstore.analysis.groups.results import Grouped
from tsstore.analysis.neurons.layer import HEADINGS, RATES, LayerNeurons
from tsstore.analysis.results.by_layer import ByLayer

if TYPE_CHECKING:
    import pandas as pd


class Neurons(ByLayer[LayerNeurons]):
    """What the neurons of a run's layers did: a mapping from layer names.

    Parameters
    ----------
    path
        The run.
    layers
        What was counted, by layer.
    """

    headings = HEADINGS

    def __init__(self, path: str, layers: Mapping[str, LayerNeurons]) -> None:
        self.path = self.subject = path
        self.layers = dict(layers)

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of all neurons, indexed by layer and neuron.

        Columns as of `LayerNeurons.to_frame`.
        """
        import pandas as pd

        frames = {name: layer.to_frame(level) for name, layer in self.items()}
        return pd.concat(frames, names=["layer"])

    def near_pairs(self, share: float = 0.99) -> pd.DataFrame:
        """Return the pairs that do the same in such a share of the rows, or the opposite.

        Columns as of `LayerNeurons.near_identical`, led by `layer` and by `kind`, which is
        ``"same"`` or ``"opposite"``.
        """
        import pandas as pd

        frames = []
        for name, layer in self.items():
            for kind, of in (
                ("same", layer.near_identical),
                ("opposite", layer.near_complementary),
            ):
                frame = of(share)
                frame.insert(0, "layer", name)
                frame.insert(1, "kind", kind)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Return all numbers as JSON can hold them: each layer's under its name."""
        layers = {name: layer.to_dict(level) for name, layer in self.items()}
        return {"run": self.path, "level": level, "layers": layers}

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's firing rates, a line a neuron; as `Analysis.plot`."""
        from tsstore.analysis.results.plots import plot_rates

        return plot_rates({name: layer.rate for name, layer in self.items()}, ax)

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        lines = [RATES, *(layer.sentence for layer in self.values() if layer.sentence)]
        idle = sum(layer.idle for layer in self.values())
        if not idle:
            return lines
        neurons = sum(layer.neurons for layer in self.values())
        return [
            *lines,
            f"{idle:,} of {text.counted(neurons, 'neuron')} ({100 * idle / neurons:.2g} %) tell "
            "nothing: dead, always on, or duplicates.",
            *self._parameters(),
        ]

    def _parameters(self) -> list[str]:
        """Say how many parameters are those of such neurons, and of which layers it is unknown."""
        counts = [layer.idle_parameters for layer in self.values() if layer.parameters]
        total = sum(layer.parameters or 0 for layer in self.values())
        lines = []
        if total:
            dead, always_on, same = (
                sum(count[kind] for count in counts if count is not None)
                for kind in ("dead", "always_on", "duplicates")
            )
            idle = dead + always_on + same
            lines.append(
                f"Theirs are {idle:,} of {text.counted(total, 'parameter')} "
                f"({100 * idle / total:.2g} %): {dead:,} of dead neurons, {always_on:,} of those "
                f"always on, {same:,} of duplicates."
            )
        without = [name for name, layer in self.items() if layer.parameters == 0]
        unknown = [name for name, layer in self.items() if layer.parameters is None]
        if without:
            lines.append(f"Without parameters of their own: {text.listed(without)}.")
        if unknown:
            lines.append(f"No numbers of parameters were recorded of {text.listed(unknown)}.")
        return lines

    def __repr__(self) -> str:
        table = text.text_table([self.headings, *self.cells()])
        return "\n".join([self.path, *table, *self.sentences])


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
        # By number: a group's value may be None, which is no key of a level.
        frame = pd.concat(dict(enumerate(frame for *_, frame in every)))
        place, neuron = (frame.index.get_level_values(own) for own in range(2))
        layers, values = (pd.Index(own).take(place) for own in list(zip(*every, strict=True))[:2])
        by = self.by if self.by not in ("layer", "neuron", *frame) else "group"
        arrays = [layers, values, neuron]
        frame.index = pd.MultiIndex.from_arrays(arrays, names=["layer", by, "neuron"])
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
