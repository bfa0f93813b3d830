"""The directory of a run: locked, the same for all processes, its checkpoints opened."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from charjax.devices import processes
from charjax.errors import DirectoryGone, InputError
from charjax.run.plan import Plan
from charjax.storage import replacement, run_directory
from charjax.storage.lock import lock, lock_holder
from charjax.storage.place import Place
from charjax.storage.saver import Saver

# Seconds until a file that one process wrote must be visible to the others; NFS looks into
# a directory again after a minute.
PATIENCE = 75


def settle(workdir: Path | None) -> None:
    """Finishes, or throws away, what a killed run that was to replace another one left."""
    with processes.first_goes_ahead():
        if workdir is None or not processes.is_first():
            return
        if replacement.is_unsettled(workdir):
            with lock(workdir):
                replacement.settle(workdir)


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[Place | None]:
    """Keeps other runs out of the directory, which all processes must see."""
    if plan.workdir is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        with processes.all_or_none():
            if processes.is_first():
                stack.enter_context(lock(plan.workdir))
        _check_shared(plan.workdir)
        found = f"{plan.resuming} {plan.replaced}"
        processes.check_agreement({"run in `workdir`": found})
        yield Place(plan.workdir, replaces=plan.replaced is not None)


def _check_shared(workdir: Path) -> None:
    """Refuses a directory that is not the same one to every process."""
    holder = processes.from_first(lock_holder(workdir))
    deadline = time.monotonic() + PATIENCE
    with processes.all_or_none():
        # Some file systems show a new file to other hosts only after a while.
        while lock_holder(workdir) != holder:
            if time.monotonic() > deadline:
                raise InputError(
                    f"`workdir` is {workdir}: process {jax.process_index()} does not see "
                    "there what process 0 has just written: put it on a file system that "
                    "all processes share."
                )
            time.sleep(0.2)


@contextlib.contextmanager
def opened(plan: Plan, place: Place | None) -> Iterator[Saver | None]:
    """The run's checkpoints, its files begun if it is new; the last save is on disk
    afterwards, or nothing is left of a run that did not come to replace another one."""
    if place is None:
        yield None
        return
    with processes.first_goes_ahead():
        if processes.is_first() and not plan.resuming:
            # Only now that nothing can be refused any more.
            own_text = plan.surveyed.bytes_to_keep()
            run_directory.create(place.files, plan.config, own_text)
        sound = [] if plan.record is None else [plan.record.step]
        # What a killed run left is tidied up by the first, before the others read.
        saver = Saver.at(place, sound=sound)
    try:
        with saver:
            yield saver
    except DirectoryGone as error:
        kept = "no checkpoint had been saved"
        if saver.saved is not None:
            kept = f"its last checkpoint is step {saver.saved:,}; if it was renamed, "
            kept += "training goes on from there under its new name"
        raise DirectoryGone(f"{error}; {kept}.") from error
    finally:
        if place.grows and processes.is_first() and place.is_there():
            with contextlib.suppress(OSError, InputError):
                replacement.settle(place.workdir)


def take_place(saver: Saver) -> None:
    """Puts a run in the place of the one that it replaces, if it has a checkpoint; all
    processes must ask, while none is being saved."""
    place = saver.place
    assert place is not None
    if not processes.from_first(int(processes.is_first() and bool(saver.steps()))):
        return
    with processes.first_goes_ahead():
        if processes.is_first():
            try:
                replacement.take_place(place.workdir)
            except OSError as error:
                raise OSError(
                    f"the new run in {place.workdir} cannot take the place of the old one: "
                    f"{error.strerror}; training there finishes it once that is mended."
                ) from error
    place.grows = False
    saver.directory = place.files / run_directory.CHECKPOINTS
