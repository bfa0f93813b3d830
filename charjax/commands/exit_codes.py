"""Turns what a command raises into one line on standard error and an exit code."""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable

from charjax.commands.absent_tpu import answer_for_absent_tpu
from charjax.commands.allocator import keep_freed_memory
from charjax.commands.signals import Signals, collected
from charjax.commands.streams import reliable
from charjax.errors import Diverged, InputError

# Seconds by which the first of several processes outlives the others.
_GRACE = 2


def exit_code(command: Callable[[Signals], int]) -> int:
    """Runs a command; returns its exit code.

    0 done; 1 a failure of the system; 2 wrong usage, config or input; 3 training diverged;
    128 and the signal's number after a signal.
    """
    keep_freed_memory()
    answer_for_absent_tpu()
    with reliable():
        code = _attempt(command)
    if code:
        _leave_the_others(code)
    return code


def _attempt(command: Callable[[Signals], int]) -> int:
    try:
        with collected() as signals:
            try:
                return command(signals)
            finally:
                # Here, where a closed pipe is caught, rather than when Python ends.
                sys.stdout.flush()
    except InputError as error:
        return _failed(as_options(str(error)), 2)
    except Diverged as error:
        return _failed(error, 3)
    except FloatingPointError as error:
        # Raised by JAX where it was told to look for numbers that are not finite.
        remedy = "unset JAX_DEBUG_NANS and JAX_DEBUG_INFS to have such an update skipped"
        return _failed(f"{error}: {remedy}.", 3)
    except BrokenPipeError:
        # Whoever read our output has enough; keep the interpreter from complaining when
        # it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:
        return _failed(error if str(error) else "out of memory", 1)
    except Exception as error:
        if _while_jax_starts(error):
            return _failed(_refused_by_jax(error), 2)
        from charjax.devices import processes
        from charjax.storage.failures import reason_for

        if not processes.is_lost_process(error):
            raise
        reason = (
            f"the other processes do not answer ({reason_for(error)}): if one of them "
            "ended, start all again, and the run goes on from its last checkpoint."
        )
        return _failed(reason, 1)


def _while_jax_starts(error: Exception) -> bool:
    """Whether JAX raised it when it was imported, for what its variables are set to."""
    rooms = (
        str(frame.f_globals.get("__name__")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    return isinstance(error, ValueError) and "jax" not in sys.modules and "jax" in rooms


def _refused_by_jax(error: Exception) -> str:
    names = ", ".join(sorted(name for name in os.environ if name.startswith("JAX_")))
    return f"JAX does not start: {error}. Look at the variables set for it: {names}."


def as_options(message: str) -> str:
    """A message of the library, which names arguments, as one that names options.

    >>> as_options("give another `workdir`, or `fresh=True`, or `on_unknown='skip'`.")
    'give another --workdir, or --fresh, or --on-unknown skip.'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found["name"], (found["value"] or "").strip("'")
        # Fields of a config are written the same everywhere.
        name = name if "." in name else name.replace("_", "-")
        return f"--{name}" if value in ("", "True") else f"--{name} {value}"

    return re.sub(r"`(?P<name>[\w.]+)(=(?P<value>\w+|'[^'`]*'))?`", option, message)


def _failed(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _leave_the_others(code: int) -> None:
    """Ends one of several processes at once: leaving in good order would wait for the
    others, who wait for us."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return
    sys.stderr.flush()
    if jax.process_count() > 1 and jax.process_index() == 0:
        # The runtime ends the others as soon as the first is gone; they report first.
        time.sleep(_GRACE)
    os._exit(code)
