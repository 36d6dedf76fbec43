"""HTML as a browser would take it apart, and the code of a page in docs/ as a reader runs it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


class Tags(HTMLParser):
    """Collects the tags of a page, and its text; there may be titles, and no other attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.titles: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]
        assert all(name == "title" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def run_code(page: str, **names: Any) -> dict[str, Any]:
    """Run all Python of a page in docs/, one block after the other; return the names it leaves."""
    names = {"__name__": "page", **names}
    text = (DOCS / page).read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec"), names)
    return names
