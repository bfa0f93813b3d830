"""A bar on a terminal, redrawn in place; messages scroll by above it."""

import sys
from typing import Any

from charjax.reporting.display import Display, Lenient, printable


class Terminal(Display):
    """rich's bar, on standard error; `passing` bars leave nothing behind."""

    def __init__(self, passing: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        terminal: Any = Lenient(sys.stderr)
        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            console=Console(file=terminal, highlight=False),
            refresh_per_second=4,
            expand=True,
            transient=passing,
            # Standard output is not ours to send elsewhere.
            redirect_stdout=False,
        )
        self._task = self._bar.add_task("" if passing else "compiling", total=1.0)

    def draw(self, share: float, far: str, rest: str) -> None:
        self._bar.update(self._task, completed=share, description=f"{far}  {rest}")

    def message(self, text: str) -> None:
        self._bar.console.print(
            printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()
