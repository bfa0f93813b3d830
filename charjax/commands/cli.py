"""The `charjax` command: finds the commands and lets tyro read the arguments."""

import dataclasses
import difflib
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
from charjax.commands.signals import Signals
from charjax.errors import InputError


def main(argv: list[str] | None = None, only: str | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
      argv: the arguments; None takes the process's.
      only: the one command that there is, for a script of its own such as `train.py`.
    """
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda signals: _run(arguments, only, signals))


def found() -> dict[str, ModuleType]:
    """The commands by name.

    >>> sorted(found())
    ['evaluate', 'inspect', 'sample', 'train']
    """
    modules = {
        name: importlib.import_module(f"{commands.__name__}.{name}")
        for _, name, _ in pkgutil.iter_modules(commands.__path__)
    }
    return {name: module for name, module in modules.items() if hasattr(module, "Options")}


def _run(arguments: list[str], only: str | None, signals: Signals) -> int:
    if only is None and arguments == ["--version"]:
        print(f"charjax {charjax.__version__}")
        return 0
    options = _parsed(arguments) if only is None else _parsed_alone(only, arguments)
    return sys.modules[type(options).__module__].run(options, signals)


def _parsed_alone(name: str, arguments: list[str]) -> Any:
    command = importlib.import_module(f"{commands.__name__}.{name}")
    default, description = _defaults(command, arguments)
    return tyro.cli(
        command.Options, args=arguments, default=default, description=description
    )


def _parsed(arguments: list[str]) -> Any:
    known = found()
    name = arguments[0] if arguments else ""
    if name and not name.startswith("-") and name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
        raise InputError(f"there is no command {name!r}; {hint}")
    subcommands = []
    for each, command in known.items():
        default, description = command.Options(), _description(command).splitlines()[0]
        if each == name:
            default, description = _defaults(command, arguments[1:])
        subcommand = tyro.conf.subcommand(each, default=default, description=description)
        subcommands.append(Annotated[command.Options, subcommand])
    # A field, since tyro names the way to it where it refuses a value.
    union = Annotated[Union[tuple(subcommands)], tyro.conf.arg(name="")]  # noqa: UP007
    root = tyro.cli(
        dataclasses.make_dataclass("Root", [("charjax", union)]),
        args=arguments,
        prog="charjax",
        description="Character-level language models. --version prints the version.",
    )
    return root.charjax


def _defaults(module: ModuleType, arguments: list[str]) -> tuple[Any, str]:
    """What a command's options are where they are not given, and its description."""
    if not hasattr(module, "defaults"):
        return module.Options(), _description(module)
    default, note = module.defaults(arguments)
    return default, f"{_description(module)}\n\n{note}"


def _description(module: ModuleType) -> str:
    return inspect.getdoc(module.Options) or ""
