"""Which layers the parts of a run hold, and where: found without opening what is not asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from tsstore.errors import DamageError, FormatError, StoreError, UnknownLayerError
from tsstore.store.format.paths import MAX_SLUG
from tsstore.store.reading.layer import layer_cells
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.part import Part, readers
from tsstore.store.threads import in_threads_if_slow
from tsstore.text import printable

Places = Mapping[str, Mapping[str, str]]
"""Directories of layers: by public name, then by the directory of the part."""


def layer_places(parts: Sequence[Part]) -> Places:
    """Return where each layer lies in each part that holds it, in the order of capture.

    The name is read in the first part that has such a directory. Where that spells it in full, it
    is believed of the parts that promise to hold the layers of the others; whoever opens the layer
    of one name in all of them finds out. Other names are read in each part.
    """
    first: dict[str, Part] = {}
    for part in parts:
        for directory in part.layers.directories:
            first.setdefault(directory, part)
    known = dict(zip(first, _read_names([(part, at) for at, part in first.items()]), strict=True))
    # Whose directories say their names in full, nothing cut off and nothing replaced.
    spelt = {
        directory
        for directory, name in known.items()
        if directory.partition("-")[2] == name and len(name) < MAX_SLUG
    }

    def is_known(part: Part, directory: str) -> bool:
        return directory in spelt and part.attributes.missing == "error"

    pairs = [(part, directory) for part in parts for directory in part.layers.directories]
    _read_names([pair for pair in pairs if not is_known(*pair)])
    places: dict[str, dict[str, str]] = {}
    for part, directory in pairs:
        here = is_known(part, directory)
        name = known[directory] if here else part.layers.name(directory)
        place = places.setdefault(name, {})
        if place.setdefault(part.directory, directory) != directory:
            raise FormatError(
                f"{part.files.where(part.directory)}: two layers are called {name!r:.80}; expected "
                "each name once: it was not written by tsstore"
            )
    return places


def layer_parts(path: str, layer: str, parts: Sequence[Part]) -> Iterator[tuple[Part, LayerPart]]:
    """Open a layer in each part that holds it, or whose samples have no rows in it.

    UnknownLayerError where no part has it; StoreError or DamageError where one holds samples, but
    not of that layer, and says not why.
    """
    opened = list(in_threads_if_slow(lambda part: part.layers.get(layer), parts, readers(parts)))
    lacking = [p for p, held in zip(parts, opened, strict=True) if held is None and p.samples]
    steps = {part.step for part, held in zip(parts, opened, strict=True) if held is not None}
    if not steps:
        raise UnknownLayerError(f"{path}: none of these samples has layer {printable(layer)}")
    _check_lacking(path, layer, lacking, steps)
    first = next(held for held in opened if held is not None)
    for part, held in zip(parts, opened, strict=True):
        if held is not None:
            yield part, held
        elif part.samples:
            yield part, first.without_rows(part.directory, part.samples)


def layer_lines(path: str, parts: Sequence[Part], places: Places) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table of a run's layers: rows and positions by the commit records.

    What else a layer says is read in its first part. Errors as of :func:`layer_parts`, but for the
    steps at which a layer was not captured.
    """
    for layer, held in places.items():
        holding = [part for part in parts if part.directory in held]
        steps = {part.step for part in holding}
        lacking = [
            part
            for part in parts
            if part.directory not in held
            and part.samples
            and (part.step in steps or part.seal is None or part.attributes.missing == "empty")
        ]
        _check_lacking(path, layer, lacking, steps)
        commits = [part.record.layers[held[part.directory]] for part in holding]
        counts = {0 for _ in lacking} | {
            commit.states.rows // part.samples if commit.positions is None else None
            for part, commit in zip(holding, commits, strict=True)
            if part.samples
        }
        yield layer_cells(
            holding[0].layers.attributes(held[holding[0].directory]),
            counts.pop() if len(counts) == 1 else None,
            sum(commit.states.rows for commit in commits),
        )


def _check_lacking(
    path: str, layer: str, lacking: Sequence[Part], steps: Set[int | str | None]
) -> None:
    """Raise unless all parts with samples that do not have a layer, which steps have, say why."""
    unexplained = [part for part in lacking if part.attributes.missing == "error"]
    if not unexplained:
        return
    names = ", ".join(part.directory for part in unexplained)
    what = f"{path}: layer {printable(layer)} has no states in {names}, which hold samples"
    if any(part.seal is None for part in unexplained):
        raise StoreError(f"{what}; other parts have it already: wait for the next commit")
    what = f"{what}; the parts were captured with different layers"
    if not any(part.step in steps for part in unexplained):
        what = f"{what} at different steps: a view of one step has its own, as at_step returns it"
    raise DamageError(what)


def _read_names(pairs: Sequence[tuple[Part, str]]) -> list[str]:
    """Return the names of the layers in some parts' directories."""
    threads = readers([part for part, _ in pairs])
    return list(in_threads_if_slow(lambda pair: pair[0].layers.name(pair[1]), pairs, threads))
