"""The `charjax` command: finds the commands and lets tyro read the arguments."""

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType
from typing import Annotated, Any, Union

import tyro

import charjax
from charjax import commands
from charjax.commands.exit_codes import exit_code
from charjax.commands.fields import Refused, registry
from charjax.errors import InputError, suggestion


def main(argv: list[str] | None = None, only: str | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
      argv: the arguments; None takes the process's.
      only: the one command that there is, for a script such as `train.py`.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if only is None and arguments == ["--version"]:
        print(f"charjax {charjax.__version__}")
        return 0

    def run(signals: Any) -> int:
        try:
            options = _parsed_alone(arguments, only) if only else _parsed(arguments)
        except Refused as error:
            raise error.args[0] from None
        return sys.modules[type(options).__module__].run(options, signals)

    return exit_code(run)


def found() -> dict[str, ModuleType]:
    """The commands by name.

    >>> list(found())
    ['evaluate', 'inspect', 'sample', 'train']
    """
    modules = {
        name: importlib.import_module(f"{commands.__name__}.{name}")
        for _, name, _ in pkgutil.iter_modules(commands.__path__)
    }
    return {name: module for name, module in modules.items() if hasattr(module, "Options")}


def _parsed_alone(arguments: list[str], name: str) -> Any:
    command = found()[name]
    shown = _defaults(command, arguments)
    return tyro.cli(command.Options, args=arguments, registry=registry, **shown)


def _parsed(arguments: list[str]) -> Any:
    known, name = found(), arguments[0] if arguments else "--help"
    if name not in known and not name.startswith("-"):
        raise InputError(f"there is no command {name!r}; {suggestion(name, known)}")
    subcommands = []
    for each, command in known.items():
        first_line = inspect.cleandoc(command.Options.__doc__).partition("\n")[0]
        shown: dict[str, Any] = {"description": first_line}
        if each == name:
            shown = _defaults(command, arguments[1:])
        subcommand = tyro.conf.subcommand(each, **shown)
        subcommands.append(Annotated[command.Options, subcommand])
    return tyro.cli(
        Union[tuple(subcommands)],  # pyright: ignore # noqa: UP007
        args=arguments,
        prog="charjax",
        description="Character-level language models. --version prints the version.",
        registry=registry,
    )


def _defaults(command: ModuleType, arguments: list[str]) -> dict[str, Any]:
    """What a command's options are where they are not given, and its description."""
    description = inspect.cleandoc(command.Options.__doc__)
    if not hasattr(command, "defaults"):
        return {"description": description}
    default, note = command.defaults(arguments)
    return {"default": default, "description": f"{description}\n\n{note}"}
