"""How many samples a batch has: as the user says it, or as layers and the model's input have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import NamedTuple

from tsstore.errors import ColumnsError
from tsstore.recording.batches.captured import Call
from tsstore.recording.packing.packed import Packed
from tsstore.recording.samples.index import MANY_EACH, PACKED_SEQUENCES


class ModelInput(NamedTuple):
    """The first tensor that the model was called with.

    Attributes
    ----------
    shape
        Its shape.
    sample_axis
        Its sample axis.
    is_doubtful
        Whether it has one entry there, and other tensors that the model was called with have more.
    """

    shape: tuple[int, ...]
    sample_axis: int
    is_doubtful: bool = False

    @property
    def samples(self) -> int:
        """Size of its sample axis."""
        return self.shape[self.sample_axis]

    def may_have_second(self, samples: int) -> bool:
        """Whether it may be (time, sample, feature), with so many samples."""
        return self.shape[1:-1][:1] == (samples,)


def said(explicit: int | None, columns: Mapping[str, Sized]) -> int | None:
    """Return the number of samples as the user said it, by itself or by columns; None if not.

    Raises
    ------
    ColumnsError
        If columns disagree with it, or with each other.
    """
    samples = explicit
    for name, column in columns.items():
        samples = len(column) if samples is None else samples
        if len(column) != samples:
            raise ColumnsError(
                f"column {name!r} has {len(column)} entries, but the batch has {samples} "
                "samples; record one entry a sample"
            )
    return samples


def seen(calls: Iterable[Call], model_input: ModelInput | None) -> int | None:
    """Return the number of samples as the layers and the model's input have it, or None.

    Parameters
    ----------
    calls
        Calls of layers of which the user does not say which sample an entry belongs to.
    model_input
        What the model was called with.
    """
    calls = list(calls)
    if (known := told_by(calls)) is not None:
        return known
    if model_input is not None:
        return model_input.samples
    return next((call.packed.form.samples for call in calls), None)


def told_by(calls: Iterable[Call]) -> int | None:
    """Return the number of samples that calls themselves tell, all the same, or None."""
    known = {_known(call.packed) for call in calls} - {None}
    return known.pop() if len(known) == 1 else None


def several_inputs(
    column: str, samples: int, found: int | None, model_input: ModelInput | None
) -> ColumnsError:
    """Return the error for columns that only fit if several inputs were taken for one sample."""
    shape = f" of shape {model_input.shape}" if model_input else ""
    return ColumnsError(
        f"column {column!r} has {samples} entries, but the input{shape} has {found}; record one "
        "entry a sample, or, if several inputs belong to one sample, say which: "
        f"recorder.batch({samples}, sample_index=…, …)"
    )


def _known(packed: Packed) -> int | None:
    """Return the number of samples that a call itself tells, or None."""
    owners = packed.owners
    if owners is not None and owners.samples is not None and owners.reason == PACKED_SEQUENCES:
        return int(owners.samples.max(initial=-1)) + 1
    # A sample axis that is not the first one is known: by the layer's class, or from the user.
    form = packed.form
    several = (form.decided or {}).get("sample_axis", "").endswith(MANY_EACH)
    return form.samples if form.sample_axis > 0 and not several else None
