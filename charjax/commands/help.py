"""`charjax help`: the same as `--help`."""

from dataclasses import dataclass

from tyro.conf import Positional

from charjax.commands import cli
from charjax.commands.signals import Signals


@dataclass(frozen=True)
class Options:
    """Show the commands, or the options of one."""

    command: Positional[str | None] = None
    """The command; all of them where none is given."""


EXAMPLES = ("charjax help train", "charjax help sample | less")


def run(options: Options, signals: Signals) -> int:
    """Prints help."""
    name = [options.command] if options.command else []
    return cli.run([*name, "--help"], None, signals)
