"""Public texts by name, downloaded once. Only this file imports pooch."""

import dataclasses
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from charjax.errors import InputError
from charjax.text.watch import Watch, silent


@dataclasses.dataclass(frozen=True)
class Download:
    """A public text: its address, its name in the cache, and its checksums.

    `checksum` is of the text itself, as "algorithm:hex digest". Where the address is that
    of a zip archive, it has the text as a member of the same name, and `archive_checksum`
    is the archive's, so that nothing unverified is ever unpacked.
    """

    url: str
    filename: str
    checksum: str
    archive_checksum: str | None = None


_GITHUB = "https://raw.githubusercontent.com"

DOWNLOADS = {
    # 1.1 MB of Shakespeare's plays, as in char-rnn.
    "tinyshakespeare": Download(
        f"{_GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "tinyshakespeare.txt",
        "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    # 2 MB, Tolstoy's Anna Karenina in English.
    "anna": Download(
        f"{_GITHUB}/udacity/deep-learning-v2-pytorch/master"
        "/recurrent-neural-networks/char-rnn/data/anna.txt",
        "anna.txt",
        "sha256:568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
    ),
    # 1.2 MB, Verne's The Mysterious Island in English, from Project Gutenberg.
    "mysterious-island": Download(
        f"{_GITHUB}/rasbt/machine-learning-book/main/ch15/1268-0.txt",
        "mysterious_island.txt",
        "sha256:355bfdc3f9b5e384b1918e817dd086ce0df97f4d294c69f032fb70b95c1e737c",
    ),
    # The first 100 MB of the English Wikipedia's XML dump of 2006.
    "enwik8": Download(
        "https://mattmahoney.net/dc/enwik8.zip",
        "enwik8",
        "sha256:2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
        "sha256:547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    ),
    # 100 MB of Wikipedia reduced to 26 letters and the space.
    "text8": Download(
        "https://mattmahoney.net/dc/text8.zip",
        "text8",
        "md5:3bea1919949baf155f99411df5fada7e",
        "sha256:a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    ),
}


def cache_directory() -> Path:
    """Where downloads and token caches lie: $CHARJAX_CACHE_DIR, or the user's cache folder.

    The folder need not exist.
    """
    if chosen := os.environ.get("CHARJAX_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("charjax"))


def fetch(name: str, watch: Watch = silent) -> Path:
    """The file of a named text, verified, and downloaded if it is not there yet.

    It lies in `cache_directory() / "texts"`, where it may also be put by hand; its checksum
    is verified each time. Raises InputError that says what to put where if the network
    fails, and if the file is not the one expected.
    """
    download = DOWNLOADS[name]
    target = cache_directory() / "texts" / download.filename
    algorithm, _, expected = download.checksum.partition(":")
    try:
        if not target.exists():
            _retrieve(download, target, watch)
        with target.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.new(algorithm, usedforsecurity=False)
            ).hexdigest()
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{download.filename} could not be downloaded ({reason}). Try again, or put "
            f"the {'unpacked ' if download.archive_checksum else ''}file at {target} by "
            f"hand: it comes from {download.url} and has the checksum {download.checksum}. "
            "$CHARJAX_CACHE_DIR chooses another folder."
        ) from error
    if found != expected:
        raise InputError(
            f"{target} is not the expected text: its {algorithm} is {found}, not "
            f"{expected}. Delete it to have it downloaded again from {download.url}."
        )
    return target


def _retrieve(download: Download, target: Path, watch: Watch) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    target.parent.mkdir(parents=True, exist_ok=True)
    progress: Any = _Progress(watch, f"downloading {download.filename}")
    downloader: Any = pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16)
    # A folder of its own, so that two processes that download at once do not meet.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        fetched = pooch.retrieve(
            download.url,
            known_hash=download.archive_checksum or download.checksum,
            fname="download",
            path=folder,
            downloader=downloader,
        )
        if download.archive_checksum:
            unpacked = Path(folder, download.filename)
            with (
                zipfile.ZipFile(fetched) as archive,
                archive.open(download.filename) as member,
                unpacked.open("wb") as file,
            ):
                shutil.copyfileobj(member, file)
            fetched = unpacked
        os.replace(fetched, target)


class _Progress:
    """What pooch takes for a progress bar; it sets `total`, 0 where it is not known."""

    total = 0

    def __init__(self, watch: Watch, what: str) -> None:
        self._watch, self._what, self._done = watch, what, 0

    def update(self, size: int) -> None:
        # A server may compress what it sends, and tell the size of that.
        self._done += size
        self._watch(self._what, self._done, max(self._done, self.total))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass
