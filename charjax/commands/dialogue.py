"""What a line means in `charjax sample --interactive`: a pure function of what was before.

A turn is what was typed and what was written after it. The model and its state are no
matter of this file; it only keeps where the text stood before each turn.
"""

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

from charjax.commands.fields import read
from charjax.commands.texts import plain
from charjax.config.checks import AtLeast, check_fields
from charjax.errors import InputError, suggestion
from charjax.sampling.options import SamplingOptions

_INDENTED: Any = {"initial_indent": "  ", "subsequent_indent": "  "}
# Characters at the end of the text that are shown to say where it stands.
_TAIL = 60


@dataclass(frozen=True)
class Told:
    """What the next turn is written by, beside the sampling options."""

    length: Annotated[int, AtLeast(1)] = 1000
    """Characters to add in each turn, at most."""

    seed: Annotated[int, AtLeast(0, 2**32 - 1)] = 0
    """Of the draws of the next turn; /again takes the next one."""

    def __post_init__(self) -> None:
        check_fields(self)


class Turn(NamedTuple):
    """Something typed, and what was written after it."""

    typed: str
    written: str
    before: Any
    """Where the text stood before it."""


@dataclass(frozen=True)
class Dialogue:
    """All that has been said."""

    standing: Any
    """Where the text stands, for whoever writes."""

    told: Told = field(default_factory=Told)

    options: SamplingOptions = field(default_factory=SamplingOptions)

    turns: tuple[Turn, ...] = ()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(turn.typed + turn.written for turn in self.turns)

    def after(self, typed: str, written: str, standing: Any) -> "Dialogue":
        """The dialogue with one more turn."""
        turn = Turn(typed, written, self.standing)
        return replace(self, standing=standing, turns=(*self.turns, turn))

    def before(self) -> "Dialogue":
        """The dialogue without its last turn."""
        return replace(self, standing=self.turns[-1].before, turns=self.turns[:-1])


class Answer(NamedTuple):
    """What is to be done."""

    what: Literal["write", "say", "save", "new", "quit"]
    """Write on, after the text that was typed; say something; save the text in a file;
    begin anew; end."""

    text: str = ""


COMMANDS = {
    "again": "another continuation in place of the last one, with the next seed",
    "undo": "take back the last turn, what was typed and what was written",
    "new": "begin a new text",
    "show": "the text so far",
    "save FILE": "save it in a new file",
    "options": "what is set",
    "help": "this",
    "quit": "end; so does Ctrl-D",
}


def answer(dialogue: Dialogue, line: str) -> tuple[Dialogue, Answer]:
    """What a line of input changes, and what is to be done.

    Raises:
      InputError: a command that does not exist or makes no sense; nothing changes.

    >>> said, todo = answer(Dialogue(None), "/temperature 0.5")
    >>> said.options.temperature, todo.text
    (0.5, 'temperature is 0.5')
    >>> answer(said, "Once ")[1]
    Answer(what='write', text='Once ')
    """
    if line.startswith("//") or not line.startswith("/"):
        return dialogue, Answer("write", plain(line[line.startswith("/") :]))
    name, _, rest = line[1:].strip().partition(" ")
    name, rest = name.lower().replace("-", "_"), rest.strip()
    known = {each.partition(" ")[0] for each in COMMANDS}
    if name in settable():
        return _set(dialogue, name, rest)
    if name not in known:
        close = suggestion(name, sorted(known | {*settable()}))
        hint = f"{close} " if close.startswith("did") else ""
        raise InputError(
            f"/{name}: there is no such command; {hint}/help lists all. A text that "
            "begins with / is typed with two."
        )
    if rest and name != "save":
        raise InputError(f"/{name} is followed by {rest!r}: it takes nothing.")
    return _done(dialogue, name, rest)


def _done(dialogue: Dialogue, name: str, rest: str) -> tuple[Dialogue, Answer]:
    if name in ("again", "undo") and not dialogue.turns:
        raise InputError(f"/{name}: nothing was written yet; type some text, or Enter.")
    if name in ("save", "show") and not dialogue.text:
        raise InputError(f"/{name}: there is no text yet; type some, or Enter.")
    match name:
        case "again":
            told = replace(dialogue.told, seed=(dialogue.told.seed + 1) % 2**32)
            earlier = replace(dialogue.before(), told=told)
            return earlier, Answer("write", dialogue.turns[-1].typed)
        case "undo":
            earlier = dialogue.before()
            end = earlier.text[-_TAIL:]
            said = f"the text ends with {end!r}" if end else "the text is empty"
            return earlier, Answer("say", f"taken back: {said}")
        case "save" if not rest:
            raise InputError("/save needs the name of a file.")
        case "save":
            return dialogue, Answer("save", rest)
        case "show":
            return dialogue, Answer("say", dialogue.text)
        case "options":
            return dialogue, Answer("say", "\n".join(_shown(dialogue)))
        case "help":
            return dialogue, Answer("say", "\n".join(_help()))
        case "new":
            return replace(dialogue, turns=()), Answer("new")
    return dialogue, Answer("quit")


def settable() -> dict[str, dataclasses.Field[Any]]:
    """What can be set, by name."""
    return {each.name: each for kind in (Told, SamplingOptions) for each in fields(kind)}


def _value(dialogue: Dialogue, name: str) -> Any:
    return {**vars(dialogue.told), **vars(dialogue.options)}[name]


def _set(dialogue: Dialogue, name: str, rest: str) -> tuple[Dialogue, Answer]:
    part = "told" if hasattr(dialogue.told, name) else "options"
    new: Any = getattr(dialogue, part)
    if rest.lower() in ("off", "none"):
        new = replace(new, **{name: settable()[name].default})
    elif rest:
        option = "--" + name.replace("_", "-")
        try:
            # As a command reads it, an option by itself.
            new = read(type(new), [option, *map(plain, _split(rest))], default=new)
        except InputError as error:
            message = str(error).partition("\n")[0].replace(f"`{name}`", f"/{name}")
            raise InputError(message.replace(option, f"/{name}")) from None
    changed = replace(dialogue, **{part: new})
    return changed, Answer("say", f"{name} is {_said(_value(changed, name))}")


def _split(text: str) -> Sequence[str]:
    """Words, in which quotes hold together and a backslash is one."""
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        return list(words)
    except ValueError:
        raise InputError(f"{text}: a quotation mark is not closed.") from None


def _said(value: Any) -> str:
    return "off" if value is None else str(value) if type(value) is float else repr(value)


def _shown(dialogue: Dialogue) -> list[str]:
    """Length, seed, temperature and what is not as usual."""
    always = ("length", "seed", "temperature")
    return [
        f"/{name} {_said(_value(dialogue, name))}"
        for name, each in settable().items()
        if name in always or _value(dialogue, name) != each.default
    ]


def _help() -> list[str]:
    return [
        "Type text, and the model writes on; Enter alone writes more, Ctrl-C ends it.",
        "\\n, \\t and \\\\ stand for a line end, a tab and a backslash.",
        *(f"  /{name:<12}{said}" for name, said in COMMANDS.items()),
        "These are set by a value, as in /temperature 0.7, and put back by off:",
        *textwrap.wrap(" ".join(f"/{name}" for name in settable()), 76, **_INDENTED),
    ]
