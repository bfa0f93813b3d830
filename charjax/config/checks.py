"""Checks of dataclass fields."""

import difflib
import os
import types
import typing
from typing import Any, Literal, NoReturn

from charjax.errors import InputError


def refuse(field: str, value: object, remedy: str) -> NoReturn:
    """Raises the InputError that names a field, its value and what to do."""
    raise InputError(f"{field} is {value!r}: {remedy}.")


def at_least(field: str, value: int, minimum: int) -> None:
    """Refuses a whole number below a minimum, or beyond what arrays count with."""
    if value < minimum:
        refuse(field, value, f"give a whole number of at least {minimum}")
    if value >= 2**31:
        refuse(field, value, f"give a whole number below {2**31}")


def unknown(field: str, known: list[str]) -> str:
    """The message about a field that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(field, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
    return f"{field}: there is no such field; {hint}"


def check_types(section: Any, prefix: str) -> None:
    """Refuses a dataclass whose values are not what its annotations say."""
    for name, hint in typing.get_type_hints(type(section)).items():
        value = _plain(getattr(section, name))
        object.__setattr__(section, name, value)
        # A whole number is a float for people who write presets and for JSON.
        if type(value) is int and _accepts(1.0, hint) and not _accepts(1, hint):
            object.__setattr__(section, name, value := float(value))
        if not _accepts(value, hint):
            field = f"{prefix}.{name}" if prefix else name
            refuse(field, value, f"expected {_describe(hint)}")


def _plain(value: Any) -> Any:
    """What people and libraries give for a plain value: NumPy numbers, paths, lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


def _accepts(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return any(_accepts(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_accepts(item, arguments[0]) for item in value)
        return all(type(item) in (int, float) for item in value)
    if hint is types.NoneType:
        return value is None
    return type(value) is hint


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is tuple:
        return "several strings" if arguments[-1] is Ellipsis else "three numbers"
    names: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string"}
    if hint is types.NoneType:
        return "None"
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
