"""All commands of the command line, under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from tsstore import __version__
from tsstore.commands import analysing, comparing, models, neurons, reports, runs, states

app = typer.Typer(
    name="tsstore",
    help="How well does a neural network use its neurons?",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 done; 1 verify found damage; 2 an error, told in one line; "
    "129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM.",
)
def main(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Show the version, or help where there is no command."""
    if show_version:
        typer.echo(f"tsstore {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command, example in {
    models.demo: "demo --output demo.zarr",
    models.layers: "layers tsstore.demo.model:load_lenet5 --input 1,1,28,28",
    runs.info: "info run.zarr",
    runs.verify: "verify run.zarr",
    runs.repair: "repair run.zarr",
    runs.compact: "compact run.zarr smaller.zarr",
    analysing.plan: "plan run.zarr --memory 2GiB",
    analysing.analyze: "analyze run.zarr --memory 2GiB --json",
    analysing.combine: "combine conv_1.json fc_1.json",
    neurons.neurons: "neurons run.zarr --output neurons.csv",
    comparing.information: "information run.zarr --by label",
    comparing.shared_states: "shared-states run.zarr --by label",
    comparing.compare: "compare run.zarr other.zarr",
    comparing.steps: "steps trained.zarr",
    reports.report: "report run.zarr --output report.html",
    states.states: "states run.zarr --layer conv_1",
    states.samples: "samples run.zarr 1f03 --layer fc_1",
    states.surprising: "surprising run.zarr --layer conv_1 -n 10",
    states.export: "export run.zarr --layer conv_1 --states states.parquet",
}.items():
    app.command(epilog=f"Example: tsstore {example}")(command)  # type: ignore[type-var]
