"""Trees of arrays on disk, written and read by Orbax; only this file imports it."""

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from charjax.storage.failures import silence_abandoned_work


@functools.cache
def _orbax() -> Any:
    # Imported when first used: it brings absl, whose import adds a handler to the root
    # logger, and importing charjax configures no logging.
    import orbax.checkpoint

    silence_abandoned_work()
    return orbax.checkpoint


def writer() -> Any:
    """Orbax's `AsyncCheckpointer`, for all processes."""
    # Directories made in the background save 5 ms of a step's time, but after a failure
    # the threads that wait for them linger.
    return _orbax().AsyncCheckpointer(
        _orbax().CompositeCheckpointHandler(),
        async_options=_orbax().options.AsyncOptions(
            create_directories_asynchronously=False
        ),
    )


def begin_writing(
    writer: Any, path: Path, items: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Starts writing trees of arrays, each to the folder of its name, and a dictionary of
    JSON values to each folder named in `values`; the arrays may be donated afterwards."""
    args = _orbax().args
    # Orbax refuses a tree without anything in it, but not one of such trees.
    kept = {name: tree if jax.tree.leaves(tree) else [()] for name, tree in items.items()}
    trees = {name: args.StandardSave(tree) for name, tree in kept.items()}
    plain = {name: args.JsonSave(value) for name, value in values.items()}
    writer.save(path, args=args.Composite(**trees, **plain))


def shapes(path: Path) -> Any:
    """The `jax.ShapeDtypeStruct` of each array in a folder, whose containers become
    dictionaries and lists."""
    with contextlib.closing(_orbax().StandardCheckpointHandler()) as handler:
        tree = handler.metadata(path).tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def read(path: Path, target: Any) -> Any:
    """The arrays in a folder, as `target` says, whose structs all have a sharding. Of
    several processes each reads for itself."""
    if not jax.tree.leaves(target):
        return target
    with contextlib.closing(_orbax().StandardCheckpointHandler()) as handler:
        return handler.restore(path, args=_orbax().args.StandardRestore(target))
