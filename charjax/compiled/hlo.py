"""The text of a compiled program: its computations, instructions and loops.

XLA's text form (HloModule) is read, not its protocol buffer, since the text is what every
version of JAX gives (`compiled.as_text()`).
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_WIDTHS = {"pred": 1, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")

Origins = Mapping[str, str]
"""What a loop goes over, by a part of the name of the file that it is written in."""


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shape: str
    arguments: str
    """What stands in its parentheses: operands, or a constant's value."""

    rest: str
    """What follows them: attributes and metadata."""

    @property
    def operands(self) -> list[str]:
        """The instructions whose results it takes."""
        return re.findall(r"%([\w.\-]+)", self.arguments)

    def attribute(self, name: str) -> str | None:
        """The computation that an attribute names, such as a loop's `body`."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None

    @property
    def path(self) -> str:
        """The operation's place in what JAX traced, such as `jit(f)/while/body/add`."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def called(self) -> list[str]:
        """The computations that it runs once, beside a loop's."""
        names = [
            self.attribute(each) for each in ("calls", "to_apply", "called_computation")
        ]
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.rest)
        both = [self.attribute("true_computation"), self.attribute("false_computation")]
        listed = [name.strip(" %") for name in branches[1].split(",")] if branches else []
        return [name for name in [*names, *both, *listed] if name]


@dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str
    files: Mapping[str, str]
    """The file that an instruction is from, by the number of its stack frame."""

    def file_of(self, instruction: Instruction) -> str:
        """The file that an instruction is from; nothing where that is unknown."""
        if found := re.search(r"stack_frame_id=(\d+)", instruction.rest):
            return self.files.get(found[1], "")
        found = re.search(r'source_file="([^"]*)"', instruction.rest)
        return found[1] if found else ""


def size(shape: str) -> int:
    """Bytes of an array or a tuple of arrays.

    >>> size("(bf16[2,3]{1,0}, f32[])"), size("pred[8]")
    (16, 8)
    """
    return sum(
        functools.reduce(lambda a, b: a * b, map(int, filter(None, dims.split(","))), 1)
        * _width(kind)
        for kind, dims in _ARRAY.findall(re.sub(r"\{[^}]*\}|/\*.*?\*/", "", shape))
    )


def _width(kind: str) -> int:
    bits = re.search(r"\d+", kind)
    return _WIDTHS.get(kind, max(int(bits[0]) // 8, 1) if bits else 0)


def parse(text: str) -> Module:
    """The module of a text."""
    computations: dict[str, list[Instruction]] = {}
    tables: dict[str, dict[str, str]] = {}
    entry, current, table = "", None, None
    for line in text.splitlines():
        if heading := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current, table = computations.setdefault(heading[2], []), None
            entry = heading[2] if heading[1] else entry
        elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif table is not None and (row := re.match(r"(\d+) (.*)", line)):
            table[row[1]] = row[2]
        elif current is not None and (instruction := _instruction(line)):
            current.append(instruction)
    whole = {name: tuple(lines) for name, lines in computations.items()}
    return Module(whole, entry, _files(tables))


def _instruction(line: str) -> Instruction | None:
    found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if found is None:
        return None
    end = _closing(line, found.end()) if line[found.end()] == "(" else found.end()
    end = line.find(" ", end)
    opcode = re.match(r" ([\w\-]+)\(", line[end:])
    if opcode is None:
        return None
    begin = end + opcode.end()
    last = _closing(line, begin - 1)
    shape, arguments = line[found.end() : end], line[begin:last]
    return Instruction(found[1], opcode[1], shape, arguments, line[last + 1 :])


def _closing(line: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if depth == 0:
            return place
    return len(line) - 1


def _files(tables: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The innermost file of each stack frame."""
    names = {n: name.strip('"') for n, name in tables.get("FileNames", {}).items()}
    locations = {
        number: names.get(_number("file_name_id", row), "")
        for number, row in tables.get("FileLocations", {}).items()
    }
    return {
        number: locations.get(_number("file_location_id", row), "")
        for number, row in tables.get("StackFrames", {}).items()
    }


def _number(name: str, row: str) -> str:
    found = re.search(rf"{name}=(\d+)", row)
    return found[1] if found else ""


@dataclass(frozen=True)
class Place:
    """Where in a running program an instruction stands."""

    loops: tuple[str, ...]
    """What the loops around it go over, outermost first."""

    times: int
    """How often it runs; a loop whose count is unknown counts as one."""


def walk(
    module: Module, origins: Origins, *, fused: bool = False
) -> Iterator[tuple[Instruction, Place]]:
    """Every instruction that runs, with its place; with `fused` also those in fusions."""

    def inside(name: str, place: Place) -> Iterator[tuple[Instruction, Place]]:
        for instruction in module.computations.get(name, ()):
            yield instruction, place
            if instruction.opcode == "while":
                body = instruction.attribute("body")
                over = over_what(module, instruction, origins)
                times = trips(module, instruction) or 1
                within = Place((*place.loops, over), place.times * times)
                yield from inside(body or "", within)
            elif fused or instruction.opcode in ("call", "conditional", "async-start"):
                for called in instruction.called:
                    yield from inside(called, place)

    yield from inside(module.entry, Place((), 1))


def trips(module: Module, loop: Instruction) -> int | None:
    """How often a loop runs; None where the program does not say.

    Where the compiler has not noted it, a loop runs as long as its counter, which begins
    at 0, is below a constant.
    """
    if found := re.search(r'"?known_trip_count"?:\{"n":"(\d+)"', loop.rest):
        return int(found[1])
    condition = module.computations.get(loop.attribute("condition") or "", ())
    constants = {
        each.name: int(each.arguments)
        for each in condition
        if each.opcode == "constant" and each.arguments.isdecimal()
    }
    for each in condition:
        if each.opcode == "compare" and "direction=LT" in each.rest:
            return next((constants[n] for n in each.operands if n in constants), None)
    return None


def over_what(module: Module, loop: Instruction, origins: Origins) -> str:
    """What a loop goes over; `other` where none of `origins` has written it."""
    file = module.file_of(loop)
    return next((over for part, over in origins.items() if part in file), "other")
