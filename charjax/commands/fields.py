"""How tyro reads our dataclasses, and says what is wrong with the arguments."""

import contextlib
import dataclasses
import io
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from charjax.config.checks import describe, kinds
from charjax.errors import InputError

_registry = ConstructorRegistry()

# tyro's words, and plainer ones in the form of our own messages.
_PLAINLY = [
    (r"^parsing (\S+): ", r"\1 is "),
    (r"^missing value for argument '(\S+)'\. Expected 1 values", r"\1 needs a value"),
    (r"^missing value for argument '(\S+)'\. Expected (\d+) v", r"\1 needs \2 v"),
    (r"^invalid choice ('.*') for argument '(\S+)'\. E", r"\2 is \1: e"),
    (r"(?<=: expected one of )\('.*'", lambda found: re.sub("[(']", "", found[0])),
    (r",?\)\.$", "."),
    (r"^missing from .*?: ", r"missing: "),
    (r"^unrecognized or misplaced options: ", "unrecognized options: "),
    (r" \(applied to [^)]*\)(?= |$)", ","),
    (r",$", ""),
]


class WrongUsage(InputError):
    """Arguments that no command understands; `unknown` are words that nothing takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        words = re.match(r"unrecognized options: (.*)", message)
        self.unknown = words[1].split(", ") if words else []


class _Refused(Exception):
    """An InputError on its way through tyro, which catches every ValueError."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """With its dashes, as `--data.batch-size`."""

    description: str

    choices: tuple[str, ...]
    """What it can be; nothing where that is not a list."""

    switch: bool
    """It takes no value."""


def read(kind: Any, arguments: list[str], **settings: Any) -> Any:
    """The options of a kind; `settings` are those of `tyro.cli`.

    Raises WrongUsage for arguments that do not fit, InputError for values that do not.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=arguments, registry=_registry, **settings)
    except _Refused as error:
        raise error.args[0] from None
    except SystemExit as end:
        if not end.code:
            raise
    raise WrongUsage(_unboxed(said.getvalue()))


def options(kind: Any, prefix: str = "--") -> Iterator[Option]:
    """The options that a kind of dataclass has, those of the dataclasses in it included.

    >>> from charjax.config.schema import ModelConfig
    >>> [next(options(ModelConfig, "--model.")).name, *next(options(ModelConfig)).choices]
    ['--model.cell', 'lstm', 'gru', 'rnn', 'mingru', 'minlstm']
    """
    positional = typing.get_args(tyro.conf.Positional[Any])[-1]
    for field, hint, description in _fields(kind):
        marks = ()
        if typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
        names = [getattr(mark, "name", None) for mark in marks]
        name = next((name for name in names if name is not None), field.name)
        name = name.replace("_", "-")
        if positional in marks:
            continue
        if dataclasses.is_dataclass(hint):
            yield from options(hint, f"{prefix}{name}." if name else prefix)
            continue
        parts = [part for kind in kinds(hint) for part in (kind, *typing.get_args(kind))]
        lists = [part for part in parts if typing.get_origin(part) is Literal]
        choices = tuple(str(choice) for each in lists for choice in typing.get_args(each))
        yield Option(f"{prefix}{name}", description or "", choices, hint is bool)
        if hint is bool and tyro.conf.FlagCreatePairsOff not in marks:
            yield Option(f"{prefix}no-{name}", f"Not {prefix}{name}.", (), True)


def _unboxed(box: str) -> str:
    """What stands in a box of tyro's: the first paragraph as a line, then the others, but
    for the last, which says where to find help."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    _, *rows = (row.strip("│╰╯").rstrip() for row in plain.splitlines())
    parts = re.split(r"^ *[─-]{5,}$", "\n".join(rows), flags=re.MULTILINE)
    message, *others = (textwrap.dedent(part).strip() for part in parts if part.strip())
    line = " ".join(message.partition("\n\n")[0].split()).removeprefix("Error ")
    line = line[0].lower() + line[1:]
    for theirs, ours in _PLAINLY:
        line = re.sub(theirs, ours, line)
    shown = [
        part.removeprefix("Argument helptext:\n")
        for part in others
        if not part.startswith("For full helptext")
    ]
    return "\n".join([line, *shown])


@_registry.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    kind = info.type
    if not (dataclasses.is_dataclass(kind) and kind.__module__.startswith("charjax.")):
        return None

    # What is not an option keeps its default.
    others = {
        field.name: _default(field, info.default)
        for field in dataclasses.fields(kind)
        if not _is_option(field)
    }

    def build(**values: Any) -> Any:
        try:
            return kind(**others, **values)
        except InputError as error:
            raise _Refused(error) from error

    return StructConstructorSpec(
        instantiate=build,
        fields=tuple(
            StructFieldSpec(field.name, hint, _default(field, info.default), description)
            for field, hint, description in _fields(kind)
        ),
    )


@_registry.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Numbers, several of them, or None in their place: tyro's, but for what is said of
    words that are none."""
    whole = info.type
    several = typing.get_origin(whole) is tuple and Ellipsis not in typing.get_args(whole)
    items = typing.get_args(whole) if several else (whole,)
    of_items = {kind for item in items for kind in kinds(item)}
    optional = type(None) in of_items
    if (of_items - {type(None)}) not in ({int}, {float}):
        return None
    number = float if float in of_items else int

    def build(words: list[str]) -> Any:
        try:
            values = [
                None if optional and word == "None" else number(word) for word in words
            ]
        except ValueError:
            found = f"{words[0]!r}" if len(words) == 1 else " ".join(words)
            raise ValueError(f"{found}: expected {describe(whole)}.") from None
        return tuple(values) if several else values[0]

    def words(value: Any) -> list[str]:
        return [str(item) for item in (value if several else (value,))]

    word = ("{None}|" if optional else "") + number.__name__.upper()
    return PrimitiveConstructorSpec(
        nargs=len(items),
        metavar=" ".join([word] * len(items)),
        instance_from_str=build,
        is_instance=lambda value: isinstance(value, tuple) == several,
        str_from_instance=words,
    )


def _fields(kind: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, str | None]]:
    """The fields of a dataclass that are options, each with its type and its description.

    The description is one line: tyro fills the lines of a terminal with it, and a shell
    completes options line by line.
    """
    docs = {
        doc.arg_name: " ".join((doc.description or "").split())
        for part in reversed(kind.__mro__[:-1])
        for doc in docstring_parser.parse_from_object(part).params
    }
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in filter(_is_option, dataclasses.fields(kind)):
        yield field, hints[field.name], docs.get(field.name)


def _is_option(field: dataclasses.Field[Any]) -> bool:
    return field.metadata.get("option", True)


def _default(field: dataclasses.Field, whole: Any) -> Any:
    """What a field is where it is not given."""
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING
