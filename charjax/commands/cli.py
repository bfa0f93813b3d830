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
from charjax.commands.fields import WrongUsage, read
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
        except WrongUsage as error:
            command = next((name for name in found() if arguments[:1] == [name]), "")
            called = f"python {only}.py" if only else f"charjax {command}".rstrip()
            raise InputError(f"{error}\nSee {called} --help.") from None
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
    return read(command.Options, arguments, **_shown(command, arguments))


def _parsed(arguments: list[str]) -> Any:
    known, name = found(), arguments[0] if arguments else "--help"
    if name not in known and not name.startswith("-"):
        raise WrongUsage(f"there is no command {name!r}; {suggestion(name, known)}")
    subcommands = []
    for each, command in known.items():
        shown = _shown(command, arguments[1:] if each == name else None)
        subcommand = tyro.conf.subcommand(each, **shown)
        subcommands.append(Annotated[command.Options, subcommand])
    return read(
        Union[tuple(subcommands)],  # pyright: ignore # noqa: UP007
        arguments,
        prog="charjax",
        description="Character-level language models. --version prints the version.",
    )


def _shown(command: ModuleType, arguments: list[str] | None) -> dict[str, Any]:
    """What `--help` says of a command, and its defaults if it is the one called."""
    description = inspect.cleandoc(command.Options.__doc__)
    if arguments is None or not hasattr(command, "defaults"):
        return {"description": description}
    default, source = command.defaults(arguments)
    note = f"Defaults are those of {source}."
    return {"default": default, "description": f"{description}\n\n{note}"}
