"""The command line: parses, calls, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from tsstore.errors import TsstoreError

if TYPE_CHECKING:
    from tsstore.analysis.results import Analysis
    from tsstore.store.parts import Part

app = typer.Typer(
    name="tsstore",
    help="How well does a neural network use its neurons?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PLAIN_WIDTH = 120
"""Columns of tables that do not go to a terminal."""

Report = Callable[[str, int, int], None]


def main() -> None:
    """Run the command line; every error is one line on stderr, exit code 2."""
    try:
        code = app(standalone_mode=False)
    except (TsstoreError, OSError) as error:
        code = _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        # Wrong usage: typer carries its own copy of click's exceptions, which have no public name.
        if not hasattr(error, "format_message"):
            raise
        code = _fail(error.format_message())
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def demo(
    output: Annotated[str, typer.Option(help="Where to create the store.")] = "demo.zarr",
    mnist: Annotated[
        str | None, typer.Option(help="Directory with t10k idx files to run on instead.")
    ] = None,
) -> None:
    """Capture a small trained network on MNIST's test images, and analyse its states."""
    _need_torch()
    import tsstore
    from tsstore.demo.run import capture_demo, demo_images

    images, labels = demo_images(mnist)
    with _progress() as report:
        capture_demo(output, images, labels, lambda done, total: report("capture", done, total))
        analysis = tsstore.analyze(tsstore.open(output), progress=report)
    _print_analysis(analysis)
    _console().print(
        f"The states are in {output}. Next: tsstore info {output}, or in Python:\n"
        f'  import tsstore; store = tsstore.open("{output}"); store["conv_1"].decode(slice(3))',
        highlight=False,
        markup=False,
    )


@app.command()
def layers(
    model: Annotated[
        str,
        typer.Argument(help="MODULE:NAME of a model, or of a function that makes one."),
    ],
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Shape of an example input, such as 1,3,224,224."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="Say what so many samples will weigh; needs --input."),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(min=1, help="Of each sample, only so many random positions."),
    ] = None,
) -> None:
    """List what can be captured in a model, what it weighs, and hints."""
    _need_torch()
    import torch

    import tsstore

    example = None if shape is None else torch.zeros(_parse_shape(shape))
    table = tsstore.layers(_load_model(model), example, samples, positions)
    rows = [
        [str(name), *("" if value is None or value != value else str(value) for value in line)]
        for name, line in zip(table.index, table.astype(object).to_numpy(), strict=True)
    ]
    _print_table(["layer", *map(str, table.columns)], rows)


@app.command()
def info(run: Annotated[str, typer.Argument(help="Path of a run.")]) -> None:
    """Say what a run holds: parts, layers, samples, commits."""
    import tsstore
    from tsstore.store.display import (
        LAYER_HEADINGS,
        layer_cells,
        printable,
        repeats_text,
        store_summary,
    )

    store = tsstore.open(run)
    console = _console()
    for line in (f"{printable(store.path)}: {store_summary(store)}", repeats_text(store)):
        if line:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_table(
        ["part", "rank", "attempt", "step", "samples", "last commit", "status"],
        [
            _part_cells(part, str(status))
            for part, status in zip(store.parts, store.part_statuses, strict=True)
        ],
    )
    _print_table(list(LAYER_HEADINGS), [list(layer_cells(states)) for states in store.values()])


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Path of a run.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read a run back whole, and say what is damaged; exit code 1 if anything is."""
    from tsstore.store.verify import verify as read_back

    with _progress(silent=json) as report:
        result = read_back(run, report)
    typer.echo(result.to_json() if json else str(result))
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def repair(
    run: Annotated[str, typer.Argument(help="Path of a run that nobody writes.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tidy up after a run that was cut off; what was committed is not touched."""
    from tsstore.store.repair import repair as tidy_up

    result = tidy_up(run)
    typer.echo(result.to_json() if json else str(result))


@app.command()
def compact(
    run: Annotated[str, typer.Argument(help="Path of a run that has ended.")],
    out: Annotated[str, typer.Argument(help="Where to create the new run.")],
) -> None:
    """Rewrite a run as one part in few files, and compare the two; the old run is only read."""
    import tsstore
    from tsstore.store.compact import compact as rewrite
    from tsstore.store.compact import disk_usage
    from tsstore.store.display import printable

    source = tsstore.open(run)
    with _progress() as report:
        store = rewrite(source, out, progress=report)
    (files, size), (new_files, new_size) = disk_usage(run), disk_usage(out)
    typer.echo(
        f"{printable(store.path)}: {len(source.parts):,} parts → {len(store.parts):,}, "
        f"{files:,} files → {new_files:,}, {size:,} bytes → {new_size:,}; all entries are the same"
    )


@app.command()
def analyze(
    run: Annotated[str, typer.Argument(help="Path of a run.")],
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer to analyse; repeat for more. Default: all.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What one process may use, such as 2GiB.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask cluster, 'threads' or 'synchronous'.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Sample column, such as patient: samples of one value are dependent."),
    ] = None,
    unique_by: Annotated[
        str | None,
        typer.Option(help="Sample column, such as id: of samples of one value one is counted."),
    ] = None,
    intervals: Annotated[
        bool,
        typer.Option("--intervals/--no-intervals", help="Count what confidence intervals need."),
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show rows, plug-ins and each verdict's reason.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count the distinct states of a run, and say how well each layer uses its neurons."""
    import tsstore

    with _progress(silent=json) as report:
        analysis = tsstore.analyze(
            run,
            layer,
            memory=memory,
            scheduler=scheduler,
            progress=report,
            intervals=intervals,
            cluster=cluster,
            unique_by=unique_by,
        )
    if json:
        typer.echo(analysis.to_json())
    else:
        _print_analysis(analysis, verbose)


def _print_analysis(analysis: Analysis, verbose: bool = False) -> None:
    from tsstore.analysis.display import headings, layer_cells, network_lines, notes, reasons

    rows = [list(layer_cells(layer, verbose)) for layer in analysis.values()]
    _print_table(list(headings(verbose)), rows)
    console = _console()
    lines = [*network_lines(analysis), analysis.sentence, *notes(analysis)]
    lines += reasons(analysis) if verbose else []
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_table(headings: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, heading in enumerate(headings):
        numeric = bool(rows) and all(_is_number(row[column]) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    _console().print(table)


def _part_cells(part: Part, status: str) -> list[str]:
    from tsstore.store.display import printable

    attributes, record = part.attributes, part.record
    return [
        part.directory,
        str(attributes.rank),
        str(attributes.attempt),
        "" if part.step is None else printable(str(part.step)),
        f"{record.samples:,}",
        printable(record.time) or "none",
        printable(status),
    ]


@contextmanager
def _progress(silent: bool = False) -> Iterator[Report]:
    """Yield what shows progress: a bar on a terminal, a line a task elsewhere, both on stderr."""
    console = Console(stderr=True)
    if silent:
        yield lambda task, done, total: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True) as bars:
            yield _Bars(bars)
    else:
        yield _report_line


class _Bars:
    """Progress bars by name."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name.replace("[", "\\["), total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


def _report_line(name: str, done: int, total: int) -> None:
    if done == total:
        typer.echo(f"{name}: {total:,} of {total:,} done", err=True)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").isdigit() or cell in ("", "varying")


def _load_model(path: str) -> Any:
    """Import ``package.module:name`` and call it unless it is a model."""
    from torch import nn

    module, _, name = path.partition(":")
    try:
        sys.path.insert(0, "")
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TsstoreError(
            f"model {path!r} cannot be imported ({error}); expected MODULE:NAME, such as "
            "tsstore.demo.model:load_lenet5"
        ) from error
    finally:
        sys.path.remove("")
    model = found if isinstance(found, nn.Module) else found()
    if not isinstance(model, nn.Module):
        raise TsstoreError(f"model {path!r} gives a {type(model).__name__}; expected a nn.Module")
    return model


def _parse_shape(shape: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in shape.split(","))
    except ValueError:
        raise TsstoreError(f"--input is {shape!r}; expected sizes such as 1,3,224,224") from None


def _need_torch() -> None:
    try:
        import_module("torch")
    except ImportError:
        raise TsstoreError(
            "this command needs PyTorch, which is not installed; install tsstore[torch]"
        ) from None


def _fail(message: str) -> int:
    from tsstore.store.display import printable

    typer.echo(f"tsstore: {printable(' '.join(message.split()))}", err=True)
    return 2


if __name__ == "__main__":
    main()
