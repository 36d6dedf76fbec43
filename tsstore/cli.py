"""The command line: how it begins, and how it ends.

What it consists of is imported by :func:`main`, when signals are heeded already.
"""

from __future__ import annotations

import re
import signal
import sys
import warnings
from contextlib import suppress
from types import FrameType
from typing import Self, TextIO

FAILED, INTERRUPTED = 2, 130
_ARGUMENT = (
    "(memory|scheduler|scratch|dependent_by|unique_by|repeats|intervals|exact|patience"
    "|by|bins|window)"
)
_STEPS = (
    'tsstore.analyze(store, by="step"), or one, tsstore.analyze(store.at_step(…))',
    "tsstore analyze --by step, or choose one, --step (of the other run: --other-step)",
)
"""What Python says of a run of several steps, and what the command line does."""
_SAID = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "the terminal is gone (SIGHUP)",
}


def main() -> None:
    """Run the command line; every error is one line on stderr, exit code 2.

    Ctrl-C, SIGTERM and SIGHUP are one line as well, with exit codes 130, 143 and 129: what was
    begun is undone, as after any error. A signal that is ignored, as under ``nohup``, stays so.
    """
    with _Stops() as stops:
        try:
            code = _run()
        except KeyboardInterrupt:
            code = INTERRUPTED
    # Some versions of typer end with this code instead of an exception.
    if code == INTERRUPTED or stops.received:
        number = stops.received[0] if stops.received else signal.SIGINT
        code = 128 + number
        _say(_SAID[number])
    sys.exit(code)


class _Stops:
    """Lets signals that mean the end of a process interrupt it, so that it can tidy up."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._heeded: list[signal.Signals] = []

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._interrupt)
                self._heeded.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._heeded:
            signal.signal(number, signal.SIG_DFL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # Once is enough: a second one must not stop the tidying up.
        if not self.received:
            self.received.append(signal.Signals(number))
            raise KeyboardInterrupt


def _run() -> int:
    """Run the command that the arguments name; return its exit code."""
    import typer

    from tsstore.commands.app import app
    from tsstore.errors import TsstoreError
    from tsstore.text import printable

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = app(standalone_mode=False)
    except (TsstoreError, OSError) as error:
        message = str(error)
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        # Wrong usage: typer carries its own copy of click's exceptions, which have no public name.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().replace("Value error, ", "").removesuffix(".")
        context = getattr(error, "ctx", None)
        # Where it says what may have been meant, that is enough.
        if context is not None and (
            not message.endswith(("?", ")")) or "unexpected extra" in message
        ):
            command = f" {context.info_name}" if context.parent else ""
            message += f"; see tsstore{command} --help"
    else:
        return code if isinstance(code, int) else 0
    _say(printable(in_options(" ".join(message.split()))))
    return FAILED


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning in a line; where in the code it arose matters only if it is not ours."""
    from tsstore.errors import TsstoreWarning
    from tsstore.text import printable

    if issubclass(category, TsstoreWarning):
        _say(printable(f"warning: {in_options(' '.join(str(message).split()))}"))
    else:
        _say(warnings.formatwarning(message, category, filename, lineno, line).rstrip())


def in_options(message: str) -> str:
    """Return what an error says of arguments in the words of the command line."""
    message = message.replace(*_STEPS)
    message = re.sub(rf"\b{_ARGUMENT}=False\b", r"--no-\1", message)
    message = re.sub(rf"\b{_ARGUMENT}=True\b", r"--\1", message)
    message = re.sub(rf"\b{_ARGUMENT}='?([0-9A-Za-z]+)'?", r"--\1 \2", message)
    message = re.sub(rf"\b{_ARGUMENT}=", r"--\1", message)
    return re.sub(r"--(no-)?(dependent|unique)_by\b", r"--\1\2-by", message)


def _say(message: str) -> None:
    """Write a line to stderr; there may be nobody left who reads it."""
    with suppress(OSError, ValueError):
        print(f"tsstore: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
