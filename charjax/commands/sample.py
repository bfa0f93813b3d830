"""`charjax sample` and `sample.py`: text written by a trained model."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

import charjax
from charjax.commands.of_run import OfRun
from charjax.commands.signals import Signals
from charjax.config.data import OnUnknown
from charjax.errors import InputError
from charjax.sampling.options import SamplingOptions
from charjax.text.sources import is_stream


@dataclass(frozen=True)
class Options(OfRun):
    """Write text with a trained model."""

    prime: str = ""
    """Text to continue; \\n, \\t and \\\\ stand for a line end, a tab and a backslash."""

    prime_file: Path | None = None
    """Read the prime from a file (UTF-8)."""

    length: int = 1000
    """Characters to add (bytes, for a model of bytes)."""

    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )

    seed: int = 0
    """The same seed gives the same text."""

    num_samples: int = 1
    """Texts to write, in one batch."""

    on_unknown: OnUnknown = "error"
    """What to do with characters of the prime that the model does not know."""


EXAMPLES = (
    'charjax sample --workdir runs/mine --prime "Once " --length 500',
    "charjax sample --temperature 0.7 --num-samples 3",
)


def run(options: Options, _: Signals) -> int:
    """Prints text that the model writes."""
    prime = _prime(options)
    model = charjax.load(options.directory(), options.step)
    settings: dict[str, Any] = {
        "seed": options.seed,
        "on_unknown": options.on_unknown,
        "options": options.options,
    }
    if options.num_samples == 1:
        for piece in model.stream(prime, options.length, **settings):
            _write(piece)
    else:
        samples, rule = options.num_samples, f"\n\n{'-' * 40}\n"
        texts = model.generate(prime, options.length, num_samples=samples, **settings)
        _write(rule.join(texts))
    if sys.stdout.isatty():
        _write("\n")
    return 0


def _prime(options: Options) -> str:
    if options.prime_file is None:
        escapes = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
        return re.sub(r"\\[nt\\]", lambda found: escapes[found[0]], options.prime)
    if options.prime:
        raise InputError("--prime and --prime-file are both given: give one of them.")
    path = options.prime_file
    try:
        # Nobody may ever write to a named pipe. One that is open already is read, such as
        # /dev/stdin or a shell's <(command).
        if not path.is_fifo() or is_stream(path):
            return path.read_text("utf-8-sig")
        problem = "it is a pipe; give a file, or /dev/stdin"
    except OSError as error:
        problem = error.strerror
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 at byte {error.start}"
    raise InputError(f"--prime-file is {path}: {problem}.")


def _write(text: str) -> None:
    """To standard output: UTF-8 to a file or pipe, what a terminal can show to it."""
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()
