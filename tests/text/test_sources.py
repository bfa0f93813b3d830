import hashlib
import http.server
import io
import os
import socket
import sys
import threading
import zipfile

import pytest

from charjax.config.schema import DataConfig
from charjax.errors import InputError
from charjax.text import builtin, downloads, sources
from charjax.text.survey import survey

TEXT = b"It was a dark and stormy night.\n" * 40


def checksum(raw, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


@pytest.fixture
def serve():
    """Serves {path: bytes} on the loopback interface; gives its address and requests."""
    servers = []

    def start(pages):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                body = pages.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def offer(monkeypatch):
    """Puts a download into the table in place of anna's."""

    def put(url, expected=None, **other):
        download = downloads.Download(url, "anna.txt", expected or checksum(TEXT), **other)
        monkeypatch.setitem(downloads.DOWNLOADS, "anna", download)

    return put


def test_a_download_is_fetched_once_and_then_offline(serve, offer, cache, capfd):
    address, asked = serve({"/anna": TEXT})
    offer(f"{address}/anna")
    told = []
    for _ in range(2):
        (path,) = sources.files(("anna",), lambda *progress: told.append(progress))
        assert path == cache / "texts" / "anna.txt" and path.read_bytes() == TEXT
    assert asked == ["/anna"]
    assert os.listdir(cache / "texts") == ["anna.txt"]
    assert told[-1] == ("downloading anna.txt", len(TEXT), len(TEXT))
    # Nothing is shown but by whoever watches.
    assert capfd.readouterr() == ("", "")


def test_an_archive_is_unpacked_and_verified(serve, offer, cache):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anna.txt", TEXT)
    address, _ = serve({"/a.zip": packed.getvalue()})
    kept = checksum(packed.getvalue())
    offer(f"{address}/a.zip", checksum(TEXT, "md5"), archive_checksum=kept)
    assert sources.files(("anna",))[0].read_bytes() == TEXT
    assert os.listdir(cache / "texts") == ["anna.txt"]


def test_a_wrong_download_is_refused(serve, offer, cache):
    address, _ = serve({"/anna": TEXT[:-1]})
    offer(f"{address}/anna")
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        sources.files(("anna",))
    assert checksum(TEXT) in str(caught.value)
    assert os.listdir(cache / "texts") == []


def test_a_network_failure_says_what_to_put_where(serve, offer, cache):
    address, _ = serve({})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/anna"
    for url in (f"{address}/missing", nobody):
        offer(url)
        with pytest.raises(InputError) as caught:
            survey(DataConfig(source="anna"))
        message = str(caught.value)
        for part in (url, str(cache / "texts" / "anna.txt"), checksum(TEXT)):
            assert part in message


def test_a_file_put_by_hand_is_used_once_verified(offer, cache):
    offer("http://127.0.0.1:9/never-asked")
    (cache / "texts").mkdir(parents=True)
    (cache / "texts" / "anna.txt").write_bytes(TEXT)
    assert survey(DataConfig(source="anna")).text.length == len(TEXT)
    (cache / "texts" / "anna.txt").write_bytes(TEXT + b"!")
    with pytest.raises(InputError, match="is not the expected text"):
        sources.files(("anna",))


def test_every_download_has_a_checksum():
    for download in downloads.DOWNLOADS.values():
        algorithm, digest = download.checksum.split(":")
        assert len(digest) == hashlib.new(algorithm).digest_size * 2
        assert download.url.startswith("https://")


def test_the_cache_directory_has_a_default(monkeypatch):
    monkeypatch.delenv("CHARJAX_CACHE_DIR")
    assert downloads.cache_directory().name == "charjax"
    assert downloads.cache_directory().is_absolute()


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


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="permissions"):
        survey(DataConfig(source=str(path)))
