"""Eight virtual CPU devices for every test, and the places the tests may write to."""

import os
import tempfile
from pathlib import Path

# Tests compile much and compute little; `pytest -m slow` runs as users do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# What one test has compiled, the others and the processes they start need not.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="charjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CHARJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def data_directory() -> Path:
    """Where the real texts are; the test is skipped where they are not."""
    default = Path(__file__).parents[2] / "shared" / "data"
    directory = Path(os.environ.get("CHARJAX_DATA_DIR", default))
    if not directory.is_dir():
        pytest.skip(f"no real texts at {directory}; set CHARJAX_DATA_DIR")
    return directory


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="kills of one run")
    parser.addoption("--corruptions", type=int, default=50, help="of checkpoint files")
    parser.addoption("--megabytes", type=int, default=100, help="of the large text")
    parser.addoption(
        "--syscalls", type=int, default=150, help="kill at each so-manieth call of a save"
    )
