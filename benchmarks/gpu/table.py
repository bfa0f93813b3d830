"""The results as a page for the docs."""

from collections.abc import Callable
from typing import Any

from benchmarks.gpu.rows import CHOICE, EQUAL, PROFILE, SAMPLING, TRAINING
from benchmarks.work import WORKS, Work
from charjax.sampling.chunks import CHUNK

Line = dict[str, Any]


def markdown(everything: list[Line]) -> str:
    """All tables that there are results for."""
    # A row that was tried again has its last result.
    newest = {line["row"]: line for line in everything}
    kinds = [line["kind"] for line in newest.values()]
    parts = [_heading(newest)]
    sections: dict[str, Callable[[list[Line], Line], str]] = {
        EQUAL: _equal,
        CHOICE: _choice,
        TRAINING: _training,
        SAMPLING: _sampling,
        PROFILE: _profile,
    }
    floor = newest.get("device", {}).get("floor", {})
    for kind, section in sections.items():
        if kind in kinds:
            lines = [line for line in newest.values() if line["kind"] == kind]
            parts.append(section(lines, floor))
    without = [line for line in newest.values() if line["status"] != "done"]
    if without:
        rows = [
            [line["row"], line["status"], line.get("left_out") or line["reason"]]
            for line in without
        ]
        parts.append("## Without a result\n\n" + _table(["row", "", "why"], rows))
    return "\n\n".join(parts)


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"
        for row in cells
    )


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _heading(newest: dict[str, Line]) -> str:
    device = newest.get("device", {})
    versions = device.get("versions", {})
    words = ["# On a GPU", ""]
    if any(line["rehearsal"] for line in newest.values()):
        words += ["**A rehearsal on a CPU with tiny sizes: its numbers mean nothing.**", ""]
    if versions:
        words.append(", ".join(f"{name} {value}" for name, value in versions.items()) + ".")
    if device.get("nvidia_smi"):
        words.append(f"nvidia-smi: {device['nvidia_smi'].strip()}.")
    floor = device.get("floor", {})
    if floor:
        rates = [f"{name} {value:,.0f}" for name, value in floor.items()]
        words.append(f"One large product and one large copy: {', '.join(rates)}.")
    return "\n".join(words)


def _equal(lines: list[Line], _: Line) -> str:
    rows = []
    for line in lines:
        for cell, found in line.get("cells", {}).items():
            error = found.get("error")
            words = found.get("where") or found.get("left_out") or found["failed"]
            bound, good = line["bound"], ""
            if None not in (error, bound):
                good = "yes" if error <= bound else "**no**"
            name = [line["request"]["recurrence"], line["request"]["precision"], cell]
            numbers = [_number(error, ".1e"), _number(bound, ".0e")]
            rows.append([*name, *numbers, good, words])
    heads = ["recurrence", "precision", "cell", "largest error", "bound", "within", "where"]
    return (
        "## Against the plain scan\n\nValues and all gradients, as shares of the largest "
        "in each array; the plain scan's float32 is exact, so tf32 has no bound.\n\n"
        + _table(heads, rows)
    )


def _choice(lines: list[Line], _: Line) -> str:
    rows = [
        [line["row"], line["chosen"], f"{line['check_s']:.1f}", "; ".join(line["lines"])]
        for line in lines
        if "chosen" in line
    ]
    heads = ["run", "runs", "check, s", "what it says"]
    return "## What `auto` takes\n\n" + _table(heads, rows)


def _training(lines: list[Line], floor: Line) -> str:
    parts = ["## Training"]
    for name in dict.fromkeys(line["work"] for line in lines):
        work, rows = WORKS[name], []
        for line in lines:
            if line["work"] != name or "ms" not in line:
                continue
            words = line["row"].removeprefix(f"{name}: ")
            rows.append([words, *_speed(line, work, floor)])
        heads = ["row", "ms a step", "low to high", "characters/s", "TFLOP/s", "of floor"]
        heads += ["peak GB", "first step, s", "loss"]
        sizes = (
            f"{work.num_layers} x {work.hidden_size} {work.cell.upper()}, {work.batch_size}"
            f" x {work.sequence_length}"
        )
        parts.append(f"### {name}: {sizes}\n\n" + _table(heads, rows))
    return "\n\n".join(parts)


def _speed(line: Line, work: Work, floor: Line) -> list[str]:
    seconds = 1e-3 * line["ms"]
    rate = 1e-9 * work.flops / seconds
    precision = line["request"]["precision"]
    # float16 is as fast as bfloat16.
    kind = "bfloat16" if precision.endswith("float16") else precision
    best = floor.get(f"{kind}_gflops")
    return [
        f"{line['ms']:.2f}",
        f"{line['low_ms']:.2f} to {line['high_ms']:.2f}",
        f"{work.characters / seconds:,.0f}",
        f"{1e-3 * rate:.1f}",
        "" if not best else f"{rate / best:.2f}",
        _number(line.get("peak_gb"), ".2f"),
        f"{line['first_s']:.1f}",
        _number(line.get("loss"), ".3f"),
    ]


def _sampling(lines: list[Line], _: Line) -> str:
    rows = []
    for line in lines:
        if "ms" in line:
            streams = line["request"]["streams"]
            characters = CHUNK * streams / (1e-3 * line["ms"])
            each = 1e3 * line["ms"] / CHUNK
            speed = [f"{each:.1f}", f"{characters:,.0f}", f"{line['first_s']:.1f}"]
            rows.append([line["row"].removeprefix("sampling, "), *speed])
    heads = ["row", "us for a character in each stream", "characters/s", "first, s"]
    return f"## Sampling, chunks of {CHUNK} characters\n\n" + _table(heads, rows)


def _profile(lines: list[Line], _: Line) -> str:
    parts = ["## A canonical step, traced"]
    for line in lines:
        if "kernels_per_step" not in line:
            parts.append(f"{line['row']}: the trace names no kernels.")
            continue
        parts.append(
            f"{line['row']}: {line['kernels_per_step']:,.0f} kernels a step, "
            f"{line['busy_ms_per_step']:.2f} ms of them."
        )
        rows = [
            [k["name"], f"{k['per_step']:.0f}", f"{k['ms']:.3f}"] for k in line["longest"]
        ]
        parts.append(_table(["kernel", "a step", "ms a step"], rows))
    return "\n\n".join(parts)
