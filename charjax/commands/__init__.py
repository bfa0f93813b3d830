"""The commands, one file each, and what they do about signals, memory and exit codes.

A file with `Options`, a dataclass, and `run`, which takes one and returns an exit code, is
a command of the file's name. The docstring of `Options`, one line, describes it;
`EXAMPLES`, if it has them, stand at the end of its help.
What is slow to import (JAX, and whatever imports it) is imported inside `run`.
"""
