"""Commands about models: what can be captured in one, and a small one that is captured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from shlex import quote
from typing import Annotated, Any

import typer

from tsstore.commands import options
from tsstore.commands.analysing import print_analysis
from tsstore.commands.tables import TableFormat
from tsstore.commands.terminal import (
    print_json,
    print_lines,
    print_table,
    progress,
    records,
    terminal_width,
)
from tsstore.errors import StoreExistsError, TsstoreError
from tsstore.text import printable


def demo(
    output: Annotated[str, options.output("Where to create the store.")] = "demo.zarr",
    mnist: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Directory with t10k idx files to run on instead."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that is there already.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Capture a small trained network, and analyse its states.

    It is a LeNet-5, on MNIST's 10,000 test images.
    """
    _need_torch()
    from tsstore.demo.run import run_demo

    with progress(silent=json) as report:
        try:
            analysis = run_demo(output, mnist, report, overwrite=overwrite)
        except StoreExistsError as error:
            raise StoreExistsError(
                f"{printable(output)} exists already; pass --overwrite to replace it if it is a "
                "run, or another path as --output"
            ) from error
    if json:
        print_json(analysis.to_dict())
        return
    print_analysis(analysis)
    print_lines([f"The states are in {printable(output)}. Next:", *_next_lines(output)])


def _next_lines(output: str) -> list[str]:
    """Return what one would do next, each command whole: what it is for beside it, or below."""
    run = quote(printable(output))
    told = {
        f"  tsstore report {run}": "a page to open in a browser",
        f"  tsstore neurons {run}": "which neurons never fire, or do the same",
        f"  tsstore analyze {run} --by label": "one class beside another",
        f"  tsstore info {run}": "what was recorded",
    }
    longest = max(map(len, told))
    lines = [f"{command.ljust(longest)}   {purpose}" for command, purpose in told.items()]
    if max(map(len, lines)) <= terminal_width():
        return lines
    return [line for command, purpose in told.items() for line in (command, f"      {purpose}")]


def layers(
    model: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="Of a model, or of a function that makes one."),
    ],
    shape: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="SHAPE", help="Shape of an example input, such as 1,3,224,224."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Say what so many samples will weigh; needs --input."
        ),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Of each sample, only so many random positions."),
    ] = None,
    format: options.Format = TableFormat.TABLE,
    json: options.Json = False,
) -> None:
    """List what can be captured in a model, and what it weighs."""
    _need_torch()
    import torch

    import tsstore

    example = None if shape is None else torch.zeros(_parse_shape(shape))
    loaded = _load_model(model)
    with _errors_in_one_line(f"running model {model!r} on an input of shape {shape}"):
        table = tsstore.layers(loaded, example, samples, positions)
    if json:
        print_json({"model": model, "layers": {line.pop("layer"): line for line in records(table)}})
        return
    rows = [
        [str(name), *map(_cell, line)]
        for name, line in zip(table.index, table.astype(object).to_numpy(), strict=True)
    ]
    optional = ("positions", "class", "bytes per sample", "neuron axis", "decided")
    headings = ["layer", *(str(column).replace("_", " ") for column in table.columns)]
    print_table(headings, rows, optional, format=format)


def _cell(value: Any) -> str:
    """Return a value as a table shows it: nothing where it is not known."""
    import pandas as pd

    if isinstance(value, bool):
        return "yes" if value else ""
    if pd.isna(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _load_model(path: str) -> Any:
    """Import ``package.module:name`` and call it unless it is a model."""
    from torch import nn

    module, _, name = path.partition(":")
    try:
        sys.path.insert(0, "")
        with _errors_in_one_line(f"importing {module}", ImportError, AttributeError, ValueError):
            found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TsstoreError(
            f"model {path!r} cannot be imported ({error}); expected MODULE:NAME, such as "
            "tsstore.demo.model:load_lenet5"
        ) from error
    finally:
        sys.path.remove("")
    with _errors_in_one_line(f"making model {path!r}"):
        model = found if isinstance(found, nn.Module) else found()
    if not isinstance(model, nn.Module):
        raise TsstoreError(f"model {path!r} gives a {type(model).__name__}; expected a nn.Module")
    return model


@contextmanager
def _errors_in_one_line(what: str, *known: type[Exception]) -> Iterator[None]:
    """Let whatever code of the user's raises be an error of ours, but what is known."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (TsstoreError, *known)):
            raise
        raise TsstoreError(f"{what} failed: {type(error).__name__}: {error}") from error


def _parse_shape(shape: str) -> tuple[int, ...]:
    sizes = shape.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise TsstoreError(f"--input is {shape!r}; expected sizes such as 1,3,224,224")
    return tuple(map(int, sizes))


def _need_torch() -> None:
    try:
        import_module("torch")
    except ImportError:
        raise TsstoreError(
            "this command needs PyTorch, which is not installed; install tsstore[torch]"
        ) from None
