"""A model saved by itself: a folder that is one step of a run, without the run.

It holds `params`, `record` and the manifest (`step.py`), no optimizer and no carry. The new
model is written to `NAME.charjax-saving` beside it, and an earlier one goes there before
the new one comes out, so that there is a whole model at any moment.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from charjax.config.checks import checked_path
from charjax.errors import InputError
from charjax.storage import manifest, run_directory
from charjax.storage.atomic import remove, sync
from charjax.storage.checkpoints import Checkpoints, Which
from charjax.storage.failures import reason_for
from charjax.storage.saver import Saver
from charjax.storage.step import RECORD, read_record

_NEW, _OLD = "0", "old"


class SavedModel(Checkpoints):
    """The one step that a saved model is, to read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._step = 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            self._step = int(read_record(self.directory)["step"])

    def path(self, step: int) -> Path:
        return self.directory

    def steps(self) -> list[int]:
        return [self._step]

    def resolve(self, which: Which, *, strict: bool = False) -> int:
        if reason := self.damage(self._step):
            raise InputError(
                f"the model in {self.directory} is damaged ({reason}): save it again, or "
                "restore it from a copy."
            )
        if str(which) not in ("best", "latest", str(self._step)):
            raise InputError(
                f"`step` is {which}: the model in {self.directory} is that of step "
                f"{self._step}, and there is no other."
            )
        return self._step


def found(path: Path) -> Path | None:
    """The folder of the model that was saved at a path; None if there is none."""
    if not path.exists() and (left := _left(path)) is not None:
        return left
    # Two of the three, so that one where something is missing is called damaged.
    names = (manifest.NAME, RECORD, "params")
    return path if sum((path / name).exists() for name in names) >= 2 else None


def check_none(workdir: Path) -> None:
    """Refuses to begin a run where a model is saved."""
    if found(workdir) is not None:
        raise InputError(
            f"`workdir` is {workdir}: it holds a saved model, which has no optimizer to go "
            "on with; start another run from it with train.init_from."
        )


def reading(workdir: str | Path, step: Which, read: Callable[..., Any]) -> Any:
    """What `read(checkpoints, step)` makes of the step, of a run or a saved model, that is
    meant.

    Another run may take the place of a run meanwhile; then it is done again. Raises
    InputError where there is neither.
    """
    workdir = checked_path("workdir", workdir)
    if not run_directory.holds_run(workdir):
        if (folder := found(workdir)) is None:
            raise InputError(
                f"{workdir} holds no run and no saved model: give the directory that "
                "training wrote to, such as runs/default."
            )
        checkpoints = SavedModel(folder)
        return checkpoints.reading(step, functools.partial(read, checkpoints))
    while True:
        folder = run_directory.located(workdir, run_directory.CHECKPOINTS)
        try:
            checkpoints = Checkpoints(folder)
            return checkpoints.reading(step, functools.partial(read, checkpoints))
        except (InputError, FileNotFoundError):
            if folder == run_directory.located(workdir, run_directory.CHECKPOINTS):
                raise


def save(path: Path, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Saves the items and record of a model at a path, in place of an earlier one.

    Killed at any moment, the earlier one is there or the new one. Raises InputError where
    the path holds anything else, OSError where it cannot be written.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"`path` is {path}: several processes train together; save the model in one of "
            "its own, from the run's directory."
        )
    # A link stays, and what it leads to is replaced.
    path = path.resolve()
    _check_replaceable(path)
    working = _working(path)
    try:
        run_directory.make_directory(path.parent)
        _settle(path)
        with Saver(working) as saver:
            saver.save(int(_NEW), items, record)
        if path.exists():
            path.rename(working / _OLD)
        (working / _NEW).rename(path)
        sync(path.parent)
        remove(working)
    except OSError as error:
        with contextlib.suppress(OSError):
            _settle(path)
        raise OSError(f"no model was saved at {path}: {reason_for(error)}") from error


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"`path` is {path}: there is a file; give another folder.")
    folders = {child.name for child in path.iterdir() if child.is_dir()}
    others = manifest.unlisted(path) + sorted(folders - {RECORD, "params"})
    if others:
        raise InputError(
            f"`path` is {path}: the folder holds something else ({others[0]}); give a new "
            "one, or one that an earlier save wrote."
        )


def _working(path: Path) -> Path:
    return path.with_name(path.name + ".charjax-saving")


def _left(path: Path) -> Path | None:
    """The model that a save left beside a path when it was killed between two renames."""
    new, old = _working(path) / _NEW, _working(path) / _OLD
    if new.is_dir() and manifest.damage(new) is None:
        return new
    return old if old.is_dir() else None


def _settle(path: Path) -> None:
    """Finishes or removes what a save that was killed left."""
    if not path.exists() and (left := _left(path)) is not None:
        left.rename(path)
        sync(path.parent)
    remove(_working(path))
