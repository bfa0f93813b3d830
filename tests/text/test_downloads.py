import hashlib
import http.server
import io
import os
import socket
import threading
import zipfile

import pytest

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import downloads, sources
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
