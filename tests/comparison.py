"""What two runs are compared by that should be the same."""

from pathlib import Path
from typing import Any

from charjax.reporting.metrics import read


def timeless_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what depends on the clock."""
    timed = ("_per_second", "input_wait")
    return [
        {name: value for name, value in line.items() if not name.endswith(timed)}
        for line in read(workdir / "metrics.jsonl")
    ]
