"""Checkpoints of a run: saved while training goes on, kept by our own rules.

The only file that imports Orbax. Orbax writes the arrays; that they are whole, on the
disk and the ones that were saved is seen to here. A step is written under a working name,
sealed with a manifest (`manifest.py`), and only then given its own: a step that has its
name was written to the end, and whether it still is what was written can be told. Which
steps stay is decided here too, never by Orbax, whose rules can delete the newest step or
prefer a NaN.
"""

import contextlib
import functools
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jax

from charjax.devices import processes
from charjax.devices.memory import is_lack
from charjax.errors import InputError
from charjax.storage import manifest
from charjax.storage.atomic import sync
from charjax.storage.digest import named_leaves
from charjax.storage.failures import (
    abandoned_work_silenced,
    attempt,
    let_abandoned_work_end,
    reason_for,
)

FORMAT = 2
"""The layout of a step on disk. It grows when older code could misread newer files."""

_RECORD = "record"
_SAVING = ".saving"
_RETIRED = ".retired"
_UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints in one directory; a context manager.

    A step holds named items (pytrees of arrays, each readable without the others) and a
    record: a dictionary of JSON values. Saving goes on in the background; leaving the
    context waits for the last save, also when an exception is on its way. Damaged steps
    are never read and never deleted; `warn` is told of each that is passed over. The
    steps in `sound` are known not to be damaged.

    Among processes that train together all must call `save`, `wait`, `restore` and
    `close`; the first one alone renames and deletes. What is `read_only` is each
    process's own.

    Raises InputError if the directory is a file or, with `read_only`, does not exist.
    """

    def __init__(
        self,
        directory: Path,
        *,
        read_only: bool = False,
        sound: Iterable[int] = (),
        warn: Callable[[str], None] | None = None,
    ) -> None:
        # Orbax wants absolute paths; its warnings and tracebacks would bury our message,
        # and whatever it reports that matters it also raises.
        self.directory = Path(directory).absolute()
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        if self.directory.exists() and not self.directory.is_dir():
            raise InputError(
                f"{directory} is a file, not a directory of checkpoints: "
                "move it away or choose another --workdir."
            )
        if read_only and not self.directory.exists():
            raise InputError(
                f"there is no checkpoint at {directory}: train there first, "
                "or choose another --workdir."
            )
        self._read_only = read_only
        self._warn = _to_standard_error if warn is None else warn
        self._pending: tuple[int, Future[None]] | None = None
        self._damage: dict[int, str | None] = dict.fromkeys(sound)
        self._checkpointer = _checkpointer(alone=self._read_only)
        self._quiet = contextlib.ExitStack()
        self._background = ThreadPoolExecutor(1, "charjax-save")
        self.failures = 0
        """Saves that failed since the last one that did not."""
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            sync(self.directory.parent)
            self._tidy()

    def save(self, step: int, items: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Start saving a step; return once the arrays may be overwritten or donated.

        The save before it is waited for first. A step already on disk is replaced: the
        old one stays until the new one is complete. Raises OSError if this save cannot
        start or the one before it failed; the steps on disk stay as they were, and
        saving may be tried again.
        """
        if self._read_only:
            raise RuntimeError(f"{self.directory} was opened read-only")
        self.wait()
        # In every process, though only the first puts the new one in its place.
        self._damage.pop(step, None)
        path = self._working(step)
        trees = {name: _orbax().args.StandardSave(tree) for name, tree in items.items()}
        described = {**record, "format": FORMAT}
        trees[_RECORD] = _orbax().args.JsonSave(described)  # pyright: ignore[reportArgumentType]

        def begin() -> None:
            if processes.is_first():
                # One that could not be installed: Orbax would refuse to write there.
                _remove(path)
            self._checkpointer.save(path, args=_orbax().args.Composite(**trees))

        _, reason = attempt(begin, processes.is_loss)
        if reason is not None:
            raise self._failure(step, reason)
        self._pending = step, self._background.submit(self._finish, step)

    def poll(self) -> None:
        """Raise OSError if a save has failed meanwhile; return at once."""
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Return once the last save is on disk and verified, and older steps retired.

        The best step and the newest stay, so two are usually left. Raises OSError if
        the save failed.
        """
        if self._pending is None:
            return
        (step, finished), self._pending = self._pending, None
        _, reason = attempt(finished.result, processes.is_loss)
        # It holds the error, and that what the failure left under way.
        del finished
        if reason is not None:
            raise self._failure(step, reason)
        self.failures = 0

    def _finish(self, step: int) -> None:
        _, reason = attempt(self._checkpointer.wait_until_finished, processes.is_loss)
        if reason is not None:
            raise OSError(reason)
        if not processes.is_first():
            return
        manifest.seal(self._working(step))
        if (reason := manifest.damage(self._working(step))) is not None:
            raise OSError(f"what was written cannot be read back: {reason}")
        self._install(step)
        try:
            self._retire(step)
        except OSError as error:
            # This step is whole and in its place; the old ones go another time.
            self._warn(f"an older checkpoint cannot be deleted: {reason_for(error)}")

    def steps(self) -> list[int]:
        """The finished steps on disk, ascending."""
        return sorted(
            int(path.name)
            for path in self.directory.iterdir()
            if _is_step(path.name) and path.is_dir()
        )

    def damage(self, step: int) -> str | None:
        """What is wrong with a step on disk, in a few words; None if nothing is."""
        if step not in self._damage:
            reason = manifest.damage(self._path(step))
            if not self._path(step).is_dir():
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
        losses = {step: _validation_loss(self.record(step)) for step in sound}
        finite = {step: loss for step, loss in losses.items() if loss is not None}
        return min(finite, key=finite.__getitem__, default=None)

    def resolve(
        self, which: Literal["best", "latest"] | int | str, *, strict: bool = False
    ) -> int:
        """The step that `best` (failing that the latest), `latest` or a number means.

        Damaged steps are passed over, with a warning for each; `strict` refuses them.
        Raises InputError if there is no such step, and if all are damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(
                f"there is no checkpoint in {self.directory}: train there first, "
                "or choose another --workdir."
            )
        if which in ("latest", "best"):
            latest = self._newest(strict)
            best = self.best() if which == "best" else None
            return latest if best is None else best
        if _is_step(str(which)) and int(which) in steps:
            return int(which)
        raise InputError(
            f"--step is {which}: {self.directory} holds step "
            f"{_listed(steps)}; give one of them, best or latest."
        )

    def reading(
        self,
        which: Literal["best", "latest"] | int | str,
        read: Callable[[int], Any],
        *,
        strict: bool = False,
    ) -> Any:
        """What `read` makes of the step that `which` means.

        A run that is training may retire the step meanwhile; then it is done again.
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
            if (reason := self.damage(step)) and self._path(step).is_dir()
        }
        for step in damaged:
            self._check_format(step)
        latest = self.latest()
        told = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        if latest is None:
            raise InputError(
                f"every checkpoint in {self.directory} is damaged ({told}): restore them "
                "from a copy, or train anew with --fresh or another --workdir."
            )
        if damaged and strict:
            raise InputError(
                f"{self.directory} holds damaged checkpoints ({told}): restore them from "
                f"a copy, delete them, or leave --strict out to go on from step {latest}."
            )
        for step, reason in damaged.items():
            self._warn(
                f"checkpoint step {step} in {self.directory} is damaged ({reason}); "
                f"step {latest} is the newest that is not"
            )
        return latest

    def _check_format(self, step: int) -> None:
        """Refuses a step that an older version wrote, without a manifest."""
        path = self._path(step)
        if (path / manifest.NAME).exists():
            return
        try:
            found = json.loads((path / _RECORD / "metadata").read_text("utf-8"))["format"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        if found != FORMAT:
            raise self._unknown_format(step, found)

    def _unknown_format(self, step: int, found: object) -> InputError:
        return InputError(
            f"checkpoint step {step} in {self.directory} has format {found}, this "
            f"version of charjax reads format {FORMAT}: use the version that wrote it."
        )

    def record(self, step: int) -> dict[str, Any]:
        """The record saved with a step, and its `format`.

        Raises InputError if it is damaged or of a format this version does not know.
        """
        # Not through Orbax, for which all processes would have to ask.
        record = self._read(
            step,
            _RECORD,
            lambda path: json.loads((path / _RECORD / "metadata").read_text("utf-8")),
        )
        found = record.get("format") if isinstance(record, dict) else None
        if found != FORMAT:
            raise self._unknown_format(step, found)
        return record

    def metadata(self, step: int, item: str) -> Any:
        """An item's tree of `jax.ShapeDtypeStruct`, without reading its arrays.

        Containers are dictionaries and lists, whatever they were when saved; it can
        serve as a target of `restore`. Raises InputError for a damaged or absent item.
        """
        handler: Any = _orbax().StandardCheckpointHandler()
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            self._read(step, item, lambda path: handler.metadata(path / item).tree),
        )

    def restore(self, step: int, targets: Mapping[str, Any]) -> dict[str, Any]:
        """The items named in `targets`, and no others, as arrays.

        A target is the item's tree of `jax.ShapeDtypeStruct`; each leaf goes to its
        struct's `sharding`, or to the first device if it has none. The number of devices
        that saved the step does not matter. Raises InputError if a tree, shape or type
        differs from what was saved, and if the step is damaged.
        """
        self.record(step)
        placed = {name: jax.tree.map(_placed, target) for name, target in targets.items()}
        differences = [
            line
            for name, target in placed.items()
            for line in _differences(name, self.metadata(step, name), target)
        ]
        if differences:
            shown = differences[:10]
            if len(differences) > len(shown):
                shown.append(f"and {len(differences) - len(shown)} more")
            raise InputError(
                f"checkpoint step {step} in {self.directory} does not fit: use the "
                "config it was trained with.\n  " + "\n  ".join(shown)
            )
        args = _orbax().args.Composite(
            **{name: _orbax().args.StandardRestore(tree) for name, tree in placed.items()}
        )
        found = self._read(
            step,
            " or ".join(targets),
            lambda path: self._checkpointer.restore(path, args=args),
        )
        return {name: found[name] for name in targets}

    def close(self) -> None:
        """Wait for the last save and release Orbax's threads."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._checkpointer.close()
            self._quiet.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and processes.is_loss(error):
            # Another process is gone, and a save would wait for it in vain.
            return
        try:
            self.close()
        except OSError as failure:
            if kind is None:
                raise
            # Not in place of the error that is on its way.
            self._warn(str(failure))

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _working(self, step: int) -> Path:
        return self.directory / f"{step}{_SAVING}"

    def _tidy(self) -> None:
        """Finish or remove what a killed run left half done."""
        if not processes.is_first():
            return
        self._remove_unfinished()
        for path in sorted(self.directory.iterdir()):
            name = path.name.removesuffix(_SAVING)
            if name != path.name and _is_step(name):
                # Whole, but not yet given its name: the step it replaces may be aside.
                retired = path.with_name(name + _RETIRED)
                if manifest.damage(path) is None:
                    self._install(int(name))
                elif retired.exists() and not self._path(int(name)).exists():
                    retired.rename(self._path(int(name)))
                _remove(path)
        for path in self.directory.glob(f"*{_RETIRED}"):
            if _is_step(path.name.removesuffix(_RETIRED)):
                _remove(path)

    def _remove_unfinished(self) -> None:
        if processes.is_first():
            for path in self.directory.glob(f"*{_UNFINISHED}*"):
                _remove(path)

    def _install(self, step: int) -> None:
        """Give a step that is sealed and verified its name, in place of one that has it."""
        retired = _set_aside(self._path(step))
        self._working(step).rename(self._path(step))
        sync(self.directory)
        self._damage[step] = None
        _remove(retired)

    def _retire(self, saved: int) -> None:
        """Delete the steps that are neither just saved, nor the newest, nor the best.

        Damaged steps stay: they are not ours to delete.
        """
        kept = {saved, self.latest(), self.best()}
        for step in self.steps():
            if step not in kept and not self.damage(step):
                _remove(_set_aside(self._path(step)))

    def _read(self, step: int, what: str, read: Callable[[Path], Any]) -> Any:
        if step not in self.steps():
            self.resolve(step)
        reason = self.damage(step)
        if reason is None:
            # A lack of memory is no damage of what is read.
            found, reason = attempt(lambda: read(self._path(step)), is_lack)
            if reason is None:
                return found
            reason = f"its {what} cannot be read: {reason}"
        others = [
            other for other in self.steps() if other != step and not self.damage(other)
        ]
        remedy = f"try --step {others[-1]}" if others else "there is no other step"
        raise InputError(
            f"checkpoint step {step} in {self.directory} is damaged ({reason}): {remedy}."
        )

    def _failure(self, step: int, reason: str) -> OSError:
        # A failed save leaves Orbax's threads in an unknown state.
        self._checkpointer = _checkpointer(alone=self._read_only)
        self.failures += 1
        # What it left under way may complain much later.
        self._quiet.enter_context(abandoned_work_silenced())
        let_abandoned_work_end()
        with contextlib.suppress(OSError):
            # What it left would take room that the next one needs.
            self._remove_unfinished()
        return OSError(
            f"checkpoint step {step} was not saved in {self.directory}: {reason}"
        )


@functools.cache
def _orbax() -> Any:
    # Imported when first used: it brings absl, whose import adds a handler to the root
    # logger, and importing charjax configures no logging.
    import orbax.checkpoint

    return orbax.checkpoint


def _checkpointer(alone: bool) -> Any:
    """Orbax's, for all processes or for this one `alone`, which then waits for nobody."""
    options: dict[str, Any] = {}
    if alone:
        me = jax.process_index()
        options["multiprocessing_options"] = _orbax().options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone-{me}"
        )
    # Directories made in the background save 5 ms of a step's time, but after a failure
    # the threads that wait for them linger.
    return _orbax().AsyncCheckpointer(
        _orbax().CompositeCheckpointHandler(),
        async_options=_orbax().options.AsyncOptions(
            create_directories_asynchronously=False
        ),
        **options,
    )


def _to_standard_error(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _set_aside(path: Path) -> Path:
    # Renamed first, so that a deletion that is interrupted leaves no damaged step.
    retired = path.with_name(path.name + _RETIRED)
    _remove(retired)
    if path.exists():
        path.rename(retired)
    return retired


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _validation_loss(record: Mapping[str, Any]) -> float | None:
    loss = record.get("validation_loss")
    return loss if isinstance(loss, float) and math.isfinite(loss) else None


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _differences(item: str, saved: Any, expected: Any) -> list[str]:
    found, wanted = (
        {
            path: f"{leaf.dtype}{list(leaf.shape)}"
            for path, leaf in named_leaves(tree).items()
        }
        for tree in (saved, expected)
    )
    return [
        f"{item}/{path}: saved {found.get(path, 'nothing')}, "
        f"expected {wanted.get(path, 'nothing')}"
        for path in sorted(found | wanted)
        if found.get(path) != wanted.get(path)
    ]


def _listed(steps: list[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, steps[:-1])), str(steps[-1])]))
