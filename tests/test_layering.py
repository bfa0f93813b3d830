"""The house: which room may import which, and that importing does nothing else."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "charjax"

# A room, which is a folder or a file, may import itself and what stands above it.
ROOMS = [
    "errors",
    "config",
    "text",
    "model",
    "devices",
    "training",
    "evaluation",
    "sampling",
    "compiled",
    "storage",
    "language_model",
    "views",
    "reporting",
    "run",
    "commands",
    "__init__",
    "__main__",
]

ONLY_IN = {
    "flax": "model.network",
    "orbax": "storage.",
    "tyro": "commands.",
    "docstring_parser": "commands.",
    "pooch": "text.downloads",
    "matplotlib": "views.",
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


def room(module: str) -> str:
    return module.partition(".")[0]


def imported_modules(name: str, all_modules: set[str]) -> set[str]:
    """Modules of charjax that a module imports."""
    found = set()
    for imported in imports(modules()[name]):
        parts = imported.removeprefix("charjax.").split(".")
        if imported.startswith("charjax."):
            candidates = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
            found |= candidates & all_modules
    return found


def test_every_file_is_in_a_room():
    assert {room(name) for name in modules()} == set(ROOMS)


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_file_imports_only_what_stands_above_it(name):
    above = ROOMS[: ROOMS.index(room(name)) + 1]
    for imported in imported_modules(name, set(modules())):
        assert room(imported) in above, f"{name} imports {imported}"
    for imported in imports(modules()[name]):
        root = imported.partition(".")[0]
        if root in ONLY_IN:
            assert name.startswith(ONLY_IN[root]), f"{name} imports {root}"
        if room(name) in ("errors", "config", "text"):
            assert root not in ("jax", "flax", "optax", "orbax"), f"{name} imports {root}"


def test_no_two_files_import_each_other():
    left = {name: imported_modules(name, set(modules())) for name in modules()}
    while left:
        free = {
            name for name, needed in left.items() if not needed & (left.keys() - {name})
        }
        assert free, f"these import each other: {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def test_only_devices_name_a_mesh_axis():
    specs, naming = [], []
    for name, path in modules().items():
        text = path.read_text("utf-8")
        specs += [name] * ("PartitionSpec" in text)
        naming += [name] * bool(re.search(r"\bP\([^)]*\b(DATA|MODEL|['\"])", text))
    # Kernels run where rows lie; they are told the axis, as `place.rows_axis`.
    assert sorted(specs) == [
        "devices.placement",
        "model.recurrence.place",
        "model.recurrence.tpu.blocks",
    ]
    assert naming == ["devices.placement"]


def test_importing_is_inert():
    """No device, no flags, no logging, and none of what only commands need."""
    program = """
import logging, sys
handlers = list(logging.getLogger().handlers)
sys.argv = ["x", "--nonsense"]
import charjax
assert "jax" not in sys.modules
for name in charjax.__all__:
    getattr(charjax, name)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was touched"
assert logging.getLogger().handlers == handlers
for name in ("tyro", "pooch", "matplotlib", "torch", "flax.nnx"):
    assert name not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def listed_for_type_checkers() -> dict[str, str]:
    """The module of each name that `charjax/__init__.py` imports for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names:
            assert alias.asname == alias.name
            found[alias.name] = node.module
    return found


def test_type_checkers_and_python_see_the_same_public_names():
    import charjax

    listed = listed_for_type_checkers()
    assert sorted(charjax.__all__) == sorted(listed)  # pyright: ignore
    for name, module in listed.items():
        assert getattr(charjax, name) is getattr(importlib.import_module(module), name)
    assert set(listed) <= set(dir(charjax))
    starred = {}
    exec("from charjax import *", starred)
    assert set(listed) <= set(starred)
    with pytest.raises(AttributeError, match="absent"):
        charjax.absent  # pyright: ignore # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["train", "--help"], ["train", "--config", "anna", "--help"]),
        *(["sample", "--help"], ["inspect", "--help"], ["evaluate", "--help"]),
        *(["--tyro-print-completion", "bash"], ["sample", "--lenght", "3"]),
        *(["train", "--model.hiden_size", "3"], ["train", "--data.batch_size", "0"]),
    ],
    ids=" ".join,
)
def test_help_and_wrong_options_need_nothing_slow(arguments, tmp_path):
    program = f"""
import sys
from charjax.commands.cli import main
try:
    sys.exit(main({arguments}))
finally:
    for name in ("jax", "numpy", "flax", "optax", "orbax", "matplotlib", "rich"):
        assert name not in sys.modules, name
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == (2 if arguments[-1] in ("3", "0") else 0)
    assert "Traceback" not in done.stderr, done.stderr
