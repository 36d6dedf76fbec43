"""Which samples count, and in which group: the same in every layer, block and process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsstore.analysis.random_groups import RandomGroups, Sets
from tsstore.counting.records import Groups, group_dtype
from tsstore.counting.tables.grouped import count_codes
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter


@dataclass(frozen=True, eq=False)
class Samples:
    """Which samples of a run count, and what is told apart among them.

    Attributes
    ----------
    groups
        Groups of them that intervals need; None for none.
    clusters
        How many clusters they are of, samples of one of which depend on each other; None if each is
        its own.
    staying
        How many count although an earlier one of their id does; None if it is not known.
    problem
        Why ids were not compared, in a phrase; empty if they were, or if there are none.
    sets, set_count
        Which of so many sets each is in, each of which is also counted by itself; one more than the
        last is none.
    """

    sample_filter: SampleFilter = ALL_SAMPLES
    groups: RandomGroups | None = None
    clusters: int | None = None
    staying: int | None = 0
    problem: str = ""
    sets: Sets | None = None
    set_count: int = 0

    @property
    def group_count(self) -> int:
        """Number of groups that are told apart, in each set; 0 for none."""
        return self.groups.count if self.groups else int(self.sets is not None)

    @property
    def told(self) -> tuple[int, int]:
        """How many groups are told apart, and in how many sets."""
        return self.group_count, self.set_count

    @property
    def code_count(self) -> int:
        """Number of groups of all sets, and of none; 0 where nothing is told apart."""
        return count_codes(*self.told)

    def codes_of(self, directory: str, first_sample: int, samples: int) -> Groups | None:
        """Return ``set * groups + group`` of consecutive samples of a part; None as above."""
        random = None
        if self.groups is not None:
            random = self.groups.of_samples(directory, first_sample, samples)
        if self.sets is None:
            return random
        codes = self.sets[directory][first_sample : first_sample + samples].astype(np.int64)
        codes = codes * self.group_count + (0 if random is None else random)
        return codes.astype(group_dtype(self.code_count))


EVERY = Samples()
"""Every sample counts, and none is told from another."""
