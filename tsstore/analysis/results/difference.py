"""Comparing two analyses: the differences of their efficiencies, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.results.network import Analysis
from tsstore.errors import AnalysisError
from tsstore.statistics.efficiency import efficiency_of, propagated
from tsstore.statistics.intervals import Estimated, Interval, Jackknifed, difference_interval
from tsstore.statistics.special import check_level
from tsstore.store.reading.ids import ID
from tsstore.text import printable

if TYPE_CHECKING:
    import pandas as pd

NETWORK = "network efficiency"
HEADINGS = ("layer", "first", "second", "difference")


@dataclass(frozen=True)
class EfficiencyDifference:
    """The efficiency of a layer, or a network, in one analysis less that in another one.

    Attributes
    ----------
    first, second
        The two efficiencies as they are shown; None where there is no such layer.
    interval
        Their difference, with a confidence interval; None where it is not known.
    reason
        Why it is not known, in a phrase; empty if it is.
    """

    first: float | None
    second: float | None
    interval: Interval | None
    reason: str = ""


class Difference(ByLayer[EfficiencyDifference]):
    """Efficiencies of one analysis less those of another one; made by `difference`.

    A mapping from layer names.

    Attributes
    ----------
    first, second
        Paths of the two runs.
    network
        The difference of the network efficiencies.
    paired
        Whether groups of equal samples were left out of both analyses at once.
    pairing
        In one sentence, what was taken for granted of the samples.
    """

    headings = HEADINGS

    def __init__(
        self,
        runs: tuple[str, str],
        layers: Mapping[str, EfficiencyDifference],
        network: EfficiencyDifference,
        paired: bool,
        pairing: str,
    ) -> None:
        self.first, self.second = runs
        self.subject = f"{self.first} - {self.second}"
        self.layers = dict(layers)
        self.network = network
        self.paired = paired
        self.pairing = pairing
        self.sentences = [pairing]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return {
            "first": self.first,
            "second": self.second,
            "layers": {name: asdict(found) for name, found in self.items()},
            "network_efficiency": asdict(self.network),
            "paired": self.paired,
            "pairing": self.pairing,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the differences as a table: one line a layer, and the last for the network."""
        import pandas as pd

        rows = {**self.layers, NETWORK: self.network}
        lines = {name: _line(found) | {"paired": self.paired} for name, found in rows.items()}
        return pd.DataFrame.from_dict(lines, orient="index").rename_axis("layer")

    def cells(self) -> list[tuple[str, ...]]:
        """Return the lines of a table, as `HEADINGS` names its columns."""
        rows = {**{printable(name): found for name, found in self.items()}, NETWORK: self.network}
        return [
            (name, *map(_share, (found.first, found.second)), _difference_text(found))
            for name, found in rows.items()
        ]


def difference(
    first: Analysis, second: Analysis, *, level: float = 0.95, unseen_like_rare: bool = False
) -> Difference:
    """Return the efficiencies of one analysis less those of another one, with intervals.

    If the samples of both have ids, what both have in common is allowed for: samples of equal ids
    are left out of both at once, so that of networks that saw the same samples smaller differences
    are certain. Without ids the samples of one analysis are taken to be independent of those of the
    other, and the result says so.

    Parameters
    ----------
    first, second
        Analyses of two runs, with intervals. Layers of one name are compared.
    level
        Nominal confidence of the intervals, between 0 and 1.
    unseen_like_rare
        Assume of both analyses what `LayerResult.interval` says, and that what their estimates
        still lack they lack alike; intervals are narrower.

    Returns
    -------
    Difference
        A mapping from layer names, with `network`. Sample-limited layers have lower bounds, whose
        difference means nothing: it is None there, and the reason says so.

    Raises
    ------
    AnalysisError
        If an analysis was made without intervals, or samples depend on each other by different
        columns.
    ValueError
        If level is not between 0 and 1.

    Notes
    -----
    `statistics.difference` has the method, and what it assumes.
    """
    check_level(level)
    paired, pairing = _pairing(first, second)
    alike = unseen_like_rare
    interval = partial(difference_interval, paired=paired, alike=alike, level=level)
    both = first, second
    layers = {
        name: _compared([_layer(one, name, level, alike) for one in both], interval)
        for name in dict.fromkeys([*first, *second])
    }
    network = _compared([_network(one, level, alike) for one in both], interval)
    return Difference((first.run, second.run), layers, network, paired, pairing)


@dataclass(frozen=True)
class _Side:
    """An efficiency as it is shown, with what its interval takes, or why there is none."""

    shown: float | None
    estimated: Estimated | None = None
    reason: str = ""
    target: str = ""


def _pairing(first: Analysis, second: Analysis) -> tuple[bool, str]:
    """Return whether the samples can be paired, and what is said of them."""
    for analysis in (first, second):
        if any(layer.changes is None for layer in analysis.values()):
            raise AnalysisError(
                f"{analysis.run} was analysed with intervals=False; analyse it with them"
            )
    dealt = first.dealt, second.dealt
    columns = [one.by if one and one.by != ID else None for one in dealt]
    if columns[0] != columns[1]:
        raise AnalysisError(
            f"samples of {first.run} fall into groups by {columns[0] or ID!r:.80}, and those of "
            f"{second.run} by {columns[1] or ID!r:.80}; analyse both with the same dependent_by=, "
            "or unique_by="
        )
    if not (first.dealt and second.dealt and first.dealt.matches(second.dealt)):
        return False, (
            "Independent: nothing tells which samples both have in common, so that none are taken "
            "to be; record ids to pair them."
        )
    by = printable(first.dealt.by)
    if first.dealt == second.dealt:
        return True, f"Paired by {by}, which is the same for the {first.samples:,} samples of both."
    numbers = f"{first.samples:,} and {second.samples:,} samples"
    return True, f"Paired by {by}, which is not the same for all of the {numbers}."


def _compared(sides: list[_Side], interval: Callable[..., Interval]) -> EfficiencyDifference:
    one, other = sides
    reason = "; ".join(
        f"{which}: {side.reason}"
        for which, side in (("first", one), ("second", other))
        if side.reason
    )
    if one.reason == other.reason != "":
        reason = f"both: {one.reason}"
    if not reason and one.target != other.target:
        reason = "one estimates rows, the other samples whatever their length"
    known = None if reason else interval(one.estimated, other.estimated)
    return EfficiencyDifference(one.shown, other.shown, known, reason)


def _layer(analysis: Analysis, name: str, level: float, like_rare: bool) -> _Side:
    if name not in analysis.layers:
        return _Side(None, reason="not analysed")
    layer = analysis.layers[name]
    known = layer.jackknifed
    if layer.sample_limited or known is None:
        return _Side(layer.shown_efficiency, reason="sample-limited")
    estimated = _efficiency([known], [layer.neurons], level, like_rare)
    return _Side(layer.shown_efficiency, estimated, target=layer.target)


def _network(analysis: Analysis, level: float, like_rare: bool) -> _Side:
    if not (known := analysis.known_entropies()):
        return _Side(analysis.network_efficiency(), reason="a lower bound")
    estimated = _efficiency(known, analysis.neurons(), level, like_rare)
    target = "".join(sorted({layer.target for layer in analysis.values()}))
    return _Side(analysis.network_efficiency(), estimated, target=target)


def _efficiency(
    entropies: list[Jackknifed], neurons: list[int], level: float, like_rare: bool
) -> Estimated:
    def of(bits: Sequence[float]) -> float:
        return min(1.0, efficiency_of(bits, neurons))

    return propagated(entropies, neurons, of, level, like_rare)


def _line(found: EfficiencyDifference) -> dict[str, Any]:
    names = ("estimate", "lower", "upper", "standard_error")
    interval = {
        f"difference_{name}": found.interval and getattr(found.interval, name) for name in names
    }
    return {"first": found.first, "second": found.second, **interval, "reason": found.reason}


def _share(efficiency: float | None) -> str:
    return "" if efficiency is None else f"{efficiency:.3f}"


def _difference_text(found: EfficiencyDifference) -> str:
    if found.interval is None:
        return f"not known ({found.reason})"
    interval = found.interval
    return f"{interval.estimate:+.3f} [{interval.lower:+.3f}, {interval.upper:+.3f}]"
