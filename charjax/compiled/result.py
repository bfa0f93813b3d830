"""What compiling for a target gives, as plain data that goes to JSON and back."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charjax.compiled.collectives import Collective
from charjax.compiled.estimate import Estimate
from charjax.compiled.loops import Loop
from charjax.compiled.memory import Memory


@dataclass(frozen=True)
class Program:
    """One compiled program, or why it was not compiled."""

    name: str

    failure: str | None = None
    """What the compiler said where it refused, crashed or took too long; then nothing
    below is known."""

    fits: bool | None = None
    """Whether its memory is there; None where the device's memory is not known."""

    recurrence: str = ""
    """The implementation of the recurrence, and why that one."""

    seconds: float = 0.0
    """To trace, lower and compile."""

    rows: int = 0
    steps: int = 0
    """Rows and time steps (or characters) of one run, over all devices."""

    memory: Memory | None = None
    limit: int | None = None
    """Bytes that a device has for JAX."""

    collectives: tuple[Collective, ...] = ()

    loops: tuple[Loop, ...] = ()

    kernels: int | None = None
    """GPU: kernels and copies in one run."""

    alone: int | None = None
    """GPU: those outside command buffers."""

    command_buffers: int | None = None
    """GPU: command buffers launched in one run."""

    bundles: int | None = None
    """TPU: instruction words in one run."""

    cycles: int | None = None
    """TPU: cycles of one run by the static profile, if it was asked for."""

    unknown: int = 0
    """TPU: operations that are in neither, since the compiler wrote nothing of them."""

    step_floor: float | None = None
    """TPU: cycles that one layer's product takes in a time step."""

    floor: float | None = None
    """TPU: cycles that all products of one run take."""

    estimate: Estimate | None = None

    @property
    def launches(self) -> int | None:
        """GPU: what the host launches in one run: command buffers, and kernels outside."""
        if self.alone is None or self.command_buffers is None:
            return None
        return self.alone + self.command_buffers

    @property
    def collectives_over_time(self) -> tuple[Collective, ...]:
        """Those that stand inside a loop over time."""
        return tuple(each for each in self.collectives if each.over_time)


@dataclass(frozen=True)
class Compiled:
    """A run's programs, compiled for a target."""

    target: str
    devices: int
    processes: int
    vocab_size: int
    versions: Mapping[str, str]
    programs: tuple[Program, ...]

    def __getitem__(self, name: str) -> Program:
        return {program.name: program for program in self.programs}[name]

    @property
    def fits(self) -> bool | None:
        """Whether every program's memory is there; None where that is not known."""
        answers = [program.fits for program in self.programs]
        return False if False in answers else None if None in answers else True

    def to_dict(self) -> dict[str, Any]:
        """As values of JSON, with what follows from the rest written out."""
        values = dataclasses.asdict(self)
        for program, written in zip(self.programs, values["programs"], strict=True):
            written["launches"] = program.launches
            if program.memory is not None:
                written["memory"]["peak"] = program.memory.peak
            for loop, row in zip(program.loops, written["loops"], strict=True):
                units = ("kernels", "bundles", "cycles")
                row["per_step"] = {unit: loop.per_step(unit) for unit in units}
            for each, row in zip(program.collectives, written["collectives"], strict=True):
                row["over_time"] = each.over_time
        return values


def program_to_json(program: Program) -> str:
    """A program's facts as a child process hands them over."""
    return json.dumps(dataclasses.asdict(program))


def program_from(values: Mapping[str, Any]) -> Program:
    """The program of what `program_to_json` wrote."""
    fields = dict(values)
    if fields["memory"] is not None:
        fields["memory"] = Memory(**fields["memory"])
    if fields["estimate"] is not None:
        said = tuple(fields["estimate"].pop("assumptions"))
        fields["estimate"] = Estimate(**fields["estimate"], assumptions=said)
    fields["collectives"] = tuple(
        Collective(**{**each, "loops": tuple(each["loops"])})
        for each in fields["collectives"]
    )
    fields["loops"] = tuple(Loop(**each) for each in fields["loops"])
    return Program(**fields)
