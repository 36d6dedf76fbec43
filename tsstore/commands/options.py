"""Arguments and options that several commands have, each in the same words everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore.commands.tables import TableFormat

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
