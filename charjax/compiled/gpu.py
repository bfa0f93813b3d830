"""What a GPU is to launch: kernels, and command buffers that launch many at once.

XLA writes the launches of a program ("thunks") as text, in the order in which they run; a
loop there has no count, so it is taken from the same loop of the program's own text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from charjax.compiled.hlo import Instruction, Module, Origins, over_what, trips, walk
from charjax.compiled.loops import Loop, direction

# They hold others, wait, or tell the others where to begin.
_NO_LAUNCH = ("Sequential", "DynamicSlice", "WaitForStreams", "Conditional", "AsyncStart")
_NO_LAUNCH += ("AsyncDone", "PartitionId", "ReplicaId", "DynamicSliceFusion", "Done")


@dataclass
class Thunk:
    """One line of the text, with what stands inside it."""

    kind: str
    indent: int
    inner: list["Thunk"] = field(default_factory=list)
    condition: list["Thunk"] = field(default_factory=list)


@dataclass(frozen=True)
class Launches:
    """How much is launched in one run of a program, or of a part of it."""

    alone: int = 0
    """Kernels and copies outside command buffers."""

    buffers: int = 0
    """Command buffers, each launched as one."""

    kernels: int = 0
    """Kernels and copies, in command buffers or not."""

    def plus(self, other: "Launches", times: int = 1) -> "Launches":
        """With so many times another."""
        return Launches(
            self.alone + times * other.alone,
            self.buffers + times * other.buffers,
            self.kernels + times * other.kernels,
        )


def launches(
    dump: Path, module: Module, origins: Origins, steps: int
) -> tuple[Launches, list[Loop]] | None:
    """What a program launches, and each of its loops; None where XLA has not said.

    Args:
      dump: the folder that `flags` named.
      module: the program.
      origins: what its loops go over.
      steps: time steps, or characters, of a loop over them.
    """
    texts = sorted(dump.glob("*.thunk_sequence_after_thunk_passes.txt"))
    texts = texts or sorted(dump.glob("*.thunk_sequence.txt"))
    if not texts:
        return None
    # The program itself; what surrounds it in the folder is small.
    sequence = parse(max(texts, key=lambda path: path.stat().st_size).read_text("utf-8"))
    whiles = [
        (instruction, trips(module, instruction), over_what(module, instruction, origins))
        for instruction, _ in walk(module, origins)
        if instruction.opcode == "while"
    ]
    if len(whiles) != sum(_loops_in(thunk) for thunk in sequence):
        return None
    loops: list[Loop] = []
    total = _count(sequence, False, iter(whiles), steps, loops)
    return total, loops


def parse(text: str) -> list[Thunk]:
    """The launches of a text, those in loops and command buffers inside them."""
    root = Thunk("Root", -1)
    open_thunks, latest, conditions = [root], root, set()
    for line in text.splitlines():
        if line.strip() == "condition:":
            conditions.add(id(latest))
            continue
        if line.strip() == "body:":
            loop = next(each for each in reversed(open_thunks) if id(each) in conditions)
            conditions.discard(id(loop))
            continue
        found = re.match(r"(\s*)\d+: k(\w+)", line)
        if found is None:
            continue
        thunk = Thunk(found[2], len(found[1]))
        while open_thunks[-1].indent >= thunk.indent:
            open_thunks.pop()
        parent = open_thunks[-1]
        (parent.condition if id(parent) in conditions else parent.inner).append(thunk)
        open_thunks.append(thunk)
        latest = thunk
    return root.inner


def _loops_in(thunk: Thunk) -> int:
    return (thunk.kind == "While") + sum(map(_loops_in, thunk.inner))


def _count(
    thunks: list[Thunk],
    in_buffer: bool,
    whiles: Iterator[tuple[Instruction, int | None, str]],
    steps: int,
    loops: list[Loop],
) -> Launches:
    total = Launches()
    for thunk in thunks:
        if thunk.kind == "While":
            instruction, passes, over = next(whiles)
            once = _count(thunk.inner, in_buffer, whiles, steps, loops)
            if passes is None:
                # Asked again before each pass.
                once = once.plus(_count(thunk.condition, in_buffer, whiles, steps, loops))
            total = total.plus(once, passes or 1)
            way = direction(instruction)
            loops.append(Loop(over, way, passes or 1, steps, kernels=once.kernels))
        elif thunk.kind == "CommandBuffer":
            inside = _count(thunk.inner, True, whiles, steps, loops)
            total = total.plus(Launches(0, 0 if in_buffer else 1, inside.kernels))
        elif thunk.inner or thunk.kind.endswith(_NO_LAUNCH):
            total = total.plus(_count(thunk.inner, in_buffer, whiles, steps, loops))
        else:
            total = total.plus(Launches(0 if in_buffer else 1, 0, 1))
    return total
