"""What was found, as lines for a person."""

from collections.abc import Iterator

from charjax.compiled.result import Compiled, Program
from charjax.errors import counted


def lines(found: Compiled) -> Iterator[str]:
    """The lines that `charjax compile` prints."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    hosts = f" of {counted(found.processes, 'hosts')}" if found.processes > 1 else ""
    # Where no program was compiled nobody has said them.
    compilers = f", compiled with {versions}" if versions else ""
    yield f"{found.target}: {counted(found.devices, 'devices')}{hosts}{compilers}"
    for program in found.programs:
        yield from _program(program)


def _program(program: Program) -> Iterator[str]:
    if program.failure is not None:
        yield f"{program.name}: not compiled"
        return
    yield (
        f"{program.name}: {program.rows:,} x {program.steps:,}, recurrence "
        f"{program.recurrence}; compiled in {program.seconds:.1f} s"
    )
    yield from (f"  {line}" for line in _facts(program))


def _facts(program: Program) -> Iterator[str]:
    taken = program.memory
    if taken is not None:
        parts = {**taken.parts, "temporaries": taken.temporaries}
        parts |= {"outputs": taken.outputs, "code": taken.code}
        listed = ", ".join(f"{name} {_mb(n)}" for name, n in parts.items() if n > 50_000)
        limit = program.limit
        verdict = "" if limit is None else f" of {_mb(limit)} that JAX has there"
        verdict += "" if program.fits is not False else ": IT DOES NOT FIT"
        yield f"memory of a device: {_mb(taken.peak)}{verdict} ({listed})"
    for each in program.collectives:
        where = f", in a loop over {' and '.join(each.loops)}" if each.loops else ""
        warning = " (INSIDE A LOOP OVER TIME)" if each.over_time else ""
        yield f"{each.count:,} {each.kind}, {_mb(each.bytes)}{where}{warning}"
    if program.kernels is not None:
        yield (
            f"kernels: {program.kernels:,} in {program.launches:,} launches "
            f"({program.command_buffers:,} command buffers, {program.alone:,} alone)"
        )
    for unit in ("bundles", "cycles"):
        if (amount := getattr(program, unit)) is not None:
            missing = program.unknown
            beside = f", {missing} operations not among them" if missing else ""
            floor = program.floor
            beside += "" if floor is None else f"; its products alone: {floor:,.0f}"
            yield f"{unit}: {amount:,}{beside}"
    for loop in program.loops:
        for unit in ("kernels", "bundles", "cycles"):
            if (each := loop.per_step(unit)) is None:
                continue
            floor = program.step_floor
            beside = "" if floor is None else f" (a layer's product alone: {floor:,.0f})"
            step = "time step" if loop.over == "time" else "character"
            yield f"{loop.direction}: {each:,.1f} {unit} a {step}{beside}"
    if (rate := program.estimate) is not None:
        yield (
            f"estimate, not a measurement: {rate.characters_per_second:,.0f} characters/s "
            f"({1e3 * rate.seconds:,.2f} ms), assuming {'; '.join(rate.assumptions)}"
        )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"
