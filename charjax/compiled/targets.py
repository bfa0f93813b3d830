"""What a program can be compiled for, by the name that a person gives it."""

import importlib.util
import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from charjax.compiled.chips import GPUS, TPUS, Chip
from charjax.config.checks import refuse
from charjax.errors import InputError, counted, listed

Platform = Literal["cpu", "gpu", "tpu"]

# The compiler takes a third axis of these too, for a machine that nobody has.
_PLANES = ("v2", "v3", "v5e", "v6e")

EXAMPLES = ("cpu", "cpu:8", *GPUS, "8xh100", "h100:8", "v5e:8x8", "v6e:2x2", "v5p:2x2x1")
"""Names that are understood."""


@dataclass(frozen=True)
class Target:
    """Devices to compile for."""

    name: str
    """As it was given."""

    platform: Platform

    chip: Chip | None
    """None for the CPU, whose facts are this machine's."""

    chips: int
    """How many; a TPU chip may be two devices."""

    topology: str
    """As the compiler names it; nothing for the CPU."""

    processes: int | None = None
    """Hosts, where that was asked for."""


def target_named(name: str, processes: int | None = None) -> Target:
    """The target of a name.

    >>> target_named("8xh100").topology, target_named("h100:8", processes=2).topology
    ('1x1x8', '1x2x4')
    >>> target_named("v5e:8x8").chips
    64

    Raises InputError for a name that stands for nothing, and for processes that do not
    divide the devices.
    """
    if match := re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name):
        kind, topology = match.groups()
        sizes = [int(size) for size in topology.split("x")]
        if kind in TPUS and 0 not in sizes:
            if kind in _PLANES and math.prod(sizes[2:]) > 1:
                refuse("`target`", name, f"chips of {kind} lie in a plane, as {kind}:4x4")
            chips = math.prod(sizes)
            return Target(name, "tpu", TPUS[kind], chips, name, processes)
    match = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*?)(?::(\d+))?", name)
    kind = match[2] if match else ""
    if match is None or (match[1] and match[3]) or kind not in ("cpu", *GPUS):
        _refuse(name)
    count = int(match[1] or match[3] or 1)
    if count == 0:
        _refuse(name)
    if kind == "cpu":
        if processes not in (None, 1):
            refuse("`processes`", processes, "the CPU target is one process: leave it out")
        return Target(name, "cpu", None, count, "", processes)
    hosts = processes or 1
    if count % hosts:
        refuse(
            "`processes`",
            processes,
            f"it must divide {counted(count, 'devices')} of {name}",
        )
    return Target(name, "gpu", GPUS[kind], count, f"1x{hosts}x{count // hosts}", processes)


def _refuse(name: str) -> NoReturn:
    refuse(
        *("`target`", name),
        f"give cpu, {listed(GPUS, 'or')}, several as cpu:8 or 8xh100, or a TPU topology as "
        f"v5e:8x8 ({', '.join(TPUS)})",
    )


def check_compiler(target: Target) -> None:
    """Raises InputError where the compiler for a target is not installed."""
    modules = {
        "tpu": ("libtpu",),
        "gpu": ("jax_cuda12_plugin", "jax_cuda13_plugin"),
        "cpu": ("jax",),
    }[target.platform]
    if not any(importlib.util.find_spec(module) for module in modules):
        extra = {"tpu": "tpu", "gpu": "cuda12"}[target.platform]
        raise InputError(
            f"`target` is {target.name!r}: its compiler is not installed; "
            f'pip install "charjax[{extra}]" brings it.'
        )
