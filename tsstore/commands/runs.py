"""Commands about runs on disk: what one holds, whether it is sound, tidying up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from shutil import disk_usage
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsstore.commands import options
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import print_json, print_lines, print_table, progress
from tsstore.errors import AccessError, DamageError, StoreError
from tsstore.text import counted, format_memory, printable

if TYPE_CHECKING:
    from tsstore.store.maintenance.findings import VerifyReport
    from tsstore.store.maintenance.repair import RepairReport
    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.part import Part
    from tsstore.store.reading.status import PartStatus
    from tsstore.store.reading.store import StateStore

MOST_COMPARED = {False: 1 << 23, True: 1 << 20}
"""So many ids are compared at most, of integers and of text: some 300 MiB, and seconds."""
MOST_SEEN = 12
"""The pace of a run that is followed is that over so many lines."""


def info(
    run: options.RunPath,
    watch: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Follow a job: a line every so often."),
    ] = None,
    total: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="So many samples it will have, where the job does not say."
        ),
    ] = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Say what a run holds: parts, layers, samples, commits."""
    if watch is not None and json:
        raise StoreError("--watch follows a run, a line every so often; leave it out with --json")
    if watch is not None:
        print_lines(_followed(run, watch, total))
        return
    if total is not None:
        raise StoreError("--total is for a run that is followed; pass --watch as well")
    import tsstore
    from tsstore.store.reading.layer import LAYER_HEADINGS

    store = tsstore.open(run)
    if json:
        print_json(run_document(store))
        return
    lines = f"{printable(store.path)}: {store.summary}", repeats_text(store)
    print_lines(filter(None, lines), format=format)
    print_table(
        ["part", "rank", "attempt", "step", "samples", "last commit", "status"],
        [
            _part_cells(part, str(status))
            for part, status in zip(store.parts, store.part_statuses, strict=True)
        ],
        ("last commit", "step", "rank", "attempt"),
        format=format,
    )
    layers = list(store.layer_lines())
    if format is not TableFormat.TABLE:
        print_lines([""])
    print_table(LAYER_HEADINGS, layers, ("positions", "threshold", "dtype"), format=format)


def verify(run: options.RunPath, json: options.Json = False) -> None:
    """Read a run back whole, and say what is damaged or unreadable.

    Exit code 1 if anything is damaged, 2 if nothing is but something cannot be read just now.
    """
    from tsstore.store.maintenance.verify import verify as read_back

    with progress(silent=json) as report:
        result = read_back(run, report)
    _print_report(result, json)
    if not result.ok:
        raise typer.Exit(1 if result.errors else 2)


def repair(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run that nobody writes.")],
    json: options.Json = False,
) -> None:
    """Tidy up after a run that was cut off.

    Parts are sealed, and half-written files removed. What was committed is not touched.
    """
    from tsstore.store.maintenance.repair import repair as tidy_up

    result = tidy_up(run)
    _print_report(result, json)


def compact(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Path of a run that has ended.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where to create the new run.")],
    json: options.Json = False,
) -> None:
    """Rewrite a run as one part in few files, and compare the two.

    The old run is only read.
    """
    import tsstore
    from tsstore.store.maintenance.compact import compact as rewrite
    from tsstore.store.maintenance.compact import disk_usage

    source = tsstore.open(run)
    with progress(silent=json) as report:
        store = rewrite(source, out, progress=report)
    (files, size), (new_files, new_size) = disk_usage(run), disk_usage(out)
    if json:
        parts = {"parts": len(store.parts), "parts_before": len(source.parts)}
        weights = {"files": new_files, "files_before": files}
        weights |= {"bytes": new_size, "bytes_before": size}
        print_json({"run": source.path, "path": store.path, **parts, **weights})
        return
    typer.echo(
        f"{printable(store.path)}: {counted(len(source.parts), 'part')} → {len(store.parts):,}, "
        f"{files:,} files → {new_files:,}, {size:,} bytes → {new_size:,}; all entries are the same"
    )


def _print_report(result: VerifyReport | RepairReport, json: bool) -> None:
    if json:
        print_json(result.to_dict())
    else:
        typer.echo(str(result))


def run_document(store: StateStore) -> dict[str, Any]:
    """Return what a run holds, as JSON can hold it."""
    commit = store.last_commit
    parts = zip(store.parts, store.part_statuses, strict=True)
    return {
        "run": store.path,
        "run_id": store.run.run_id,
        "created": store.run.created,
        "software": dict(store.run.software),
        "status": str(store.status),
        "samples": store.samples,
        "total": _expected(store),
        "last_commit": None if commit is None else commit.isoformat(),
        "steps": list(store.steps),
        "columns": list(store.columns),
        "parts": [_part_document(part, status) for part, status in parts],
        "layers": {layer.name: _layer_document(layer) for layer in store.values()},
        "sentences": list(filter(None, [repeats_text(store)])),
    }


def _part_document(part: Part, status: PartStatus) -> dict[str, Any]:
    return {
        "part": part.directory,
        "rank": part.attributes.rank,
        "attempt": part.attributes.attempt,
        "step": part.step,
        "samples": part.record.samples,
        "last_commit": part.record.time or None,
        "waited": part.record.waited,
        "status": status.state,
        "why": status.why,
        "continued_by": status.by or None,
    }


def _layer_document(layer: LayerStates) -> dict[str, Any]:
    return {
        "neurons": layer.neurons,
        "positions": layer.positions,
        "rows": layer.rows,
        "threshold": layer.attributes.threshold["given"],
        "dtype": layer.attributes.dtype,
        "module_class": layer.attributes.module_class,
    }


def _followed(run: str, seconds: float, total: int | None) -> Iterator[str]:
    """Yield lines on a run every so often, while a process writes it: of it, and of live parts.

    `total` is how many samples there will be, where the run does not say that itself.
    """
    import tsstore
    from tsstore.store.reading.status import LIVE, status_text

    seen: list[tuple[float, dict[str, int]]] = []
    while True:
        store = tsstore.open(run)
        samples = {part.directory: part.samples for part in store.parts}
        seen = [*seen[-MOST_SEEN:], (monotonic(), samples)]
        before, elapsed = seen[0][1], seen[-1][0] - seen[0][0]
        expected = _expected(store) if total is None else total
        facts = [*_pace(samples, before, elapsed, expected), counted(len(store.parts), "part")]
        facts.append(status_text(store.status, store.part_statuses, store.last_commit))
        with suppress(OSError):
            facts.append(f"{format_memory(disk_usage(run).free)} of disk left")
        yield " · ".join(facts)
        if store.status != LIVE:
            return
        for part, status in zip(store.parts, store.part_statuses, strict=True):
            if status.state == LIVE and (len(samples) > 1 or part.record.waited):
                now, own = {part.directory: part.samples}, {part.directory: 0}
                own |= {name: before[name] for name in now if name in before}
                facts = [*_pace(now, own, elapsed, None), *_waiting(part)]
                yield f"  {part.directory}: {' · '.join(facts)}"
        sleep(seconds)


def _expected(store: StateStore) -> int | None:
    """Return how many samples a run will have at all its steps; None where a step does not say."""
    by_step: dict[object, int] = {}
    for part in store.parts:
        by_step[part.step] = max(by_step.get(part.step, 0), part.attributes.total or 0)
    return sum(by_step.values()) if by_step and all(by_step.values()) else None


def _waiting(part: Part) -> list[str]:
    """Say which share of its time, until its last commit, a job waited for the writer."""
    from tsstore.store.reading.status import parse_time

    if part.record.waited is None or not part.record.time:
        return []
    begun, now = (
        parse_time(time, part.directory) for time in (part.attributes.started, part.record.time)
    )
    seconds = max((now - begun).total_seconds(), part.record.waited, 1e-3)
    return [f"waits for the writer {part.record.waited / seconds:.0%} of the time"]


def _pace(
    samples: dict[str, int], before: dict[str, int], elapsed: float, total: int | None
) -> list[str]:
    """Say how many samples there are, how many come in a second, and how long the others take."""
    now = sum(samples.values())
    facts = [f"{now:,} samples" if total is None else f"{now:,} of {total:,} samples"]
    if elapsed:
        pace = (now - sum(before.values())) / elapsed
        facts.append(f"{pace:,.1f} a second")
        if total is not None and pace > 0:
            left = timedelta(seconds=round(max(total - now, 0) / pace))
            facts.append(f"{left} left")
    return facts


def repeats_text(store: StateStore) -> str:
    """Return how many samples of a run repeat others, of which all ids are read; or nothing.

    Whatever ids cannot be compared are the user's, and no error. There may be too many for a
    command that is to answer at once.
    """
    from tsstore.store.reading.ids import id_dtype

    try:
        few = store.samples <= min(MOST_COMPARED.values())
        if not few and store.samples > MOST_COMPARED[id_dtype(store.parts).kind == "O"]:
            return (
                f"{store.samples:,} samples are too many to look here for those that repeat others;"
                " tsstore analyze does"
            )
        count = store.repeated_samples
    except (AccessError, DamageError):
        raise
    except StoreError as error:
        return f"repeated samples cannot be counted: {printable(str(error))}"
    return f"{count:,} samples repeat another one of the same id" if count else ""


def _part_cells(part: Part, status: str) -> list[str]:
    attributes, record = part.attributes, part.record
    return [
        part.directory,
        str(attributes.rank),
        str(attributes.attempt),
        "" if part.step is None else printable(str(part.step)),
        f"{record.samples:,}",
        printable(record.time) or "none",
        printable(status),
    ]
