"""Where everything of a run lies: directories, and the paths of groups and arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIRECTORY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,95}")
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_SLUG = 48
_UNSAFE = re.compile(r"[^a-z0-9_.-]+")


def is_directory(name: str) -> bool:
    """Whether `name` is one that format 1 gives to a directory."""
    return _DIRECTORY.fullmatch(name) is not None


def directory_name(index: int, name: str) -> str:
    """Return the directory of the `index`-th layer or column, whatever its name.

    The index makes it unique where file systems ignore case; the name in full is in attributes.
    """
    return f"{index:04d}-{slug(name)}"


def slug(name: str) -> str:
    """Return what is left of a name in the directory of a layer, behind its index."""
    return _UNSAFE.sub("_", name.lower())[:MAX_SLUG]


def column_directory(index: int, name: str) -> str:
    """Return the directory of a sample column: its name where that is plain and lower-case."""
    return name if is_plain(name) else directory_name(index, name)


def is_plain(name: str) -> bool:
    """Whether a sample column of that name lies in the directory of that name."""
    return _PLAIN_NAME.fullmatch(name) is not None


def part_directory(rank: int, attempt: int) -> str:
    """Return the directory of a part."""
    return f"part-{rank:05d}-{attempt:05d}"


@dataclass(frozen=True)
class ArrayPaths:
    """Where an array of a part and the checksums of its chunks lie.

    Attributes
    ----------
    values
        Path of the array.
    checksums
        Path of the array of its chunks' checksums.
    dimension
        Name of the checksums' axis: another one where a group holds two such arrays.
    """

    values: str
    checksums: str
    dimension: str = "chunk"


def states_paths(part: str, directory: str) -> ArrayPaths:
    """Return the paths of a layer's states."""
    layer = layer_path(part, directory)
    return ArrayPaths(f"{layer}/states", f"{layer}/checksums")


def positions_paths(part: str, directory: str) -> ArrayPaths:
    """Return the paths of a layer's numbers of rows by sample."""
    layer = layer_path(part, directory)
    checksums = f"{layer}/positions_checksums"
    return ArrayPaths(f"{layer}/positions", checksums, "positions_chunk")


def column_paths(part: str, directory: str) -> ArrayPaths:
    """Return the paths of a sample column."""
    return ArrayPaths(f"{part}/samples/{directory}", f"{part}/sample_checksums/{directory}")


def layer_path(part: str, directory: str) -> str:
    """Return the path of a layer's group."""
    return f"{part}/layers/{directory}"


def commit_path(part: str) -> str:
    """Return the path of the group whose attributes are the commit record."""
    return f"{part}/commit"


def seal_path(part: str) -> str:
    """Return the path of the group whose existence seals the part."""
    return f"{part}/sealed"
