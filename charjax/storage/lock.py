"""One run at a time in a directory."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from charjax.errors import InputError

_LOCK = ".charjax-lock"


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keep other processes from writing to `workdir`; nothing of it stays behind.

    The directory is made if need be, and removed again if it is left empty. Raises
    InputError if another run has it, or if it cannot be written. Where the system has
    no file locks there is no protection.
    """
    workdir = workdir.absolute()
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(workdir, error) from error
        with _held(workdir / _LOCK):
            yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def lock_holder(workdir: Path) -> int:
    """The process that has the lock; 0 if nobody has."""
    try:
        return int((workdir / _LOCK).read_text("ascii"))
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:
        yield
        return
    while True:
        try:
            file = open(path, "a+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read() or "another one"
            raise InputError(
                f"{path.parent} is in use by process {holder}: wait for it, stop it, or "
                "choose another `workdir`."
            ) from None
        except OSError:
            # Some network file systems have no locks.
            pass
        # The holder before us may have removed the file between our open and our lock.
        if _is_at(path, file):
            break
        file.close()
    with file:
        try:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # Other hosts must see it too.
            os.fsync(file.fileno())
            yield
        finally:
            # Where the directory was renamed, another run may have one of that name now.
            if _is_at(path, file):
                path.unlink(missing_ok=True)


def _is_at(path: Path, file: IO[str]) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _unwritable(workdir: Path, error: OSError) -> InputError:
    at_fault = next(
        (
            path
            for path in (workdir, *workdir.parents)
            if os.path.lexists(path) and not path.is_dir()
        ),
        None,
    )
    if at_fault is not None:
        broken = "a link to nothing" if at_fault.is_symlink() else "not a directory"
        return InputError(
            f"{workdir} cannot be written, {at_fault} is {broken}: choose another "
            "`workdir`."
        )
    return InputError(
        f"{workdir} cannot be written, {error.strerror}: choose another `workdir`."
    )
