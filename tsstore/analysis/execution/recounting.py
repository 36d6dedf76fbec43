"""Running a graph of blocks and partitions: what workers lose of the records is counted again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tsstore.analysis.execution.exchange import FiledSlices, Receipt, Receipts
from tsstore.analysis.execution.worker_records import LostRecordsError, is_held
from tsstore.analysis.schedulers import Report, Scheduler, task_keys
from tsstore.errors import AnalysisError

BLOCK = "tsstore-block"
"""Begins the keys of tasks that give receipts."""

MOST_LOSSES = 10
"""Times that records are lost before it is an error."""


def run_graph(
    scheduler: Scheduler, graph: dict[Any, Any], key: Any, threads: int, report: Report | None
) -> Any:
    """Run a graph on a scheduler; where a worker is lost, blocks whose records it held run again.

    Other blocks do not, nor what gives those of the wanted values that are there already.
    """
    if not scheduler.is_holding:
        return scheduler.run(graph, key, threads, report)
    wanted = key if isinstance(key, list) else [key]
    total, known, left = len(task_keys(graph)), dict[Any, Any](), graph
    for lost in range(MOST_LOSSES):
        names = {one: _named(one, lost) for one in graph}
        missing = [one for one in wanted if one not in known]
        left = graph if not known and not lost else _left(graph, missing, known, names)
        try:
            values = scheduler.run(
                left,
                [names[one] for one in missing],
                threads,
                None if report is None else _later(report, total - len(task_keys(left)), total),
                [name for name in task_keys(left) if _is_block(name)],
            )
        except LostRecordsError as error:
            found = {one: error.values[names[one]] for one in graph if names[one] in error.values}
            known |= found
            known = _still_held(known, scheduler)
            reason = error
        else:
            known |= zip(missing, values, strict=True)
            return [known[one] for one in key] if isinstance(key, list) else known[key]
    raise AnalysisError(
        f"workers were lost, with the records that they held, {MOST_LOSSES} times ({reason}); look "
        "into their logs: if they ran out of memory give less as memory=, and if they do not last "
        "or cannot reach each other, a folder or object storage as scratch="
    ) from reason


def _still_held(known: dict[Any, Any], scheduler: Scheduler) -> dict[Any, Any]:
    """Return what is known without the receipts of records that no worker holds any more."""
    files = {key: _files(value) for key, value in known.items()}
    every = [file for own in files.values() for file in own if is_held(file)]
    held = scheduler.keep_records(every)
    return {key: value for key, value in known.items() if held.issuperset(files[key])}


def _files(value: Any) -> list[str]:
    """Return the files of records of what one task or two layers' task has given."""
    receipts = [value.first, value.second] if isinstance(value, Receipts) else [value]
    slices = [receipt.slices for receipt in receipts if isinstance(receipt, Receipt)]
    return [own.file for own in slices if isinstance(own, FiledSlices)]


def _left(
    graph: Mapping[Any, Any], wanted: Iterable[Any], known: Mapping[Any, Any], names: dict[Any, Any]
) -> dict[Any, Any]:
    """Return what a graph has still to do for the wanted keys, under new names.

    A cluster may still know the old ones, and what became of them.
    """
    left: dict[Any, Any] = {}
    open_keys = list(wanted)

    def renamed(part: Any) -> Any:
        if isinstance(part, list):
            return [renamed(one) for one in part]
        if isinstance(part, str | tuple) and _is_key(part, graph):
            open_keys.append(part)
            return names[part]
        return tuple(renamed(one) for one in part) if type(part) is tuple else part

    while open_keys:
        key = open_keys.pop()
        if names[key] not in left:
            value = known.get(key, graph[key])
            left[names[key]] = tuple(map(renamed, value)) if type(value) is tuple else value
    return left


def _is_key(part: Any, graph: Mapping[Any, Any]) -> bool:
    try:
        return part in graph
    except TypeError:  # It holds what cannot be a key.
        return False


def _is_block(key: Any) -> bool:
    return isinstance(key, tuple) and str(key[0]).startswith(BLOCK)


def _named(key: Any, lost: int) -> Any:
    """Return the name of a key after so many losses."""
    if not lost:
        return key
    return (f"{key[0]}~{lost}", *key[1:]) if isinstance(key, tuple) else f"{key}~{lost}"


def _later(report: Report, before: int, total: int) -> Report:
    """Return what reports tasks of which so many were done before."""
    return lambda done, _: report(before + done, total)
