"""That each breakage in `mutants.py` still breaks something that is there."""

from pathlib import Path

from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[1]


def test_no_mutant_is_stale():
    counts = {
        mutant.promise: (ROOT / mutant.file).read_text("utf-8").count(mutant.old)
        for mutant in MUTANTS
    }
    assert {promise: count for promise, count in counts.items() if count != 1} == {}
