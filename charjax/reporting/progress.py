"""The progress of a run, or of reading a file, shown on standard error.

A bar on a terminal or in a notebook, otherwise a plain line now and then.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from charjax.reporting.display import Display
from charjax.reporting.lines import Lines
from charjax.reporting.notebook import Notebook, shell
from charjax.reporting.terminal import Terminal
from charjax.text.watch import Watch


class Progress:
    """The progress of a training run."""

    def __init__(self, display: Display, total: int, unit: str) -> None:
        self._display, self._total, self._times = display, total, _Times(total)
        self._unit = unit
        self.message = display.message

    def update(
        self, step: int, loss: float, in_bits: float, symbols_per_second: float
    ) -> None:
        """Show that `step` is done, its loss in nats per symbol, and the speed."""
        measured = (
            f"loss {loss:.4f}  {in_bits:.3f} bits/{self._unit}  "
            f"{_short(symbols_per_second)} {self._unit}/s  {self._times.after(step)}"
        )
        self._display.draw(step / self._total, f"step {step}/{self._total}", measured)


@contextlib.contextmanager
def progress(total: int, *, unit: str = "char", quiet: bool = False) -> Iterator[Progress]:
    """Shows the progress of a run of `total` steps; nothing at all if `quiet`.

    `unit` is what one symbol is called, char or byte.
    """
    with Display() if quiet else _suitable() as display:
        yield Progress(display, total, unit)


def reading(quiet: bool = False) -> contextlib.AbstractContextManager[Watch]:
    """Shows the reading of large files; nothing at all if `quiet`.

    Not in the first two seconds, so that small files are read in silence.
    """
    return _watching(_in_bytes, quiet)


def writing() -> contextlib.AbstractContextManager[Watch]:
    """Shows the writing of many texts, on a terminal only, and not in the first two
    seconds."""
    return _watching(_in_characters, not _on_terminal())


@contextlib.contextmanager
def _watching(far: Callable[[str, int, int], str], quiet: bool) -> Iterator[Watch]:
    began, shown, message = time.monotonic(), None, ""
    times: dict[str, _Times] = {}

    with contextlib.ExitStack() as stack:

        def watch(what: str, done: int, total: int) -> None:
            nonlocal shown, message
            time_left = times.setdefault(what, _Times(total))
            if quiet or (total and time.monotonic() - began < 2):
                return
            if shown is None:
                shown = stack.enter_context(_suitable(passing=True))
            if total:
                shown.draw(done / total, far(what, done, total), time_left.after(done))
            elif what != message:
                message = what
                shown.message(what)

        yield watch
        # Whoever works on is no longer shown.
        quiet = True


def _in_bytes(what: str, done: int, total: int) -> str:
    size, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{what}: {done / size:.1f} of {total / size:.1f} {unit}"


def _in_characters(what: str, done: int, total: int) -> str:
    return f"{what}: {done:,} of {total:,} characters"


def _suitable(passing: bool = False) -> Display:
    """The display that suits standard error; what is `passing` is shown sparingly."""
    if getattr(shell(), "kernel", None) is not None:
        return Notebook()
    return Terminal(passing) if _on_terminal() else Lines(apart=10 if passing else 2)


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _Times:
    """The time that has passed, and the time that is left."""

    def __init__(self, total: int) -> None:
        self._total, self._began = total, time.monotonic()
        self._since: tuple[int, float] | None = None

    def after(self, done: int) -> str:
        """As `1:40 < 14:59`, once so much of the total is done."""
        now = time.monotonic()
        # The first step waits for compilation, so the pace is counted from there.
        before, then = self._since = self._since or (done, now)
        elapsed = _clock(now - self._began)
        if done >= self._total:
            return elapsed
        if done == before:
            return f"{elapsed} < ?"
        left = (self._total - done) * (now - then) / (done - before)
        return f"{elapsed} < {_clock(left)}"


def _short(number: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
