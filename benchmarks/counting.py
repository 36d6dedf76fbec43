"""Exact counting of distinct states: tsstore and what one would use instead, in turns.

Writes data sets, then lets all contenders say how many states there are in each number of rows,
with the same threads::

    python benchmarks/counting.py
    python benchmarks/counting.py --quick
    python benchmarks/counting.py --kinds conv few --widths 8 64 --codec zstd --directory /mnt/disk
    python benchmarks/counting.py --memory 512MiB --only 'tsstore,duckdb-*,polars*'
    python benchmarks/counting.py --incidence --groups --rows 5_000_000

Kinds of states: ``conv``, of a random convolution of MNIST images; ``random``, the same of smooth
noise, half of it cut off; ``hold``, of noise with a fifth to two fifths of them distinct; ``demo``,
of the demo's trained conv_2, in 8 bytes; ``distinct``, all different; ``few``, 4,096 of them, by
Zipf's law.

Contenders: ``tsstore`` from a run in lz4, with a `tsstore.Threads` that is kept from its first call
on, as rivals keep their threads and memory; ``duckdb`` from Parquet in lz4 without dictionaries
(``plain``), with them (``default``), with states as numbers (``u64``), and from a table in memory
that was filled before; ``polars`` in its streaming engine and in memory; ``pandas``, ``dask``
(dask.dataframe) and ``numpy`` (numpy.unique, one thread), from plain Parquet. ``read`` reads and
decodes what tsstore reads, and does not count.

Each is a process of its own for each data set. Printed are

- ``first s``: seconds from the import of its library to its first answer; all files are in the
  system's cache, and an earlier process has compiled tsstore's kernels;
- ``wall s``, ``wall ns``, ``CPU ns``: medians of the rounds, in seconds, in ns a row, and in ns a
  row of the processor's time, of all threads together;
- ``MiB``: the peak of resident memory (VmHWM, so Linux only) beyond that after the import; what is
  loaded by the first call, such as tsstore's kernels, counts;
- ``ratio``, ``CPU ratio``: the median over all rounds of its time, on the clock and of the
  processor, to tsstore's in the same round.

Below each table stands what other processes did meanwhile.

All must give the same answer; else the script says who differs, and fails. With ``--incidence``
rivals count the samples of each state too, as tsstore always does. With ``--groups`` they count
each of 10 labels; tsstore then counts for confidence intervals, by 32 groups of samples.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from counting_contenders import CONTENDERS
from counting_contest import Player, compete
from counting_data import KINDS, has_width
from counting_forms import DataSet, prepare
from counting_machine import Others, calibrate, describe, warm_up
from counting_rivals import Task
from dask.utils import parse_bytes

WIDTHS = (3, 8, 16, 32, 64, 256)
MOST_BYTES = 4 * 10**9
QUICK = {"rows": 50_000, "slow_rows": 50_000, "rounds": 2, "widths": [8]}
COLUMNS = ("first s", "wall s", "wall ns", "CPU ns", "MiB", "ratio", "CPU ratio")
COLUMN_WIDTH = 10
ANALYSIS, READING = "tsstore", "read"
DATABASE = ("duckdb-plain", "duckdb-default")


def main() -> None:
    """Parse, let contenders compete, print."""
    arguments = parse()
    for line in (*describe(), *calibrate(), *conditions(arguments)):
        print(line, flush=True)
    warm_up()
    for kind in arguments.kinds:
        for width in filter(partial(has_width, kind), arguments.widths):
            for data, names in contests(kind, width, arguments):
                for line in contest(data, names, arguments):
                    print(line, flush=True)


def parse() -> argparse.Namespace:
    """Return the arguments; those of --quick are defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rows, of 8 bytes unless told")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="bytes of a row")
    parser.add_argument("--rows", type=int, default=20_000_000, help="of a set, at most")
    parser.add_argument("--bytes", type=parse_bytes, default="500MB", help="of its rows, at most")
    parser.add_argument("--slow-rows", type=int, default=2_000_000, help="for slow contenders")
    parser.add_argument("--positions", type=int, default=1, help="rows of a sample without image")
    parser.add_argument("--codec", choices=["lz4", "zstd"], default="lz4", help="zstd: both")
    parser.add_argument("--only", default="*", help="names or patterns, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", help="limit, for those that can be told one")
    parser.add_argument("--incidence", action="store_true")
    parser.add_argument("--groups", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=900, help="seconds of a call, at most")
    parser.add_argument("--directory", type=Path, help="sets are kept there, and used again")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    arguments = parser.parse_args()
    if arguments.directory:
        arguments.directory.mkdir(parents=True, exist_ok=True)
    if arguments.bytes > MOST_BYTES:
        parser.error(f"a set has at most {MOST_BYTES:,} bytes")
    arguments.only = arguments.only.split(",")
    for pattern in arguments.only:
        if not any(fnmatch(name, pattern) for name in CONTENDERS):
            parser.error(f"there is no contender {pattern}; there are {', '.join(CONTENDERS)}")
    return arguments


def conditions(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield lines that say under which conditions all compete."""
    task = task_of(0, arguments)
    asked = ["multiplicity", *["incidence"] * task.incidence, *["groups"] * task.groups]
    yield f"threads: {task.threads}; {arguments.rounds} rounds; asked for {', '.join(asked)}"
    if task.memory:
        free = [name for name, contender in CONTENDERS.items() if not contender.kind.LIMITED]
        yield f"memory: {task.memory}; not to be limited: {', '.join(free)}"
    slow = [name for name, contender in CONTENDERS.items() if contender.is_slow]
    yield f"slow, at most {arguments.slow_rows:,} rows: {', '.join(slow)}"
    silent = [name for name, contender in CONTENDERS.items() if not contender.can_answer(task)]
    if silent:
        yield f"not asked for that: {', '.join(silent)}"


def contests(
    kind: str, width: int, arguments: argparse.Namespace
) -> Iterator[tuple[DataSet, list[str]]]:
    """Yield data sets and who counts them; of many rows slow contenders count a smaller set."""
    codecs = tuple(dict.fromkeys(("lz4", arguments.codec)))
    rows = min(arguments.rows, arguments.bytes // width)
    data = DataSet.of(kind, width, rows, arguments.positions, codecs)
    names = [name for name in CONTENDERS if enters(name, data, arguments)]
    slow = [name for name in names if CONTENDERS[name].is_slow]
    if slow and data.rows > arguments.slow_rows:
        small = DataSet.of(kind, width, arguments.slow_rows, arguments.positions, codecs)
        if len(slow) < len(names):
            yield data, [name for name in names if name not in slow]
        yield small, [name for name in names if name in (ANALYSIS, *slow)]
    elif names:
        yield data, names


def enters(name: str, data: DataSet, arguments: argparse.Namespace) -> bool:
    """Whether a contender is wanted, and can count the set and answer."""
    contender = CONTENDERS[name]
    wanted = any(fnmatch(name, pattern) for pattern in arguments.only)
    task = task_of(data.width, arguments)
    return wanted and contender.can_count(data.width, data.files) and contender.can_answer(task)


def task_of(
    width: int, arguments: argparse.Namespace, folder: Path = Path(), scratch: str = ""
) -> Task:
    """Return what is asked of each contender."""
    options = arguments.threads, arguments.memory, arguments.incidence, arguments.groups
    return Task(str(folder), scratch, width, *options)


def contest(data: DataSet, names: list[str], arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a data set's table."""
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        folder, repeats = prepare(data, arguments.directory or Path(scratch))
        task = task_of(data.width, arguments, folder, scratch)
        with Others() as others:
            players = compete(names, task, arguments.rounds, arguments.timeout)
    yield ""
    yield from headline(data, repeats, players)
    yield f"{'':<18}" + "".join(f"{column:>{COLUMN_WIDTH}}" for column in COLUMNS)
    by_name = {player.name: player for player in players}
    for player in players:
        yield table_line(player, by_name.get(ANALYSIS), data.rows)
    yield from notes(by_name, data.rows)
    yield others.line


def headline(data: DataSet, repeats: float, players: list[Player]) -> Iterator[str]:
    """Yield what there was to count."""
    yield f"{data.kind}, {data.width} bytes: {data.rows:,} rows, {data.positions} a sample"
    replies = (reply for player in players for reply in player.replies)
    found = next(
        (reply for reply in replies if "label" not in reply.get("columns", ["label"])), None
    )
    if found:
        yield (
            f"{found['distinct']:,} distinct, {found['once'] / found['distinct']:.0%} seen once; "
            f"{found['commonest'] / found['rows']:.1%} of the rows are one state, "
            f"{repeats:.1%} equal the one before"
        )


def table_line(player: Player, analysis: Player | None, rows: int) -> str:
    """Return what a contender took as a line of the table."""
    if player.failure or player.first is None:
        return f"{player.name:<18}  failed: {player.failure:.100}"
    wall = player.median("wall")
    ratios = [median_ratio(player, analysis, amount) for amount in ("wall", "cpu")]
    cells = [
        f"{player.first['wall']:.2f}",
        f"{wall:.3f}",
        f"{1e9 * wall / rows:.1f}",
        f"{1e9 * player.median('cpu') / rows:.1f}",
        f"{player.peak / 2**20:,.0f}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    ]
    return f"{player.name:<18}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells).rstrip()


def median_ratio(player: Player, other: Player | None, amount: str = "wall") -> float | None:
    """Return the median over all rounds: what slows a whole round down does not count."""
    if other is None or other.failure:
        return None
    pairs = zip(player.rounds, other.rounds, strict=True)
    ratios: list[float] = [one[amount] / two[amount] for one, two in pairs]
    return statistics.median(ratios)


def notes(players: dict[str, Player], rows: int) -> Iterator[str]:
    """Yield what there is to say of tsstore besides."""
    well = {name: player for name, player in players.items() if not player.failure}
    for codec in ("", "-zstd"):
        name, reading = f"{ANALYSIS}{codec}", f"{READING}{codec}"
        if {name, reading} <= well.keys():
            seconds = well[name].median("cpu") - well[reading].median("cpu")
            yield f"{name}: {1e9 * seconds / rows:.1f} CPU ns a row beyond read and decode"
    if {ANALYSIS, *DATABASE} <= well.keys():
        faster = min(median_ratio(well[name], well[ANALYSIS]) or 0 for name in DATABASE)
        yield f"the faster of {' and '.join(DATABASE)}: {faster:.1f} times as long as {ANALYSIS}"


if __name__ == "__main__":
    main()
