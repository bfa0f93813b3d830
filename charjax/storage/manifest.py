"""What was written, so that what is read can be compared: sizes and SHA-256 of files.

A file system keeps a rename and loses the contents behind it if the machine stops in
between, and a disk returns other bits than it was given. So a directory counts as written
once every file in it is on the disk together with a list of them all.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charjax.storage.atomic import sync

NAME = "manifest.json"


def seal(directory: Path) -> None:
    """Writes the manifest of a directory's files and brings everything to the disk.

    When it returns, files, directories and manifest survive a loss of power; the name of
    the directory itself does once its parent has been through `sync`.
    """
    files = {}
    for path in _files(directory):
        files[path.relative_to(directory).as_posix()] = _describe(path)
        sync(path)
    manifest = directory / NAME
    manifest.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    sync(manifest)
    for folder, _, _ in os.walk(directory, topdown=False):
        sync(Path(folder))


def damage(directory: Path) -> str | None:
    """What is wrong with a sealed directory, in a few words; None if nothing is."""
    try:
        # Whoever opens a pipe waits.
        if not (directory / NAME).is_file():
            return f"it has no {NAME}"
        listed = json.loads((directory / NAME).read_text(encoding="utf-8"))["files"]
        expected = {str(name): dict(facts) for name, facts in listed.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its {NAME} cannot be read"
    try:
        found = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
        for name, facts in sorted(expected.items()):
            if name not in found or not found[name].is_file():
                return f"its file {name} is missing"
            if (size := found[name].stat().st_size) != facts.get("bytes"):
                return f"its file {name} has {size} bytes instead of {facts.get('bytes')}"
        for name, facts in sorted(expected.items()):
            if _describe(found[name]) != facts:
                return f"its file {name} is not what was written"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    unknown = sorted(set(found) - set(expected))
    return f"its file {unknown[0]} does not belong there" if unknown else None


def unlisted(directory: Path) -> list[str]:
    """The files of a directory, manifest aside, that its manifest does not list."""
    try:
        listed = set(json.loads((directory / NAME).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError):
        listed = set()
    found = {path.relative_to(directory).as_posix() for path in _files(directory)}
    return sorted(found - listed)


def _files(directory: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(directory, onerror=_raise):
        names.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if path != directory / NAME:
                yield path


def _raise(error: OSError) -> None:
    raise error


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        total = hashlib.file_digest(file, "sha256")
        return {"bytes": file.tell(), "sha256": total.hexdigest()}
