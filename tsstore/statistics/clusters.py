"""How many rows are in states that only one cluster of samples has shown.

Where samples come in clusters, such as the images of one patient, groups hold whole clusters. A
state of q samples that are independent of each other lies in one of G groups with probability
G**(1 - q); what lies in one group beyond that is the clusters' own.
"""

from __future__ import annotations

import numpy as np

from tsstore.statistics.groups import GroupChanges
from tsstore.statistics.spectrum import Spectrum


def rows_in_single_clusters(spectrum: Spectrum, changes: GroupChanges) -> int:
    """Return how many rows, at least about, are in states seen in one cluster only.

    Parameters
    ----------
    spectrum
        What was counted, with incidences.
    changes
        What leaving each group out changes; a group holds whole clusters.

    Returns
    -------
    int
        Rows in states of one sample, and in as many more states as lie in one group only, beyond
        what independent samples would do. Which states these are is not known: the ones seen in
        the fewest samples count.
    """
    groups = int(np.count_nonzero(changes.rows))
    several = spectrum.incidence > 1
    incidence, states = spectrum.incidence[several], spectrum.states[several]
    # Without its only group a state is gone; without one of several it is another entry.
    in_one_group = -int(changes.states.sum()) - int(spectrum.states[~several].sum())
    by_chance = float(states @ float(max(groups, 1)) ** (1.0 - incidence))
    own = max(0, round(in_one_group - by_chance))
    order = np.lexsort((spectrum.multiplicity[several], incidence))
    before = np.cumsum(states[order]) - states[order]
    taken = np.clip(own - before, 0, states[order])
    return spectrum.rows_in_single_samples + int(taken @ spectrum.multiplicity[several][order])
