"""The house: which room may import which, and that importing does nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "charjax"

# A file may import what stands above it.
ORDER = [
    "allocator",
    "memory",
    "fields",
    "config",
    "presets",
    "text.vocabulary",
    "text.sources",
    "text.cleaning",
    "text.token_cache",
    "text.corpus",
    "text.batching",
    "model.cells",
    "model.recurrence",
    "model.stack",
    "model.network",
    "training.optimizer",
    "training.state",
    "training.hosts",
    "training.parallel",
    "training.step",
    "evaluation",
    "sampling",
    "storage.atomic",
    "storage.failures",
    "storage.manifest",
    "storage.digest",
    "storage.checkpoints",
    "storage.record",
    "storage.run_directory",
    "language_model",
    "reporting.metrics",
    "reporting.samples",
    "reporting.progress",
    "reporting.curves",
    "loop",
    "plan",
    "fit",
    "signals",
    "cli",
    "__init__",
    "__main__",
]

ONLY_IN = {
    "flax": {"model.network"},
    "orbax": {"storage.checkpoints"},
    "tyro": {"cli"},
    "pooch": {"text.sources"},
    "matplotlib": {"reporting.curves"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.endswith(".__init__"):
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_file_has_its_place():
    assert set(modules()) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_what_stands_above_it(name):
    above = set(ORDER[: ORDER.index(name)])
    for imported in imports(modules()[name]):
        root, _, rest = imported.partition(".")
        if root == "charjax":
            parts = rest.split(".")
            candidates = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
            if candidates & set(ORDER):
                assert candidates & above, f"{name} imports {imported}"
        if root in ONLY_IN:
            assert name in ONLY_IN[root], f"{name} imports {root}"
        if name.startswith("text.") or name in ("config", "fields", "presets"):
            assert root not in ("jax", "flax", "optax", "orbax"), f"{name} imports {root}"


def test_only_parallel_names_a_mesh_axis():
    naming = [
        name
        for name, path in modules().items()
        if "PartitionSpec" in path.read_text("utf-8")
    ]
    assert naming == ["training.parallel"]


def test_importing_is_inert():
    """No device, no flags, no logging, and none of what only commands need."""
    program = """
import logging, sys
handlers = list(logging.getLogger().handlers)
sys.argv = ["x", "--nonsense"]
import charjax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was touched"
assert logging.getLogger().handlers == handlers
for name in ("tyro", "pooch", "matplotlib", "torch", "flax.nnx"):
    assert name not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", program], check=True)
