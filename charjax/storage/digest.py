"""One name for a state: leaves by path, and a SHA-256 over them."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """Each leaf of a pytree by its path, keys joined with `/`, in sorted order.

    Only keys and positions count, not containers: a NamedTuple's field, a dictionary's
    key and a dataclass's attribute of one name are one path. So a state read back
    without its types, as dictionaries and lists, names its leaves as the live one does.

        >>> named_leaves({"b": [1, (2, None)], "a": {}})
        {'b/0': 1, 'b/1/0': 2}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return dict(sorted(("/".join(map(_key, path)), leaf) for path, leaf in leaves))


def digest(items: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, over sorted paths, types, shapes and bytes of all leaves.

    `items` maps names to pytrees of arrays this process can read in full. Containers,
    device placement and the machine's byte order make no difference; the sign of a zero
    and the bits of a NaN do.

        >>> digest({"params": {"w": np.ones(2)}}) == digest({"params": {"w": np.ones(3)}})
        False
    """
    total = hashlib.sha256()
    for path, leaf in named_leaves(dict(items)).items():
        array = np.asarray(leaf)
        total.update(f"{path}\0{array.dtype.name}\0{array.shape}\0".encode())
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        # bfloat16 has no buffer interface, so every array is hashed as bytes.
        total.update(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def structure(tree: Any) -> str:
    """A short digest of what a tree holds but for the numbers: paths, types and shapes of
    all leaves, and the names of NamedTuples, also of empty ones.

        >>> structure({"w": np.ones(2)}) == structure({"w": np.zeros(2)})
        True
    """
    parts: list[Any] = []

    def note(node: Any) -> bool:
        if hasattr(node, "_fields"):
            parts.append(type(node).__name__)
        return False

    jax.tree.leaves(tree, is_leaf=note)
    for path, leaf in named_leaves(tree).items():
        parts += [path, leaf.dtype.name, leaf.shape]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
