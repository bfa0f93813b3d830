import os
from pathlib import Path

import pytest

from charjax.config.data import DataConfig
from charjax.text import sources
from charjax.text.corpus import load
from charjax.text.survey import survey


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CHARJAX_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def chunk_bytes(monkeypatch):
    """Sets how many bytes are read at a time, so that borders fall everywhere."""
    return lambda size: monkeypatch.setattr(sources, "CHUNK_BYTES", size)


@pytest.fixture
def read():
    """Gives the clean text that a config reads, decoded from its ids."""

    def read(data, text=None):
        loaded = load(survey(data, text))
        return loaded.text.vocabulary.decode(loaded.ids)

    return read


@pytest.fixture
def real_text():
    """The path of a real text, by file name; skips where it is absent."""

    def locate(name: str) -> str:
        default = Path(__file__).parents[2].parent / "shared" / "data"
        path = Path(os.environ.get("CHARJAX_DATA_DIR", default)) / name
        if not path.exists():
            pytest.skip(f"{path} is absent")
        return str(path)

    return locate


@pytest.fixture
def write(tmp_path):
    """Writes a file and gives the config that reads it."""

    def write(content, name="text.txt", **choices):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return DataConfig(source=str(path), **choices)

    return write
