import re
import sys
import time

import pytest

from charjax import fit, load_config
from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import builtin
from charjax.text.survey import survey


def test_the_built_in_text_is_long_varied_and_never_repeats_itself():
    text = builtin.python_reference()
    assert text == builtin.python_reference()
    assert 300_000 < len(text) < 1_000_000 and 80 < len(set(text)) < 200
    assert text.endswith("\n") and "\n\n\n\n" not in text and "\r" not in text
    paragraphs = [
        p for p in text.split("\n\n") if not p.endswith((":", "*", "=", "-", "~"))
    ]
    assert len(set(paragraphs)) == len(paragraphs)
    # The validation tail is made of what the rest is made of.
    assert set(text[-len(text) // 10 :]) - set(text[: -len(text) // 10]) <= set("ß°")


def test_headings_and_lead_ins_go_with_what_follows():
    paragraphs = ["A\n**", "one", "B\n==", "old", "For example:", "old code", "C\n==", "x"]
    fresh = [p not in ("old", "old code") for p in paragraphs]
    assert builtin._without_orphans(paragraphs, fresh) == "A\n**\n\none\n\nC\n==\n\nx"
    assert builtin._without_orphans(["A\n**", "B\n=="], [True, True]) == ""


def test_a_python_without_its_documentation_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match=r"pydoc_data.*give a text of your own"):
        survey(DataConfig())


def test_the_built_in_names_keep_their_rule():
    text = builtin.names()
    names = text.splitlines()
    assert names == sorted(set(names)) and len(names) == 900 and text.endswith("\n")
    assert len(text.encode()) < 20_000
    assert all(is_well_formed(name) for name in names)
    others = ["babo", "Ba", "Babe", "Babob", "Baabo", "Bababababo", "Fabo"]
    assert not any(map(is_well_formed, others))
    found = survey(DataConfig(source="names", documents="lines")).text
    assert found.sources == ("names",) and found.counts[found.vocabulary.end] == 900


def is_well_formed(name):
    """Whether a name keeps the rule in the docstring of `builtin.names`."""
    consonant = "[bdgklmnprstv]"
    rule = "|".join(f"({consonant}{vowel}){{2,4}}[lnrs]?" for vowel in ("[aou]", "[ei]"))
    return re.fullmatch(rule, name.lower()) is not None and name == name.capitalize()


@pytest.mark.slow
def test_the_preset_of_names_writes_new_names_by_the_rule():
    start = time.perf_counter()
    model = fit(load_config("names"), quiet=True).model
    took = time.perf_counter() - start
    written = model.generate(length=50, num_samples=1000)
    kept = sum(map(is_well_formed, written)) / len(written)
    known = set(builtin.names().split())
    new = sum(name not in known for name in written)
    print(f"{took:.0f} s: {kept:.1%} by the rule, {new / len(written):.1%} not in the list")
    # Two cores take less than a minute of it, but not with what makes tests compile fast.
    assert kept > 0.95 and new > 500
