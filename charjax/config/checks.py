"""Checks of dataclass fields: declared beside the field, read by `check_fields`.

    >>> from dataclasses import dataclass
    >>> from typing import Annotated
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     length: Annotated[int, AtLeast(1)] = 100
    ...     def __post_init__(self):
    ...         check_fields(self)
    >>> Options(length=0)
    Traceback (most recent call last):
    charjax.errors.InputError: `length` is 0: give a whole number of at least 1.

A check is a frozen dataclass whose `remedy(value)` says what to give instead, and nothing
if the value is fine. It sees each item of a tuple (also of one in another), and never
None.
"""

import dataclasses
import errno
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from charjax.errors import InputError, suggestion

_LARGEST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True)
class AtLeast:
    """A whole number from `minimum` to `maximum`, which is what an int32 can count."""

    minimum: int
    maximum: int = 2**31 - 1

    def remedy(self, value: int) -> str:
        if value < self.minimum:
            return f"give a whole number of at least {self.minimum}"
        return f"give a whole number up to {self.maximum}" if value > self.maximum else ""


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1; `zero` and `one` say whether the ends are allowed."""

    zero: bool = True
    one: bool = True

    def remedy(self, value: float) -> str:
        if (0 < value < 1) or (self.zero and value == 0) or (self.one and value == 1):
            return ""
        low, high = "from" if self.zero else "above", "" if self.one else "below "
        return f"give a number {low} 0 to {high}1"


@dataclass(frozen=True)
class Positive:
    """A number above zero; `zero` allows zero too."""

    zero: bool = False

    def remedy(self, value: float) -> str:
        if value > 0 or (self.zero and value == 0):
            return ""
        return f"give {'0 or ' if self.zero else ''}a positive number"


@dataclass(frozen=True)
class NotEmpty:
    """At least one character."""

    def remedy(self, value: str) -> str:
        return "" if value else "give some text"


@dataclass(frozen=True)
class Encoding:
    """The name of a text encoding."""

    def remedy(self, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, UnicodeError):
            return "Python has no such encoding; try utf-8, latin-1 or cp1252"
        return ""


class Section:
    """A group of fields, shown as Python code without those that have their defaults."""

    def __repr__(self) -> str:
        fields, usual = dataclasses.fields(typing.cast(Any, self)), type(self)()
        changed = (
            f"{field.name}={value!r}"
            for field in fields
            if (value := getattr(self, field.name)) != getattr(usual, field.name)
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def check_fields(section: Any, prefix: str = "") -> None:
    """Checks a dataclass against its annotations: first the types, then the checks.

    NumPy numbers, paths, lists, and whole numbers where a float is expected become plain
    values first. Floats must be finite, also as float32. Raises InputError naming the first
    field that does not fit: `prefix.name`, or an argument where there is no prefix.
    """
    for name, hint in typing.get_type_hints(type(section), include_extras=True).items():
        field = f"{prefix}.{name}" if prefix else f"`{name}`"
        object.__setattr__(section, name, checked(field, getattr(section, name), hint))


def checked(field: str, value: Any, hint: Any) -> Any:
    """A value as a plain one, checked against an annotation as `check_fields` does.

    >>> checked("`length`", 3, Annotated[int, AtLeast(1)])
    3
    """
    annotated = typing.get_origin(hint) is Annotated
    hint, *checks = typing.get_args(hint) if annotated else (hint,)
    try:
        value = _plain(value, hint)
    except TypeError:
        refuse(field, value, "JAX traces it, and its value must be known: make it static")
    if not _accepts(value, hint):
        refuse(field, value, f"expected {describe(hint)}")
    for item in _items(value):
        if isinstance(item, float) and not abs(item) <= _LARGEST_FLOAT32:
            refuse(field, value, "give a finite number, up to 3.4e38")
        for check in checks if item is not None else ():
            if remedy := check.remedy(item):
                optional = ", or None" if _accepts(None, hint) else ""
                refuse(field, value, remedy + optional)
    return value


def checked_path(name: str, value: Any) -> Path:
    """The path in an argument: a string or a path.

    >>> checked_path("workdir", "runs/mine").name
    'mine'
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        refuse(f"`{name}`", value, "expected a path, as a string or a pathlib.Path")
    try:
        os.lstat(value)
    except ValueError:
        refuse(f"`{name}`", value, "a path has no NUL character")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            refuse(f"`{name}`", value, "no path is that long; is it a text?")
    return Path(value)


def check_instance(
    name: str, value: Any, kind: type | tuple[type, ...], hint: str = ""
) -> None:
    """Refuses an argument of another class; `hint` says more about where to get one.

    >>> check_instance("config", "anna", dict)
    Traceback (most recent call last):
    charjax.errors.InputError: `config` is 'anna': expected a dict.
    """
    if not isinstance(value, kind):
        wanted = " or ".join(
            _NAMES.get(each, f"a {each.__name__}")
            for each in (kind if isinstance(kind, tuple) else (kind,))
        )
        refuse(f"`{name}`", value, f"expected {wanted}{hint and ', '}{hint}")


def check_same(
    verb: str, found: Mapping[str, str], expected: Mapping[str, str], message: str
) -> None:
    """Refuses values that differ from those of the same name; `verb` says where they are
    from, and the first differences follow the message."""
    differences = [
        f"{name}: {verb} {found.get(name, 'nothing')}, "
        f"expected {expected.get(name, 'nothing')}"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]
    if differences:
        shown = differences[:10]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        raise InputError(f"{message}\n  " + "\n  ".join(shown))


def _items(value: Any) -> Iterator[Any]:
    """What is in a tuple, and in the tuples in it; any other value alone."""
    if not isinstance(value, tuple):
        yield value
        return
    for item in value:
        yield from _items(item)


def refuse(field: str, value: object, remedy: str) -> NoReturn:
    """Raises the InputError that names a field, its value and what to do."""
    raise InputError(f"{field} is {shown(value)}: {remedy}.")


def shown(value: Any) -> str:
    """As Python shows it; of an array type and shape, of what is long the beginning."""
    if hasattr(value, "dtype") and getattr(value, "shape", ()) != ():
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    try:
        text = " ".join(line.strip() for line in repr(value).splitlines())
    except ValueError:
        # Python shows no number of more than 4,300 digits.
        return "a number too long to show"
    if isinstance(value, Mapping) and len(text) > 200:
        text = f"a {type(value).__name__} of {', '.join(map(repr, value))}"
    return text if len(text) <= 200 else f"{text[:200]} ..."


def unknown(field: str, known: Iterable[str]) -> InputError:
    """The error about a field that does not exist, naming the closest one that does."""
    return InputError(f"{field}: there is no such field; {suggestion(field, known)}")


def _plain(value: Any, hint: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        tuples = (kind for kind in kinds(hint) if typing.get_origin(kind) is tuple)
        of_item = typing.get_args(next(tuples, None))
        return tuple(_plain(item, of_item and of_item[0]) for item in value)
    if type(value) is int and float in kinds(hint) and int not in kinds(hint):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def _accepts(value: object, hint: Any) -> bool:
    return any(_accepts_kind(value, kind) for kind in kinds(hint))


def _accepts_kind(value: object, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple) or not value:
            return False
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        return len(value) == len(arguments) and all(map(_accepts, value, arguments))
    return type(value) is kind


def kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type that there is."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


_NAMES: dict[Any, str] = {
    **{int: "a whole number", float: "a number", str: "a string"},
    **{bool: "True or False", types.NoneType: "None", bytes: "bytes"},
}


def describe(hint: Any) -> str:
    """What a value of a type is, in words.

    >>> describe(float | None)
    'a number or None'
    """
    return " or ".join(_describe_kind(kind) for kind in kinds(hint))


def _describe_kind(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is tuple:
        if typing.get_origin(arguments[0]) is Literal:
            return _describe_kind(arguments[0]).replace("one of", "some of", 1)
        several = {str: "several strings", float: "three numbers"}
        return several.get(arguments[0], "pairs of whole numbers")
    return _NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")
