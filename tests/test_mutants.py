"""Each mutant still breaks code that exists, and names tests that exist."""

import shlex
from pathlib import Path

from tests.mutants.breakages import MUTANTS

ROOT = Path(__file__).parents[1]


def test_no_mutant_is_stale():
    counts = {
        mutant.promise: (ROOT / mutant.file).read_text("utf-8").count(mutant.old)
        for mutant in MUTANTS
    }
    assert {promise: count for promise, count in counts.items() if count != 1} == {}
    assert len(counts) == len(MUTANTS)


def test_each_mutant_names_tests_that_exist():
    absent = []
    for mutant in MUTANTS:
        path, *options = shlex.split(mutant.tests)
        text = (ROOT / path).read_text("utf-8")
        chosen = options[options.index("-k") + 1] if "-k" in options else ""
        words = set(chosen.split()) - {"and", "or", "not"}
        absent += [(mutant.promise, word) for word in words if word not in text]
    assert absent == []
