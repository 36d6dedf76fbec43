"""Which sample each entry of the layers' tensors belongs to, batch after batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from tsstore.errors import ColumnsError, OutputError, warn
from tsstore.recording.axes.tensor import BY_EXPERIMENT, BY_OTHERS
from tsstore.recording.axes.undecided import Argument, Undecided
from tsstore.recording.batches.open_batch import Call, OpenBatch
from tsstore.recording.packing.packed import Form, Packed
from tsstore.recording.samples.differences import ANOTHER_ORDER, Findings, Found, along_axis
from tsstore.recording.samples.experiment import find_samples, log
from tsstore.recording.samples.index import ONE_EACH, ONLY, Owners, even_index
from tsstore.recording.selection.select import Target


class _Open(NamedTuple):
    """What is not decided of one call, and what the user can say of it."""

    argument: Argument
    found: str
    value: str


class Judge:
    """Judges, by what is known so far, which sample the entries of a call belong to.

    `findings` are what was found out so far; with `probe` the model may still be run to find more.
    """

    def __init__(self, findings: Findings, probe: bool) -> None:
        self.findings = findings
        self.probe = probe
        # How many entries a sample each layer has had: later batches are held to that.
        self.counts: dict[str, set[int]] = {}
        # Layers of the batch with a call whose sizes tell the axis of the samples.
        self._plain: set[str] = set()

    def judge_all(self, batch: OpenBatch, samples: int) -> list[Owners | _Open]:
        """Return what is known of each call of a batch."""
        # One call of a layer, of another length, tells of those with as many steps as samples.
        self._plain = {
            call.target.name
            for call in batch.calls
            if (form := call.packed.form).samples == samples
            and form.position_shape[:1] != (samples,)
        }
        return [
            call.packed.owners or self.judge(call.target, call.packed.form, batch, samples)
            for call in batch.calls
        ]

    def judge(self, target: Target, form: Form, batch: OpenBatch, samples: int) -> Owners | _Open:
        """Return which sample each entry of a call belongs to, or what the user can say of that."""
        layer, entries = target.axes.layer, form.samples
        if told := batch.told(layer):
            return told.owners(layer, entries, samples)
        found = self.findings.found.get(target.name)
        square = found is None and self._is_square(target, form)
        square = square and target.axes.time_first is None and len(form.position_shape) == 1
        reordered = self.findings.problems.get(target.name) == ANOTHER_ORDER
        if entries == samples and not square and not reordered:
            return ONE_EACH
        if samples == 1 and batch.has_one_sample:
            return Owners(None, ONLY)
        if found and found.order != "single" and entries == found.entries * samples:
            how = found.order
            index = None if how == "contiguous" else even_index(how, entries, samples)
            return Owners(index, f"{how}: {BY_EXPERIMENT}")
        return self._open(target, form, samples)

    def _open(self, target: Target, form: Form, samples: int) -> _Open:
        problem, tried = self.findings.problems.get(target.name), ""
        if problem:
            tried = f" (an experiment did not tell: {problem})"
        elif self.probe:
            way = "evaluation mode without gradients, or example_input="
            tried = f" (an experiment may tell: {way})"
        if form.samples == samples and problem != ANOTHER_ORDER:
            return _Open(
                "sample_axis",
                f"axes 0 and 1 both have {samples} entries, as many as there are samples{tried}",
                str(form.sample_axis),
            )
        return _Open("sample_index", f"{_described(form, samples)}{tried}", "…")

    def is_doubtful(self, call: Call) -> bool:
        """Whether an experiment may tell more: shapes that are alike make nothing certain."""
        name, form = call.target.name, call.packed.form
        if name in self.findings.found or name in self.counts:
            return False
        by_shape = (form.decided or {}).get("sample_axis") == BY_OTHERS
        in_question = form.sample_axis != 0 or call.target.axes.time_first is None
        return (by_shape and in_question) or self._is_square(call.target, form)

    def _is_square(self, target: Target, form: Form) -> bool:
        """Whether time may be what is taken for samples: nothing but the sizes tells."""
        if _is_told(form) or target.name in self.counts or target.name in self._plain:
            return False
        time_like = form.sample_axis == 0 and form.neuron_axis > 1
        return time_like and form.samples > 1 and form.position_shape[:1] == (form.samples,)

    def squares_taken(self, batch: OpenBatch, judged: Iterable[Owners | _Open]) -> list[str]:
        """Return the layers whose first axis is taken for samples, and the second might be."""
        names = [
            call.target.name
            for call, verdict in zip(batch.calls, judged, strict=True)
            if isinstance(verdict, Owners) and not verdict.is_told
            if call.target.name not in self.findings.found
            if self._is_square(call.target, call.packed.form)
        ]
        return list(dict.fromkeys(names))


class Belonging:
    """Knows of each layer which sample an entry along its sample axis belongs to.

    As the user said; as packed sequences say; one each, where there are as many entries as
    samples; as an experiment found. That a number can be divided proves nothing. `left_out` counts
    rows of no sample; it `is_settled` where nothing is left to be found out of layers that ran.
    """

    def __init__(self, model: nn.Module, probe: bool, findings: Findings) -> None:
        self._model = model
        self.judge = Judge(findings, probe)
        self._is_begun = False
        self.left_out = 0
        self.is_settled = False
        # Entries a sample in the batch that was decided last, with all its calls.
        self._counts: dict[str, set[int]] = {}
        # Layers whose entries are not those of the model's input.
        self._apart: set[str] = set()

    def so_far(self, target: Target, form: Form, batch: OpenBatch, samples: int) -> Owners | None:
        """Return whose each entry of a call is, if known: in the first batch it never is."""
        verdict = self.judge.judge(target, form, batch, samples) if self._is_begun else None
        return verdict if isinstance(verdict, Owners) else None

    def decide(self, batch: OpenBatch, undecided: Undecided) -> None:
        """Let each call of a batch that is over say which sample its entries belong to."""
        _settle_axes(batch, self.judge.findings)
        samples = batch.samples()
        if samples is None:
            return
        self._check_number_is_said(batch)
        judged = self.judge.judge_all(batch, samples)
        doubts = [
            isinstance(verdict, _Open) or (not verdict.is_told and self.judge.is_doubtful(call))
            for call, verdict in zip(batch.calls, judged, strict=True)
        ]
        if samples == 1:
            _check_is_one(batch, judged)
        if (
            any(doubts)
            and self.judge.probe
            and batch.inputs is not None
            and not any(module.training for module in self._model.modules())
        ):
            self._try(batch, doubts, samples)
            _settle_axes(batch, self.judge.findings)
            samples = batch.samples() or 0
            judged = self.judge.judge_all(batch, samples)
        _warn_of_squares(self.judge.squares_taken(batch, judged))
        self._counts = {}
        calls = []
        for call, verdict in zip(batch.calls, judged, strict=True):
            if isinstance(verdict, _Open):
                undecided.add(verdict.argument, call.target.axes.layer, *verdict[1:])
                continue
            if samples > 1 and not verdict.is_told:
                self._note_entries(call.target.name, call.packed.form.samples // samples)
            calls.append(call._replace(packed=call.packed._replace(owners=verdict)))
        batch.calls = calls

    def accept(self, batch: OpenBatch) -> None:
        """Hold later batches to what this one, which was decided last, has shown."""
        self.left_out += sum(map(_of_no_sample, batch.packed))
        self.judge.counts = self._counts | self.judge.counts
        self._is_begun = True
        # A single sample has all entries of a layer, and nobody knows of several.
        self.is_settled = not any(
            packed.owners is not None and packed.owners.reason == ONLY for packed in batch.packed
        )

    def _note_entries(self, name: str, now: int) -> None:
        """Note how many entries a sample has in a call, and refuse others than before."""
        before = self.judge.counts.get(name)
        if before is not None and now not in before:
            known = " or ".join(map(str, sorted(before)))
            raise OutputError(
                f"{name}: found {now} entries a sample in this batch, and {known} in the "
                f'first one; say which sample each belongs to: sample_index={{"{name}": …}}'
            )
        self._counts.setdefault(name, set()).add(now)

    def _check_number_is_said(self, batch: OpenBatch) -> None:
        """Refuse an index of what may be the input's own entries, where no number was said."""
        for call in () if batch.is_number_said else batch.calls:
            name, entries = call.target.name, call.packed.form.samples
            told = batch.told(call.target.axes.layer)
            if told is None or told.how not in ("index", "array"):
                continue
            if entries != batch.input_samples():
                self._apart.add(name)
            elif name not in self._apart:
                raise ColumnsError(
                    f"sample_index says of {name} which sample each of its {entries} entries "
                    "belongs to, but of as many entries as the model's input has nobody knows how "
                    "many samples they are; say it: recorder.batch(32, …), or record a column, of "
                    "one entry a sample"
                )

    def _try(self, batch: OpenBatch, doubts: list[bool], samples: int) -> None:
        """Find out, once, what can be found out of the layers that are in doubt."""
        assert batch.inputs is not None
        self.judge.probe = False
        targets = {
            call.target.name: call.target
            for call, in_doubt in zip(batch.calls, doubts, strict=True)
            if in_doubt
        }
        axes = {call.target.name: call.packed.form.neuron_axis for call in batch.calls}
        found = find_samples(self._model, targets.values(), *batch.inputs, samples, axes)
        log(found, "the first batch")
        self.judge.findings = self.judge.findings.updated(found)


def _warn_of_squares(layers: list[str]) -> None:
    if layers:
        shown = ", ".join(layers[:3]) + (", …" if len(layers) > 3 else "")
        warn(
            f"{shown}: axes 0 and 1 have as many entries, and axis 0 is taken for the samples; "
            "if the model puts time first within, pass sample_axis=1; else sample_axis=0, or "
            "example_input= of another length, which lets an experiment tell",
        )


def _described(form: Form, samples: int) -> str:
    """Return what is found along a tensor's sample axis, and beside it."""
    found = f"axis {form.sample_axis} has {form.samples} entries of {samples} samples"
    if form.sample_axis == 0 and form.neuron_axis != 1 and form.position_shape[:1] == (samples,):
        found += ", axis 1 has one each (if that is no chance, pass sample_axis=1)"
    return found


def _check_is_one(batch: OpenBatch, judged: Iterable[Owners | _Open]) -> None:
    """Refuse a number of samples that only the model's first argument, of one entry, tells."""
    for call, verdict in zip(batch.calls, judged, strict=True):
        if isinstance(verdict, _Open):
            raise ColumnsError(
                f"{call.target.name} has {call.packed.form.samples} entries, and the first tensor "
                "that the model was called with has one, but others have more: how many samples "
                "there are cannot be told; say it: recorder.batch(32), or record a column"
            )


def _of_no_sample(packed: Packed) -> int:
    samples = packed.owners.samples if packed.owners is not None else None
    positions = math.prod(packed.form.position_shape)
    return 0 if samples is None else int((samples < 0).sum()) * positions


def _is_told(form: Form) -> bool:
    """Whether more than shapes that are alike says which axis holds the samples."""
    return (form.decided or {}).get("sample_axis", BY_OTHERS) != BY_OTHERS


def _settle_axes(batch: OpenBatch, findings: Findings) -> None:
    """Let rows have the sample axis that was found for their layer."""
    calls = []
    for call in batch.calls:
        found = findings.found.get(call.target.name)
        if found is not None and _can_settle(call.packed, found):
            call = call._replace(packed=along_axis(call.packed, found))
        calls.append(call)
    batch.calls = calls


def _can_settle(packed: Packed, found: Found) -> bool:
    """Whether what was found may say which axis of a call's tensor holds the samples."""
    form = packed.form
    fits = found.axis != form.neuron_axis and found.axis < len(form.position_shape) + 2
    return fits and not _is_told(form) and packed.owners is None and packed.valid is None
