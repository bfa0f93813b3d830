"""The options of every command that reads a run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from charjax.errors import InputError
from charjax.storage import run_directory

RUNS = Path("runs")

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option that is on where it is given, without a value."""


@dataclass(frozen=True)
class OfRun:
    """Which run, and which of its checkpoints."""

    workdir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The run; the default is the newest in runs/."""

    step: str = "best"
    """Which checkpoint: best, latest, or the number of a step on disk."""

    def directory(self) -> Path:
        """The run's directory. Raises InputError if none is given and there is no run."""
        return self.workdir or run_directory.newest_run(RUNS)


@contextlib.contextmanager
def source_named() -> Iterator[None]:
    """Names the place of a run's text in messages as it is where a run is trained."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("`source", "`data.source")) from error
