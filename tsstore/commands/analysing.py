"""Commands that count: an analysis, and the plan by which it would count."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsstore.commands import options
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import print_json, print_lines, print_shown, print_table, progress
from tsstore.errors import AnalysisError
from tsstore.text import format_memory, printable

if TYPE_CHECKING:
    from tsstore.analysis.planning.run_plan import RunPlan
    from tsstore.analysis.results.combining import Analyses
    from tsstore.analysis.results.network import Analysis
    from tsstore.store.reading.store import StateStore

EXPLAINED = (
    "Efficiency: the entropy of a layer's states, in bits a neuron; a network's is the geometric "
    "mean of its layers'. aIQ: (accuracy² × efficiency)^(1/3).",
    "Plug-in: the efficiency of the states as they were seen, too low where samples are few; cap: "
    "the most that so many rows let it be.",
)
"""What the words of an analysis mean; the second line is of those that --verbose adds."""


def analyze(
    runs: options.RunPaths,
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    by: options.By = None,
    bins: options.Bins = None,
    window: options.Window = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    dependent_by: options.DependentBy = None,
    unique_by: options.UniqueBy = None,
    repeats: options.Repeats = "once",
    intervals: options.Intervals = True,
    exact: options.Exact = False,
    patience: options.Patience = 600,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Keeps analyses: what was asked before is answered at once."
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="OUT", help="Write the analysis here, such as run.analysis.zarr."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of the hash, for tests; no result depends on it."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show rows, plug-ins and each verdict's reason.")
    ] = False,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Say how well each layer uses its neurons.

    The distinct states of each layer are counted, exactly; layers of several
    runs are counted together.
    """
    import tsstore
    from tsstore.analysis.groups.results import GroupedAnalysis
    from tsstore.analysis.keeping.arrays import check_target
    from tsstore.analysis.results.combining import Analyses

    once_or_each: Any = repeats
    store: Any = _stores(runs, step, filter, layer)
    if len(runs) == 1:
        store = store[runs[0]]
        by = options.by_step_if_several(store, by, window, "analysed")
    elif by is not None or bins is not None or window is not None or save is not None:
        raise AnalysisError(
            "--by, --bins, --window and --save are for one run; give one, or leave them out"
        )
    if save is not None:
        check_target(save)
    with progress(silent=json) as report:
        analysis = tsstore.analyze(
            store,
            memory=memory,
            scheduler=scheduler,
            progress=report,
            scratch=scratch,
            intervals=intervals,
            dependent_by=dependent_by,
            unique_by=unique_by,
            repeats=once_or_each,
            exact=exact,
            seed=seed,
            patience=patience,
            cache=cache,
            by=by,
            bins=bins,
            window=window,
        )
    if json:
        print_json(analysis.to_dict())
    elif isinstance(analysis, GroupedAnalysis):
        print_shown(analysis, format, ("samples", "distinct"))
    elif isinstance(analysis, Analyses):
        if format is not TableFormat.TABLE:
            _print_layers_of_runs(analysis, verbose, format)
            return
        for name, one in analysis.items():
            print_lines([printable(name)])
            print_analysis(one, verbose)
    else:
        print_analysis(analysis, verbose, format=format)
    if save is not None:
        analysis.save(save)


def plan(
    run: options.RunPath,
    layer: options.Layers = None,
    step: options.Step = None,
    filter: options.Filter = None,
    by: options.By = None,
    bins: options.Bins = None,
    window: options.Window = None,
    memory: options.Memory = None,
    scheduler: options.Scheduler = None,
    scratch: options.Scratch = None,
    dependent_by: options.DependentBy = None,
    unique_by: options.UniqueBy = None,
    repeats: options.Repeats = "once",
    intervals: options.Intervals = True,
    exact: options.Exact = False,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Say what pairs of neurons would take (neurons --near)."),
    ] = False,
    novelty: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Say what its new states would take (compare)."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Say what a report that compares both would take."),
    ] = None,
    other_step: options.OtherStep = None,
    other_filter: options.OtherFilter = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show a line a layer, and what else there is to say.")
    ] = False,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Say what analyze would take: memory, files, tasks.

    Nothing is counted.
    """
    import tsstore

    store = options.select(run, step, filter, layer)
    found = tsstore.plan(
        store,
        by=options.by_step_if_several(store, by, window, "planned"),
        bins=bins,
        window=window,
        memory=memory,
        scheduler=scheduler,
        scratch=scratch,
        intervals=intervals,
        dependent_by=dependent_by,
        unique_by=unique_by,
        repeats=repeats,  # type: ignore[arg-type]
        exact=exact,
        joint=joint,
        novelty=novelty and options.select(novelty, other_step, other_filter or filter),
        compare=compare and options.select(compare, other_step, other_filter or filter),
    )
    if json:
        print_json(found.to_dict())
    else:
        _print_plan(found, scratch, verbose, format=format)


def combine(
    documents: Annotated[
        list[str],
        typer.Argument(metavar="LAYER.json…", help="What analyze --layer NAME --json printed."),
    ],
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """Combine analyses of single layers to the network's numbers.

    All must be of one run.
    """
    import tsstore

    print_shown(tsstore.combine(documents), format, json=json)


def _stores(
    runs: list[str], step: str | None, conditions: list[str] | None, layers: list[str] | None
) -> dict[str, StateStore]:
    """Return what is asked for of each run by its path, which is given once."""
    twice = [run for run, often in Counter(runs).items() if often > 1]
    if twice:
        raise AnalysisError(f"{printable(twice[0])} is given twice; expected each run once")
    return {run: options.select(run, step, conditions, layers) for run in runs}


def print_analysis(
    analysis: Analysis, verbose: bool = False, format: TableFormat = TableFormat.TABLE
) -> None:
    """Print the table of layers and what is said of the network."""
    from tsstore.analysis.results.layer import headings, layer_cells
    from tsstore.analysis.results.network import notes, reasons
    from tsstore.analysis.results.network_numbers import network_lines

    print_lines(analysis.warnings, format=format)
    rows = [layer_cells(layer, verbose) for layer in analysis.values()]
    print_table(
        headings(verbose), rows, ("neurons", "samples", "cap", "plug-in", "rows"), format=format
    )
    explained = EXPLAINED if verbose else EXPLAINED[:1]
    told = [*network_lines(analysis), *explained, analysis.sentence, *notes(analysis)]
    print_lines(told, format=format)
    print_lines(reasons(analysis) if verbose else [], format=format)


def _print_layers_of_runs(analyses: Analyses, verbose: bool, format: TableFormat) -> None:
    """Print one table of the layers of all runs, and beside it what is said of each."""
    from tsstore.analysis.results.layer import headings, layer_cells
    from tsstore.analysis.results.network import notes
    from tsstore.analysis.results.network_numbers import network_lines

    rows = [
        [printable(name), *layer_cells(layer, verbose)]
        for name, analysis in analyses.items()
        for layer in analysis.values()
    ]
    print_table(("run", *headings(verbose)), rows, format=format)
    for name, one in analyses.items():
        told = [*one.warnings, *network_lines(one), one.sentence, *notes(one)]
        print_lines([printable(name), *told], format=format)


def _print_plan(
    plan: RunPlan, scratch: str | None, verbose: bool, format: TableFormat = TableFormat.TABLE
) -> None:
    space, is_enough = (
        _space_text(scratch, plan.scratch_bytes) if plan.scratch_bytes else ("", True)
    )
    if verbose or format is not TableFormat.TABLE:
        optional = ("scratch", "rows a block", "mean slice", "blocks", "bytes a row")
        print_table(plan.headings, plan.cells(), optional, format=format)
        print_lines(filter(None, [*plan.lines, *_whole_text(plan), space]), format=format)
    else:
        print_lines([*plan.brief, *([] if is_enough else [space])])


def _whole_text(plan: RunPlan) -> list[str]:
    """Say what the command that counts takes in all, where that is this machine's business."""
    from tsstore.analysis.memory import peak_memory

    base = peak_memory() if plan.shared_memory else None
    if base is None:
        return []
    base += plan.start_up_bytes
    return [
        f"The command tsstore analyze takes {format_memory(base)} at most by itself, and the "
        f"memory: {format_memory(base + plan.memory)} in all."
    ]


def _space_text(scratch: str | None, needed: int) -> tuple[str, bool]:
    """Say whether the scratch folder has room for so many bytes, and return whether it has."""
    from tsstore.analysis.execution.scratch import scratch_parent
    from tsstore.store.files.open import is_url

    folder = scratch_parent(scratch) or tempfile.gettempdir()
    if is_url(folder):
        return (
            f"Scratch {printable(folder)}: up to {format_memory(needed)} lie there at a time, "
            "until the analysis has ended."
        ), True
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise AnalysisError(
            f"scratch folder {folder} cannot be used ({error.strerror}); pass another one as "
            "--scratch"
        ) from error
    text = f"Scratch folder {printable(folder)}: {format_memory(free)} free"
    if free >= needed:
        return f"{text}, which is enough.", True
    return (
        f"{text}, but up to {format_memory(needed)} are needed; free some space, or pass another "
        "folder as --scratch."
    ), False
