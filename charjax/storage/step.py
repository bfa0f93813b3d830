"""One step on disk: its names, its format and its record.

A step is a folder with one folder for each item and one for its record. It is written as
`N.saving`, sealed with a manifest (`manifest.py`), and only then named `N`: a step that
has its name was written to the end, and its manifest shows whether it still is what was
written.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from charjax.config.checks import check_same
from charjax.errors import InputError
from charjax.storage import manifest
from charjax.storage.digest import named_leaves

FORMAT = 2
"""The layout of a step on disk. It grows when older code could misread newer files."""

RECORD = "record"
SAVING = ".saving"
RETIRED = ".retired"


def is_step(name: str) -> bool:
    """Whether a folder's name is that of a step."""
    return re.fullmatch("0|[1-9][0-9]{0,9}", name) is not None


def read_record(path: Path) -> Any:
    """The JSON values of a step's record."""
    return json.loads((path / RECORD / "metadata").read_text("utf-8"))


def check_format(path: Path, record: Any) -> None:
    """Refuses a record of a format that this version does not read."""
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise InputError(
            f"checkpoint step {path.name} in {path.parent} has format {found}, this "
            f"version of charjax reads format {FORMAT}: use the version that wrote it."
        )


def check_old_format(path: Path) -> None:
    """Refuses a step of the first format, which had no manifest; it is not damaged."""
    if (path / manifest.NAME).exists():
        return
    try:
        record = read_record(path)
        record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    check_format(path, record)


def check_fits(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses trees that differ in names, shapes or types from those expected."""
    found, wanted = (
        {
            name: f"{leaf.dtype}{list(leaf.shape)}"
            for name, leaf in named_leaves(trees).items()
        }
        for trees in (saved, expected)
    )
    check_same(
        *("saved", found, wanted),
        f"checkpoint step {path.name} in {path.parent} does not fit: use the config it was "
        "trained with.",
    )


def validation_loss(record: Mapping[str, Any]) -> float | None:
    """The loss by which the best step is found; None if it was not measured."""
    loss = record.get("validation_loss")
    return loss if isinstance(loss, float) and math.isfinite(loss) else None


def with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    """A struct that has a sharding: its own, or the first device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
