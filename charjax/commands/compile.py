"""`charjax compile`: what a run would take on devices that are not here."""

import json
import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

import charjax
from charjax.commands.fields import read
from charjax.commands.of_run import Switch
from charjax.commands.signals import Signals
from charjax.compiled.names import PROGRAMS
from charjax.config.presets import load_config
from charjax.config.schema import Config


@dataclass(frozen=True)
class Preset:
    """The option that decides the defaults of the others."""

    config: str | None = None
    """A preset (anna, char_rnn, ...), or the path of a .py file with get_config() or of a
    config.json."""


@dataclass(frozen=True)
class Options(Preset):
    """Compile a run for devices that are not here, and show what it takes there."""

    run: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    target: str = "cpu"
    """cpu, h100, a100, several as cpu:8, 8xh100 or h100:8, or a TPU topology as v5e:8x8."""

    processes: int | None = None
    """Hosts that several GPUs are spread over; a TPU topology has its own."""

    vocab_size: int | None = None
    """Symbols of the text, which is not read; the default is 96, and 256 for bytes."""

    streams: int = 1
    """Texts that are drawn at once."""

    programs: tuple[str, ...] = PROGRAMS
    """What to compile: some of training, evaluation, reading, sampling, and layer, which is
    one layer over time with its gradient, and has a TPU's cycles by the static profile."""

    minutes: float = 10.0
    """Time limit for each program."""

    json: Switch = False
    """Print JSON."""


EXAMPLES = (
    "charjax compile --config anna --target v5e:8x8 --data.batch_size 8192",
    "charjax compile --target 8xh100 --model.hidden_size 2048 --parallel.fsdp",
)


def defaults(arguments: list[str]) -> tuple[Options, str]:
    """The options where they are not given, and what they are from."""
    own = [argument for argument in arguments if not argument.startswith("--tyro-")]
    preset, _ = read(Preset, own, add_help=False, return_unknown_args=True)
    if preset.config is None:
        return Options(), "Config()"
    return Options(run=load_config(preset.config)), f"--config {preset.config}"


def run(options: Options, _: Signals) -> int:
    """Prints what was found; 1 where a program was not compiled or does not fit."""
    from charjax.compiled.summary import lines

    found = charjax.compile_for(
        options.run,
        options.target,
        vocab_size=options.vocab_size,
        processes=options.processes,
        streams=options.streams,
        programs=options.programs,
        minutes=options.minutes,
    )
    if options.json:
        print(json.dumps(found.to_dict()))
    else:
        print("\n".join(lines(found)))
    failed = [program for program in found.programs if program.failure is not None]
    for program in failed:
        print(f"error: {program.name}: {program.failure}", file=sys.stderr)
    return 1 if failed or found.fits is False else 0
