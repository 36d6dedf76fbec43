"""What a run, a part and a layer say of themselves, and its validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tsstore.errors import FormatError
from tsstore.store.format.documents import mapping, number, real, text

FORMAT = 1
_LEAST_SAMPLING = {"positions": 1, "seed": 0, "every": 1, "max_bytes": 1}


@dataclass(frozen=True)
class RunAttributes:
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

    run_id: str
    created: str
    software: Mapping[str, str] = field(default_factory=dict)
    compacted_from: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> RunAttributes:
        """Check and parse stored attributes; FormatError where one is not valid."""
        check_format(value, where)
        source = value.get("compacted_from")
        return cls(
            text(value.get("run_id"), "run_id", where),
            text(value.get("created"), "created", where),
            mapping(value.get("software"), "software", where),
            None if source is None else text(source, "compacted_from", where),
        )


def check_format(attributes: Mapping[str, Any], where: str) -> None:
    """Raise FormatError where the run's attributes name a format newer than this version reads."""
    version = number(attributes.get("format"), "format", where, 1)
    if version > FORMAT:
        raise FormatError(
            f"{where}: the store has format {version}, this tsstore reads up to {FORMAT}; "
            "upgrade tsstore"
        )


@dataclass(frozen=True)
class PartAttributes:
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
    """

    rank: int = 0
    world_size: int = 1
    attempt: int = 0
    step: int | str | None = None
    started: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)
    process: Mapping[str, Any] = field(default_factory=dict)
    compacted_from: tuple[tuple[str, int], ...] = ()
    missing: str = "error"

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        return {"kind": "part", **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> PartAttributes:
        """Check and parse stored attributes; FormatError where one is not valid."""
        step = value.get("step")
        if not (step is None or isinstance(step, str)):
            step = number(step, "step", where, -(1 << 63), 1 << 63)
        return cls(
            number(value.get("rank"), "rank", where),
            number(value.get("world_size"), "world_size", where, 1),
            number(value.get("attempt"), "attempt", where),
            step,
            text(value.get("started"), "started", where),
            mapping(value.get("model"), "model", where),
            mapping(value.get("user"), "user", where),
            _process(value.get("process", {}), where),
            _compacted_from(value.get("compacted_from", []), where),
            _missing(value.get("missing", "error"), where),
        )


def _process(value: object, where: str) -> dict[str, Any]:
    """Check what a part says of its process; parts of early versions say nothing."""
    process = mapping(value, "process", where)
    if not process:
        return {}
    known = {key: process.get(key) for key in ("started", "system")}
    return {
        "host": text(process.get("host"), "process.host", where),
        "pid": number(process.get("pid"), "process.pid", where),
        **{
            key: None if value is None else text(value, f"process.{key}", where)
            for key, value in known.items()
        },
    }


def _missing(value: object, where: str) -> str:
    missing = text(value, "missing", where)
    if missing not in ("error", "empty"):
        raise FormatError(f"{where}: missing is {missing!r:.80}; expected 'error' or 'empty'")
    return missing


def _compacted_from(value: object, where: str) -> tuple[tuple[str, int], ...]:
    pairs: Any = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise FormatError(
            f"{where}: compacted_from is {value!r:.80}; expected a list of parts and samples"
        )
    what = "compacted_from"
    return tuple((text(name, what, where), number(count, what, where)) for name, count in pairs)


@dataclass(frozen=True)
class LayerAttributes:
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
    """

    name: str
    neurons: int
    module_class: str = ""
    where: str = "after"
    call: int | None = None
    neuron_axis: int = 1
    sample_axis: int = 0
    threshold: Mapping[str, float] = field(default_factory=lambda: {"given": 0.0, "used": 0.0})
    dtype: str = "float32"
    position_shape: tuple[int, ...] = ()
    sampling: Mapping[str, Any] | None = None
    output: str | None = None
    decided: Mapping[str, str] | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return (self.neurons + 7) // 8

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as they are stored."""
        return asdict(self) | {"position_shape": list(self.position_shape)}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> LayerAttributes:
        """Check and parse stored attributes; FormatError where one is not valid."""
        call, sampling, output = (value.get(key) for key in ("call", "sampling", "output"))
        shape = value.get("position_shape")
        if not isinstance(shape, list):
            raise FormatError(f"{where}: position_shape is {shape!r:.80}; expected a list")
        threshold = mapping(value.get("threshold"), "threshold", where)
        return cls(
            name=text(value.get("name"), "name", where),
            neurons=number(value.get("neurons"), "neurons", where, 1),
            module_class=text(value.get("module_class"), "module_class", where),
            where=text(value.get("where"), "where", where),
            call=None if call is None else number(call, "call", where, 1),
            neuron_axis=number(value.get("neuron_axis"), "neuron_axis", where),
            sample_axis=number(value.get("sample_axis"), "sample_axis", where),
            threshold={
                key: real(threshold.get(key), f"threshold.{key}", where)
                for key in ("given", "used")
            },
            dtype=text(value.get("dtype"), "dtype", where),
            position_shape=tuple(number(size, "position_shape", where) for size in shape),
            sampling=None if sampling is None else _sampling(sampling, where),
            output=None if output is None else text(output, "output", where),
            decided=_decided(value.get("decided"), where),
        )


def _decided(value: object, where: str) -> dict[str, str] | None:
    """Check what a layer says of its decisions; layers of early versions say nothing."""
    if value is None:
        return None
    reasons = mapping(value, "decided", where)
    return {name: text(reason, f"decided.{name:.80}", where) for name, reason in reasons.items()}


def _sampling(value: object, where: str) -> dict[str, Any]:
    """Check what a layer left out on purpose; entries that are not known here may be anything."""
    said = mapping(value, "sampling", where)
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
