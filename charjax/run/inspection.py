"""What a run directory holds, and how its state would lie on the devices there are."""

from pathlib import Path
from typing import Any

import jax

from charjax.config.schema import to_dict
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.devices.backend import computing
from charjax.evaluation import units
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.digest import digest, named_leaves
from charjax.storage.record import read
from charjax.storage.saved_model import reading
from charjax.text.vocabulary import Vocabulary
from charjax.training.state import ITEMS


@computing()
def inspect_run(workdir: str | Path, step: str | int = "latest") -> dict[str, Any]:
    """What a run directory, or a saved model, holds, as JSON values.

    `step`, `steps` on disk, `parameters` (their count), `config`, `vocabulary` (kind and
    size, and `documents` where start and end of documents count), `best` (step, loss and
    its unit, or None), `versions` that wrote it, and `digest`, a SHA-256 over params,
    opt_state and carry: equal digests are equal states.

    Args:
      workdir: a run's directory, or a model that was saved.
      step: "best" (falls back to the newest), "latest", or the number of a step on disk.

    Raises:
      InputError: no run or no such checkpoint there, or a damaged one.
    """
    return reading(workdir, step, _facts)


def _shapes(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What a step holds; a model that was saved by itself is parameters alone."""
    there = [item for item in ITEMS if (checkpoints.path(step) / item).is_dir()]
    return {item: checkpoints.metadata(step, item) for item in there}


def _facts(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    record = read(checkpoints, step)
    targets = _shapes(checkpoints, step)
    state = checkpoints.restore(step, targets)
    best = checkpoints.best()
    unit = units.of_loss(record.config)
    loss = None if best is None else read(checkpoints, best).validation_loss
    return {
        "step": step,
        "steps": checkpoints.steps(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
        "config": to_dict(record.config),
        "vocabulary": _symbols(record.text.vocabulary),
        "best": None if best is None else {"step": best, "loss": loss, "unit": unit},
        "versions": record.versions,
        "digest": digest(state),
    }


def _symbols(vocabulary: Vocabulary) -> dict[str, Any]:
    found = {"kind": vocabulary.kind, "size": vocabulary.size}
    return {**found, "documents": True} if vocabulary.documents else found


@computing()
def inspect_sharding(
    workdir: str | Path, step: str | int = "latest"
) -> list[dict[str, Any]]:
    """How a run's state would lie on the devices there are, by its own config.

    For each array its `path`, `array` (type and shape), `axes` (for each dimension the
    mesh axis that splits it, and into how many parts) and `bytes_on_device`.

    Takes and raises what `inspect_run` does; raises InputError also where the devices do
    not suit the config.
    """
    return reading(workdir, step, _placement)


def _placement(checkpoints: Checkpoints, step: int) -> list[dict[str, Any]]:
    config = read(checkpoints, step).config
    mesh = meshes.make_mesh(model=config.parallel.model)
    meshes.check_devices(config, mesh)
    state = _shapes(checkpoints, step)
    shardings = named_leaves(placement.state_sharding(mesh, config, state))
    return [
        {
            "path": path,
            "array": f"{leaf.dtype.name}[{', '.join(map(str, leaf.shape))}]",
            "axes": placement.spread(shardings[path], leaf.ndim),
            "bytes_on_device": placement.bytes_on_device(leaf, shardings[path]),
        }
        for path, leaf in named_leaves(state).items()
    ]
