"""The manual as a whole: its links, its code, and its reference, which is what the code says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pages import DOCS, blocks, command_line, read

import tsstore
from tsstore import cli

PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
LANGUAGES = {"python", "text", "console", "sh", "yaml", "json"}


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return what links to parts of a page may name, as a forge and the site make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(read(page)), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(read(page))):
        path, _, anchor = link.partition("#")
        target = os.path.normpath(Path(page).parent / path) if path else page
        assert target in PAGES, link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_code_is_of_a_language_and_python_is_run_by_a_test(page):
    text = read(page)
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert not any(fences[1::2])
    assert set(fences[::2]) <= LANGUAGES
    if blocks(text):
        name = page.removesuffix(".md")
        tests = [file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py")]
        assert any(name in test or Path(name).name in test for test in tests)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_in_the_navigation_and_begin_with_their_title(page):
    site = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    assert re.search(rf": {re.escape(page)}$", site, re.MULTILINE)
    assert read(page).startswith(("# ", '--8<-- "ARCHITECTURE.md"\n'))


def test_the_first_page_leads_to_every_question():
    site = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    questions = re.findall(r"^      - (.*): (how-to/\S+)$", site, re.MULTILINE)
    assert re.findall(r"^- \[(.*)\]\((.*)\)$", read("index.md"), re.MULTILINE) == questions


def test_the_page_on_the_command_line_is_what_commands_say():
    """``TSSTORE_GOLDEN=write python -m pytest tests/docs/test_site.py`` writes it anew."""
    page = DOCS / "reference" / "command-line.md"
    if os.environ.get("TSSTORE_GOLDEN") == "write":
        page.write_text(command_line(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == command_line()


def test_every_public_name_is_in_the_reference():
    page = read("reference/python.md")
    headings = re.findall(r"heading: tsstore\.(\w+)$", page, re.MULTILINE)
    mentioned = re.findall(r"`tsstore\.(\w+)`", page)
    assert sorted({*headings, *mentioned} - {"errors"}) == sorted(tsstore.__all__)
    for name in headings:
        home = f"tsstore.{tsstore._HOMES[name]}.{tsstore._NAMES_AT_HOME.get(name, name)}"
        assert f"::: {home}\n" in page


def test_exit_codes_are_those_of_the_command_line():
    codes = re.findall(r"^\| (\d+) \|", read("reference/exit-codes.md"), re.MULTILINE)
    signals = [128 + number for number in cli._SAID]
    assert sorted(map(int, codes)) == sorted({0, 1, cli.FAILED, cli.INTERRUPTED, *signals})
