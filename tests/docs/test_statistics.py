"""What the pages on statistics say is so."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from pages import read

from tsstore.analysis.results.estimates import NAMES, SAMPLE_BASED
from tsstore.demo import mnist
from tsstore.demo.run import capture_demo
from tsstore.statistics.intervals import FEWEST_GROUPS, TOO_EVEN, TOO_HIGH, TOO_LOW
from tsstore.statistics.verdict import (
    CONSTANT,
    FARTHEST,
    FEWEST_SAMPLES,
    IMPRECISE,
    SATURATED_UP_TO,
    UNSEEN_UP_TO,
    USABLE_UP_TO,
    error_of_errors,
)

ROOT = Path(__file__).parents[2]
PAGES = "statistics intervals repeated-samples verdict comparing simulations sources"
TEXT = read(*(f"explanation/{page}.md" for page in PAGES.split()))


def table_with(heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line has such a heading."""
    start = TEXT.index("\n| " + heading) + 1
    lines = TEXT[start:].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_examples_give_what_they_show(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    capture_demo("demo.zarr", *mnist.test_images())
    test = doctest.DocTestParser().get_doctest(TEXT, {}, "statistics", None, 0)
    done = doctest.DocTestRunner().run(test)
    assert done.attempted > 15
    assert done.failed == 0


def test_the_limits_of_the_verdicts_are_those_of_the_code():
    saturated, usable, imprecise, constant, limited = table_with("verdict | farthest")
    for cells, limits in ((saturated, SATURATED_UP_TO), (usable, USABLE_UP_TO)):
        share, efficiency, unseen = (re.search(r"≤ ([\d.]+)", cell)[1] for cell in cells[1:])
        assert (float(share) / 100, float(efficiency)) == limits
        assert float(unseen) / 100 == UNSEEN_UP_TO
    assert (imprecise[0], imprecise[3]) == (IMPRECISE, "≤ 10 %")
    assert (constant[0], f"from {FEWEST_GROUPS} samples" in constant[1]) == (CONSTANT, True)
    assert limited[:2] == ["sample-limited", "else"]
    assert (FARTHEST, FEWEST_SAMPLES) == (3, 64)
    assert f"the margin is taken {error_of_errors(32):.1f} times" in TEXT


def test_every_estimator_has_its_line():
    named = [re.match(r"`([\w-]+)`", cells[0])[1] for cells in table_with("name | source")]
    assert sorted(named) == sorted(set(NAMES) - {SAMPLE_BASED})


def test_the_allowances_for_bias_are_those_of_the_code():
    assert "estimate − C/4 − E − margin" in TEXT
    assert "(estimate − plug-in)/2 + margin" in TEXT
    assert "E = 4 (estimate − plug-in) / (distinct − 1)" in re.sub(r"\s+", " ", TEXT)
    assert (TOO_HIGH, TOO_LOW, TOO_EVEN) == (1 / 4, 1 / 2, 4)


@pytest.mark.parametrize("script", sorted(set(re.findall(r"benchmarks/\w+\.py", TEXT))))
def test_the_commands_that_print_the_numbers_exist(script):
    assert (ROOT / script).is_file()


def test_every_source_that_is_named_is_listed():
    text, sources = re.sub(r"\s+", " ", TEXT).split("# Sources")
    cited = re.findall(r"([A-Z][\wé]+)(?:,? (?:and [A-Z]\w+|et al\.))? (\d{4})\b", text)
    assert len(cited) > 15
    for author, year in cited:
        assert re.search(rf"{author}[^·]* {year}", sources), (author, year)
