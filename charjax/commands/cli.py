"""The `charjax` command: finds the commands and lets tyro read the arguments."""

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType
from typing import Annotated, Any, Union

import tyro

from charjax import commands
from charjax.commands import peers
from charjax.commands.exit_codes import exit_code
from charjax.commands.fields import WrongUsage, options, read
from charjax.commands.signals import Signals
from charjax.errors import InputError, suggestion


def main(argv: list[str] | None = None, only: str | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
      argv: the arguments; None takes the process's.
      only: the one command that there is, for a script such as `train.py`.
    """
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda signals: run(arguments, only, signals))


def run(arguments: list[str], only: str | None, signals: Signals) -> int:
    """Finds the command, reads its options and runs it."""
    if only is None and arguments in ([], ["--version"], ["-V"]):
        arguments = ["version"] if arguments else ["--help"]
    if only is None and arguments[:1] == ["help"] and len(arguments) > 2:
        # The defaults that help shows are those of the options beside it.
        arguments = [*arguments[1:], "--help"]
    called = only or next((name for name in found() if arguments[:1] == [name]), None)
    program = f"python {only}.py" if only else f"charjax {called or ''}".rstrip()
    try:
        read_options = _read_alone(arguments, only) if only else _read(arguments)
    except WrongUsage as error:
        said = str(error)
        own = options(found()[called].Options) if called else ()
        if remedies := peers.remedies(called or "", error.unknown, own):
            # In place of guesses by the words' letters.
            said = "\n".join([said.partition("\n")[0], *remedies])
        raise InputError(f"{said}\nSee {program} --help.") from None
    except SystemExit:
        # Help was printed. tyro would fill lines with these.
        examples = getattr(found().get(called or ""), "EXAMPLES", ())
        if examples and {"-h", "--help"} & {*arguments}:
            print("Examples:")
            for example in examples:
                print("   ", example.replace(f"charjax {called}", program))
        raise
    return sys.modules[type(read_options).__module__].run(read_options, signals)


def found() -> dict[str, ModuleType]:
    """The commands by name.

    >>> list(found())
    ['compile', 'completion', 'evaluate', 'help', 'inspect', 'sample', 'train', 'version']
    """
    modules = {
        name: importlib.import_module(f"{commands.__name__}.{name}")
        for _, name, _ in pkgutil.iter_modules(commands.__path__)
    }
    return {name: module for name, module in modules.items() if hasattr(module, "Options")}


def _read_alone(arguments: list[str], name: str) -> Any:
    command = found()[name]
    return read(command.Options, arguments, **_shown(command, arguments))


def _read(arguments: list[str]) -> Any:
    known, name = found(), arguments[0]
    if name not in known and not name.startswith("-"):
        ours = peers.command_for(name)
        remedy = f"it is {ours} here." if ours else suggestion(name, known)
        raise WrongUsage(f"there is no command {name!r}; {remedy}")
    subcommands = []
    for each, command in known.items():
        shown = _shown(command, arguments[1:] if each == name else None)
        subcommand = tyro.conf.subcommand(each, **shown)
        subcommands.append(Annotated[command.Options, subcommand])
    return read(
        Union[tuple(subcommands)],  # pyright: ignore # noqa: UP007
        arguments,
        prog="charjax",
        description="Character-level language models. charjax help COMMAND shows more.",
    )


def _shown(command: ModuleType, arguments: list[str] | None) -> dict[str, Any]:
    """What `--help` says of a command, and its defaults if it is the one called."""
    description = inspect.cleandoc(command.Options.__doc__)
    if arguments is None or not hasattr(command, "defaults"):
        return {"description": description}
    default, source = command.defaults(arguments)
    note = f"Defaults are those of {source}."
    return {"default": default, "description": f"{description}\n\n{note}"}
