"""Whether a layer's plug-in entropy tells of the layer, or of how few samples there were."""

from __future__ import annotations

from tsstore.statistics.spectrum import Spectrum

SAMPLE_LIMITED = "sample-limited"
USABLE = "usable"

SAMPLE_LIMITED_ABOVE = 0.10
"""Largest share of rows in states of a single sample with which a plug-in is still usable."""


def verdict(spectrum: Spectrum) -> tuple[str, str]:
    """Say whether there were enough samples for the plug-in entropy, and why.

    Parameters
    ----------
    spectrum
        What was counted, with incidences.

    Returns
    -------
    tuple of str
        "sample-limited" or "usable", and the reason in one sentence.

    Raises
    ------
    ValueError
        If the spectrum has no rows.

    Notes
    -----
    The share of rows in states of a single sample estimates how likely a row of a new sample is
    to be in a state never seen (Good 1953, with samples in the place of rows).
    """
    if spectrum.rows == 0:
        raise ValueError("a verdict needs at least one row: there are no rows")
    share = spectrum.rows_in_single_samples / spectrum.rows
    found = f"{100 * share:.1f} % of the rows are in states seen in one sample only"
    limit = f"{100 * SAMPLE_LIMITED_ABOVE:.0f} %"
    if share > SAMPLE_LIMITED_ABOVE:
        return SAMPLE_LIMITED, f"{found} (more than {limit}), so more samples would add states."
    return USABLE, f"{found} (at most {limit})."
