"""`charjax inspect`: what a run directory holds, with a digest to compare runs by."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charjax
from charjax.commands.of_run import OfRun, Switch
from charjax.commands.signals import Signals
from charjax.config.presets import SETTLED_BY_RUNS
from charjax.config.schema import flatten, from_dict


@dataclass(frozen=True)
class Options(OfRun):
    """Show what a run directory holds."""

    step: str = "latest"

    sharding: Switch = False
    """Show how the state would lie on the devices there are."""

    json: Switch = False
    """Print JSON."""


EXAMPLES = (
    "charjax inspect --workdir runs/mine",
    "charjax inspect --sharding --step best",
)


def run(options: Options, _: Signals) -> int:
    """Prints what a run directory holds."""
    workdir = options.directory()
    if options.sharding:
        found = charjax.inspect_sharding(workdir, options.step)
        lines = _placement(found)
    else:
        found = charjax.inspect_run(workdir, options.step)
        lines = _facts(workdir, found)
    print(json.dumps(found) if options.json else "\n".join(lines))
    return 0


def _facts(workdir: Path, found: dict[str, Any]) -> list[str]:
    best = found["best"]
    loss = best and f"validation {best['loss']:.4f} {best['unit']}"
    versions = (f"{name} {number}" for name, number in found["versions"].items())
    return [
        f"{workdir}: step {found['step']:,} of those on disk: {found['steps']}",
        f"parameters: {found['parameters']:,}",
        f"vocabulary: {_symbols(**found['vocabulary'])}",
        *([f"best: step {best['step']:,}, {loss}"] if best else []),
        f"digest: {found['digest']}",
        f"written with: {', '.join(versions)}",
        *(
            f"  {name} = {value}"
            for name, value in flatten(from_dict(found["config"]))
            if value is not None or name not in SETTLED_BY_RUNS
        ),
    ]


def _symbols(kind: str, size: int, documents: bool = False) -> str:
    if not documents:
        return f"{size:,} {kind}"
    return f"{size:,} symbols: {size - 2:,} {kind}, start and end of documents"


def _placement(rows: list[dict[str, Any]]) -> list[str]:
    table = [
        (row["path"], row["array"], row["axes"], row["bytes_on_device"]) for row in rows
    ]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    return [
        *(
            f"{path:{widths[0]}}  {array:{widths[1]}}  {axes:{widths[2]}}  {size:>15,}"
            for path, array, axes, size in table
        ),
        f"bytes on each device: {sum(row[3] for row in table):,}",
    ]
