"""The root of a run: created by one process, read by all, removed whole."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from tsstore import __version__
from tsstore.errors import AccessError, NotAStoreError, StoreExistsError
from tsstore.store.files.base import PARTIAL, Files
from tsstore.store.format.attributes import RunAttributes, check_format
from tsstore.store.format.documents import (
    ZARR_JSON,
    check_attributes,
    create_group,
    find_document,
    now,
    tsstore_attributes,
)
from tsstore.text import printable

_OF_A_RUN = re.compile(
    rf"{re.escape(ZARR_JSON)}|.*{re.escape(PARTIAL)}|part-\d{{5,}}-\d{{5,}}", re.DOTALL
)


def create_run(
    files: Files,
    software: Mapping[str, str] | None = None,
    run_id: str | None = None,
    compacted_from: str | None = None,
) -> RunAttributes:
    """Create the root of a run, exclusively; what a stopped process left there does not matter.

    StoreExistsError or AccessError where there is something at the path already, or nothing can be
    written there.

    Parameters
    ----------
    software
        Names and versions of what else takes part.
    run_id
        What all ranks of a job call it; chosen at random unless given.
    compacted_from
        Id of the run that is to be compacted into this one.
    """
    run = RunAttributes(
        uuid.uuid4().hex if run_id is None else run_id,
        now(),
        {"tsstore": __version__, **(software or {})},
        compacted_from,
    )
    try:
        if files.names(""):
            raise FileExistsError
        create_group(files, "", run.to_json())
    except AccessError:
        raise
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError) and files.exists(""):
            raise StoreExistsError(
                f"{files.location} exists already; expected a new path: choose another one, "
                "or remove what is there"
            ) from None
        raise AccessError(
            f"{files.location} cannot be created ({error}); make room or get permission there, or "
            "choose another path"
        ) from error
    # Other processes sync their own parts only.
    files.sync()
    return run


def begin_run(
    files: Files,
    software: Mapping[str, str] | None = None,
    *,
    run_id: str | None = None,
    resume: bool = False,
    many: bool = False,
) -> RunAttributes:
    """Create the root of a run, or join the run that is there; no ranks need to wait for others.

    StoreExistsError where there is another run and `resume` is false, or something that is no run;
    what the error says depends on whether this is one of `many` ranks.
    """
    try:
        return create_run(files, software, run_id)
    except StoreExistsError:
        try:
            run = read_run(files)
        except NotAStoreError as error:
            raise StoreExistsError(
                f"{files.location} exists already, but {error}; choose another path"
            ) from None
    if resume or (run_id is not None and run_id == run.run_id):
        return run
    ours = "this job has no run_id" if run_id is None else f"this job is run {run_id!r}"
    hint = "all ranks of a job need the same run_id; " if many else ""
    raise StoreExistsError(
        f"{files.location} exists already: it holds run {run.run_id!r:.80}, {ours}; {hint}"
        "resume=True goes on with it, overwrite=True deletes it, or choose another path"
    )


def read_run(files: Files) -> RunAttributes:
    """Return what the root of a run says, checked; NotAStoreError where there is no run."""
    where, document = files.where(ZARR_JSON), find_document(files, "")
    if document is None:
        found = "found something else" if files.exists("") else "found nothing there"
        raise NotAStoreError(
            f"{files.location} is no tsstore run: {found}, expected a directory with zarr.json; "
            f"{_hint(files.location)}"
        )
    attributes = document.get("attributes")
    if not isinstance(attributes, dict) or "tsstore" not in attributes:
        raise NotAStoreError(
            f"{files.location} is a Zarr hierarchy but no tsstore run: expected "
            "attributes.tsstore; check the path"
        )
    run = tsstore_attributes(document, where)
    if "analysis" in run:
        raise NotAStoreError(
            f"{files.location} is no tsstore run but a saved analysis: load it with "
            "tsstore.Analysis.load, or tsstore.GroupedAnalysis.load where it is one of groups"
        )
    if run.get("kind") == "part":
        raise NotAStoreError(
            f"{files.location} is no tsstore run but a part of one: open the folder that holds it"
        )
    # A newer format may have another rule for the checksum: its version comes first.
    check_format(run, where)
    return RunAttributes.from_json(check_attributes(run, "", files.location), "attributes", where)


def _hint(location: str) -> str:
    """Return what somebody may have meant by a path where there is no run."""
    path = Path(location)
    if path.name == ZARR_JSON:
        return f"did you mean {path.parent}?"
    try:
        near = [folder.name for folder in path.parent.iterdir() if (folder / ZARR_JSON).is_file()]
    except OSError:
        near = []
    names = get_close_matches(path.name, near, cutoff=0.5) or (near if len(near) == 1 else [])
    return f"did you mean {path.with_name(names[0])}?" if names else "check the path"


def remove_run(files: Files) -> None:
    """Remove a run for ever, also one that is removed by half; nothing may be there.

    The root goes first: what is left is not taken for a smaller run. No process may write the run.
    Where the path holds anything that is not of a run, NotAStoreError is raised, nothing removed.
    """
    names = files.list("")
    if ZARR_JSON in names:
        read_run(files)
    foreign = [name for name in names if not _OF_A_RUN.fullmatch(name)]
    if foreign:
        raise NotAStoreError(
            f"{files.location} holds {printable(', '.join(foreign)):.200}, which is not of a "
            "tsstore run; nothing was removed: move it away, or choose another path"
        )
    for name in sorted(names, key=ZARR_JSON.__ne__):
        files.remove_tree(name)
        files.sync()
