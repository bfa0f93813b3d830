"""`charjax version`: the same as `--version`."""

from dataclasses import dataclass

import charjax
from charjax.commands.signals import Signals


@dataclass(frozen=True)
class Options:
    """Print the version."""


EXAMPLES = ("charjax version", "charjax --version")


def run(_: Options, __: Signals) -> int:
    """Prints the version."""
    print(f"charjax {charjax.__version__}")
    return 0
