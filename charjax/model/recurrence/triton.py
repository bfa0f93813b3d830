"""One kernel a step on GPUs."""

from charjax.model.recurrence.scan import run as run


def why_not(*_: object) -> str | None:
    """Why it cannot run a model somewhere; None where it can."""
    return "it is not written yet"
