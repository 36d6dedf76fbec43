"""Files of a run that do not count: left by stopped processes, too late for a commit, foreign."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.maintenance.findings import Findings

NAMED_FILES = 10
"""So many files of a kind are named in each part; of more, the number is."""

_ARRAY = (
    r"(layers/[^/]+/(states|checksums|positions|positions_checksums)|sample(s|_checksums)/[^/]+)"
)
_OF_A_PART = re.compile(
    rf"((commit|sealed|layers(/[^/]+)?|samples|sample_checksums|{_ARRAY})/)?zarr\.json"
    rf"|{_ARRAY}/c/\d{{1,16}}(/0)?"
)


def is_array(path: str) -> bool:
    """Whether format 1 has an array at `path`, relative to its part."""
    return re.fullmatch(_ARRAY, path) is not None


def note_other_files(files: Files, part: str, nodes: Mapping[str, int], findings: Findings) -> None:
    """Note the files of a part that do not count.

    `nodes` are the paths of all groups and arrays that its record implies, with their numbers of
    files that hold chunks.
    """
    leftover, foreign, later = [], [], []
    for key in files.walk(part):
        if key.endswith(PARTIAL):
            leftover.append(key)
        elif not _OF_A_PART.fullmatch(key.removeprefix(f"{part}/")):
            foreign.append(key)
        elif _is_later(key, nodes):
            later.append(key)
    note_files(findings, leftover, foreign)
    if later:
        findings.note(
            part,
            f"{len(later):,} files are from after the last commit, such as {later[0]}",
            "nothing needs to be done: what they hold does not count",
        )


def _is_later(key: str, nodes: Mapping[str, int]) -> bool:
    """Whether the record says nothing of a file of the store."""
    # From the right: a column may be called "c".
    node, separator, chunk = key.removesuffix("/zarr.json").rpartition("/c/")
    if not separator:
        return chunk not in nodes
    return int(chunk.partition("/")[0]) >= nodes.get(node, 0)


def note_files(findings: Findings, leftover: Sequence[str], foreign: Sequence[str]) -> None:
    """Note files that a stopped process left, and files that are none of the store's."""
    kinds = (
        (leftover, "a process was stopped while it wrote this file", "tsstore repair removes it"),
        (foreign, "it is not of the store", "nothing needs to be done: no reader looks at it"),
    )
    for keys, what, advice in kinds:
        for key in keys[:NAMED_FILES]:
            findings.note(key, what, advice)
        if len(keys) > NAMED_FILES:
            more = f"{what}; there are {len(keys) - NAMED_FILES - 1:,} more of this kind"
            findings.note(keys[NAMED_FILES], more, advice)
