"""What a run, a part and a layer say of themselves, and its validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tsstore.errors import FormatError
from tsstore.store.format.documents import Stored, mapping, number, real, sequence, stored, text

FORMAT = 1
_LEAST_SAMPLING = {"positions": 1, "seed": 0, "every": 1, "max_bytes": 1}
_from_1 = partial(number, minimum=1)


def _step(value: object, what: str, where: str) -> int | str:
    if isinstance(value, str):
        return value
    return number(value, what, where, -(1 << 63), 1 << 63)


def _process(value: object, what: str, where: str) -> dict[str, Any]:
    """Check what a part says of its process; parts of early versions say nothing."""
    if not (process := mapping(value, what, where)):
        return {}
    host = text(process.get("host"), f"{what}.host", where)
    pid = number(process.get("pid"), f"{what}.pid", where)
    known = {name: process.get(name) for name in ("started", "system")}
    said = {
        name: None if own is None else text(own, f"{what}.{name}", where)
        for name, own in known.items()
    }
    return {"host": host, "pid": pid, **said}


def _missing(value: object, what: str, where: str) -> str:
    if value not in ("error", "empty"):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected 'error' or 'empty'")
    return str(value)


def _compacted_from(value: object, what: str, where: str) -> tuple[tuple[str, int], ...]:
    pairs: Any = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise FormatError(f"{where}: {what} is {value!r:.80}; expected a list of parts and samples")
    return tuple((text(name, what, where), number(count, what, where)) for name, count in pairs)


def _threshold(value: object, what: str, where: str) -> dict[str, float]:
    said = mapping(value, what, where)
    return {key: real(said.get(key), f"{what}.{key}", where) for key in ("given", "used")}


def _shape(value: object, what: str, where: str) -> tuple[int, ...]:
    return tuple(number(size, what, where) for size in sequence(value, what, where))


def _sampling(value: object, what: str, where: str) -> dict[str, Any]:
    """Check what a layer left out on purpose; entries that are not known here may be anything."""
    said = mapping(value, what, where)
    for name, least in _LEAST_SAMPLING.items():
        if name == "positions" and isinstance(said.get(name), float):
            if not 0 < real(said[name], "sampling.positions", where) < 1:
                raise FormatError(
                    f"{where}: sampling.positions is {said[name]!r:.80}; expected a whole number "
                    "of at least 1, or a share between 0 and 1"
                )
        elif name in said:
            number(said[name], f"sampling.{name}", where, least, (1 << 64) - 1)
    return said


def _decided(value: object, what: str, where: str) -> dict[str, str]:
    """Check what a layer says of its decisions; layers of early versions say nothing."""
    reasons = mapping(value, what, where)
    return {name: text(reason, f"{what}.{name:.80}", where) for name, reason in reasons.items()}


@dataclass(frozen=True)
class RunAttributes(Stored):
    """What the root of a store says of the run.

    Attributes
    ----------
    run_id
        The same for all parts.
    created
        ISO 8601 time.
    software
        Versions by name.
    compacted_from
        Id of the run that was compacted into this one; None where there was none.
    """

    run_id: str = stored(text)
    created: str = stored(text)
    software: Mapping[str, str] = stored(mapping, dict)
    compacted_from: str | None = stored(text, None)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        return {"format": FORMAT, **asdict(self)}


def check_format(attributes: Mapping[str, Any], where: str) -> None:
    """Raise FormatError where the run's attributes name a format newer than this version reads."""
    version = number(attributes.get("format"), "format", where, 1)
    if version > FORMAT:
        raise FormatError(
            f"{where}: the store has format {version}, this tsstore reads up to {FORMAT}; "
            "upgrade tsstore"
        )


@dataclass(frozen=True)
class PartAttributes(Stored):
    """What a part says of the process that wrote it.

    Attributes
    ----------
    rank, world_size
        Of the process, in its job.
    attempt
        How many parts of this rank are older.
    step
        The training step (or any name) whose weights the states come from.
    started
        ISO 8601 time.
    model
        Class and fingerprint of the model.
    user
        The user's own attributes.
    process
        ``host``, ``pid``, ``started`` and ``system`` of the process (see
        :func:`process.this_process`); empty where they are not known.
    compacted_from
        Directories of the parts that were made one, in the order of their samples, and the number
        of samples of each; empty where this is no such part.
    missing
        What a layer is that other parts of the step have and this one has not: ``"error"``, or
        ``"empty"``, a layer without rows in all samples of this part.
    total
        Samples that all processes together are to record of this step; None where nobody said.
    """

    rank: int = stored(number, 0)
    world_size: int = stored(_from_1, 1)
    attempt: int = stored(number, 0)
    step: int | str | None = stored(_step, None)
    started: str = stored(text, "")
    model: Mapping[str, Any] = stored(mapping, dict)
    user: Mapping[str, Any] = stored(mapping, dict)
    process: Mapping[str, Any] = stored(_process, dict, absent={})
    compacted_from: tuple[tuple[str, int], ...] = stored(_compacted_from, (), absent=())
    missing: str = stored(_missing, "error", absent="error")
    total: int | None = stored(_from_1, None)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        said = {"kind": "part", **asdict(self)}
        if self.total is None:
            del said["total"]
        return said


@dataclass(frozen=True)
class LayerAttributes(Stored):
    """What a layer says of its rows.

    Attributes
    ----------
    name
        Public name: ``conv_1``, ``conv_1:before``, ``conv_1#2``.
    neurons
        Bits of a state.
    module_class
        Class of the module, as Python names it.
    where
        ``"after"`` or ``"before"``: output or input of the module.
    call
        Number of the module's call within a forward pass, from 1; None if there is but one.
    neuron_axis, sample_axis
        Axes of the captured tensor.
    threshold
        As given and as used, that is rounded to the tensor's dtype.
    dtype
        Of the captured tensor.
    position_shape
        Shape of the positions in the first batch: (height, width), (tokens,), or ().
    sampling
        What was left out on purpose; None if nothing was.
    output
        Path of the captured tensor in what the module gave; None for the first one.
    decided
        By what its axes were decided, and which sample a row belongs to: reasons in words, by the
        name of the attribute; None in stores of early versions.
    parameters
        How many the module itself has, an equal share of each neuron; 0 where it has none. None
        where they are not all of single neurons, and in stores of early versions.
    """

    name: str = stored(text)
    neurons: int = stored(_from_1)
    module_class: str = stored(text, "")
    where: str = stored(text, "after")
    call: int | None = stored(_from_1, None)
    neuron_axis: int = stored(number, 1)
    sample_axis: int = stored(number, 0)
    threshold: Mapping[str, float] = stored(_threshold, lambda: {"given": 0.0, "used": 0.0})
    dtype: str = stored(text, "float32")
    position_shape: tuple[int, ...] = stored(_shape, ())
    sampling: Mapping[str, Any] | None = stored(_sampling, None)
    output: str | None = stored(text, None)
    decided: Mapping[str, str] | None = stored(_decided, None)
    parameters: int | None = stored(number, None)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return (self.neurons + 7) // 8

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        return asdict(self) | {"position_shape": list(self.position_shape)}
