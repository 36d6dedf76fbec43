"""Beginning to record a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from tsstore.errors import CaptureError, StoreExistsError, TsstoreError
from tsstore.recording.axes.tensor import AxisChoice
from tsstore.recording.background.sigterm import check_can_hold
from tsstore.recording.identity import Job, find_job
from tsstore.recording.recorder import Recorder, open_recorders
from tsstore.recording.samples.experiment import find_samples, log
from tsstore.recording.samples.index import SampleIndexChoices, check_names, parsed
from tsstore.recording.samples.inputs import arguments_of
from tsstore.recording.selection.outputs import OutputChoice
from tsstore.recording.selection.recommended import RECOMMENDED
from tsstore.recording.selection.select import Selector, Where, select, unwrapped
from tsstore.recording.settings import (
    Calls,
    Missing,
    OnError,
    Sampling,
    Settings,
    checked_attributes,
    checked_step,
    checked_total,
)
from tsstore.recording.summary import recommended_layers
from tsstore.store.chunked.writer import Compression
from tsstore.store.files.base import Files
from tsstore.store.files.open import StorePath, open_files
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.run import begin_run, remove_run
from tsstore.store.targets import check_outside

_LOG: Final = logging.getLogger("tsstore")


def capture(
    model: nn.Module,
    path: StorePath,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] = (),
    where: Where = "after",
    example_input: Any = None,
    threshold: float = 0.0,
    step: int | str | None = None,
    total: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    neuron_axis: AxisChoice = None,
    sample_axis: AxisChoice = None,
    sample_index: SampleIndexChoices = None,
    probe: bool = True,
    outputs: OutputChoice = None,
    calls: Calls = "separate",
    missing: Missing = "error",
    positions: int | float | None = None,
    every: int = 1,
    max_bytes: int | None = None,
    seed: int = 0,
    commit_every: float = 10.0,
    queue_bytes: int = 256 << 20,
    codec: str = "lz4",
    level: int | None = None,
    writer_threads: int = 1,
    durable: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    run_id: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    on_error: OnError = "raise",
    commit_on_sigterm: bool = False,
    reset_compiler: bool = False,
) -> Recorder:
    """Begin to record the states of a model's layers; use it as a context manager.

    Parameters
    ----------
    model
        The model; its outputs stay as they are.
    path
        Where to create the store.
    layers
        Names, globs, classes, class names, modules, predicates ``(name, module) -> bool``, or a
        list of them; a class means its subclasses, too. Or ``"recommended"``: those layers whose
        neurons fire just where their values are above 0, as `tsstore.layers` finds them with
        `example_input`.
    exclude
        Likewise; it wins.
    where
        Capture what comes ``"after"`` the module (its output), ``"before"`` it, or ``"both"``.
    example_input
        A batch of at least two samples, a tuple of arguments, or a mapping of keyword arguments.
        The model is run on it, in evaluation mode, where the choice of layers needs it, and to
        find out which entries belong to which sample, as `probe` allows.
    threshold
        A neuron is on where its value is greater; rounded to the tensor's dtype first.
    step
        The training step (or any name) whose weights these are.
    total
        How many samples will be recorded of this step, by all processes and attempts together, such
        as ``len(dataset)``; stored with the part, so that ``tsstore info --watch`` says how long is
        left. Nothing else depends on it.
    attributes
        Anything of yours that JSON can hold; stored with the part.
    neuron_axis, sample_axis
        An axis, or a mapping from layer names or globs, where a module's class does not tell.
    sample_index
        Which sample each entry along the sample axis belongs to, where there are not just as many
        entries as samples, for all layers or by layer name or glob: ``"contiguous"`` (the first
        entries are all of sample 0), ``"interleaved"`` (entry i is of sample i mod n, as
        ``cat([x, x])`` gives it), ``("counts", entries of each sample)`` or
        ``("index", the sample of each entry)``, -1 where it is of none; or one of these arrays
        alone, where its length tells which it is. `Recorder.batch` takes it for one batch.
    probe
        Whether the model may be run on samples of `example_input`, or else, where nothing tells
        and it is in evaluation mode and without gradients, on two of the first batch, to find out
        which entries are whose; a line in the log says that it was.
    outputs
        Where a module gives several tensors, which one to capture instead of the first: a path of
        keys, indices or attributes, as in ``{"lstm": "1.0", "encoder": "last_hidden_state"}``.
    calls
        A module called n times in one forward pass of the model gives n layers, ``relu#1`` …
        (``"separate"``), or more positions of one (``"merge"``).
    missing
        A layer that gives no rows in a later batch is an error, or ``"empty"``: no positions.
    positions
        Of each sample only some random positions, without replacement, in each call of a layer:
        between 0 and 1 that share of them, rounded up or down by chance; a whole number, so many
        where there are more. They follow from `seed` and from the sample's running number. Where
        samples differ in length, a share keeps what is estimated; a fixed number makes it the
        entropy of a position of a sample that is drawn first.
    every
        Only the first of so many batches, and so on; the others run as if nothing were recorded.
    max_bytes
        End the recording, with a warning, when there are so many bytes of rows before compression,
        with those of earlier attempts that this one resumes. The hooks are removed, the job goes
        on.
    seed
        Of the random positions.
    commit_every
        Seconds between commits.
    queue_bytes
        Bytes of rows that may wait for the writer; then the job waits.
    codec, level
        ``"lz4"`` or ``"zstd"``, and its level.
    writer_threads
        How many threads compress; with one, it is the one that writes.
    durable
        Whether commits survive a loss of power, too.
    resume
        Go on with the run that is there, if there is one: what earlier attempts have committed
        of this step stays, and `Recorder.committed_samples` and `Recorder.missing`
        say what that is.
    overwrite
        Delete the run that is there, if there is one; a recorder of this process that still writes
        it is closed first.
    run_id, rank, world_size
        Of this process, where `tsstore.recording.identity.find_job` does not find them.
    on_error
        The writer's error is raised at the next batch and at the end (``"raise"``), or ends the
        recording with a warning, and the job goes on (``"detach"``).
    commit_on_sigterm
        Hold SIGTERM back until the batch at hand has ended and is on disk. The batches must run
        in the main thread.
    reset_compiler
        Call ``torch.compiler.reset()`` once the hooks are there, for a model, or a part of one,
        that was compiled and called before: what it was compiled to does not call them. All
        compiled code of the process is compiled anew when it is called next.

    Returns
    -------
    Recorder
        Its hooks are on the model until it is closed.

    Raises
    ------
    SelectionError
        If no layer is selected, or a name matches nothing.
    StoreExistsError
        If there is something at `path`, or a recorder of this process still writes there.
    ResumeError
        If what is there was recorded from another model, or in another way.
    CaptureError
        If a setting makes no sense, or JSON cannot hold `attributes`.
    """
    settings = Settings(
        threshold=float(threshold),
        calls=calls,
        missing=missing,
        commit_every=commit_every,
        queue_bytes=queue_bytes,
        compression=Compression(codec, level, writer_threads),
        begin="resume" if resume else "first",
        on_error=on_error,
        commit_on_sigterm=commit_on_sigterm,
        sampling=Sampling(positions, every, max_bytes, seed),
        sample_index=parsed(sample_index),
        probe=probe,
    )
    settings.check()
    if commit_on_sigterm:
        check_can_hold()
    if isinstance(layers, str) and layers == RECOMMENDED:
        layers = recommended_layers(model, example_input)
    targets = select(model, layers, exclude, where, neuron_axis, sample_axis, outputs)
    check_names(settings.sample_index, [target.axes.layer for target in targets])
    if example_input is not None and probe:
        findings = find_samples(model, targets, *arguments_of(example_input))
        log(findings, "the example input")
        settings = replace(settings, findings=findings)
    part = PartAttributes(
        step=checked_step(step), user=checked_attributes(attributes), total=checked_total(total)
    )
    job = find_job(rank, world_size, run_id)
    files = _begin_run(path, durable, job, settings, overwrite)
    _warn_of_other_recorders(model, files.location)
    part = replace(part, rank=job.rank, world_size=job.world_size)
    recorder = Recorder(model, files, targets, part, settings)
    try:
        recorder.attach()
        if reset_compiler:
            torch.compiler.reset()
    except BaseException:
        recorder.close("its hooks could not be attached")
        raise
    return recorder


def _begin_run(
    path: StorePath, durable: bool, job: Job, settings: Settings, overwrite: bool
) -> Files:
    """Return the files of a run that is there now, with nothing in it that must not be."""
    resume = settings.begin == "resume"
    _check_beginning(job, resume, overwrite)
    check_outside(path)
    files = open_files(path, durable)
    _make_way(files, job.rank, overwrite)
    if overwrite:
        remove_run(files)
    software = {"torch": torch.__version__}
    begin_run(files, software, run_id=job.run_id, resume=resume, many=job.world_size > 1)
    return files


def _check_beginning(job: Job, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise CaptureError(
            "found resume=True and overwrite=True; expected one of them: go on with the run that "
            "is there, or delete it"
        )
    if overwrite and job.world_size > 1:
        raise CaptureError(
            f"overwrite=True with {job.world_size} processes would delete what the others have "
            "begun to write; remove the path before the job starts"
        )


def _make_way(files: Files, rank: int, overwrite: bool) -> None:
    """Close recorders that write where another is going to overwrite; else refuse, for one rank."""
    for recorder in open_recorders():
        if not recorder.files.is_same_place(files):
            continue
        if overwrite:
            # Its last batches are deleted as well: whether they arrive does not matter.
            with suppress(TsstoreError):
                recorder.close("overwritten")
        elif recorder.rank == rank:
            raise StoreExistsError(
                f"{files.location} is being recorded by this process: {_described(recorder)} is "
                "open; close it first (recorder.close(), or delete the model and the recorder), "
                "pass overwrite=True, which closes and deletes it, or choose another path"
            )


def _warn_of_other_recorders(model: nn.Module, path: str) -> None:
    """Log which other recorders record a model that is about to be captured."""
    for recorder in open_recorders():
        if unwrapped(recorder.model) is unwrapped(model):
            _LOG.warning(
                "%s: the model is recorded into %s as well: %s is open; if that is not meant, "
                "close it (recorder.close())",
                path,
                recorder.path,
                _described(recorder),
            )


def _described(recorder: Recorder) -> str:
    return f"{recorder.part}, with {recorder.statistics.samples:,} samples so far,"
