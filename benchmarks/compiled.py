"""`python -m benchmarks compiled`: the tables of docs/accelerators.md.

    python -m benchmarks compiled --json compiled.json          beside Flax and plain
    python -m benchmarks compiled --all --json all.json         every target and layout

Nothing runs on a device; each step is compiled for it, the canonical sizes with 128 rows a
device. It takes hours, so each result is written at once, and what the file has already is
not compiled again.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.work import CANONICAL
from charjax import Config, compile_for

_ROWS = 128
_FLAX = "benchmarks.flax_program:build"

TARGETS = {"v5e:2x2": 4, "v5e:16x16": 256, "v6e:8x8": 64, "h100": 1, "8xh100": 8}
"""Targets and how many devices each has."""

LAYOUTS: dict[str, dict[str, Any]] = {
    "data": {},
    "model": {"parallel.model": 4},
    "fsdp": {"parallel.fsdp": True},
}
CELLS, PRECISIONS = ("lstm", "gru", "rnn"), ("bfloat16", "float32")
BESIDE = ("h100", "a100", "v5e:2x2", "v6e:2x2")
"""Targets of the table beside Flax and the plain scan."""


@dataclass(frozen=True)
class Case:
    """One step to compile."""

    name: str
    config: Config
    target: str
    build: str | None = None


def beside() -> Iterator[Case]:
    """charjax as it is chosen, each implementation that can be asked for, and Flax's."""
    for target, precision in itertools.product(BESIDE, PRECISIONS):
        config = _config(precision, target.endswith("2x2") * 3 + 1)
        kernel = "tpu" if ":" in target else "triton"
        for row in ("auto", "plain", "scan", kernel):
            asked = config.replace(**{"model.recurrence": row})
            yield Case(f"{target} {precision} {row}", asked, target)
        yield Case(f"{target} {precision} flax", config, target, _FLAX)


def everywhere() -> Iterator[Case]:
    """Every target, layout, cell and precision."""
    for (target, devices), layout, cell, precision in itertools.product(
        TARGETS.items(), LAYOUTS, CELLS, PRECISIONS
    ):
        if devices == 1 and layout != "data":
            continue
        groups = devices // LAYOUTS[layout].get("parallel.model", 1)
        config = _config(precision, groups).replace(**LAYOUTS[layout])
        config = config.replace(**{"model.cell": cell})
        yield Case(f"{target} {layout} {cell} {precision}", config, target)


def _config(precision: str, groups: int) -> Config:
    return CANONICAL.config(precision).replace(**{"data.batch_size": _ROWS * groups})


def compiled(case: Case, minutes: float) -> dict[str, Any]:
    """What is known of a case once it is compiled."""
    options: dict[str, Any] = {} if case.build is None else {"build": case.build}
    try:
        found = compile_for(
            *(case.config, case.target),
            vocab_size=CANONICAL.vocab_size,
            programs=["training"],
            minutes=minutes,
            **options,
        )
    except ValueError as refused:
        return {"failure": str(refused)}
    (program,) = found.to_dict()["programs"]
    return {**program, "versions": found.versions}


def line(name: str, row: dict[str, Any]) -> str:
    """A row of a table in Markdown."""
    if row["failure"] is not None:
        return f"| {name} | {row['failure'][:80]} | | | | | |"
    memory = row["memory"]
    unit = "kernels" if row["kernels"] is not None else "bundles"
    steps = {"forward": "", "backward": ""}
    for way in steps:
        # The last layer of each: the first may read ids.
        each = [loop["per_step"][unit] for loop in row["loops"] if loop["direction"] == way]
        steps[way] = " + ".join(f"{n:,.1f}" for n in each if n is not None)
    over_time = sum(each["count"] for each in row["collectives"] if each["over_time"])
    sent = sum(each["count"] for each in row["collectives"])
    amount = f"{row[unit]:,}" if row[unit] is not None else ""
    if row["launches"] is not None:
        amount += f" in {row['launches']:,} launches"
    return (
        f"| {name} | {steps['forward']} | {steps['backward']} | {amount} "
        f"| {memory['temporaries'] / 1e6:,.0f} MB | {sent} ({over_time}) "
        f"| {row['seconds']:.0f} s |"
    )


HEADING = """\
| | a time step, forward | backward | the step | temporaries | collectives (over time) | compiled in |
|---|---|---|---|---|---|---|"""  # noqa: E501


def main(arguments: list[str]) -> None:
    """Compiles what is not known yet, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compiled")
    parser.add_argument("--all", action="store_true", help="every target and layout")
    parser.add_argument("--json", type=Path, default=Path("compiled.json"))
    parser.add_argument("--minutes", type=float, default=20.0, help="for each")
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--again", action="store_true", help="what failed, once more")
    options = parser.parse_args(arguments)
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    if options.again:
        known = {name: row for name, row in known.items() if row["failure"] is None}
    print(HEADING)
    for case in everywhere() if options.all else beside():
        if options.only not in case.name:
            continue
        if case.name not in known:
            known[case.name] = compiled(case, options.minutes)
            options.json.write_text(json.dumps(known, indent=1) + "\n")
        print(line(case.name, known[case.name]), flush=True)
