"""The news of a run: what is shown, and files that training can do without."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from charjax.reporting import metrics, samples
from charjax.reporting.progress import Progress, progress
from charjax.storage import run_directory
from charjax.storage.place import Place
from charjax.views import curves


@dataclass(frozen=True, eq=False)
class Report:
    """The news of one run. A file that cannot be written is warned of once, and tried
    again with the next news."""

    progress: Progress
    place: Place | None
    """Of the run's directory; None keeps nothing."""

    metrics: metrics.MetricsFile | None
    history: list[dict[str, Any]]
    """The lines of `metrics.jsonl`."""

    failing: set[str] = dataclasses.field(default_factory=set)
    """Names of files that could not be written the last time."""

    def message(self, text: str) -> None:
        """Show text to whoever watches."""
        self.progress.message(text)

    def write(self, **fields: Any) -> None:
        """Add a line to the metrics."""
        self.history.append(fields)
        if (file := self.metrics) is not None:
            self._attempt(run_directory.METRICS, lambda: file.write(**fields))

    def sync(self) -> None:
        """Bring the metrics so far to the disk."""
        if self.metrics is not None:
            self._attempt(run_directory.METRICS, self.metrics.sync)

    def sample(self, step: int, text: str) -> None:
        """Show and keep a text that the model wrote after a step."""
        self.message(f"--- sample at step {step:,} ---\n{text}\n---")
        if self.place is not None:
            path = self.place.files / run_directory.SAMPLES
            self._attempt(path.name, lambda: samples.append(path, step, text))

    def draw(self, cell: str) -> None:
        """Draw the losses so far; `cell` goes into the title."""
        if self.place is not None:
            path = self.place.files / run_directory.CURVES
            title = f"{self.place.workdir.name}: {cell}"
            self._attempt(path.name, lambda: curves.draw(self.history, path, title))

    def check_place(self) -> None:
        """Raises DirectoryGone if the run's directory was renamed or deleted."""
        if self.place is not None:
            self.place.check()

    def _attempt(self, name: str, write: Callable[[], None]) -> None:
        self.check_place()
        try:
            write()
        except OSError as error:
            self.check_place()
            if name not in self.failing:
                self.message(
                    f"warning: {name} cannot be written, {error.strerror}; training goes on"
                )
            self.failing.add(name)
        else:
            self.failing.discard(name)


@contextlib.contextmanager
def open_report(
    place: Place | None, first: int, total: int, quiet: bool, unit: str = "char"
) -> Iterator[Report]:
    """The report of a run that goes on after step `first` of `total`.

    What the files of the run say of later steps is dropped.
    """
    with contextlib.ExitStack() as stack:
        file, history = None, []
        if place is not None:
            path = place.files / run_directory.METRICS
            metrics.truncate_after(path, first)
            samples.truncate_after(place.files / run_directory.SAMPLES, first)
            history = metrics.read(path)
            file = stack.enter_context(metrics.MetricsFile(path))
        shown = stack.enter_context(progress(max(total, 1), unit=unit, quiet=quiet))
        yield Report(shown, place, file, history)
