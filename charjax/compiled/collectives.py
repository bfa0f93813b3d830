"""What devices send each other in a compiled program.

A TPU's compiler may spread one message over other work: it begins in one fusion, goes on in
others, which may stand inside a loop, and ends in one more. It is sent once, so it counts
once, where it begins.
"""

import re
from dataclasses import dataclass

from charjax.compiled.hlo import Instruction, Module, Origins, size, walk

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
)

TIME = ("time", "other")
"""Loops over time; one that is not known may be."""


@dataclass(frozen=True)
class Collective:
    """One kind of message in one place."""

    kind: str

    bytes: int
    """That each device gives or gets, whichever is more, in one run of the program."""

    count: int
    """How many in one run of the program."""

    loops: tuple[str, ...]
    """What the loops around it go over, outermost first."""

    @property
    def over_time(self) -> bool:
        """Whether it stands inside a loop over time."""
        return any(loop in TIME for loop in self.loops)


def collectives(module: Module, origins: Origins) -> list[Collective]:
    """The collectives of a program, those of a kind and a place taken together."""
    found: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    shapes = {
        instruction.name: instruction.shape
        for computation in module.computations.values()
        for instruction in computation
    }
    spread: set[str] = set()
    for instruction, place in walk(module, origins, fused=True):
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            if "async_collective_fusion" in instruction.rest:
                chain = re.search(r'chain_id="(\d+)"', instruction.rest)
                name = chain[1] if chain else instruction.name
                if name in spread:
                    continue
                spread.add(name)
            count, total = found.get((kind, place.loops), (0, 0))
            each = _bytes(instruction, shapes) * place.times
            found[kind, place.loops] = count + place.times, total + each
    return [
        Collective(kind, total, count, loops)
        for (kind, loops), (count, total) in found.items()
    ]


def _bytes(instruction: Instruction, shapes: dict[str, str]) -> int:
    given = sum(size(shapes.get(name, "")) for name in instruction.operands)
    result = size(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        # The shape of what starts one holds the operands too.
        result -= given
    return max(given, result)
