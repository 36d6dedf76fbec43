"""HTML as a browser would take it apart, and the pages in docs/, whose code is run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from typer.main import get_command

DOCS = Path(__file__).parents[2] / "docs"


class Tags(HTMLParser):
    """Collects the tags of a page, and its text; attributes there may be three, that do no harm."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.titles: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]
        assert {name for name, _ in attrs} <= {"title", "class", "open"}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(*pages: str) -> str:
    """Return the text of pages in docs/, one after the other."""
    return "\n".join((DOCS / page).read_text(encoding="utf-8") for page in pages)


def blocks(text: str, language: str = "python") -> list[str]:
    """Return the blocks of code of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_code(page: str, **names: Any) -> dict[str, Any]:
    """Run all Python of a page in docs/, one block after the other; return the names it leaves."""
    names = {"__name__": "page", **names}
    for code in blocks(read(page)):
        exec(compile(code, page, "exec"), names)
    return names


def command_line() -> str:
    """Return the page on the command line, as the commands describe themselves."""
    from tsstore.commands.app import app

    lines = [
        "# Command line",
        "",
        "What `tsstore COMMAND --help` says, all in one place. `tsstore --install-completion`",
        "teaches your shell to complete commands and options. Results go to stdout, all else to",
        "stderr; [exit codes](exit-codes.md) and [JSON](json.md) have pages of their own.",
        "",
        "Folders on the way to a new run (`demo`, `compact`) and to a cache are made; that of any",
        "other file must be there: a mistyped path is an error before anything is counted.",
        "",
    ]
    commands = get_command(app).commands
    for name, command in commands.items():
        told = (command.help or "").replace("\n\n", "\f").replace("\n", " ").replace("\f", "\n\n")
        usage = " ".join(_words(command.params))
        lines += [f"## {name}", "", f"`tsstore {name} {usage}`", "", told, ""]
        options = _options(command.params)
        lines += ["| option | |", "|---|---|", *options, ""] if options else []
        lines += [f"{command.epilog.replace('Example: ', 'Example: `')}`", ""]
    return "\n".join(lines)


def _words(parameters: Iterable[Any]) -> list[str]:
    """Return the words of a command that must be given."""
    positional = [one.metavar or "" for one in parameters if one.param_type_name == "argument"]
    needed = [
        f"{one.opts[0]} {one.metavar or 'NAME'}"
        for one in parameters
        if one.param_type_name == "option" and one.required
    ]
    return [*positional, *needed, "[OPTIONS]"]


def _options(parameters: Iterable[Any]) -> list[str]:
    lines = []
    for one in parameters:
        if one.param_type_name != "option" or one.name == "help":
            continue
        value = f" {one.metavar}".replace("|", "\\|") if one.metavar else ""
        names = ", ".join(f"`{name}{value}`" for name in (*one.opts, *one.secondary_opts))
        default = "" if one.default in (None, False, True) or one.required else one.default
        told = f" Default: {default}." if default else ""
        lines.append(f"| {names} | {(one.help or '').rstrip()}{told} |")
    return lines
