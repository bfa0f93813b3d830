import os

import pytest

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import sources
from charjax.text.survey import survey


def test_directories_stand_for_their_texts_in_order(tmp_path):
    folder = tmp_path / "books"
    (folder / "b").mkdir(parents=True)
    for name in ("c.txt", "a.txt", "b/z.txt", "readme.md"):
        (folder / name).write_text(name)
    other = tmp_path / "other.md"
    other.write_text("x")
    found = sources.files((str(other), str(folder)))
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["other.md", "books/a.txt", "books/b/z.txt", "books/c.txt"]


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source, message in (
        (tmp_path / "missing.txt", r"no such file.*tinyshakespeare"),
        ("tinyshakespear", r"Did you mean tinyshakespeare\?"),
        (tmp_path / "empty", r"no \*\.txt file"),
        (tmp_path / "pipe", r"not a regular file"),
        ("/dev/null", r"not a regular file"),
        ("a\0b", r"cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            survey(DataConfig(source=str(source)))
        assert repr(str(source)) in str(caught.value)
    with pytest.raises(InputError, match="stands alone"):
        survey(DataConfig(source=("anna", str(tmp_path))))


def test_patterns_stand_for_what_they_match_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a[1]/deep").mkdir(parents=True)
    for name in ("c.txt", "b.txt", "d.md", "[bc].txt", "a[1]/deep/e.txt"):
        (tmp_path / name).write_text(name)

    def names(*patterns):
        found = [str(path) for path in sources.files(patterns)]
        assert sources.absolute(patterns) == [str(tmp_path / path) for path in found]
        return found

    assert names("*.txt") == ["[bc].txt", "b.txt", "c.txt"]
    assert names("**/e.txt", "d.md") == ["a[1]/deep/e.txt", "d.md"]
    # A file of that very name comes first, and so does a path of any kind.
    assert names("[bc].txt") == ["[bc].txt"] and names("a[1]/deep/e.txt")
    (tmp_path / "[bc].txt").unlink()
    assert names("[bc].txt") == ["b.txt", "c.txt"]
    with pytest.raises(InputError, match=r"no file matches this pattern"):
        sources.files(("*.html",))


def test_addresses_and_streams_are_refused(tmp_path):
    for address in ("https://example.com/a.txt", "HTTP://x/*.txt", "file:///etc/passwd"):
        assert sources.absolute((address,)) == [address]
        with pytest.raises(InputError, match=r"this is an address.*curl -LO"):
            sources.files((address,))
    path = tmp_path / "text.txt"
    path.write_text("x")
    with path.open() as file:
        for stream in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            with pytest.raises(InputError, match="not a regular file"):
                sources.files((stream,))


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="permissions"):
        survey(DataConfig(source=str(path)))
