"""All commands of the command line, under one name."""

from __future__ import annotations

import typer

from tsstore.commands import analysing, models, neurons, runs, states

app = typer.Typer(
    name="tsstore",
    help="How well does a neural network use its neurons?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    models.demo,
    models.layers,
    runs.info,
    runs.verify,
    runs.repair,
    runs.compact,
    analysing.plan,
    analysing.analyze,
    neurons.neurons,
    states.states,
    states.export,
):
    app.command()(command)
