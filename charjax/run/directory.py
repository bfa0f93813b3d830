"""The directory of a run: locked, the same for all processes, its checkpoints opened."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from charjax.devices import processes
from charjax.errors import InputError
from charjax.run.plan import Plan
from charjax.storage import run_directory
from charjax.storage.lock import lock, lock_holder
from charjax.storage.saver import Saver

# Seconds until a file that one process wrote must be visible to the others; NFS looks into
# a directory again after a minute.
PATIENCE = 75


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[None]:
    """Keeps other runs out of the directory, which all processes must see."""
    if plan.workdir is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with processes.all_or_none():
            if processes.is_first():
                stack.enter_context(lock(plan.workdir))
        _check_shared(plan.workdir)
        processes.check_agreement({"run in `workdir`": str(plan.resuming)})
        yield


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
def opened(plan: Plan) -> Iterator[Saver | None]:
    """The run's checkpoints, its directory made if it is new; the last save is on disk
    afterwards."""
    if plan.workdir is None:
        yield None
        return
    with processes.first_goes_ahead():
        if processes.is_first() and not plan.resuming:
            # Only now that nothing can be refused any more.
            if plan.fresh:
                run_directory.start_over(plan.workdir)
            own_text = plan.surveyed.bytes_to_keep()
            run_directory.create(plan.workdir, plan.config, own_text)
        sound = [] if plan.record is None else [plan.record.step]
        # What a killed run left is tidied up by the first, before the others read.
        saver = Saver(plan.workdir / run_directory.CHECKPOINTS, sound=sound)
    with saver:
        yield saver
