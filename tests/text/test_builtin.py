import sys

import pytest

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
