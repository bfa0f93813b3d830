"""The directory of a run while it trains: where its files are, and if it is still there."""

import os
from pathlib import Path

from charjax.errors import DirectoryGone
from charjax.storage import replacement


class Place:
    """Where a run that trains keeps its files.

    A new run in a directory that holds one has them in `.new` there until `take_place`.
    """

    def __init__(self, workdir: Path, *, replaces: bool = False) -> None:
        self.workdir = workdir.absolute()
        self.grows = replaces
        """Whether the run has yet to take another one's place."""
        self._directory = os.stat(self.workdir)

    @property
    def files(self) -> Path:
        """The folder that the run's files are in now."""
        return self.workdir / replacement.NEW if self.grows else self.workdir

    def is_there(self) -> bool:
        """Whether the directory is still the one that it was."""
        try:
            return os.path.samestat(self._directory, os.stat(self.workdir))
        except OSError:
            return False

    def check(self) -> None:
        """Raises DirectoryGone if the directory was renamed or deleted; to be asked before
        each write."""
        if not self.is_there():
            raise DirectoryGone(
                f"{self.workdir} is no longer the directory that this run began in: it was "
                "renamed or deleted"
            )
