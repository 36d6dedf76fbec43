"""What a layer's states tell of the group their sample is in, in bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from tsstore import text
from tsstore.analysis.analyze import Counting
from tsstore.analysis.groups.analyze import analyze_grouping
from tsstore.analysis.groups.grouping import Grouping, group
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.random_groups import RandomGroups
from tsstore.analysis.repeats import choose_samples
from tsstore.analysis.request import Bins, Layers, Request, Run, countable, running, with_layers
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.errors import AnalysisError, EmptyStoreError
from tsstore.statistics.information import Known, information_interval, set_entropy
from tsstore.statistics.information import information as known_information
from tsstore.statistics.intervals import Interval
from tsstore.store.reading.sample_filter import SampleFilter

HEADINGS = ("layer", "information (bits)", "share of the group's", "shuffled labels")


@dataclass(frozen=True)
class LayerInformation:
    """What one layer's states tell of the group of their sample.

    Attributes
    ----------
    name
        The layer's name.
    bits
        Information between a row's state and its sample's group, an estimate in bits.
    shuffled_bits
        The same of labels that were shuffled among the samples: what is no information.
    group_bits
        Entropy of the group of a row: the most that states can tell.
    interval
        Confidence interval of `bits`, whose lower end allows for `shuffled_bits`; None where
        random groups of samples were not told apart.
    """

    name: str
    bits: float
    shuffled_bits: float
    group_bits: float
    interval: Interval | None

    @property
    def share(self) -> float:
        """The information as a share of `group_bits`; 0 where there is one group."""
        return self.bits / self.group_bits if self.group_bits else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them."""
        ends = self.interval
        return {
            "information_bits": self.bits,
            "information_lower_bits": None if ends is None else ends.lower,
            "information_upper_bits": None if ends is None else ends.upper,
            "share": self.share,
            "shuffled_bits": self.shuffled_bits,
            "group_bits": self.group_bits,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """The layer's line of a table."""
        ends = self.interval
        limits = "" if ends is None else f" [{ends.lower:.3f}, {ends.upper:.3f}]"
        shown = f"{self.bits:.3f}{limits}"
        return text.printable(self.name), shown, f"{self.share:.3f}", f"{self.shuffled_bits:.3f}"


class Information(ByLayer[LayerInformation]):
    """What layers' states tell of the group of their sample: a mapping from layer names.

    Parameters
    ----------
    run, by
        Path of the run, and what the groups are by.
    layers
        What was found, by layer.
    """

    headings = HEADINGS

    def __init__(self, run: str, by: str, layers: Mapping[str, LayerInformation]) -> None:
        self.run, self.by, self.layers = run, by, dict(layers)
        self.subject = f"{run} about {by}"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        layers = {name: layer.to_dict() for name, layer in self.items()}
        return {"run": self.run, "by": self.by, "layers": layers}

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        lines = ["Shuffled labels tell nothing: the estimate may be too high by what they show."]
        lost = [name for name, layer in self.items() if layer.shuffled_bits >= layer.bits > 0]
        if lost:
            lines.append(
                f"{text.listed(lost)}: shuffled labels show as much; the samples are too few to "
                "tell anything."
            )
        return lines


def information(
    store: Run, by: str, layers: Layers = None, *, bins: Bins = None, **options: Unpack[Counting]
) -> Information:
    """Estimate how much a row's state tells of the group its sample is in.

    The groups are analysed, and once more with labels that were shuffled among the samples.

    Parameters
    ----------
    store
        A run of one step, or its path.
    by, layers, bins, **options
        As for `tsstore.analyze`; samples in no group do not count.

    Returns
    -------
    Information
        A mapping from layer names to bits, with intervals, as a share of the group's entropy, and
        beside what shuffled labels show.

    Raises
    ------
    StoreError, AnalysisError
        As `tsstore.analyze` does; AnalysisError for a run of several steps.
    """
    if "cache" in options:
        raise AnalysisError("cache= keeps analyses alone; leave it out")
    request = Request(**options, by=by, bins=bins)
    store = with_layers(countable(store), layers)
    grouping = group(store, request)
    left_out = {directory: np.flatnonzero(own < 0) for directory, own in grouping.codes.items()}
    store = store.only(store.view.samples.joined(SampleFilter(left_out)), store.view.told)
    # Copies would be left out of the whole, and in each group of those within it alone: more of
    # them by shuffled labels, which part copies, than by the real ones.
    # Clusters are shuffled as wholes whether or not there are intervals, which they are dealt for.
    dealing = replace(request, intervals=True)
    with running(request, store) as runner:
        (samples,) = choose_samples([store], dealing, runner)
    store = store.only(samples.sample_filter, store.view.told)
    grouping = replace(grouping, codes=_of_kept(grouping, store.view.samples))
    grouping.check_rows(store)
    found = analyze_grouping(store, request, grouping)
    try:
        shuffled = analyze_grouping(store, request, _shuffled(grouping, samples.groups))
    except EmptyStoreError as error:
        raise EmptyStoreError(
            f"{store.path}: of some groups by {text.printable(by)} too few samples have rows in "
            "each layer: with shuffled labels one has none. Filter out small groups, or ask for "
            "layers in which all samples have rows"
        ) from error
    told = {name: _of_layer(name, found, shuffled) for name in store}
    return Information(store.path, grouping.by, told)


def _of_kept(grouping: Grouping, sample_filter: SampleFilter) -> dict[str, Any]:
    """Return the codes of the samples that stay; others are in no group."""
    return {
        directory: np.where(sample_filter.mask(directory, 0, len(own)), own, -1).astype(own.dtype)
        for directory, own in grouping.codes.items()
    }


def _shuffled(grouping: Grouping, clusters: RandomGroups | None) -> Grouping:
    """Return the same groups of samples chosen by chance: of the same sizes.

    Samples of one cluster, which depend on each other, stay together as far as sizes allow.
    """
    codes = np.concatenate(list(grouping.codes.values()))
    grouped = codes >= 0
    cluster = np.arange(int(grouped.sum()))
    if clusters is not None:
        words = [clusters.clusters_of(name, len(own)) for name, own in grouping.codes.items()]
        known = [own for own in words if own is not None]
        if known:
            cluster = np.unique(np.concatenate(known)[grouped], return_inverse=True)[1]
    place = np.random.default_rng(0).permutation(int(cluster.max(initial=-1)) + 1)
    together, shuffled = (np.argsort(key, kind="stable") for key in (cluster, place[cluster]))
    labels = codes[grouped]
    labels[shuffled] = labels[together]
    codes[grouped] = labels
    ends = np.cumsum([len(own) for own in grouping.codes.values()])[:-1]
    by_part = dict(zip(grouping.codes, np.split(codes, ends), strict=True))
    return Grouping(grouping.by, grouping.values, by_part, grouping.ungrouped)


def _of_layer(name: str, found: GroupedAnalysis, shuffled: GroupedAnalysis) -> LayerInformation:
    known, rows = _known(name, found)
    by_chance, _ = _known(name, shuffled)
    most = set_entropy(rows)
    interval = information_interval(known, by_chance.estimate, most)
    bits = min(max(known.estimate, 0.0), most)
    nothing = min(max(by_chance.estimate, 0.0), most)
    return LayerInformation(name, bits, nothing, most, interval)


def _known(name: str, grouped: GroupedAnalysis) -> tuple[Known, Any]:
    """Return the information that a layer's groups show, and their rows."""
    whole, sets = grouped.whole[name], [analysis[name] for _, analysis in grouped.items()]
    rows = np.array([own.rows for own in sets])
    changes = [own.changes for own in sets]
    of_groups = np.zeros((len(sets), 0), np.int64)
    told = [own.rows for own in changes if own is not None]
    if len(told) == len(sets):
        of_groups = np.stack(told)
    entropies = [own.estimated for own in sets]
    return known_information(whole.estimated, entropies, rows, of_groups), rows
