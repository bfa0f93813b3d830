"""The checkpoints in a directory, as they are read: which there are, which one is meant."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from charjax.config.checks import shown
from charjax.devices.memory import is_shortage
from charjax.errors import InputError, listed
from charjax.storage import arrays, manifest
from charjax.storage.failures import reason_for
from charjax.storage.step import (
    RECORD,
    check_fits,
    check_format,
    check_old_format,
    is_step,
    read_record,
    validation_loss,
    with_sharding,
)

Which = Literal["best", "latest"] | int | str
"""A step: the best (failing that the latest), the latest, or the one of a number."""


class Checkpoints:
    """The checkpoints in one directory.

    A step holds named items (pytrees of arrays, each readable without the others) and a
    record: a dictionary of JSON values. Damaged steps are never read; a warning tells of
    each that is passed over. The steps in `sound` are known not to be damaged. Of several
    processes each reads for itself.

    Raises InputError if there is no such directory.
    """

    def __init__(self, directory: Path, *, sound: Iterable[int] = ()) -> None:
        # Orbax wants absolute paths.
        self.directory = Path(directory).absolute()
        self._damage: dict[int, str | None] = dict.fromkeys(sound)
        if not self.directory.exists():
            raise InputError(
                f"there is no checkpoint at {directory}: train there first, or choose "
                "another `workdir`."
            )
        if not self.directory.is_dir():
            raise InputError(
                f"{directory} is a file, not a directory of checkpoints: move it away or "
                "choose another `workdir`."
            )

    def path(self, step: int) -> Path:
        """Where a step is, or would be."""
        return self.directory / str(step)

    def steps(self) -> list[int]:
        """The finished steps on disk, ascending."""
        return sorted(
            int(path.name)
            for path in self.directory.iterdir()
            if is_step(path.name) and path.is_dir()
        )

    def damage(self, step: int) -> str | None:
        """What is wrong with a step on disk, in a few words; None if nothing is."""
        if step not in self._damage:
            reason = manifest.damage(self.path(step))
            if not self.path(step).is_dir():
                return f"there is no step {step} any more"
            self._damage[step] = reason
        return self._damage[step]

    def latest(self) -> int | None:
        """The newest step that is not damaged, or None."""
        return next((step for step in self.steps()[::-1] if not self.damage(step)), None)

    def best(self) -> int | None:
        """The step with the lowest finite `validation_loss` in its record, or None.

        Of equals it is the earliest; damaged steps do not count.
        """
        sound = [step for step in self.steps() if not self.damage(step)]
        losses = {step: validation_loss(self.record(step)) for step in sound}
        finite = {step: loss for step, loss in losses.items() if loss is not None}
        return min(finite, key=finite.__getitem__, default=None)

    def resolve(self, which: Which, *, strict: bool = False) -> int:
        """The step that is meant.

        Damaged steps are passed over, with a warning for each; `strict` refuses them.
        Raises InputError if there is no such step, and if all are damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(
                f"there is no checkpoint in {self.directory}: train there first, "
                "or choose another `workdir`."
            )
        if which in ("latest", "best"):
            latest = self._newest(strict)
            best = self.best() if which == "best" else None
            return latest if best is None else best
        for step in steps:
            if which in (step, str(step)):
                return step
        named = which[:50] if isinstance(which, str) else shown(which)
        raise InputError(
            f"`step` is {named}: {self.directory} holds step {listed(steps, 'and')}; "
            "give one of them, best or latest."
        )

    def reading(
        self, which: Which, read: Callable[[int], Any], *, strict: bool = False
    ) -> Any:
        """What `read` makes of the step that is meant.

        A run that is training may retire the step meanwhile; then `read` is called
        with the newer one.
        """
        while True:
            before = self.steps()
            try:
                return read(self.resolve(which, strict=strict))
            except InputError:
                if self.steps() == before:
                    raise

    def _newest(self, strict: bool) -> int:
        damaged = {
            step: reason
            for step in self.steps()
            # Not those that a run has retired since they were listed.
            if (reason := self.damage(step)) and self.path(step).is_dir()
        }
        for step in damaged:
            check_old_format(self.path(step))
        latest = self.latest()
        listed = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        if latest is None:
            raise InputError(
                f"every checkpoint in {self.directory} is damaged ({listed}): restore them "
                "from a copy, or start over with `fresh=True` or another `workdir`."
            )
        if damaged and strict:
            raise InputError(
                f"{self.directory} holds damaged checkpoints ({listed}): restore them from "
                f"a copy, delete them, or leave `strict` out to go on from step {latest}."
            )
        for step, reason in damaged.items():
            warn(
                f"checkpoint step {step} in {self.directory} is damaged ({reason}); "
                f"step {latest} is the newest that is not"
            )
        return latest

    def record(self, step: int) -> dict[str, Any]:
        """The record saved with a step, and its `format`.

        Raises InputError if it is damaged or of a format this version does not know.
        """
        record = self._read(step, RECORD, read_record)
        check_format(self.path(step), record)
        return record

    def metadata(self, step: int, item: str) -> Any:
        """An item's tree of `jax.ShapeDtypeStruct`, without reading its arrays.

        Containers are dictionaries and lists, whatever they were when saved; it can
        serve as a target of `restore`. Raises InputError for a damaged or absent item.
        """
        return self._read(step, item, lambda path: arrays.shapes(path / item))

    def restore(self, step: int, targets: Mapping[str, Any]) -> dict[str, Any]:
        """The items named in `targets`, and no others, as arrays.

        A target is the item's tree of `jax.ShapeDtypeStruct`; each leaf goes to its
        struct's `sharding`, or to the first device if it has none. The number of devices
        that saved the step does not matter. Raises InputError if a tree, shape or type
        differs from what was saved, and if the step is damaged.
        """
        self.record(step)
        saved = {name: self.metadata(step, name) for name in targets}
        check_fits(self.path(step), saved, targets)

        def read(path: Path) -> dict[str, Any]:
            return {
                name: arrays.read(path / name, jax.tree.map(with_sharding, target))
                for name, target in targets.items()
            }

        return self._read(step, " or ".join(targets), read)

    def _read(self, step: int, what: str, read: Callable[[Path], Any]) -> Any:
        if step not in self.steps():
            self.resolve(step)
        reason = self.damage(step)
        if reason is None:
            try:
                return read(self.path(step))
            except Exception as error:
                # A shortage of memory does not mean that the file is damaged.
                if is_shortage(error):
                    raise
                reason = f"its {what} cannot be read: {reason_for(error)}"
        others = [
            other for other in self.steps() if other != step and not self.damage(other)
        ]
        remedy = f"try `step={others[-1]}`" if others else "there is no other step"
        raise InputError(
            f"checkpoint step {step} in {self.directory} is damaged ({reason}): {remedy}."
        )


def warn(message: str) -> None:
    """Tells a person of what does not stop the work."""
    print(f"warning: {message}", file=sys.stderr)
