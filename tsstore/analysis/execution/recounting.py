"""What is left to do of a graph of blocks and partitions where workers have lost records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tsstore.analysis.execution.exchange import FiledSlices, Receipt, Receipts
from tsstore.analysis.schedulers import Report

BLOCK = "tsstore-block"
"""Begins the keys of tasks that give receipts."""


def files_of(value: Any) -> list[str]:
    """Return the files of records of what one task or two layers' task has given."""
    receipts = [value.first, value.second] if isinstance(value, Receipts) else [value]
    slices = [receipt.slices for receipt in receipts if isinstance(receipt, Receipt)]
    return [own.file for own in slices if isinstance(own, FiledSlices)]


def left_to_do(
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


def is_block(key: Any) -> bool:
    """Whether a task gives a receipt."""
    return isinstance(key, tuple) and str(key[0]).startswith(BLOCK)


def new_name(key: Any, lost: int) -> Any:
    """Return the name of a key after so many losses."""
    if not lost:
        return key
    return (f"{key[0]}~{lost}", *key[1:]) if isinstance(key, tuple) else f"{key}~{lost}"


def report_later(report: Report, before: int, total: int) -> Report:
    """Return what reports tasks of which so many were done before."""
    return lambda done, _: report(before + done, total)
