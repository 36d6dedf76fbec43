"""Going on where earlier attempts stopped: they are sealed, and say what is done."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy.typing as npt

from tsstore.errors import ResumeError, StoreExistsError
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.format.documents import metadata_key
from tsstore.store.format.paths import seal_path
from tsstore.store.reading.ids import ID, missing_ids
from tsstore.store.reading.part import Part, open_parts
from tsstore.store.reading.status import RESUMED, closes, is_closed
from tsstore.store.run import read_run
from tsstore.store.writing.part import PartWriter, next_attempt, seal_part
from tsstore.text import printable

_LAYER_FIELDS = (
    "output", "neuron_axis", "sample_axis", "neurons", "threshold", "dtype", "where", "sampling",
)  # fmt: skip
"""What must be the same of a layer, so that its rows can be counted together."""

_FOR_ALL_BATCHES = {"as many entries as samples", "contiguous", "interleaved"}
"""How a layer's entries can belong to samples in all batches alike."""


@dataclass(frozen=True)
class Earlier:
    """What earlier attempts of one step hold, for one rank.

    A rank goes on from all parts whose rank, modulo its world size, is its own: also where the
    world size has changed, each part has one rank that goes on from it.

    Attributes
    ----------
    part
        What the rank is: its rank, world size, step and model.
    parts
        All parts of the step, with the commits that count.
    attempt
        Which attempt this rank's next part is.
    run_id
        Of the run.
    others
        Directories of the parts of other steps.
    threshold
        As given for this job; None if any will do.
    """

    location: str
    part: PartAttributes
    parts: tuple[Part, ...]
    attempt: int
    run_id: str = ""
    others: frozenset[str] = frozenset()
    threshold: float | None = None

    @cached_property
    def own_parts(self) -> tuple[Part, ...]:
        """The parts from which this rank goes on."""
        size = self.part.world_size
        return tuple(p for p in self.parts if p.attributes.rank % size == self.part.rank)

    @cached_property
    def committed_samples(self) -> int:
        """Number of samples in the sealed parts from which this rank goes on."""
        return sum(part.samples for part in self.own_parts if part.seal is not None)

    @cached_property
    def committed_bytes(self) -> int:
        """Bytes of rows, before compression, in these parts."""
        return sum(
            layer.rows * layer.attributes.row_bytes
            for part in self.own_parts
            if part.seal is not None
            for layer in part.layers.values()
        )

    @property
    def is_complete(self) -> bool:
        """Whether this rank's newest part was closed by its own writer, in a world of that size."""
        mine = [part for part in self.parts if part.attributes.rank == self.part.rank]
        newest = max(mine, key=lambda part: part.attributes.attempt, default=None)
        same_size = newest and newest.attributes.world_size == self.part.world_size
        return newest is not None and bool(same_size) and is_closed(newest)

    def check_alone(self, files: Files) -> None:
        """Raise ResumeError where another process has gone on from these parts meanwhile."""
        if read_run(files).run_id != self.run_id:
            raise ResumeError(f"{self.location} is another run by now; stop this job")
        known = self.others.union(part.directory for part in self.parts)
        for name in files.list(""):
            part = (
                Part.find(files, name) if name.startswith("part-") and name not in known else None
            )
            if part is not None and part.step == self.part.step:
                mine, theirs = self.part, part.attributes
                mine_follows = theirs.rank % mine.world_size == mine.rank
                if mine_follows or mine.rank % theirs.world_size == theirs.rank:
                    raise ResumeError(
                        f"{self.location}: another process goes on from the same parts, and has "
                        f"begun {part.directory} since this job started; stop one of the two"
                    )

    def missing(self, ids: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return those of some ids, integers or text, that no sealed part of the step holds.

        Parts of other ranks that are being written do not count: their samples may come twice, and
        can be told by their ids later.
        """
        return missing_ids([part for part in self.parts if part.seal is not None], ids)

    def check_job(self) -> None:
        """Raise ResumeError where this job's samples may not stand beside those of the step.

        Model and threshold must be the same; where samples have no ids, the world size as well, and
        no part may have been compacted from others.
        """
        for part in self.parts:
            if part.samples:
                mine, theirs = dict(self.part.model), dict(part.attributes.model)
                if mine and theirs and mine != theirs:
                    raise self._refusal("model", mine, theirs, part)
                self._check_world_size(part)
                self._check_threshold(part)

    def check_layers(self, layers: Mapping[str, LayerAttributes], complete: bool) -> None:
        """Raise ResumeError where layers, all of them if `complete`, are not those of the step."""
        for part in self.parts:
            for name in layers.keys() & part.layers.keys():
                self._check_layer(layers[name], part)
            # What one does not have must be empty there: whoever lacks it has to say so.
            may_lack = part.attributes.missing == "empty"
            mine = set() if may_lack else layers.keys() - part.layers.keys()
            theirs = part.layers.keys() - layers.keys() if complete else set()
            if part.samples and (mine or theirs):
                raise self._refusal(
                    "layers", f"{_names(mine)} more", f"{_names(theirs)} more", part
                )

    def layers_named(self, name: str) -> list[LayerAttributes]:
        """Return what the step's earlier parts say of a layer, or of its calls."""
        return [
            layer.attributes
            for part in self.parts
            for layer in part.layers.values()
            if layer.attributes.name.partition("#")[0] == name
        ]

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Raise ResumeError where sample columns (dtypes by name) are not those of the step."""
        for part in self.parts:
            theirs = {name: column.spec.dtype for name, column in part.columns.items()}
            if part.samples and theirs != dict(columns):
                raise self._refusal("sample columns", _typed(columns), _typed(theirs), part)

    def _check_layer(self, layer: LayerAttributes, part: Part) -> None:
        earlier = part.layers[layer.name].attributes
        for field in _LAYER_FIELDS:
            if _of_rows(layer, field) != _of_rows(earlier, field):
                mine, theirs = _with_reason(layer, field), _with_reason(earlier, field)
                raise self._refusal(f"layer {printable(layer.name)}: {field}", mine, theirs, part)

        mine, theirs = _belonging(layer), _belonging(earlier)
        kinds = {reason.partition(":")[0] for reason in (mine, theirs)}
        if len(kinds) > 1 and kinds <= _FOR_ALL_BATCHES:
            what = f"layer {printable(layer.name)}: which sample a row belongs to"
            raise self._refusal(what, mine, theirs, part)

    def _check_world_size(self, part: Part) -> None:
        if ID in part.columns:
            return
        nothing_tells = f"no column {ID!r} tells which samples are done, and the"
        mine, theirs = self.part.world_size, part.attributes.world_size
        if mine != theirs:
            raise self._refusal(f"{nothing_tells} world size", mine, theirs, part)
        if sources := len(part.attributes.compacted_from):
            # Of which ranks they were, and of how many, their number cannot tell.
            order = f"that of {sources} compacted parts"
            raise self._refusal(f"{nothing_tells} order", "that of this rank", order, part)

    def _check_threshold(self, part: Part) -> None:
        # Each layer's is checked at the first batch, too, but that may take hours to come.
        for name, layer in part.layers.items():
            theirs = layer.attributes.threshold["given"]
            if self.threshold is not None and theirs != self.threshold:
                what = f"threshold of layer {printable(name)}"
                raise self._refusal(what, self.threshold, theirs, part)

    def _refusal(self, what: str, mine: object, theirs: object, part: Part) -> ResumeError:
        return ResumeError(
            f"{self.location}: this job does not go on from {part.directory} at step "
            f"{self.part.step!r:.80}: {what}: {_shown(mine)} in this job, {_shown(theirs)} there; "
            "resume with the same, or choose another step or another path"
        )


def resume_step(files: Files, part: PartAttributes, *, threshold: float | None = None) -> Earlier:
    """Seal the earlier parts of a step from which a rank goes on, and say what they hold.

    Nothing is sealed where this job does not fit: the one that does may still be running.
    """
    why = f"{RESUMED} rank {part.rank} of {part.world_size}"
    while True:
        # The attempt comes first: a part that begins after this look takes the number.
        attempt = next_attempt(files, part.rank)
        run_id, every = read_run(files).run_id, open_parts(files)
        parts = tuple(old for old in every if old.step == part.step)
        others = frozenset(old.directory for old in every if old.step != part.step)
        earlier = Earlier(files.location, part, parts, attempt, run_id, others, threshold)
        earlier.check_job()
        unsealed = [part for part in earlier.own_parts if part.seal is None]
        if not unsealed:
            # Whoever sealed a part may have been stopped before it synced the seal.
            for old in earlier.own_parts:
                files.settle(metadata_key(seal_path(old.directory)))
            files.sync()
            return earlier
        for old in unsealed:
            seal_part(files, old.directory, why)


class ResumedPartWriter(PartWriter):
    """Writes the part that comes after others; it begins with the first batch.

    So a job that records nothing adds no part, unless it is the first to say that all is done.
    """

    def __init__(
        self, files: Files, earlier: Earlier, compression: Compression | None = None
    ) -> None:
        self._earlier = earlier
        attempt = earlier.attempt
        super().__init__(files, earlier.part, compression=compression, attempt=attempt, begin=False)

    def begin(self) -> None:
        """Create the part; ResumeError where another process has gone on meanwhile."""
        while not self.begun:
            # The number comes first: who takes it after that look makes this one fail.
            self.choose_attempt(next_attempt(self._files, self.attributes.rank))
            self._earlier.check_alone(self._files)
            with suppress(StoreExistsError):
                super().begin()

    def seal(self, why: str = "closed") -> None:
        """Commit, then freeze the part; where it has not begun, begin it if that says anything."""
        if not self.begun and closes(why) and not self._earlier.is_complete:
            # Where another process goes on, there is nothing to say.
            with suppress(ResumeError):
                self.begin()
        if self.begun:
            super().seal(why)
        else:
            self._end()
            self.closed = True


def resume_part(
    files: Files,
    part: PartAttributes,
    *,
    threshold: float | None = None,
    compression: Compression | None = None,
) -> tuple[PartWriter, Earlier]:
    """Go on with a step: seal what is earlier, and begin the part that comes next.

    Where there is something earlier, it begins with its first batch. Of processes that go on from
    the same parts one begins, and the others learn it then, or are sealed: no two write the same
    samples.
    """
    while True:
        earlier = resume_step(files, part, threshold=threshold)
        if earlier.own_parts:
            return ResumedPartWriter(files, earlier, compression), earlier
        with suppress(StoreExistsError):
            attempt = earlier.attempt
            return PartWriter(files, part, compression=compression, attempt=attempt), earlier


def _names(layers: AbstractSet[str]) -> str:
    return ", ".join(map(printable, sorted(layers))) or "none"


def _typed(columns: Mapping[str, str]) -> str:
    named = sorted(f"{printable(name)} ({dtype})" for name, dtype in columns.items())
    return ", ".join(named) or "none"


def _shown(value: object) -> str:
    return printable(str(value))[:500]


def _of_rows(layer: LayerAttributes, field: str) -> Any:
    """Return what a layer's field says of each row; where recording ended says nothing of it."""
    value = getattr(layer, field)
    if field != "sampling" or value is None:
        return value
    return {name: entry for name, entry in value.items() if name != "max_bytes"} or None


def _belonging(layer: LayerAttributes) -> str:
    """Return how a layer's entries belong to samples, and what said so."""
    return (layer.decided or {}).get("sample_index", "")


def _with_reason(layer: LayerAttributes, field: str) -> Any:
    """Return what a layer's field says, and by what it was decided where that is known."""
    reason = (layer.decided or {}).get(field)
    value = _of_rows(layer, field)
    return f"{value} ({reason})" if reason else value
