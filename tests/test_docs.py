"""What the pages of docs/ say about the tests is so."""

import re
from pathlib import Path

import pytest

from tests.mutants.breakages import MUTANTS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")])
TESTS = {path: path.read_text("utf-8") for path in sorted(ROOT.glob("tests/**/*.py"))}
FUNCTIONS = {
    name: text for text in TESTS.values() for name in re.findall(r"def (test_\w+)\(", text)
}


def test_each_test_that_the_page_on_reliability_names_exists():
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+)((?:\[\w+\])?)`", page)
    assert len(named) > 60
    assert [name for name, _ in named if name not in FUNCTIONS] == []
    for name, case in named:
        assert f'"{case[1:-1]}"' in FUNCTIONS[name] or not case, f"{name}{case}"
    # Each fault has a test, or is another fault's.
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", page, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, tests in rows:
        assert "test_" in tests or re.match(r"as \d+$", tests), f"fault {number}: {tests}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_that_a_page_shows_selects_tests(page):
    options = set(re.findall(r'addoption\(\s*"(--\w+)"', TESTS[ROOT / "tests/conftest.py"]))
    for command in re.findall(r"`(pytest [^`]*)`", page.read_text("utf-8")):
        paths = re.findall(r"tests/\S+", command)
        for path in paths:
            assert (ROOT / path).exists(), command
        for words in re.findall(r"-k (\w+)", command):
            inside = [
                text
                for file, text in TESTS.items()
                if any((ROOT / path) in (file, *file.parents) for path in paths)
            ]
            assert any(re.search(rf"def test_\w*{words}", text) for text in inside), command
        for option in re.findall(r"--\w+", command):
            assert option in options, command
    for path in re.findall(r"tests/[\w/]+\.py", page.read_text("utf-8")):
        assert (ROOT / path).exists(), path


def test_the_page_on_reliability_counts_the_mutants():
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    counted = re.search(r"^\| mutants .*\| (\d+), each killed", page, re.M)
    assert counted and int(counted[1]) == len(MUTANTS)
