"""A new run in a directory that holds one: it grows beside the old one, and takes its place
once its first checkpoint is whole.

It is written to `.new`. Renaming that to `.taking` is the moment from which the new run
counts: a `.new` that is found later is thrown away. Then the old run's files are deleted,
and the new one's moved in, its config first. So wherever a kill or a loss of power comes:
while the config is in `.taking` nothing has been moved, and afterwards nothing is left to
delete. `run_directory.located` finds each file at every moment, and the next start of
training finishes what is half done.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from charjax.config.presets import SETTLED_BY_RUNS
from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.storage import run_directory
from charjax.storage.atomic import TEMPORARY, remove, sync
from charjax.storage.run_directory import CHECKPOINTS, CONFIG, TAKING, WRITTEN, located

NEW = ".new"
"""The folder in a run's directory in which the one that is to replace it grows."""


def is_unsettled(workdir: Path) -> bool:
    """Whether a run that was to replace another one left something half done."""
    return any(os.path.lexists(workdir / name) for name in (NEW, TAKING))


def settle(workdir: Path) -> None:
    """Finishes a replacement that had begun, and throws away a run that had not got so
    far; only for whoever holds the lock.

    Raises InputError for a folder of that name which is something else.
    """
    for name in (NEW, TAKING):
        _check_own(workdir / name)
    if (workdir / TAKING).exists():
        _move_in(workdir)
    remove(workdir / NEW)


def _check_own(folder: Path) -> None:
    known = {name + end for name in WRITTEN for end in ("", TEMPORARY)}
    other = None
    if folder.is_dir() and not folder.is_symlink():
        names = (path.name for path in folder.iterdir())
        # Some systems leave hidden files in every folder.
        others = sorted(name for name in names if name not in known and name[0] != ".")
        other = folder / others[0] if others else None
    elif os.path.lexists(folder):
        other = folder
    if other is not None:
        raise InputError(
            f"{other} is not a run's, and training would delete it: move it away, or "
            "choose another `workdir`."
        )


def take_place(workdir: Path) -> None:
    """Puts the run in `.new` in the place of the one in `workdir`."""
    sync(workdir / NEW)
    (workdir / NEW).rename(workdir / TAKING)
    sync(workdir)
    _move_in(workdir)


def _move_in(workdir: Path) -> None:
    taking = workdir / TAKING
    if (taking / CONFIG).exists():
        for name in WRITTEN:
            remove(workdir / name)
            remove(workdir / (name + TEMPORARY))
        sync(workdir)
    for name in WRITTEN:
        if (taking / name).exists():
            (taking / name).rename(workdir / name)
        if name == CONFIG:
            # Nothing else may have moved where this move was lost.
            sync(workdir)
            sync(taking)
    sync(workdir)
    remove(taking)


def own_config(workdir: Path) -> Config:
    """The config to start a run over with: its own, the lengths of its schedule open.

    Where `config.json` is damaged, it is that of the newest checkpoint that is not.
    Raises InputError where there is none either.
    """
    try:
        config = run_directory.read_config(workdir)
    except InputError as error:
        record = newest_record(workdir)
        if record is None:
            raise InputError(
                f"{error} There is no checkpoint that has the run's config, so give "
                "`config` or data.source with `fresh=True`."
            ) from error
        config = record.config
    return config.replace(**dict.fromkeys(SETTLED_BY_RUNS))


def description(workdir: Path) -> str:
    """The run in a directory, in a few words, as far as it can be read."""
    record, source = newest_record(workdir), "its text"
    with contextlib.suppress(InputError):
        source = " ".join(own_config(workdir).data.sources)
    if record is None:
        return f"the run in {workdir} (no checkpoint, text {source})"
    best = record.standing.best_loss
    loss = "never evaluated" if best is None else f"best loss {best:.4f}"
    return (
        f"the run in {workdir} (step {record.step:,}, {loss}, text {source}, "
        f"{record.text.length:,} {record.text.vocabulary.kind})"
    )


def newest_record(workdir: Path) -> Any:
    """The record of the newest checkpoint that is not damaged, or None."""
    # These import jax, which a command that only asks for a config need not wait for.
    from charjax.storage import record
    from charjax.storage.checkpoints import Checkpoints

    with contextlib.suppress(InputError, OSError):
        checkpoints = Checkpoints(located(workdir, CHECKPOINTS))
        newest = checkpoints.latest()
        return None if newest is None else record.read(checkpoints, newest)
    return None
