"""How tyro reads our dataclasses; tyro's own way breaks help texts and wraps errors."""

import dataclasses
import typing
from typing import Any

import docstring_parser
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from charjax.errors import InputError

registry = ConstructorRegistry()


class Refused(Exception):
    """An InputError on its way through tyro, which catches every ValueError."""


@registry.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    kind, default = info.type, info.default
    if not (dataclasses.is_dataclass(default) and kind.__module__.startswith("charjax.")):
        return None

    def build(**values: Any) -> Any:
        try:
            return kind(**values)
        except InputError as error:
            raise Refused(error) from error

    # Each help text on one line, since a shell completes options line by line.
    docs = {
        doc.arg_name: " ".join((doc.description or "").split())
        for part in reversed(kind.__mro__[:-1])
        for doc in docstring_parser.parse_from_object(part).params
    }
    hints = typing.get_type_hints(kind, include_extras=True)
    return StructConstructorSpec(
        instantiate=build,
        fields=tuple(
            StructFieldSpec(name, hints[name], getattr(default, name), docs.get(name))
            for name in (field.name for field in dataclasses.fields(kind))
        ),
    )
