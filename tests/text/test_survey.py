import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import downloads
from charjax.text.corpus import load
from charjax.text.survey import survey
from charjax.text.vocabulary import Vocabulary

shared_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@shared_fixtures
@given(any_text.filter(bool), st.sampled_from(["utf-8", "latin-1", "utf-16", "cp1252"]))
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_text_kept_as_a_file_reads_the_same(write, kind, text, encoding):
    choices = {"vocabulary": kind, "encoding": encoding}
    if kind == "characters" and not text.removeprefix("\ufeff"):
        return
    surveyed = survey(DataConfig(**choices), text)
    data = write(surveyed.bytes_to_keep(), **choices)
    from_file, in_memory = load(survey(data)), load(surveyed)
    assert np.array_equal(from_file.ids, in_memory.ids)
    assert from_file.text.fingerprint == in_memory.text.fingerprint


def test_the_built_in_text_kept_as_a_file_reads_the_same(write, cache):
    surveyed = survey(DataConfig())
    in_memory = load(surveyed)
    assert not cache.exists()
    from_file = load(survey(write(surveyed.bytes_to_keep())))
    assert in_memory.text.fingerprint == from_file.text.fingerprint
    assert np.array_equal(in_memory.ids, from_file.ids)
    raw = b"\xff\r\n"
    assert survey(DataConfig(vocabulary="bytes"), raw).bytes_to_keep() == raw
    assert survey(write("ab")).bytes_to_keep() is None


def test_empty_text_is_refused(write):
    for data, text in ((write(""), None), (DataConfig(), ""), (DataConfig(), b"")):
        with pytest.raises(InputError, match="the text is empty; give one"):
            survey(data, text)
    with pytest.raises(InputError, match="`text` is of type int"):
        survey(DataConfig(), 3)  # type: ignore[arg-type]


def test_the_report_is_short_and_readable(write):
    name, *rest = survey(write("hello\r\nworld\x07é", encoding="utf-8")).text.lines()
    assert name.endswith("text.txt: 13 characters, 10 symbols")
    assert rest == [
        "1 CRLF line end became LF",
        r"rarest: '\x07' 1, '\n' 1, 'd' 1, 'e' 1, 'h' 1",
    ]
    _, rarest = survey(DataConfig(vocabulary="bytes"), "ab").text.lines()
    assert rarest == "rarest: 0x61 1, 0x62 1"
    assert "nothing to learn" in survey(DataConfig(), "aaa").text.notes[0]
    many = survey(DataConfig(), "".join(map(chr, range(0x4E00, 0x4E00 + 6000))))
    assert "6,000 symbols are many" in many.text.notes[0]
    assert "1 lone surrogates" in survey(DataConfig(), "a\udc80").text.notes[0]


def test_a_given_vocabulary_is_kept_and_others_characters_refused(write):
    vocabulary = Vocabulary.from_text("abcdef")
    found = survey(write("fade"), vocabulary=vocabulary)
    assert found.text.vocabulary == vocabulary
    assert found.text.counts.tolist() == [1, 0, 0, 1, 1, 1]
    assert load(found).ids.tolist() == [5, 0, 3, 4]
    assert found.text.fingerprint != survey(write("fade")).text.fingerprint
    data = write("faxé ade")
    with pytest.raises(InputError, match=r"'x' \(U\+0078\), 'é' \(U\+00E9\).*train a new"):
        survey(data, vocabulary=vocabulary)
    for _ in range(2):
        skipped = survey(data, vocabulary=vocabulary, on_unknown="skip")
        assert skipped.text.notes == ("3 unknown characters left out",)
        assert load(skipped).ids.tolist() == [5, 0, 0, 3, 4]
    # What was cached without them must not be found when they are asked about.
    with pytest.raises(InputError, match="not in the vocabulary"):
        survey(data, vocabulary=vocabulary)
    with pytest.raises(InputError, match="no character"):
        survey(write("xyz"), vocabulary=vocabulary, on_unknown="skip")
    with pytest.raises(InputError, match="same kind"):
        survey(data, vocabulary=Vocabulary.of_bytes())


def test_the_fingerprint_is_of_content_and_vocabulary(write):
    lf, crlf = survey(write("a\nb", "lf")).text, survey(write("a\r\nb", "crlf")).text
    assert lf.fingerprint == crlf.fingerprint
    others = [
        survey(write("a\nc")),
        survey(write("a\nb", vocabulary="bytes")),
        survey(DataConfig(end_marker="b"), "a\nb"),
    ]
    assert len({lf.fingerprint, *(other.text.fingerprint for other in others)}) == 4


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "choices", "length", "symbols"),
    [
        ("anna", "anna.txt", {}, 1_985_223, 83),
        (
            "mysterious-island",
            "mysterious_island.txt",
            {
                "start_marker": "THE MYSTERIOUS ISLAND",
                "end_marker": "End of the Project Gutenberg",
            },
            1_112_350,
            80,
        ),
        ("tinyshakespeare", "tinyshakespeare.txt", {}, 1_115_394, 65),
    ],
)
def test_real_texts(real_text, cache, name, file, choices, length, symbols):
    path = real_text(file)
    found = survey(DataConfig(source=path, **choices)).text
    assert (found.length, found.vocabulary.size) == (length, symbols)
    (cache / "texts").mkdir(parents=True)
    os.symlink(path, cache / "texts" / downloads.DOWNLOADS[name].filename)
    named = survey(DataConfig(source=name, **choices)).text
    assert named.fingerprint == found.fingerprint
    raw = Path(path).read_bytes()
    assert survey(DataConfig(**choices), raw).text.fingerprint == found.fingerprint


def test_files_hash_as_the_survey_says(write):
    data = write("hello")
    found = survey(data)
    digest = hashlib.sha256(hashlib.sha256(b"hello").digest()).hexdigest()
    assert found.raw_digest == digest
