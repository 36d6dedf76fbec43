"""Reading a whole run back: every checksum, and every promise that can be checked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tsstore.errors import DamageError, FormatError, StoreError
from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.attributes import RunAttributes
from tsstore.store.format.documents import metadata_key
from tsstore.store.format.paths import is_directory, layer_path
from tsstore.store.maintenance.findings import Findings, VerifyReport
from tsstore.store.maintenance.stray_files import note_files
from tsstore.store.maintenance.verify_array import Tally
from tsstore.store.maintenance.verify_part import PartCheck
from tsstore.store.reading.layer import LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.status import LIVE, is_alive, last_commit, part_statuses
from tsstore.store.reading.store import StateStore
from tsstore.store.run import read_run

Progress = Callable[[str, int, int], None]
"""Takes a part's directory, the number of its arrays that were read, and of all."""


def verify(path: StorePath, progress: Progress | None = None) -> VerifyReport:
    """Read a run back, and collect all that is not as it was written.

    One chunk is held in memory at a time. Of a run that is being written, what had been committed
    by then is read.

    Parameters
    ----------
    path
        Where the run lies.
    progress
        Called after each array.

    Returns
    -------
    VerifyReport
        What was found, and how much was read.

    Raises
    ------
    NotAStoreError
        If there is no run at `path`.
    FormatError
        If its format is newer than this version reads, or its root is not valid.
    """
    files = open_files(path)
    findings, tally = Findings(files.location), Tally()
    run = RunAttributes("", "")
    try:
        run = read_run(files)
    except DamageError:
        with findings.catching(metadata_key("")):
            raise
    parts = _read_parts(files, findings, tally, progress or _report_nothing)
    live = [part.directory for part in parts if _is_live(part, findings)]
    for directory in live:
        # Its files change while they are looked at; what was committed does not.
        findings.drop_notes(directory)
    for part in parts:
        if not findings.errors(part.directory):
            _read_as_readers_do(part, findings)
    sound = [part for part in parts if not findings.errors(part.directory)]
    _compare_parts(files, run, sound, findings, bool(live))
    return VerifyReport(
        files.location,
        len(parts),
        sum(len(part.record.layers) for part in parts),
        tally.chunks,
        tally.bytes_read,
        sum(part.samples for part in parts),
        tuple(findings.found),
    )


def _read_parts(files: Files, findings: Findings, tally: Tally, progress: Progress) -> list[Part]:
    """Read each part back; return those whose attributes and records can be read."""
    leftover, foreign, parts = [], [], []
    for name in files.list(""):
        if name.startswith("part-"):
            with findings.catching(name):
                parts += _read_part(files, name, findings, tally, progress)
        elif name.endswith(PARTIAL):
            leftover.append(name)
        elif name != metadata_key(""):
            foreign.append(name)
    note_files(findings, leftover, foreign)
    return parts


def _read_part(
    files: Files, directory: str, findings: Findings, tally: Tally, progress: Progress
) -> list[Part]:
    if not is_directory(directory):
        raise FormatError(f"{files.location}/{directory}: it is no part's directory; remove it")
    if not files.names(directory):
        note_files(findings, list(files.walk(directory)), [])
        return []
    part = PartCheck(files, directory, findings, tally, progress).read()
    return [] if part is None else [part]


def _is_live(part: Part, findings: Findings) -> bool:
    with findings.catching(metadata_key(part.directory)):
        last_commit([part])
        return part_statuses([part], datetime.now(UTC), is_alive)[0].state == LIVE
    return False


def _read_as_readers_do(part: Part, findings: Findings) -> None:
    """Open the layers and columns of a part whose files are sound, and add up its positions."""
    with findings.catching(part.directory):
        for directory, layer in zip(part.record.layers, part.layers.values(), strict=True):
            with findings.catching(layer_path(part.directory, directory)):
                _add_positions(layer)
        _ = part.columns


def _add_positions(layer: LayerPart) -> None:
    total = sum(sum(piece.tolist()) for piece in layer.position_pieces())
    if total != layer.rows:
        raise FormatError(
            f"the rows by sample add up to {total:,}, but there are {layer.rows:,} rows; "
            "record the run again: it was not written by tsstore"
        )


def _compare_parts(
    files: Files, run: RunAttributes, parts: list[Part], findings: Findings, live: bool
) -> None:
    """Check that the parts of each step have the same layers and columns."""
    for step in dict.fromkeys(part.step for part in parts):
        of_step = tuple(part for part in parts if part.step == step)
        store = StateStore(files, run, of_step)
        for name in store.layers:
            with findings.catching(of_step[-1].directory):
                _check_layer(store, name, live)
        for part in of_step:
            lacking = [name for name in store.columns if name not in part.columns]
            if part.samples and lacking:
                findings.error(
                    part.directory,
                    f"it has no sample columns {', '.join(lacking)}, which other parts have",
                    "read one part at a time, or record the run again",
                )


def _check_layer(store: StateStore, name: str, live: bool) -> None:
    try:
        _ = store[name]
    except (DamageError, FormatError):
        raise
    except StoreError:
        # A part that is being written may meet the layer later.
        if not live:
            raise


def _report_nothing(part: str, done: int, total: int) -> None:
    pass
