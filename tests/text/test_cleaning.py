import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import cleaning
from charjax.text.corpus import load
from charjax.text.survey import survey

shared_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_line_ends_are_unified_across_chunk_borders(read, write, chunk_bytes, size):
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
def test_byte_order_marks_override_the_encoding(read, write, chunk_bytes, size, codec):
    chunk_bytes(size)
    mark = b"" if codec == "utf-8-sig" else "\ufeff".encode(codec)
    data = write(mark + "né\r\n😀".encode(codec), encoding="latin-1")
    assert read(data) == "né\n😀"
    assert "byte-order mark taken off" in survey(data).text.notes[0]
    assert read(data, mark + "né\r\n😀".encode(codec)) == "né\n😀"


def test_encodings_are_obeyed_and_utf_32_is_not_taken_for_utf_16(read, write):
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
    for part in ("text.txt", "`data.encoding", "`data.vocabulary='bytes'`"):
        assert part in message


ACCENTS = "Él dijo que mañana vendría, según él. " * 200
RUSSIAN = "Все счастливые семьи похожи друг на друга. " * 200


@pytest.mark.parametrize(
    ("raw", "encoding", "advice"),
    [
        (ACCENTS.encode("latin-1"), "utf-8", "give `data.encoding='latin-1'`"),
        ("“Sí”, me dijo. ".encode("cp1252") * 99, "utf-8", "`data.encoding='cp1252'`"),
        (ACCENTS.encode("utf-16-le"), "utf-8", "give `data.encoding='utf-16-le'`"),
        (ACCENTS.encode("utf-16-be"), "utf-8", "give `data.encoding='utf-16-be'`"),
        (RUSSIAN.encode(), "ascii", "give `data.encoding='utf-8'`"),
        (RUSSIAN.encode("cp1251"), "utf-8", "Give its `data.encoding`, or"),
        (bytes(range(256)), "utf-8", "Give its `data.encoding`, or"),
        (b"PK\x03\x04" + bytes(range(256)), "utf-8", "a .docx, .odt, .epub or other zip"),
        (b"%PDF-1.7\n\xff\xfe", "utf-8", "a PDF, not a text"),
    ],
    ids=[
        "latin-1",
        "cp1252",
        "utf-16-le",
        "utf-16-be",
        "utf-8",
        "cp1251",
        "?",
        "zip",
        "pdf",
    ],
)
def test_advice_about_an_encoding_looks_at_the_bytes(write, raw, encoding, advice):
    with pytest.raises(InputError) as caught:
        survey(write(raw, encoding=encoding))
    assert advice in str(caught.value)


def test_utf_16_that_is_also_utf_8_is_told(write):
    notes = survey(write("plain".encode("utf-16-le"))).text.notes
    assert any("5 NULs" in note and "utf-16-le" in note for note in notes)


def test_text_without_its_mark_is_refused_without_an_offset(write):
    with pytest.raises(InputError, match="not valid utf-16"):
        survey(write(b"a\0b\0", encoding="utf-16"))


@shared_fixtures
@given(st.text("ab<>", max_size=30), st.integers(1, 6), st.sampled_from(["<", "<<", "<a<"]))
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_markers_cut_wherever_the_chunk_borders_fall(
    read, chunk_bytes, kind, text, size, marker
):
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


def test_markers_may_hold_line_ends_and_any_character(read, write):
    text = "x\r\nÉl\r\nmid\r\nfin\r\n"
    choices = {"start_marker": "É", "end_marker": "\nfin"}
    assert read(write(text, **choices)) == "Él\nmid"
    choices["end_marker"] = "\r\nfin"
    assert read(write(text, **choices)) == "Él\nmid"
    assert read(write(text, vocabulary="bytes", **choices)) == "Él\r\nmid"
    with pytest.raises(InputError, match="empty between the markers"):
        survey(write("abc", end_marker="a"))


def test_files_are_joined_with_a_line_end_where_one_lacks_it(read, tmp_path, write):
    for name, content in (("1", "a"), ("2", ""), ("3", "b\r"), ("4", "\ufeffc")):
        write(content, name)
    paths = tuple(str(tmp_path / name) for name in "1234")
    assert read(DataConfig(source=paths)) == "a\nb\nc"
    exact = load(survey(DataConfig(source=paths, vocabulary="bytes")))
    assert exact.text.vocabulary.decode_bytes(exact.ids) == "ab\r\ufeffc".encode()
    line, *_ = survey(DataConfig(source=paths)).text.lines()
    assert line.endswith("/3 and 1 more: 5 characters, 4 symbols")
