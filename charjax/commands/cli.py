"""The commands: train, sample, evaluate, inspect. Only this file imports tyro."""

import dataclasses
import difflib
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from charjax.commands.allocator import keep_freed_memory
from charjax.commands.signals import Signals, collected
from charjax.config.presets import default_name, load_config
from charjax.config.schema import Config, flatten, from_dict
from charjax.devices import processes
from charjax.errors import Diverged, InputError
from charjax.evaluation import evaluate as evaluation
from charjax.language_model import LanguageModel, inspect_run, inspect_sharding, load
from charjax.reporting.progress import reading
from charjax.run.fit import fit
from charjax.storage import run_directory
from charjax.storage.failures import reason_for
from charjax.text.corpus import load as load_corpus
from charjax.text.sources import absolute
from charjax.text.survey import survey
from charjax.text.watch import Watch

RUNS = Path("runs")

# Seconds by which the first of several processes ends after the others.
_GRACE = 2


def main(argv: list[str] | None = None) -> int:
    """The `charjax` command; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = {"train": train, "sample": sample, "evaluate": evaluate, "inspect": inspect}
    names = ", ".join(commands)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: charjax COMMAND [OPTIONS]\n\ncommands: {names}\n")
        print("charjax COMMAND --help lists a command's options.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        from charjax import __version__

        print(f"charjax {__version__}")
        return 0
    if name not in commands:
        close = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {names}."
        print(f"charjax: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return commands[name](rest, prog=f"charjax {name}")


def _command(function: Callable[..., int]) -> Callable[..., int]:
    """Turns what a command raises, and signals, into a short message and an exit code."""

    def run(argv: list[str] | None = None, prog: str | None = None) -> int:
        code = attempt(argv, prog)
        if code and jax.distributed.is_initialized():
            # Leaving in good order would wait for the others, who wait for us; but where
            # the first one goes before they have spoken, the runtime ends them.
            sys.stderr.flush()
            if jax.process_count() > 1 and processes.is_first():
                time.sleep(_GRACE)
            os._exit(code)
        return code

    def attempt(argv: list[str] | None, prog: str | None) -> int:
        keep_freed_memory()
        try:
            with collected() as signals:
                code = function(sys.argv[1:] if argv is None else argv, prog, signals)
                # Here, where a closed pipe is caught, rather than when Python ends.
                sys.stdout.flush()
                return code
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            # Whoever read our output has enough; keep the interpreter from complaining
            # when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (OSError, MemoryError) as error:
            print(f"error: {error or 'out of memory'}", file=sys.stderr)
            return 1
        except jax.errors.JaxRuntimeError as error:
            if not processes.is_loss(error):
                raise
            print(
                f"error: the other processes do not answer ({reason_for(error)}): if one "
                "of them ended, start all again, and the run goes on from its last "
                "checkpoint.",
                file=sys.stderr,
            )
            return 1

    run.__doc__ = function.__doc__
    return run


@dataclass(frozen=True)
class _Train:
    """Train a model, or go on with a run that was stopped.

    A workdir that holds a run is resumed with that run's own config; then only its
    length, cadences and early stopping may be given anew.
    """

    run: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Config
    )

    config: str | None = None
    """A preset (anna, char_rnn, ...), or the path of a .py file with get_config() or of a
    config.json."""

    workdir: Path | None = None
    """Where to keep the run; the default is runs/NAME of the preset, or runs/default."""

    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start over, even if the workdir holds a run."""

    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse to resume where a checkpoint is damaged, instead of going on from the newest
    that is not."""

    distributed: str = "off"
    """Train with other processes: auto (Slurm, Open MPI, Kubernetes, Cloud TPU), or
    ADDRESS:PORT,COUNT,INDEX."""


@_command
def train(argv: list[str], prog: str | None, signals: Signals) -> int:
    """`train.py`: train a model, or go on with a run."""
    name = _given(argv, "--config")
    preset = Config() if name is None else load_config(name)
    given = _given(argv, "--workdir")
    if given == "":
        raise InputError("--workdir is empty: give a directory, or leave it out.")
    workdir = Path(given or RUNS / default_name(name))
    resuming = run_directory.holds_run(workdir) and "--fresh" not in argv
    start = run_directory.read_config(workdir) if resuming else preset
    options = tyro.cli(_Train, default=_Train(run=start), args=argv, prog=prog)
    if resuming and name is not None:
        _note_differences(workdir, name, preset, start)

    heed_notices = processes.join(options.distributed)
    together, preempted = jax.distributed.is_initialized(), signals.stop
    if together:
        preempted = processes.preemption(signals.stop, heed_notices)
    stopped = []

    def stop() -> bool:
        stopped.append(preempted())
        return stopped[-1]

    try:
        fit(options.run, workdir, fresh=options.fresh, strict=options.strict, stop=stop)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if signals.received:
        return 128 + signals.received[0]
    if together and stopped and stopped[-1]:
        return 128 + signal.SIGTERM
    if not processes.is_first():
        return 0
    command = "python sample.py" if prog is None else "charjax sample"
    place = shlex.quote(str(workdir))
    print(f"{workdir}: sample with {command} --workdir {place}", file=sys.stderr)
    return 0


def _given(argv: list[str], option: str) -> str | None:
    """The value of an option that decides what the others' defaults are."""
    for index, argument in enumerate(argv):
        if argument == option and index + 1 < len(argv):
            return argv[index + 1]
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def _note_differences(workdir: Path, name: str, preset: Config, own: Config) -> None:
    source = absolute(preset.data.sources)
    preset = preset.replace(**{"data.source": source})
    differs = [
        f"{field} ({mine!r}, there {theirs!r})"
        for (field, mine), (_, theirs) in zip(flatten(own), flatten(preset), strict=True)
        if mine != theirs and field not in run_directory.RESOLVED_AT_BIRTH
    ]
    if differs:
        print(
            f"note: {workdir} goes on with its own config, which differs from {name} in "
            f"{', '.join(differs)}; --fresh starts over with {name}.",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class _Sample:
    """Write text with a trained model."""

    workdir: Path | None = None
    """The run; the default is the newest in runs/."""

    prime: str = ""
    """Text to go on from; \\n, \\t and \\\\ (a backslash) are understood."""

    prime_file: Path | None = None
    """Read the prime from a file (UTF-8)."""

    length: int = 1000
    """Characters to add."""

    temperature: float = 1.0
    """0 takes the likeliest character each time; 1 draws from the model as it is."""

    top_k: int | None = None
    """Draw among the k likeliest characters only."""

    seed: int = 0
    """The same seed gives the same text."""

    num_samples: int = 1
    """Texts to write, in one batch."""

    step: str = "best"
    """Which checkpoint: best, latest, or the number of a step on disk."""

    on_unknown: Literal["error", "skip"] = "error"
    """What to do with characters of the prime that the model does not know."""


@_command
def sample(argv: list[str], prog: str | None, _: Signals) -> int:
    """`sample.py`: write text with a trained model."""
    options = tyro.cli(_Sample, args=argv, prog=prog)
    prime = _prime(options)
    workdir = options.workdir or run_directory.newest_run(RUNS)

    model = load(workdir, options.step)
    settings: dict[str, Any] = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "seed": options.seed,
        "on_unknown": options.on_unknown,
    }
    if options.num_samples == 1:
        for piece in model.stream(prime, options.length, **settings):
            _write(piece)
    else:
        texts = model.generate(
            prime, options.length, num_samples=options.num_samples, **settings
        )
        _write(f"\n\n{'-' * 40}\n".join(texts))
    if sys.stdout.isatty():
        _write("\n")
    return 0


def _prime(options: _Sample) -> str:
    if options.prime_file is None:
        escapes = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
        return re.sub(r"\\[nt\\]", lambda found: escapes[found[0]], options.prime)
    if options.prime:
        raise InputError("--prime and --prime-file are both given: give one of them.")
    try:
        return options.prime_file.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"--prime-file is {options.prime_file}: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"--prime-file is {options.prime_file}: it is not UTF-8 at byte {error.start}."
        ) from error


def _write(text: str) -> None:
    """To standard output: UTF-8 to a file or pipe, what a terminal can show to it."""
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()


@dataclass(frozen=True)
class _Evaluate:
    """Score a split of a run's own text, or a text of yours."""

    workdir: Path | None = None
    """The run; the default is the newest in runs/."""

    split: Literal["train", "validation", "test"] | None = None
    """A split of the run's own text; validation if no text is given."""

    text: Path | None = None
    """A text file to score."""

    encoding: str = "utf-8"
    """Encoding of that file; a byte-order mark overrides it."""

    protocol: Literal["stateful", "windowed"] = "stateful"
    """stateful: contiguous rows, the state carried; windowed: each window of --window
    characters from zero state, as a model of limited context sees it."""

    window: int | None = None
    """Characters in a window of the windowed protocol."""

    rows: int | None = None
    """Rows the text is cut into; the default is the run's train.eval_rows."""

    step: str = "best"
    """Which checkpoint: best, latest, or the number of a step on disk."""

    on_unknown: Literal["error", "skip"] = "error"
    """What to do with characters that the model does not know."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


@_command
def evaluate(argv: list[str], prog: str | None, _: Signals) -> int:
    """`charjax evaluate`: score a split or a text."""
    options = tyro.cli(_Evaluate, args=argv, prog=prog)
    if options.split is not None and options.text is not None:
        raise InputError("--split and --text are both given: give one of them.")
    if (options.protocol == "windowed") != (options.window is not None):
        raise InputError("--protocol windowed and --window N go together: give both.")
    workdir = options.workdir or run_directory.newest_run(RUNS)

    model = load(workdir, options.step)
    with reading() as watch:
        what, ids = _text_to_score(options, workdir, model, watch)
    score = evaluation.evaluate(
        model.config, model.params, ids, rows=options.rows, window=options.window
    )
    values = {
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "characters": score.characters,
        "rows": score.rows,
        "window": score.window,
        "protocol": options.protocol,
        "step": model.step,
        "text": what,
    }
    if options.json:
        print(json.dumps(values))
        return 0
    how = (
        f"{score.rows} rows, state carried"
        if score.window is None
        else f"windows of {score.window} from zero state"
    )
    print(
        f"{what}, step {model.step:,}: {score.nats_per_char:.4f} nats, "
        f"{score.bits_per_char:.4f} bits per character, perplexity {score.perplexity:.3f} "
        f"({score.characters:,} characters, {how})"
    )
    return 0


def _text_to_score(
    options: _Evaluate, workdir: Path, model: LanguageModel, watch: Watch
) -> tuple[str, np.ndarray]:
    """The name of a split or file, and its ids."""
    data = model.config.data
    if options.text is None:
        split = options.split or "validation"
        kept = run_directory.kept_text(workdir)
        found = survey(data, kept, model.vocabulary, watch=watch)
        if found.text.fingerprint != model.text.fingerprint:
            raise InputError(
                f"data.source is {' '.join(data.sources)}: the text is not the one that "
                f"{workdir} was trained on, so it has no {split} split; restore it, or "
                "score the text as it is with --text."
            )
        ids = load_corpus(found, watch).split(split, data.split)
        if len(ids) == 0:
            raise InputError(f"--split is {split}: data.split {data.split} has none.")
        return split, ids
    if not options.text.is_file():
        raise InputError(f"--text is {options.text}: there is no such file.")
    text = dataclasses.replace(
        data,
        source=str(options.text.absolute()),
        encoding=options.encoding,
        start_marker=None,
        end_marker=None,
    )
    try:
        found = survey(text, None, model.vocabulary, options.on_unknown, watch)
    except InputError as error:
        message = str(error).replace("--data.encoding", "--encoding")
        raise InputError(f"--text is {options.text}: {message}") from error
    return str(options.text), load_corpus(found, watch).ids


@dataclass(frozen=True)
class _Inspect:
    """Show what a run directory holds."""

    workdir: Path | None = None
    """The run; the default is the newest in runs/."""

    step: str = "latest"
    """Which checkpoint: best, latest, or the number of a step on disk."""

    sharding: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show how the state would lie on the devices there are."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


@_command
def inspect(argv: list[str], prog: str | None, _: Signals) -> int:
    """`charjax inspect`: what a run directory holds, with a digest to compare runs by."""
    options = tyro.cli(_Inspect, args=argv, prog=prog)
    workdir = options.workdir or run_directory.newest_run(RUNS)

    if options.sharding:
        _print_sharding(inspect_sharding(workdir, options.step), options.json)
        return 0
    values = inspect_run(workdir, options.step)
    if options.json:
        print(json.dumps(values))
        return 0
    best = values["best"]
    print(f"{workdir}: step {values['step']:,} of those on disk: {values['steps']}")
    print(f"parameters: {values['parameters']:,}")
    print(f"vocabulary: {values['vocabulary']['size']:,} {values['vocabulary']['kind']}")
    if best is not None:
        print(
            f"best: step {best['step']:,}, validation {best['loss']:.4f} nats per character"
        )
    print(f"digest: {values['digest']}")
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    print(f"written with: {versions}")
    for field, value in flatten(from_dict(values["config"])):
        print(f"  {field} = {value}")
    return 0


def _print_sharding(rows: list[tuple[str, str, str, int]], as_json: bool) -> None:
    if as_json:
        names = ("path", "array", "axes", "bytes_on_device")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    widths = [max(len(str(row[k])) for row in rows) for k in range(3)]
    for path, shape, axes, size in rows:
        print(f"{path:{widths[0]}}  {shape:{widths[1]}}  {axes:{widths[2]}}  {size:>15,}")
    total = sum(row[3] for row in rows)
    print(f"bytes on each device: {total:,}")
