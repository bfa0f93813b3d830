"""`charjax train` and `train.py`: train a model, or go on with a run."""

import os
import shlex
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

import charjax
from charjax.commands.fields import read
from charjax.commands.of_run import RUNS, Switch
from charjax.commands.signals import Signals
from charjax.config.optimizer import NOT_AN_OPTION
from charjax.config.presets import SETTLED_BY_RUNS, default_name, load_config
from charjax.config.schema import Config, flatten
from charjax.errors import InputError
from charjax.storage import replacement, run_directory


@dataclass(frozen=True)
class Place:
    """The options that decide the defaults of the others."""

    config: str | None = None
    """A preset (anna, char_rnn, ...), or the path of a .py file with get_config() or of a
    config.json."""

    workdir: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where to keep the run; the default is runs/NAME of the preset, or runs/default. A
    run that is there goes on with its own config; only its length, cadences, early
    stopping and --optimizer.schedule_steps may be given anew, and --data.source where its
    text was moved."""

    fresh: Switch = False
    """Start over with the config and the text of the run in the workdir (with --config,
    that config; fields given replace fields). The old run is replaced once the new one has
    a checkpoint."""

    def directory(self) -> Path:
        if self.workdir == "":
            raise InputError("--workdir is empty: give a directory, or leave it out.")
        return Path(self.workdir or RUNS / default_name(self.config))

    def preset(self) -> Config:
        return Config() if self.config is None else load_config(self.config)

    def resumes(self) -> bool:
        return not self.fresh and run_directory.holds_run(self.directory())


@dataclass(frozen=True)
class Options(Place):
    """Train a model, or go on with a run that was stopped."""

    run: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    strict: Switch = False
    """Refuse to resume where a checkpoint is damaged, instead of going on from the newest
    that is not."""

    distributed: str = "off"
    """Train with other processes: auto (Slurm, Open MPI, Kubernetes, Cloud TPU), or
    ADDRESS:PORT,COUNT,INDEX."""

    shape_given: bool = field(default=False, metadata=NOT_AN_OPTION)
    """Whether options decide the model's shape, be it the default one."""


EXAMPLES = (
    "charjax train --workdir runs/mine --data.source book.txt",
    "charjax train --workdir runs/mine   # stopped? it goes on",
)


def defaults(arguments: list[str]) -> tuple[Options, str]:
    """The options where they are not given, and what they are from."""
    # A request for a completion script is for the whole command.
    own = [argument for argument in arguments if not argument.startswith("--tyro-")]
    place, others = read(Place, own, add_help=False, return_unknown_args=True)
    workdir = place.directory()
    if place.resumes():
        start = run_directory.read_config(workdir)
        source = f"the run in {workdir}, which this would resume"
    elif place.config is None and run_directory.holds_run(workdir):
        start, source = _starting_over(workdir, own)
    else:
        start = place.preset()
        source = "Config()" if place.config is None else f"--config {place.config}"
    names = {option.partition("=")[0].replace("-", "_") for option in others}
    given = any(f"__model.{name}" in names for name in start.model.shape)
    return Options(run=start, shape_given=given), source


def _starting_over(workdir: Path, arguments: list[str]) -> tuple[Config, str]:
    try:
        start = replacement.own_config(workdir)
    except InputError:
        if not any(a.partition("=")[0] == "--data.source" for a in arguments):
            raise
        return Config(), "Config(), since the config of the run cannot be read"
    return start, f"the run in {workdir}, which this would replace"


def run(options: Options, signals: Signals) -> int:
    """Trains, and returns the exit code that signals ask for."""
    workdir = options.directory()
    if options.resumes() and options.config is not None:
        _note_differences(options)

    import jax

    from charjax.devices import meeting, processes
    from charjax.run import origin

    heed_notices = meeting.join(options.distributed)
    together, preempted = jax.distributed.is_initialized(), signals.stop
    if together:
        preempted = processes.preemption(signals.stop, heed_notices)
    if options.shape_given and not options.resumes():
        origin.check_given_shape(options.run)
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = preempted()
        return stopped

    charjax.fit(options.run, workdir, fresh=options.fresh, strict=options.strict, stop=stop)
    if signals.received:
        return 128 + signals.received[0]
    if together and stopped:
        return 128 + signal.SIGTERM
    if processes.is_first():
        script = Path(sys.argv[0]).name == "train.py"
        command = "python sample.py" if script else "charjax sample"
        place = shlex.quote(os.path.join("." * str(workdir).startswith("-"), workdir))
        print(f"{workdir}: sample with {command} --workdir {place}", file=sys.stderr)
    return 0


def _note_differences(options: Options) -> None:
    from charjax.text.sources import absolute

    workdir, name = options.directory(), options.config
    own, preset = run_directory.read_config(workdir), options.preset()
    preset = preset.replace(**{"data.source": absolute(preset.data.sources)})
    differs = [
        f"{field} ({mine!r}, there {theirs!r})"
        for (field, mine), (_, theirs) in zip(flatten(own), flatten(preset), strict=True)
        if mine != theirs and field not in SETTLED_BY_RUNS
    ]
    if differs:
        print(
            f"note: {workdir} goes on with its own config, which differs from {name} in "
            f"{', '.join(differs)}; --fresh starts over with {name}.",
            file=sys.stderr,
        )
