"""A bar of plain HTML for notebooks, updated in place, without widgets."""

import html
import sys
import time
from typing import Any

from charjax.reporting.display import Display, printable


def shell() -> Any:
    """The IPython shell, of a notebook or a terminal, that this runs in; None elsewhere."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class Notebook(Display):
    """The bar; messages come below it."""

    _handle: Any = None
    _drawn = -1.0

    def draw(self, share: float, far: str, rest: str) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        now = time.monotonic()
        if now - self._drawn < 0.25 and share < 1:
            return
        self._drawn = now
        picture = HTML(
            f'<progress value="{share:.4f}" max="1" style="width:30%"></progress> '
            f'<code style="white-space:pre">{html.escape(f"{far}  {rest}")}</code>'
        )
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def message(self, text: str) -> None:
        # A notebook shows standard error as if something had gone wrong.
        print(printable(text), flush=True)
