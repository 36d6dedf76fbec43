"""The command line: what there is, and how it ends."""

from __future__ import annotations

import sys

import typer

from tsstore.commands import analysing, models, neurons, runs, states
from tsstore.errors import TsstoreError
from tsstore.text import printable

FAILED, INTERRUPTED = 2, 130

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


def main() -> None:
    """Run the command line; every error is one line on stderr, exit code 2.

    Ctrl-C is one line as well, exit code 130.
    """
    try:
        code = app(standalone_mode=False)
    except (TsstoreError, OSError) as error:
        code = _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        # Wrong usage: typer carries its own copy of click's exceptions, which have no public name.
        if not hasattr(error, "format_message"):
            raise
        code = _fail(error.format_message())
    # Some versions of typer end with this code instead of an exception.
    if code == INTERRUPTED:
        typer.echo("tsstore: interrupted", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:

    typer.echo(f"tsstore: {printable(' '.join(message.split()))}", err=True)
    return FAILED


if __name__ == "__main__":
    main()
