"""How tyro reads our dataclasses, and says what is wrong with the arguments."""

import contextlib
import dataclasses
import io
import re
import textwrap
import typing
from typing import Any

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from charjax.errors import InputError

_registry = ConstructorRegistry()


class WrongUsage(InputError):
    """Arguments that no command understands."""


class _Refused(Exception):
    """An InputError on its way through tyro, which catches every ValueError."""


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


def _unboxed(box: str) -> str:
    """What stands in a box of tyro's: the first paragraph as a line, then the others, but
    for the last, which says where to find help."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)
    _, *rows = (row.strip("│╰╯").rstrip() for row in plain.splitlines())
    parts = re.split(r"^ *[─-]{5,}$", "\n".join(rows), flags=re.MULTILINE)
    message, *others = (textwrap.dedent(part).strip() for part in parts if part.strip())
    line = " ".join(message.partition("\n\n")[0].split()).removeprefix("Error ")
    shown = [part for part in others if not part.startswith("For full helptext")]
    return "\n".join([line[0].lower() + line[1:], *shown])


@_registry.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    kind = info.type
    if not (dataclasses.is_dataclass(kind) and kind.__module__.startswith("charjax.")):
        return None

    def build(**values: Any) -> Any:
        try:
            return kind(**values)
        except InputError as error:
            raise _Refused(error) from error

    # Each help text on one line: tyro fills the lines of a terminal with it, and a shell
    # completes options line by line.
    docs = {
        doc.arg_name: " ".join((doc.description or "").split())
        for part in reversed(kind.__mro__[:-1])
        for doc in docstring_parser.parse_from_object(part).params
    }
    hints = typing.get_type_hints(kind, include_extras=True)
    return StructConstructorSpec(
        instantiate=build,
        fields=tuple(
            StructFieldSpec(
                field.name,
                hints[field.name],
                _default(field, info.default),
                docs.get(field.name),
            )
            for field in dataclasses.fields(kind)
        ),
    )


def _default(field: dataclasses.Field, whole: Any) -> Any:
    """What a field is where it is not given."""
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING
