"""What processes that train together must agree on before the first of them writes."""

import hashlib
import time
from pathlib import Path

import jax

from charjax.config.schema import flatten
from charjax.devices import processes
from charjax.errors import InputError
from charjax.run.plan import Plan
from charjax.storage.digest import digest
from charjax.storage.lock import lock_holder

# Seconds until a file that one process wrote must be visible to the others; NFS looks into
# a directory again after a minute.
PATIENCE = 75


def check_plan(plan: Plan) -> None:
    """Refuses processes that plan different runs."""
    fields = {name: _digest(repr(value)) for name, value in flatten(plan.config)}
    origin = "" if plan.origin is None else digest({"params": plan.origin})
    processes.check_agreement(
        {
            **fields,
            "text": plan.surveyed.text.fingerprint,
            "model in train.init_from": _digest(origin),
        }
    )


def check_directory(workdir: Path, resuming: bool) -> None:
    """Refuses a directory that is not the same one, or looks different, to a process."""
    holder = processes.from_first(lock_holder(workdir))
    deadline = time.monotonic() + PATIENCE
    with processes.all_or_none():
        # Some file systems show a new file to other hosts only after a while.
        while lock_holder(workdir) != holder:
            if time.monotonic() > deadline:
                raise InputError(
                    f"--workdir is {workdir}: process {jax.process_index()} does not see "
                    "there what process 0 has just written: put it on a file system that "
                    "all processes share."
                )
            time.sleep(0.2)
    processes.check_agreement({"run in --workdir": _digest(str(resuming))})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
