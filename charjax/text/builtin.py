"""The built-in texts: Python's own language reference, and a list of names."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from charjax.errors import InputError

NAME = "python-reference"
NAMES = "names"


def python_reference() -> str:
    """Python's language reference as one text, about 0.4 MB, alike in every Python.

    Many topics quote one another, so every paragraph that occurred before is dropped:
    otherwise the model could recite the end of the text, which is used for validation,
    from its start. Sections are in the order of the SHA-256 of their headings, so that the
    end is like the rest although a few topics make up a quarter of the whole.
    Raises InputError where this Python came without its documentation.

    >>> "while_stmt ::=" in " ".join(python_reference().split())
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError(
            f"data.source is {NAME!r}, but this Python came without the module "
            "pydoc_data.topics: install Python's documentation package (python3-doc or "
            "libpython3-stdlib), or give a text of your own."
        ) from None
    sections = [
        section
        for name in sorted(topics)
        for section in _sections(re.split(r"\n\s*\n", topics[name].strip("\n")))
    ]
    sections.sort(key=lambda section: hashlib.sha256(section[0].encode()).digest())
    seen: set[str] = set()
    kept: list[str] = []
    for section in sections:
        paragraphs = [paragraph.rstrip() for paragraph in section]
        fresh: list[bool] = []
        for paragraph in paragraphs:
            fresh.append(paragraph not in seen)
            seen.add(paragraph)
        kept.append(_without_orphans(paragraphs, fresh))
    return "\n\n\n".join(section for section in kept if section) + "\n"


def names() -> str:
    """900 made-up names in alphabetical order, one a line.

    A name has two to four syllables, each a consonant of b d g k l m n p r s t v and a
    vowel, and may end with one more of l n r s. All its vowels are among a o u, or all
    among e i. Its first letter is a capital.

    >>> names().splitlines()[:3]
    ['Babolakar', 'Badulosa', 'Badumun']
    """
    return Path(__file__).with_name("names.txt").read_text("utf-8")


def _sections(paragraphs: list[str]) -> Iterator[list[str]]:
    """The paragraphs, cut before each heading."""
    starts = [0, *(k for k, text in enumerate(paragraphs) if k and _is_heading(text))]
    for start, stop in zip(starts, [*starts[1:], len(paragraphs)], strict=True):
        yield paragraphs[start:stop]


def _is_heading(paragraph: str) -> bool:
    lines = paragraph.split("\n")
    return len(lines) == 2 and re.fullmatch(r"([*=~^-])\1+", lines[1]) is not None


def _without_orphans(paragraphs: list[str], fresh: list[bool]) -> str:
    """The fresh paragraphs, without headings and lead-ins that have lost what follows."""
    kept: list[str] = []
    section_has_text = following_kept = False
    for paragraph, new in zip(reversed(paragraphs), reversed(fresh), strict=True):
        if _is_heading(paragraph):
            keep, section_has_text = section_has_text, False
        else:
            # "For example:" recurs in front of fresh examples and gives nothing away.
            lead_in = "\n" not in paragraph and paragraph.endswith(":")
            keep = following_kept if lead_in else new
            section_has_text |= keep
        following_kept = keep
        if keep:
            kept.append(paragraph)
    return "\n\n".join(reversed(kept))
