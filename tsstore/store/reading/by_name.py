"""The layers and sample columns of a part by public name, each opened when it is first asked for.

A directory says what the name of what lies in it looks like, so that one can be found without
reading all others; the name in full is in its attributes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from tsstore.errors import FormatError
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.format.documents import text
from tsstore.store.format.paths import (
    column_paths,
    is_plain,
    layer_path,
    positions_paths,
    slug,
    states_paths,
)
from tsstore.store.format.record import CommitRecord
from tsstore.store.reading.layer_part import LayerPart

_Opened = TypeVar("_Opened")


class ByName(Mapping[str, _Opened]):
    """What a part holds in some `directories`, in their order, by public name."""

    def __init__(self, files: Files, part: str, directories: Iterable[str]) -> None:
        self.directories = tuple(directories)
        self._files = files
        self._part = part
        self._opened: dict[str, _Opened] = {}

    def __getitem__(self, name: str) -> _Opened:
        directory = self.directory(name)
        if directory is None:
            raise KeyError(name)
        return self._at(directory)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.directory(name) is not None

    def __iter__(self) -> Iterator[str]:
        for directory in self.directories:
            name = self.name(directory)
            # Which fails where there are two.
            self.directory(name)
            yield name

    def __len__(self) -> int:
        return len(self.directories)

    @abstractmethod
    def name(self, directory: str) -> str:
        """Return the public name of what lies in a directory, which is read for it if need be."""

    def directory(self, name: str) -> str | None:
        """Return where what is called so lies; None where nothing is."""
        likely = self._by_look.get(self._look(name), ())
        found = [directory for directory in likely if self.name(directory) == name]
        if len(found) > 1:
            where = self._files.where(self._part)
            raise FormatError(f"{where}: two layers or columns are called {name!r:.80}")
        return found[0] if found else None

    @abstractmethod
    def _open(self, directory: str) -> _Opened: ...

    @abstractmethod
    def _look(self, name: str) -> str:
        """Return what the directories of all names are like that cannot be told from this one."""

    @cached_property
    def _by_look(self) -> dict[str, list[str]]:
        looks = defaultdict(list)
        for directory in self.directories:
            looks[_look(directory)].append(directory)
        return looks

    def _at(self, directory: str) -> _Opened:
        if directory not in self._opened:
            self._opened[directory] = self._open(directory)
        return self._opened[directory]

    def _checked(self, name: str, path: str) -> str:
        """Return a name if what is called so lies in the right directory."""
        directory = path.rpartition("/")[2]
        if self._look(name) != _look(directory):
            raise FormatError(
                f"{self._files.location}/{path}: its name is {name!r:.80}, which its directory "
                f"contradicts; expected one that ends in {slug(name)!r}: it was not written by "
                "tsstore"
            )
        return name


def _look(directory: str) -> str:
    """Return what a directory says of a name: with a hyphen where it says not all."""
    index, hyphen, rest = directory.partition("-")
    return hyphen + rest if hyphen else index


class PartLayers(ByName[LayerPart]):
    """The layers of a part."""

    def __init__(self, files: Files, part: str, record: CommitRecord) -> None:
        super().__init__(files, part, record.layers)
        self._record = record
        self._attributes: dict[str, LayerAttributes] = {}

    def name(self, directory: str) -> str:
        """Return the public name of the layer in a directory."""
        return self.attributes(directory).name

    def attributes(self, directory: str) -> LayerAttributes:
        """Return what the layer in a directory says of its rows."""
        if directory not in self._attributes:
            path = layer_path(self._part, directory)
            found = LayerAttributes.read(self._files, path)
            self._checked(found.name, path)
            self._attributes[directory] = found
        return self._attributes[directory]

    def _look(self, name: str) -> str:
        return f"-{slug(name)}"

    def _open(self, directory: str) -> LayerPart:
        attributes, commit = self.attributes(directory), self._record.layers[directory]
        paths, shape = states_paths(self._part, directory), (attributes.row_bytes,)
        states = CommittedArray.open(self._files, paths, commit.states, "uint8", shape)
        positions = None
        if commit.positions is not None:
            paths = positions_paths(self._part, directory)
            positions = CommittedArray.open(self._files, paths, commit.positions, "int64")
        samples = self._record.samples
        return LayerPart(self._part, attributes, states, positions, samples, commit.lengths)


class PartColumns(ByName[CommittedArray]):
    """The sample columns of a part."""

    def __init__(self, files: Files, part: str, record: CommitRecord) -> None:
        super().__init__(files, part, record.columns)
        self._commits = record.columns

    def name(self, directory: str) -> str:
        """Return the name of the column in a directory: that itself where it is plain."""
        if is_plain(directory):
            return directory
        return str(self._at(directory).attributes["name"])

    def _look(self, name: str) -> str:
        return name if is_plain(name) else f"-{slug(name)}"

    def _open(self, directory: str) -> CommittedArray:
        paths = column_paths(self._part, directory)
        column = CommittedArray.open(self._files, paths, self._commits[directory])
        where = f"{self._files.location}/{paths.values}"
        self._checked(text(column.attributes.get("name"), "name", where), paths.values)
        return column


def aliases(name: str) -> tuple[str, ...]:
    """Return what a name may mean: the tutorial's names for outputs and inputs included."""
    before = (name.removesuffix("_pre_states") + ":before",) * name.endswith("_pre_states")
    return name, name.removesuffix("_post_states"), *before, name.removesuffix("_states")
