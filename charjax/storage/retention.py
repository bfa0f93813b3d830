"""What is renamed and deleted in a directory of checkpoints.

Never left to Orbax, whose rules can delete the newest step or prefer a NaN. Among several
processes the first one alone may call these.
"""

from pathlib import Path

from charjax.storage import manifest
from charjax.storage.atomic import remove, sync
from charjax.storage.step import RETIRED, SAVING, is_step

_UNFINISHED = ".orbax-checkpoint-tmp"


def tidy(directory: Path) -> list[int]:
    """Finishes or removes what a killed run left half done.

    Returns the steps that were whole, and got their names only now.
    """
    remove_unfinished(directory)
    installed = []
    for path in sorted(directory.glob(f"*{SAVING}")):
        name = path.name.removesuffix(SAVING)
        if not is_step(name):
            continue
        # The step that it replaces may have been set aside.
        retired = directory / (name + RETIRED)
        if manifest.damage(path) is None:
            install(directory, int(name))
            installed.append(int(name))
        elif retired.exists() and not (directory / name).exists():
            retired.rename(directory / name)
        remove(path)
    for path in directory.glob(f"*{RETIRED}"):
        if is_step(path.name.removesuffix(RETIRED)):
            remove(path)
    return installed


def install(directory: Path, step: int) -> None:
    """Gives a step that is sealed and verified its name, in place of one that has it."""
    path = directory / str(step)
    retired = _set_aside(path)
    path.with_name(path.name + SAVING).rename(path)
    sync(directory)
    remove(retired)


def retire(path: Path) -> None:
    """Deletes a step."""
    remove(_set_aside(path))


def remove_unfinished(directory: Path) -> None:
    """Deletes what Orbax did not write to the end."""
    for path in directory.glob(f"*{_UNFINISHED}*"):
        remove(path)


def _set_aside(path: Path) -> Path:
    # Renamed first, so that a deletion that is interrupted leaves no damaged step.
    retired = path.with_name(path.name + RETIRED)
    remove(retired)
    if path.exists():
        path.rename(retired)
    return retired
