"""A scan for GPUs."""

from charjax.model.recurrence.scan import run as run
