"""What was found of a layer's neurons: rates, dead and duplicate ones, pairs, maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore import text
from tsstore.analysis.neurons.matrix import near_pairs
from tsstore.analysis.results.by_layer import data_array
from tsstore.counting.firing import Firing, complements
from tsstore.errors import AnalysisError
from tsstore.statistics.rates import rate_limits, upper_bound_from_rates

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

HEADINGS = ("layer", "neurons", "dead", "always on", "duplicates", "rate (median)", "10–90 %")
RATES = (
    "Rate: the share of rows in which a neuron is on; of a layer's neurons the median, and between "
    "which rates the middle 80 % are (10–90 %)."
)


@dataclass(frozen=True, eq=False)
class LayerNeurons:
    """What the neurons of one layer did.

    Attributes
    ----------
    name
        The layer's name.
    counted
        The counts that all else follows from.
    pairs
        Rows in which two neurons fire, int64 (neurons, neurons); None where they were not counted.
    by_position
        Samples in which each neuron fires at each position, int64 (positions, neurons); None where
        they were not counted.
    position_shape
        Shape of the positions of a sample; empty if it is not known.
    parameters
        How many the layer's module itself has, an equal share of each neuron; 0 where it has none,
        None where that was not recorded.
    """

    name: str
    counted: Firing
    pairs: npt.NDArray[np.int64] | None = None
    by_position: npt.NDArray[np.int64] | None = None
    position_shape: tuple[int, ...] = ()
    parameters: int | None = None

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return len(self.rate)

    @property
    def samples(self) -> int:
        """Number of samples that have rows."""
        return self.counted.samples

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.counted.rows

    @cached_property
    def rate(self) -> npt.NDArray[np.float64]:
        """In what share of the rows each neuron is on, float64 (neurons,)."""
        shares: npt.NDArray[np.float64] = self.counted.counts[0] / self.rows
        return shares

    @property
    def samples_fired(self) -> npt.NDArray[np.int64]:
        """In how many samples each neuron is on in some row, int64 (neurons,)."""
        fired: npt.NDArray[np.int64] = self.counted.counts[3]
        return fired

    def rate_limits(
        self, level: float = 0.95
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return confidence limits of each neuron's rate, by samples: two float64 (neurons,).

        Samples are taken to be independent draws. ValueError if level is not between 0 and 1.
        """
        counted = self.counted
        return rate_limits(
            *counted.counts,
            samples=counted.samples,
            rows=counted.rows,
            squared_rows=counted.squared_rows,
            level=level,
        )

    @cached_property
    def dead(self) -> npt.NDArray[np.int64]:
        """Indices of the neurons that were on in no row."""
        return np.flatnonzero(self.rate == 0)

    @cached_property
    def always_on(self) -> npt.NDArray[np.int64]:
        """Indices of the neurons that were on in all rows."""
        return np.flatnonzero(self.rate == 1)

    @cached_property
    def identical(self) -> list[list[int]]:
        """Groups of two or more neurons that did the same in all rows, neither dead nor always on.

        They are told by hashes of 128 bits: two that differ are taken for equal with a probability
        of at most 2⁻⁶⁶.
        """
        return [group for group in self._by_hash.values() if len(group) > 1]

    @cached_property
    def complementary(self) -> list[tuple[list[int], list[int]]]:
        """Pairs of groups of neurons, one of which is on where the other is off, in all rows."""
        opposites = complements(self.counted)
        pairs = []
        for group in self._by_hash.values():
            other = self._by_hash.get(opposites[:, group[0]].tobytes())
            if other and group[0] < other[0]:
                pairs.append((group, other))
        return pairs

    @property
    def duplicates(self) -> int:
        """How many neurons do what one with a lower index does."""
        return sum(len(group) - 1 for group in self.identical)

    @property
    def idle(self) -> int:
        """How many neurons tell nothing: dead, always on, or doing what one before does."""
        return sum(self._idle.values())

    @property
    def idle_parameters(self) -> dict[str, int] | None:
        """How many of the parameters are of dead, always-on and duplicate neurons, by that name.

        None where `parameters` is.
        """
        if self.parameters is None:
            return None
        return {kind: n * self.parameters // self.neurons for kind, n in self._idle.items()}

    @property
    def _idle(self) -> dict[str, int]:
        dead, always_on = len(self.dead), len(self.always_on)
        return {"dead": dead, "always_on": always_on, "duplicates": self.duplicates}

    @cached_property
    def entropy_bound(self) -> float:
        """The entropy that neurons of these rates had if they were independent, in bits."""
        return upper_bound_from_rates(self.rate)

    @cached_property
    def _by_hash(self) -> dict[bytes, list[int]]:
        groups: dict[bytes, list[int]] = {}
        constant = {*self.dead.tolist(), *self.always_on.tolist()}
        for neuron, column in enumerate(self.counted.hashes[:, :-1].T):
            if neuron not in constant:
                groups.setdefault(column.tobytes(), []).append(neuron)
        return groups

    @property
    def joint(self) -> xr.DataArray:
        """In how many rows two neurons fire together, of all pairs.

        An int64 DataArray (neuron, other), symmetric; on the diagonal are the rows in which a
        neuron fires. Its attributes name the layer and its rows. AnalysisError where pairs were not
        counted, or xarray is not installed.
        """
        attributes = {"layer": self.name, "rows": self.rows}
        return data_array(self._counted_pairs, ("neuron", "other"), "rows", attributes)

    @property
    def map(self) -> xr.DataArray:
        """In what share of the samples each neuron fires, at each position of a sample.

        A float64 DataArray (position, neuron), or (position_0, position_1, neuron) of an image.
        Its attributes name the layer and the samples. AnalysisError where positions were not
        counted, or xarray is not installed.
        """
        rates = self._rates_by_position
        shape = rates.shape[:-1]
        dims = [f"position_{axis}" for axis in range(len(shape))] if shape[1:] else ["position"]
        attributes = {"layer": self.name, "samples": self.samples}
        return data_array(rates, (*dims, "neuron"), "rate", attributes)

    @property
    def _rates_by_position(self) -> npt.NDArray[np.float64]:
        if self.by_position is None:
            raise AnalysisError(
                f"layer {text.printable(self.name)}: positions were not counted; "
                "tsstore.neurons(store, maps=True) does"
            )
        shape = self.position_shape or (len(self.by_position),)
        rates: npt.NDArray[np.float64] = self.by_position / self.samples
        return rates.reshape(*shape, self.neurons)

    def plot(self, ax: Any = None) -> Any:
        """Draw the firing rates from the least to the largest, with 95 % limits by samples.

        All as `Analysis.plot`.
        """
        from tsstore.analysis.results.plots import plot_sorted_rates, short

        return plot_sorted_rates(self.rate, self.rate_limits(), short(self.name), ax)

    def plot_map(self, neuron: int | None = None, ax: Any = None) -> Any:
        """Draw how often neurons fire at each position: one of them, or the mean of all.

        All as `Analysis.plot`; AnalysisError where positions were not counted, have more than two
        axes, or there is no such neuron.
        """
        from tsstore.analysis.results.plots import plot_map, short

        rates, title = self._rates_by_position, short(self.name)
        if neuron is None:
            return plot_map(rates.mean(axis=-1), "rate: mean of the neurons", title, ax)
        if not 0 <= neuron < self.neurons:
            raise AnalysisError(
                f"layer {text.printable(self.name)} has no neuron {neuron!r:.80}; expected a "
                f"number from 0 to {self.neurons - 1}"
            )
        what = "rate: share of samples"
        return plot_map(rates[..., neuron], what, f"{title}, neuron {neuron}", ax)

    def near_identical(self, share: float = 0.99) -> pd.DataFrame:
        """Return the pairs of neurons that do the same in such a share of the rows, at least.

        Neurons that are dead or always on are left out. Two that fire rarely do the same in most
        rows by chance: `kappa` is how much of what chance leaves they agree in (Cohen 1960,
        Educational and Psychological Measurement 20), 1 of identical and about 0 of independent
        ones. Pairs are counted by ``tsstore.neurons(store, joint=True)``.

        Parameters
        ----------
        share
            Of the rows, from 0 to 1.

        Returns
        -------
        pandas.DataFrame
            `neuron` and `other`, the latter with the higher index; `rows` in which they do the
            same, and that as a `share`; the share `by_chance`, of independent neurons with these
            rates; `kappa`, by which pairs are sorted, the largest first.

        Raises
        ------
        AnalysisError
            If pairs were not counted, the share makes no sense, or more than a million pairs do
            the same in such a share.
        """
        return near_pairs(self._counted_pairs, self.rows, share, opposite=False)

    def near_complementary(self, share: float = 0.99) -> pd.DataFrame:
        """Return the pairs of which one is on where the other is off, in such a share of the rows.

        All as :meth:`near_identical`, of one neuron and the opposite of the other.
        """
        return near_pairs(self._counted_pairs, self.rows, share, opposite=True)

    @property
    def _counted_pairs(self) -> npt.NDArray[np.int64]:
        if self.pairs is None:
            raise AnalysisError(
                f"layer {text.printable(self.name)}: pairs of neurons were not counted; "
                "tsstore.neurons(store, joint=True) does"
            )
        return self.pairs

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of the neurons.

        Parameters
        ----------
        level
            Nominal confidence of the limits.

        Returns
        -------
        pandas.DataFrame
            Indexed by neuron: rate, its limits (low, high), samples in which the neuron fired,
            kind (``"dead"``, ``"always on"`` or empty), the first neuron that did the same, or
            the opposite, in all rows (missing if there is none), and how many parameters it has
            (missing if that was not recorded).
        """
        import pandas as pd

        low, high = self.rate_limits(level)
        kind = np.full(self.neurons, "", object)
        kind[self.dead], kind[self.always_on] = "dead", "always on"
        same = pd.array([pd.NA] * self.neurons, dtype="Int64")
        opposite = same.copy()
        each = pd.NA if self.parameters is None else self.parameters // self.neurons
        for first, *others in self.identical:
            same[np.array(others)] = first
        for group, other in self.complementary:
            opposite[np.array(group)], opposite[np.array(other)] = other[0], group[0]
        frame = {
            "rate": self.rate,
            "low": low,
            "high": high,
            "samples_fired": self.samples_fired,
            "kind": kind,
            "same_as": same,
            "opposite_of": opposite,
            "parameters": pd.array([each] * self.neurons, dtype="Int64"),
        }
        return pd.DataFrame(frame, index=pd.RangeIndex(self.neurons, name="neuron"))

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Return the layer's numbers, as :meth:`Neurons.to_dict` has them."""
        low, high = self.rate_limits(level)
        return {
            "neurons": self.neurons,
            "samples": self.samples,
            "rows": self.rows,
            "rate": self.rate.tolist(),
            "rate_interval": np.stack([low, high], axis=1).tolist(),
            "samples_fired": self.samples_fired.tolist(),
            "dead": self.dead.tolist(),
            "always_on": self.always_on.tolist(),
            "identical": self.identical,
            "complementary": [list(pair) for pair in self.complementary],
            "idle": self.idle,
            "parameters": self.parameters,
            "idle_parameters": self.idle_parameters,
            "independent_entropy_bits": self.entropy_bound,
        }

    @property
    def cells(self) -> list[str]:
        """The layer's line in a table, as :data:`HEADINGS` names its columns."""
        low, middle, high = np.quantile(self.rate, [0.1, 0.5, 0.9])
        counts = (self.neurons, *self._idle.values())
        return [
            text.printable(self.name),
            *(f"{count:,}" for count in counts),
            f"{middle:.3f}",
            f"{low:.3f}–{high:.3f}",
        ]

    @property
    def sentence(self) -> str:
        """What the samples allow to say of neurons that never fired; empty if there are none."""
        if not len(self.dead):
            return ""
        limit = self.rate_limits()[1][self.dead[0]]
        return (
            f"{text.printable(self.name)}: {text.counted(len(self.dead), 'neuron')} fired in 0 of "
            f"{text.counted(self.samples, 'sample')}: each one's rate is below {limit:.2g} at 95 %."
        )

    def __repr__(self) -> str:
        return (
            f"<LayerNeurons {text.printable(self.name)}: {self.neurons} neurons, {len(self.dead)} "
            f"dead, {len(self.always_on)} always on, {self.duplicates} duplicates>"
        )
