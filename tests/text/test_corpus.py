import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charjax.config.schema import DataConfig
from charjax.errors import InputError
from charjax.text import cleaning, corpus, downloads
from charjax.text.corpus import boundaries, load
from charjax.text.description import TextDescription
from charjax.text.survey import survey
from charjax.text.vocabulary import Vocabulary

shared_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
any_text = st.text(st.characters(exclude_categories=()), max_size=40)


def read(data, text=None):
    loaded = load(survey(data, text))
    return loaded.text.vocabulary.decode(loaded.ids)


def unified(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


@shared_fixtures
@given(st.one_of(any_text, st.text("a\r\n", max_size=12)), st.integers(1, 9))
def test_any_text_reads_the_same_in_memory_and_from_files(write, chunk_bytes, text, size):
    chunk_bytes(size)
    # A mark at the very start is taken off, wherever the text comes from.
    expected = unified(text.removeprefix("\ufeff"))
    data = write(text.encode("utf-8", "surrogatepass"))
    if not expected:
        with pytest.raises(InputError, match="empty"):
            survey(data)
        return
    found = survey(data).text
    assert found.length == len(expected) == found.counts.sum()
    assert found.vocabulary == Vocabulary.characters(expected)
    assert [expected.count(s) for s in found.vocabulary.symbols] == found.counts.tolist()
    assert read(data) == read(data, text) == expected
    assert survey(data, text).text.fingerprint == found.fingerprint


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


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_line_ends_are_unified_across_chunk_borders(write, chunk_bytes, size):
    chunk_bytes(size)
    data = write("a\r\nb\rc\n\r\r\nd\r")
    found = survey(data)
    assert read(data) == "a\nb\nc\n\n\nd\n"
    assert found.text.notes == (
        "2 CRLF line ends became LF",
        "3 CR line ends became LF",
    )
    exact = load(survey(write("a\r\nb\r", vocabulary="bytes")))
    assert exact.text.vocabulary.decode_bytes(exact.ids) == b"a\r\nb\r"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_override_the_encoding(write, chunk_bytes, size, codec):
    chunk_bytes(size)
    mark = b"" if codec == "utf-8-sig" else "\ufeff".encode(codec)
    data = write(mark + "né\r\n😀".encode(codec), encoding="latin-1")
    assert read(data) == "né\n😀"
    assert "byte-order mark taken off" in survey(data).text.notes[0]
    assert read(data, mark + "né\r\n😀".encode(codec)) == "né\n😀"


def test_encodings_are_obeyed_and_utf_32_is_not_taken_for_utf_16(write):
    assert read(write("é".encode("latin-1"), encoding="latin-1")) == "é"
    assert read(write("é1".encode("utf-32"), encoding="utf-32")) == "é1"
    assert read(write("é1".encode("gb18030"), encoding="gb18030")) == "é1"
    assert read(write(b"\xef\xbb\xbfa", vocabulary="bytes")) == "\ufeffa"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("raw", "encoding", "offset"),
    [
        (b"abcd\xffef", "utf-8", 4),
        ("ab😀".encode()[:-1], "utf-8", 2),
        (b"\xef\xbb\xbfabc\xc3(", "latin-1", 6),
        (b"\xff\xfea\0\0\xd8b\0", "utf-8", 4),
        (b"abc\x81d", "cp1252", 3),
        (b"ab\x81\xff", "shift_jis", 2),
    ],
)
def test_invalid_bytes_are_refused_at_their_offset(
    write, chunk_bytes, size, raw, encoding, offset
):
    chunk_bytes(size)
    with pytest.raises(InputError) as caught:
        survey(write(raw, encoding=encoding))
    message = str(caught.value)
    assert f"at byte {offset} (0x{raw[offset]:02x})" in message
    for part in ("text.txt", "--data.encoding latin-1", "--data.vocabulary bytes"):
        assert part in message


def test_text_without_its_mark_is_refused_without_an_offset(write):
    with pytest.raises(InputError, match="not valid utf-16"):
        survey(write(b"a\0b\0", encoding="utf-16"))


@shared_fixtures
@given(st.text("ab<>", max_size=30), st.integers(1, 6), st.sampled_from(["<", "<<", "<a<"]))
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_markers_cut_wherever_the_chunk_borders_fall(chunk_bytes, kind, text, size, marker):
    chunk_bytes(size)
    data = DataConfig(vocabulary=kind, start_marker=marker, end_marker=">a")
    _, found, rest = text.partition(marker)
    kept, ended, after = rest.partition(">a")
    if not found or not ended:
        with pytest.raises(InputError, match="marker" if found else "start_marker"):
            survey(data, text)
        return
    assert read(data, text) == marker + kept
    tally = cleaning.Tally()
    list(cleaning.clean(text, data, tally))
    assert (tally.before, tally.after) == (text.index(marker), len(">a" + after))


def test_markers_may_hold_line_ends_and_any_character(write):
    text = "x\r\nÉl\r\nmid\r\nfin\r\n"
    choices = {"start_marker": "É", "end_marker": "\nfin"}
    assert read(write(text, **choices)) == "Él\nmid"
    choices["end_marker"] = "\r\nfin"
    assert read(write(text, **choices)) == "Él\nmid"
    assert read(write(text, vocabulary="bytes", **choices)) == "Él\r\nmid"
    with pytest.raises(InputError, match="empty between the markers"):
        survey(write("abc", end_marker="a"))


def test_files_are_joined_with_a_line_end_where_one_lacks_it(tmp_path, write):
    for name, content in (("1", "a"), ("2", ""), ("3", "b\r"), ("4", "\ufeffc")):
        write(content, name)
    paths = tuple(str(tmp_path / name) for name in "1234")
    assert read(DataConfig(source=paths)) == "a\nb\nc"
    exact = load(survey(DataConfig(source=paths, vocabulary="bytes")))
    assert exact.text.vocabulary.decode_bytes(exact.ids) == "ab\r\ufeffc".encode()
    line, *_ = survey(DataConfig(source=paths)).text.lines()
    assert line.endswith("/3 and 1 more: 5 characters, 4 symbols")


def test_empty_text_is_refused(write):
    for data, text in ((write(""), None), (DataConfig(), ""), (DataConfig(), b"")):
        with pytest.raises(InputError, match="the text is empty; give one"):
            survey(data, text)
    with pytest.raises(InputError, match="text is of type int"):
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
    vocabulary = Vocabulary.characters("abcdef")
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


SHARES = [(0.9, 0.1, 0.0), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.7, 0.0, 0.3), (1 / 3,) * 3]


@shared_fixtures
@given(st.integers(1, 10**7), st.sampled_from(SHARES))
def test_splits_cover_the_text_in_order(n, shares):
    stops = [boundaries(n, name, shares) for name in ("train", "validation", "test")]
    assert stops[0][0] == 0 and stops[2][1] == n
    assert stops[0][1] == stops[1][0] and stops[1][1] == stops[2][0]
    for (start, stop), share in zip(stops, shares, strict=True):
        assert abs((stop - start) - n * share) < 2 and (share > 0 or start == stop)


def test_a_share_is_not_a_victim_of_floats():
    text = TextDescription(Vocabulary.characters("a"), np.array([1]), "")
    for n, share, stop in ((1_985_223, 0.9, 1_786_700), (10, 0.7, 7), (100, 0.29, 29)):
        whole = corpus.Corpus(np.broadcast_to(np.uint8(0), n), text)
        assert boundaries(n, "train", (share, 1 - share, 0.0)) == (0, stop)
        assert len(whole.split("validation", (share, 1 - share, 0.0))) == n - stop


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


_MEASURE = """
import sys, threading, time
from charjax.config.schema import DataConfig
from charjax.text.corpus import load
from charjax.text.survey import survey

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

peak, done = anonymous(), threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
corpus = load(survey(DataConfig(source=sys.argv[1], vocabulary=sys.argv[2])))
first = time.perf_counter() - start
start = time.perf_counter()
load(survey(DataConfig(source=sys.argv[1], vocabulary=sys.argv[2])))
second = time.perf_counter() - start
done.set()
watcher.join()
print(len(corpus.ids), peak, first, second)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_hundred_megabytes_take_little_memory(tmp_path, kind):
    path = tmp_path / "big.txt"
    line = "Le vif zéphyr jubile sur les kumquats du clown gracieux — 😀 0123456789\r\n"
    path.write_text(line * (100_000_000 // len(line.encode())), "utf-8", newline="")
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), kind],
        capture_output=True,
        text=True,
        check=True,
    )
    length, peak, first, second = map(float, measured.stdout.split())
    print(
        f"{kind}: {length:.0f} symbols, {peak:.0f} MB, {first:.1f} s, then {second:.2f} s"
    )
    assert peak < 300


def test_files_hash_as_the_survey_says(write):
    data = write("hello")
    found = survey(data)
    digest = hashlib.sha256(hashlib.sha256(b"hello").digest()).hexdigest()
    assert found.raw_digest == digest
