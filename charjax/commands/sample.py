"""`charjax sample` and `sample.py`: text written by a trained model."""

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

import charjax
from charjax.commands.dialogue import Told
from charjax.commands.interactive import converse
from charjax.commands.of_run import OfRun, Switch, source_named
from charjax.commands.signals import Signals
from charjax.commands.texts import plain, text_of_file, unescaped, write
from charjax.config.data import OnUnknown
from charjax.errors import InputError
from charjax.reporting import progress
from charjax.reporting.samples import laid_out
from charjax.sampling.options import SamplingOptions
from charjax.text.watch import Watch

if TYPE_CHECKING:
    # It brings NumPy, which help and wrong options do not wait for.
    from charjax.language_model import LanguageModel
    from charjax.sampling.written import Written
    from charjax.text.corpus import Decoded


@dataclass(frozen=True)
class Options(OfRun):
    """Write text with a trained model."""

    prime: str = ""
    """Text to continue; \\n, \\t and \\\\ stand for a line end, a tab and a backslash."""

    prime_file: Path | None = None
    """Read the prime from a file (UTF-8)."""

    prompts: Path | None = None
    """Write a text after each line of a file (UTF-8), all in one batch."""

    length: int = 1000
    """Characters to add, at most (bytes, for a model of bytes)."""

    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )

    seed: int = 0
    """The same seed gives the same text."""

    interactive: Switch = False
    """Type text and see it go on, line after line; /help says what else can be typed."""

    num_samples: int = 1
    """Texts to write, in one batch."""

    best_of: int = 1
    """Write so many for each, and show the one with the highest mean log-probability."""

    on_unknown: OnUnknown = "error"
    """What to do with characters of the prime that the model does not know."""

    json: Switch = False
    """Print a line of JSON for each text: prompt, text, mean log-probability, why it
    ended."""

    novelty: Switch = False
    """Say on standard error how much of what was written the text it was learned from has
    too, and which words that lacks; with --json as a last line, {"novelty": ...}."""

    source: Annotated[tuple[str, ...] | None, tyro.conf.arg(name="data.source")] = None
    """Where that text is now, for --novelty, if it was moved."""


EXAMPLES = (
    'charjax sample --workdir runs/mine --prime "Once " --length 500',
    "charjax sample --interactive",
)


class _Noted(NamedTuple):
    """Something written, to be looked through at the end."""

    prompt: str
    new: str
    cut: bool
    """Its length has ended it."""


def run(options: Options, signals: Signals) -> int:
    """Prints text that the model writes."""
    from charjax.sampling.writing import check_known

    prompts = _prompts(options, options.prompts) if options.prompts else None
    prime = _prime(options)
    if options.interactive:
        _check_interactive(options)
    if options.source and not options.novelty:
        raise InputError("--data.source is given without --novelty, which it is for.")
    corpus = _corpus(options) if options.novelty else None
    model = charjax.load(options.directory(), options.step)
    if options.on_unknown == "error":
        name = "--prime" if options.prime_file is None else "--prime-file"

        def place(k: int) -> str:
            return name if prompts is None else f"--prompts, line {k + 1}"

        check_known(model.vocabulary, prompts or [prime], place)
    if options.interactive:
        told, how = Told(options.length, options.seed), unescaped(options.options)
        return converse(model, told, how, prime, options.on_unknown, signals)
    noted: list[_Noted] = []
    with contextlib.ExitStack() as shown:
        watch = shown.enter_context(progress.writing())
        for piece in _pieces(model, prompts or prime, options, watch, noted):
            if sys.stdout.isatty():
                # Where texts appear a bar would be drawn over them.
                shown.close()
            write(piece)
    if not options.json and (sys.stdout.isatty() or model.vocabulary.documents):
        write("\n")
    if corpus is not None:
        _report(noted, corpus, options)
    return 0


def _check_interactive(options: Options) -> None:
    for name in ("prompts", "json", "novelty", "num_samples", "best_of"):
        if getattr(options, name) != getattr(Options, name):
            option = name.replace("_", "-")
            raise InputError(
                f"--interactive and --{option} are both given: it writes one text, and "
                f"shows it as it is made; leave out --{option}."
            )


def _pieces(
    model: "LanguageModel",
    prime: str | list[str],
    options: Options,
    watch: Watch,
    noted: list[_Noted],
) -> Iterator[str]:
    """The texts as they are printed, piece by piece, and noted."""
    settings: dict[str, Any] = {
        "seed": options.seed,
        "on_unknown": options.on_unknown,
        "options": unescaped(options.options),
    }
    one = options.best_of == options.num_samples == 1 and not options.json
    if isinstance(prime, str) and one:
        return _streamed(model, prime, options, settings, noted)
    settings |= {"best_of": options.best_of, "watch": watch}
    if isinstance(prime, str):
        settings["num_samples"] = options.num_samples
    written = _noting(model.each(prime, options.length, **settings), noted)
    if options.json:
        return map(_line, written)
    return laid_out((each.text for each in written), model.vocabulary.documents)


def _corpus(options: Options) -> "Decoded":
    """What the model has learned from, found before anything is written."""
    with source_named():
        return charjax.text_of_run(
            options.directory(), source=options.source, step=options.step
        )


def _noting(written: "Iterable[Written]", noted: list[_Noted]) -> "Iterator[Written]":
    for each in written:
        new = each.text[len(each.prompt) :]
        noted.append(_Noted(each.prompt, new, each.ended == "length"))
        yield each


def _streamed(
    model: "LanguageModel",
    prime: str,
    options: Options,
    settings: Any,
    noted: list[_Noted],
) -> Iterator[str]:
    """A text as it is made, and noted."""
    pieces = []
    for piece in model.stream(prime, options.length, **settings):
        pieces.append(piece)
        yield piece
    known = model.vocabulary.decode(model.vocabulary.encode(prime, options.on_unknown))
    new = "".join(pieces).removeprefix(known)
    noted.append(_Noted(known, new, len(new) >= options.length))


def _report(noted: list[_Noted], corpus: "Decoded", options: Options) -> None:
    """Prints what of the texts is new."""
    documents = corpus.vocabulary.documents
    # A prime is part of its document.
    texts = [each.prompt + each.new if documents else _whole_words(*each) for each in noted]
    found = charjax.novelty(texts, corpus)
    facts, lines = found.to_dict(), found.lines()
    if documents:
        known = charjax.known_documents(texts, corpus.documents(), corpus.held_out())
        facts["documents"] = dataclasses.asdict(known)
        lines += known.lines()
    if options.json:
        write(json.dumps({"novelty": facts}) + "\n")
    else:
        print(*lines, sep="\n", file=sys.stderr)


def _whole_words(prompt: str, text: str, cut: bool) -> str:
    """A new text without the word that the prompt begins and, if it was cut, the last."""
    if prompt[-1:].isalnum():
        text = re.sub(r"\A\w+(?=\W)", "", text)
    return re.sub(r"(?<=\W)\w+\Z", "", text) if cut else text


def _line(written: "Written") -> str:
    names = ("prompt", "text", "log_prob", "ended")
    return json.dumps({name: getattr(written, name) for name in names}) + "\n"


def _prompts(options: Options, path: Path) -> list[str]:
    """The lines of --prompts."""
    if options.num_samples != 1:
        raise InputError(
            f"--num-samples is {options.num_samples}: with --prompts there is one text for "
            "each line; repeat lines for more."
        )
    for name in ("prime", "prime_file"):
        if getattr(options, name):
            option = name.replace("_", "-")
            raise InputError(f"--prompts and --{option} are both given: give one of them.")
    text = text_of_file("--prompts", path)
    if not text:
        raise InputError(f"--prompts is {path}: it is empty; give one a line.")
    # A form feed or a line separator of Unicode stands in a line and ends none.
    return text.removesuffix("\n").split("\n")


def _prime(options: Options) -> str:
    if options.prime_file is None:
        return plain(options.prime)
    if options.prime:
        raise InputError("--prime and --prime-file are both given: give one of them.")
    return text_of_file("--prime-file", options.prime_file)
