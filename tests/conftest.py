"""Eight virtual CPU devices for every test, and the places the tests may write to."""

import dataclasses
import gc
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Tests compile much and compute little: what XLA:CPU compiles fastest.
if "XLA_FLAGS" not in os.environ:
    _flags = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        # Newer ones do not know this flag, and end where one is unknown.
        _flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = _flags

# What one test has compiled, the others and the processes they start need not.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="charjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as changes:
        cache = tmp_path_factory.getbasetemp() / "cache"
        changes.setenv("CHARJAX_CACHE_DIR", str(cache))
        yield


@pytest.fixture(autouse=True)
def _quick_curves(request, monkeypatch):
    """Drawing takes longer than the shortest runs: an empty file stands for the picture."""
    # Not before annotations are checked, which begins after this file is read.
    from charjax.storage.atomic import replacing
    from charjax.views import curves

    def draw(history, path, title):
        with replacing(path) as temporary:
            temporary.touch()

    if request.node.get_closest_marker("curves") is None:
        monkeypatch.setattr(curves, "draw", draw)


@pytest.fixture(scope="session", autouse=True)
def _programs_of_equal_runs():
    """Runs that begin or go on alike share their programs, which each would trace anew
    and read from the cache."""
    from charjax.run import loop, plan, start
    from charjax.training import program

    abstract, fresh, kept = plan._abstract, start._fresh, {}

    def same(made, *alike):
        # The newest last: neighbours share them, and there are too many to keep all.
        kept[alike] = kept.pop(alike, made)
        if len(kept) > 16:
            del kept[next(iter(kept))]
        return kept[alike]

    def make(made):
        return same(made, made.func, *made.args, *made.keywords.values())

    def step(config, mesh, sharding, *rest):
        made = program.training_program(config, mesh, sharding, *rest)
        shardings, tree = jax.tree.flatten(sharding)
        return same(made, program.train_step, config, mesh, tree, *shardings, *rest)

    def first(planned):
        return fresh(dataclasses.replace(planned, make=make(planned.make)))

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(plan, "_abstract", lambda made, *rest: abstract(make(made), *rest))
        changes.setattr(start, "_fresh", first)
        changes.setattr(loop, "training_program", step)
        yield


@pytest.fixture
def call(capfdbinary, monkeypatch):
    """Calls a command in this process; what returns is that of `subprocesses.run`."""

    def call(name, *arguments, cwd=".", **environment):
        from charjax.commands.cli import main

        script, words = name.endswith(".py"), [*map(str, arguments)]
        capfdbinary.readouterr()
        with monkeypatch.context() as changes:
            changes.chdir(cwd)
            for variable, value in environment.items():
                changes.setenv(variable, value)
            try:
                if script:
                    code = main(words, only=name.removesuffix(".py"))
                else:
                    code = main([name, *words])
            except SystemExit as error:
                code = error.code
        sys.stdout.flush()
        return subprocess.CompletedProcess([name, *words], code, *capfdbinary.readouterr())

    return call


@pytest.fixture
def data_directory() -> Path:
    """Where the real texts are; the test is skipped where they are not."""
    default = Path(__file__).parents[2] / "shared" / "data"
    directory = Path(os.environ.get("CHARJAX_DATA_DIR", default))
    if not directory.is_dir():
        pytest.skip(f"no real texts at {directory}; set CHARJAX_DATA_DIR")
    return directory


def pytest_collection_finish():
    """What is imported stays: to look for garbage in it again and again takes a
    twentieth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="kills of one run")
    parser.addoption("--corruptions", type=int, default=50, help="of checkpoint files")
    parser.addoption("--minutes", type=float, default=0, help="of random commands")
    parser.addoption("--first", type=int, default=0, help="the first random command")
    parser.addoption("--megabytes", type=int, default=100, help="of the large text")
    parser.addoption(
        "--syscalls", type=int, default=150, help="kill at each so-manieth call of a save"
    )
