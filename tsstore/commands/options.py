"""Arguments and options of several commands, in the same words; what of a run they choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsstore.commands.tables import TableFormat
from tsstore.errors import AnalysisError, StoreError
from tsstore.text import counted, listed, printable

if TYPE_CHECKING:
    from tsstore.store.reading.store import StateStore

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Path of a run.")]
RunPaths = Annotated[list[str], typer.Argument(metavar="RUN…", help="Paths of runs.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="A layer, or a pattern such as 'conv_*'; repeat for more. Default: all.",
    ),
]
OneLayer = Annotated[str, typer.Option("--layer", metavar="NAME", help="Name of the layer.")]
Step = Annotated[
    str | None, typer.Option(metavar="STEP", help="A step: of the others nothing is looked at.")
]
OtherStep = Annotated[
    str | None,
    typer.Option(
        "--other-step",
        "--step-b",
        "--compare-step",
        metavar="STEP",
        help="Step of OTHER. (--step-b and --compare-step are old names.)",
    ),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=VALUE",
        help="Samples of which a sample column has this value, such as label=3; repeat for more "
        "conditions, all of which must hold.",
    ),
]
OtherFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--other-filter",
        metavar="COLUMN=VALUE",
        help="Samples of OTHER, where other ones than those of --filter are meant.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Analyse groups of samples: by a sample column, such as label, or by 'step', as a run "
        "of several steps is unless this says otherwise.",
    ),
]
Bins = Annotated[
    int | None, typer.Option(metavar="N", help="Divide the numbers of --by into so many intervals.")
]
Window = Annotated[
    int | None, typer.Option(metavar="N", help="Analyse so many samples after another as a group.")
]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="What one process may use, such as 2GiB.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Address of a Dask cluster, 'threads' or 'synchronous'."),
]
Scratch = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="For what does not fit into memory: a folder that all workers see, or object storage, "
        "such as s3://bucket/scratch.",
    ),
]
Patience = Annotated[
    float, typer.Option(metavar="SECONDS", help="Seconds that a cluster may be without workers.")
]
DependentBy = Annotated[
    str | None,
    typer.Option(
        "--dependent-by",
        "--cluster",
        metavar="COLUMN",
        help="Sample column, such as patient: samples of one value are dependent. "
        "(--cluster is its old name.)",
    ),
]
UniqueBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Sample column, such as id: of samples of one value one is counted."
    ),
]
Repeats = Annotated[
    str,
    typer.Option(
        metavar="once|each",
        help="What samples of one id are: 'once', those with the same rows count once, and others "
        "are dependent; 'each', every one is a draw of its own.",
    ),
]
Intervals = Annotated[
    bool,
    typer.Option("--intervals/--no-intervals", help="Count what confidence intervals need."),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Count wide rows themselves, not fingerprints of them.")
]
Format = Annotated[
    TableFormat,
    typer.Option(
        help="How tables are printed. In csv and markdown no column is left out, and what is said "
        "beside a table goes to stderr."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def output(help: str) -> Any:
    """Return the option that says where to write something, with what it says of that."""
    return typer.Option("--output", "-o", metavar="OUT", help=help)


def select(
    run: str, step: str | None, conditions: list[str] | None, layers: list[str] | None = None
) -> StateStore:
    """Return a view of a run as the options --step, --filter and --layer say."""
    import tsstore
    from tsstore.store.reading.conditions import parse_value

    store = tsstore.open(run)
    if step is not None:
        store = store.at_step(next((own for own in store.steps if str(own) == step), step))
    for condition in conditions or []:
        name, equals, value = condition.partition("=")
        if not equals:
            raise StoreError(f"--filter is {condition!r:.80}; expected COLUMN=VALUE, as label=3")
        store = store.filter(**{name: parse_value(store.parts, name, value)})
    return store.select(*layers) if layers else store


def by_step_if_several(
    store: StateStore, by: str | None, window: int | None, done: str
) -> str | None:
    """Return what groups are by: steps where there are several, and it was not asked; say so."""
    if len(store.steps) < 2 or by is not None or window is not None:
        return by
    steps = counted(len(store.steps), "step")
    typer.echo(f"{printable(store.path)} holds {steps}: {done} --by step; see --step", err=True)
    return "step"


def select_layer(
    run: str, layer: str, step: str | None, conditions: list[str] | None
) -> tuple[StateStore, str]:
    """Return a view of a run, and the name of the one layer of it that --layer names."""
    store = select(run, step, conditions, [layer])
    if len(store.layers) > 1:
        raise AnalysisError(
            f"--layer is {printable(layer)}, which means {listed(list(store.layers))}; expected "
            "one layer"
        )
    return store, store.layers[0]
