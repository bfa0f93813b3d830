"""What a person sees while a run goes on: a bar and messages, on standard error.

Standard output stays free. Nothing shown here can stop a run: characters a terminal
cannot show are replaced, control characters are spelt out, and a terminal that has gone
away is ignored.
"""

import contextlib
import html
import io
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, encoding: str | None = "utf-8") -> str:
    """Text that is safe to show: line ends and tabs stay, other controls are spelt out.

    >>> print(printable("a\\x1b[31m \\x00"))
    a\\x1b[31m \\x00
    >>> printable("naïve", "ascii")
    'na?ve'
    """
    shown = "".join(
        c.encode("unicode_escape").decode()
        if c not in "\n\t"
        and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDIRECTIONAL)
        else c
        for c in text.replace("\r\n", "\n")
    )
    encoding = encoding or "ascii"
    return shown.encode(encoding, "replace").decode(encoding)


def progress(total_steps: int, *, first_step: int = 0, quiet: bool = False) -> "Progress":
    """The display that suits where standard error leads; a context manager.

    A bar on a terminal or in a notebook, otherwise a plain line now and then. A run that
    is resumed starts at `first_step`; `quiet` shows nothing at all.
    """
    if quiet:
        return Progress(total_steps, first_step)
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if getattr(shell, "kernel", None) is not None:
        return _Notebook(total_steps, first_step)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _Terminal(total_steps, first_step)
    return _Lines(total_steps, first_step)


@contextlib.contextmanager
def reading(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A display for the reading of large files; a context manager.

    What it gives is to be told what is done, and how many bytes of how many are. Nothing
    is shown in the first two seconds, so that small files are read in silence.
    """
    began = shown = time.monotonic()
    bar: Any = None
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def watch(what: str, done: int, total: int) -> None:
        nonlocal bar, shown
        now = time.monotonic()
        if quiet or (total and now - began < 2):
            return
        with contextlib.suppress(OSError, ValueError):
            if on_terminal:
                bar = _byte_bar() if bar is None else bar
                bar.update(
                    bar.task_ids[0], description=what, completed=done, total=total or None
                )
            elif not total or now - shown > 10:
                shown = now
                far = f": {done / 1e9:.1f} of {total / 1e9:.1f} GB" if total else ""
                print(f"{what}{far}", file=sys.stderr, flush=True)

    try:
        yield watch
    finally:
        if bar is not None:
            bar.stop()


def _byte_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    terminal: Any = _Lenient(sys.stderr)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(file=terminal),
        transient=True,
    )
    bar.add_task("", total=None)
    bar.start()
    return bar


class Progress:
    """Shows nothing; the other displays are this one with something to see."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        self.total = total_steps
        self.step = first_step
        self._began = time.monotonic()
        self._first_update: tuple[int, float] | None = None

    def update(
        self, step: int, loss: float, bits_per_char: float, chars_per_second: float
    ) -> None:
        """Show that `step` is done, its loss in nats per character, and the speed."""
        now = time.monotonic()
        self.step = step
        if self._first_update is None:
            self._first_update = (step, now)
        measured = (
            f"loss {loss:.4f}  {bits_per_char:.3f} bits/char  "
            f"{_short(chars_per_second)} char/s"
        )
        with contextlib.suppress(OSError, ValueError):
            self._show(measured, self._times(now))

    def message(self, text: str) -> None:
        """Print text of any kind above the bar."""
        with contextlib.suppress(OSError, ValueError):
            self._print(text)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._end()

    def _show(self, measured: str, times: str) -> None:
        pass

    def _print(self, text: str) -> None:
        pass

    def _end(self) -> None:
        pass

    @property
    def _share(self) -> float:
        return min(1.0, self.step / max(1, self.total))

    def _times(self, now: float) -> str:
        # The first update waited for compilation, so the pace is counted from there.
        step, since = self._first_update or (self.step, now)
        elapsed = _clock(now - self._began)
        if self.step >= self.total:
            return elapsed
        if self.step == step:
            return f"{elapsed} < ?"
        left = (self.total - self.step) * (now - since) / (self.step - step)
        return f"{elapsed} < {_clock(left)}"


class _Lines(Progress):
    """A line for each twentieth of the run, or each half minute, two seconds apart."""

    _shown: tuple[float, float] | None = None

    def _show(self, measured: str, times: str) -> None:
        now, share = time.monotonic(), self._share
        if self._shown is not None and self.step < self.total:
            then, shown = self._shown
            if now - then < (2 if share - shown >= 0.05 else 30):
                return
        self._shown = (now, share)
        self._print(
            f"step {self.step}/{self.total} ({int(100 * share)}%)  {measured}  {times}"
        )

    def _print(self, text: str) -> None:
        print(printable(text, sys.stderr.encoding), file=sys.stderr, flush=True)


class _Terminal(Progress):
    """rich's bar, redrawn in place; messages scroll by above it."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        super().__init__(total_steps, first_step)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._encoding = sys.stderr.encoding
        terminal: Any = _Lenient(sys.stderr)
        console = Console(file=terminal, highlight=False)
        self._bar = Bar(
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}  {task.description}", markup=False),
            console=console,
            refresh_per_second=4,
            expand=True,
            # Standard output is not ours to send elsewhere.
            redirect_stdout=False,
        )
        self._task = self._bar.add_task(
            "compiling", total=total_steps, completed=first_step
        )

    def __enter__(self) -> Progress:
        with contextlib.suppress(OSError, ValueError):
            self._bar.start()
        return self

    def _show(self, measured: str, times: str) -> None:
        self._bar.update(
            self._task, completed=self.step, description=f"{measured}  {times}"
        )

    def _print(self, text: str) -> None:
        self._bar.console.print(
            printable(text, self._encoding),
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )

    def _end(self) -> None:
        self._bar.stop()


class _Notebook(Progress):
    """A bar of plain HTML, updated in place, without widgets; messages come below it."""

    _handle: Any = None
    _drawn = -1.0

    def _show(self, measured: str, times: str) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        now = time.monotonic()
        if now - self._drawn < 0.25 and self.step < self.total:
            return
        self._drawn = now
        caption = html.escape(f"{self.step}/{self.total}  {measured}  {times}")
        picture = HTML(
            f'<progress value="{self._share:.4f}" max="1" style="width:30%"></progress> '
            f'<code style="white-space:pre">{caption}</code>'
        )
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def _print(self, text: str) -> None:
        # A notebook shows standard error as if something had gone wrong.
        print(printable(text), flush=True)


class _Lenient(io.TextIOBase):
    """A terminal that drops what it cannot encode or no longer take."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding or "ascii"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _short(number: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
