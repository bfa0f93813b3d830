"""What a TPU is to do: instruction words (VLIW bundles), and cycles of a static profile.

The compiler writes the bundles of each operation to a file; without waiting, a bundle takes
a cycle. An operation that equals another has no file and is known by its shape. The static
profile knows of waiting too, but takes long, and some programs end the compiler.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charjax.compiled.hlo import Instruction, Module, Origins, over_what, trips, walk
from charjax.compiled.loops import Loop, direction

_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?:\s*((?:>\s*)*)\{")


def flags(dump: Path, profile: Path | None) -> str:
    """The compiler's arguments by which it writes bundles to a folder, or, with a folder
    for it, the static profile."""
    if profile is not None:
        return f"--xla_jf_dump_static_llo_profile_to={profile}"
    return (
        f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
    )


@dataclass(frozen=True)
class Work:
    """What a program does in one run."""

    amount: int
    """Bundles, or cycles."""

    unknown: int
    """Operations of which nothing is known; they are left out."""

    loops: tuple[Loop, ...]


def bundles(
    dump: Path, module: Module, origins: Origins, steps: int, grids: Mapping[str, int]
) -> Work | None:
    """The bundles of a program; None where the compiler has written none.

    `grids` says how often a Pallas kernel runs its body, by the kernel's name.
    """
    counts: dict[str, Counter[int]] = {}
    for path in sorted(dump.glob("*final_bundles.txt")):
        found = re.fullmatch(r"\d+-(.*)-\d+-final_bundles\.txt", path.name)
        if found and "schedule-analysis" not in found[1]:
            counts[found[1]] = _depths(path)

    def cost(instruction: Instruction) -> int | None:
        depths = counts.get(instruction.name)
        if depths is None:
            return None
        times = _kernel(instruction, grids) or _windows(instruction)
        return sum(n * (times if depth else 1) for depth, n in depths.items())

    if not counts:
        return None
    return _work("bundles", module, origins, steps, grids, cost)


def cycles(
    profile: Path, module: Module, origins: Origins, steps: int, grids: Mapping[str, int]
) -> Work | None:
    """The cycles of a program by the static profile; None where there is none."""
    found: dict[str, int] = {}
    for path in profile.glob("*.textproto"):
        rows = r'hlo_op_name: "([^"]*)"\s+estimated_cycles: (\d+)'
        found |= {name: int(n) for name, n in re.findall(rows, path.read_text("utf-8"))}
    if not found:
        return None

    def cost(instruction: Instruction) -> int | None:
        return found.get(instruction.name)

    return _work("cycles", module, origins, steps, grids, cost)


def _depths(path: Path) -> Counter[int]:
    """How many bundles stand at each depth of loops."""
    depths: Counter[int] = Counter()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := _BUNDLE.match(line):
                depths[found[1].count(">")] += 1
    return depths


def _windows(instruction: Instruction) -> int:
    """How often an operation of XLA's own runs its inner loop."""
    found = re.search(r'iteration_bounds":\[([^\]]*)\]', instruction.rest)
    times = 1
    for bound in re.findall(r"\d+", found[1]) if found else ():
        times *= int(bound)
    return times


def _kernel(instruction: Instruction, grids: Mapping[str, int]) -> int | None:
    if instruction.opcode != "custom-call":
        return None
    fitting = [name for name in grids if instruction.name.startswith(name)]
    return grids[max(fitting, key=len)] if fitting else None


def _heuristic(instruction: Instruction) -> int:
    found = re.search(r'estimated_cycles":"(\d+)"', instruction.rest)
    return int(found[1]) if found else 0


def _work(
    unit: str,
    module: Module,
    origins: Origins,
    steps: int,
    grids: Mapping[str, int],
    cost: Callable[[Instruction], int | None],
) -> Work:
    """Adds up what each operation costs, loops as often as they run."""
    alike: dict[object, int] = {}
    for computation in module.computations.values():
        for instruction in computation:
            if (known := cost(instruction)) is not None:
                alike.setdefault(_signature(instruction), known)
    total = unknown = 0
    bodies: Counter[str] = Counter()
    loops: list[Loop] = []
    inside = _bodies(module)
    for instruction, place in walk(module, origins):
        if instruction.opcode == "while":
            continue
        amount = cost(instruction)
        amount = alike.get(_signature(instruction)) if amount is None else amount
        if amount is None:
            unknown += place.times if _heuristic(instruction) else 0
            continue
        total += amount * place.times
        bodies[inside.get(instruction.name, "")] += amount
        if (times := _kernel(instruction, grids)) is not None:
            each: dict[str, Any] = {unit: round(amount / times)}
            over = over_what(module, instruction, origins)
            loops.append(Loop(over, direction(instruction), times, steps, **each))
    for instruction, _ in walk(module, origins):
        if instruction.opcode == "while":
            over, way = over_what(module, instruction, origins), direction(instruction)
            body: dict[str, Any] = {unit: bodies[instruction.attribute("body") or ""]}
            passes = trips(module, instruction) or 1
            loops.append(Loop(over, way, passes, steps, **body))
    return Work(total, unknown, tuple(loops))


def _signature(instruction: Instruction) -> object:
    windows, heuristic = _windows(instruction), _heuristic(instruction)
    return instruction.opcode, instruction.shape, windows, heuristic


def _bodies(module: Module) -> dict[str, str]:
    """The computation of each instruction, by its name."""
    return {
        instruction.name: name
        for name, computation in module.computations.items()
        for instruction in computation
    }
