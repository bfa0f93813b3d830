"""What charjax raises of its own."""


class InputError(ValueError):
    """Wrong usage, config or input: the commands print it as one short line and exit 2.

    The message names the field or file, the value found and the remedy.
    """


class OutOfMemory(MemoryError):
    """Too little memory, where it is known what would help."""


class Diverged(RuntimeError):
    """Update after update was skipped; the last checkpoint is from before them."""
