"""Saving checkpoints in the background, while training goes on."""

import contextlib
import functools
import gc
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from charjax.devices import processes
from charjax.errors import DirectoryGone
from charjax.storage import arrays, manifest, retention
from charjax.storage.atomic import remove, sync
from charjax.storage.checkpoints import Checkpoints, warn
from charjax.storage.failures import reason_for
from charjax.storage.lock import lock_holder
from charjax.storage.place import Place
from charjax.storage.run_directory import CHECKPOINTS
from charjax.storage.step import FORMAT, RECORD, SAVING


class Saver(Checkpoints):
    """The checkpoints of a run that is training; a context manager.

    The directory is made if need be, and what a killed run left there is tidied up.
    Saving goes on in the background; leaving the context waits for the last save, also
    when an exception is on its way. Damaged steps are never deleted. Among processes that
    train together all must call `save` and `wait`; the first one alone renames and
    deletes.
    """

    def __init__(
        self, directory: Path, *, sound: Iterable[int] = (), place: Place | None = None
    ) -> None:
        self.place = place
        self.saved = max(sound := list(sound), default=None)
        """The newest step known to be whole on disk."""
        if not directory.is_file():
            directory.mkdir(parents=True, exist_ok=True)
            sync(directory.parent)
        super().__init__(directory, sound=sound)
        if processes.is_first():
            self._damage |= dict.fromkeys(retention.tidy(self.directory))
        self._tried: int | None = None
        self._pending: tuple[int, Future[str | None]] | None = None
        self._background = ThreadPoolExecutor(1, "charjax-save")
        self._writer = arrays.writer()
        self.failures = 0
        """Saves that failed since the last one that did not."""

    @classmethod
    def at(cls, place: Place, *, sound: Iterable[int] = ()) -> "Saver":
        """The checkpoints of the run that trains there."""
        return cls(place.files / CHECKPOINTS, sound=sound, place=place)

    @property
    def replaces(self) -> bool:
        """Whether the run has yet to take the place of another one."""
        return self.place is not None and self.place.grows

    def save(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Start saving a step; return once the arrays may be overwritten or donated.

        The save before it is waited for first. A step already on disk is replaced: the
        old one stays until the new one is complete. Raises OSError if this save cannot
        start or the one before it failed; the steps on disk stay as they were, and
        saving may be tried again.
        """
        self.wait()
        # In every process, though only the first puts the new one in its place.
        self._damage.pop(step, None)
        self._tried = step
        path, values = self._working(step), {RECORD: {**record, "format": FORMAT}}

        def begin() -> None:
            if processes.is_first():
                # One that could not be installed: Orbax would refuse to write there.
                remove(path)
            arrays.begin_writing(self._writer, path, items, values)

        if (reason := _failing(begin)) is not None:
            raise self._failure(step, reason)
        finish = functools.partial(self._finish, step)
        self._pending = step, self._background.submit(_failing, finish)

    def poll(self) -> None:
        """Raise OSError if a save has failed since; return at once."""
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Return once the last save is on disk and verified, and older steps retired.

        The best step and the newest stay, so two are usually left. Raises OSError if
        the save failed.
        """
        if self._pending is None:
            return
        (step, finished), self._pending = self._pending, None
        if (reason := finished.result()) is not None:
            raise self._failure(step, reason)
        self.failures = 0

    def _finish(self, step: int) -> None:
        self._writer.wait_until_finished()
        if not processes.is_first():
            return
        if self.place is not None:
            # Orbax makes a folder that is gone again.
            self.place.check()
        manifest.seal(self._working(step))
        if (reason := manifest.damage(self._working(step))) is not None:
            raise OSError(f"what was written cannot be read back: {reason}")
        retention.install(self.directory, step)
        self._damage[step], self.saved = None, step
        try:
            self._retire_all_but(step)
        except OSError as error:
            # This step is whole and in its place; the old ones go another time.
            warn(f"an older checkpoint cannot be deleted: {reason_for(error)}")

    def _retire_all_but(self, saved: int) -> None:
        """Deletes the steps that are neither just saved, nor the newest, nor the best.

        Damaged steps stay, for a person to look at.
        """
        kept = {saved, self.latest(), self.best()}
        for step in self.steps():
            if step not in kept and not self.damage(step):
                retention.retire(self.path(step))

    def _failure(self, step: int, reason: str) -> OSError:
        # A failed save leaves Orbax's threads in an unknown state.
        self._writer = arrays.writer()
        self.failures += 1
        # What is abandoned would complain when Python ends, past every hook.
        gc.collect()
        if processes.is_first():
            with contextlib.suppress(OSError):
                self._clear_away(step)
        return OSError(
            f"checkpoint step {step} was not saved in {self.directory}: {reason}"
        )

    def _clear_away(self, step: int) -> None:
        """Removes what a failed save left, whose room the next one needs."""
        place = self.place
        if place is None or place.is_there():
            retention.remove_unfinished(self.directory)
        elif not lock_holder(place.workdir):
            for path in self.directory.glob(f"{step}{SAVING}*"):
                remove(path)
            # Made again by that save, and empty unless they are somebody else's by now.
            for folder in (self.directory, *self.directory.parents):
                folder.rmdir()
                if folder == place.workdir:
                    break

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if error is not None and processes.is_lost_process(error):
            # A save would wait for that process in vain.
            return
        try:
            self.wait()
        except OSError as failure:
            if error is None:
                raise
            # Not in place of the error that is on its way.
            if not isinstance(error, DirectoryGone):
                warn(str(failure))
        finally:
            self._background.shutdown()
            self._writer.close()
            if isinstance(error, DirectoryGone) and self._tried is not None:
                # What was abandoned may go on for a while.
                for pause in (0.0, 0.2, 0.8):
                    time.sleep(pause)
                    with contextlib.suppress(OSError):
                        self._clear_away(self._tried)

    def _working(self, step: int) -> Path:
        path = self.path(step)
        return path.with_name(path.name + SAVING)


def _failing(action: Callable[[], None]) -> str | None:
    """Why an action fails, in one line; None if it does not."""
    try:
        action()
    except Exception as error:
        if processes.is_lost_process(error):
            raise
        # No more than that, since the traceback keeps abandoned work alive.
        return reason_for(error)
    return None
