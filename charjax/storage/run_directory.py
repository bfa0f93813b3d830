"""A run's directory: what lies where, and what a resume may change."""

import contextlib
import dataclasses
import json
import os
import stat
from pathlib import Path

from charjax.config.model import ModelConfig
from charjax.config.optimizer import ENDING
from charjax.config.presets import SETTLED_BY_RUNS
from charjax.config.schema import Config, flatten, from_dict, to_dict
from charjax.errors import InputError
from charjax.storage.atomic import replacing, sync

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples.txt"
CURVES = "curves.png"
CORPUS = "corpus.txt"

WRITTEN = (CONFIG, METRICS, SAMPLES, CURVES, CORPUS, CHECKPOINTS)
"""Everything that a run writes."""

TAKING = ".taking"
"""The folder in a run's directory whose files take the place of those beside it
(`replacement.py`)."""

_IN_STEP = ("record", "params", "manifest.json")

_CHANGEABLE = frozenset(
    {
        *("train.steps", "train.epochs", "train.early_stopping"),
        *("train.eval_every", "train.checkpoint_every", "train.log_every"),
        *("train.sample_every", "parallel.model", "parallel.fsdp", "data.source"),
        "model.recurrence",
    }
)


def located(workdir: Path, name: str) -> Path:
    """Where a file of the run in `workdir` is, or would be; `name` is one of `WRITTEN`.

    It is right also where a new run has only begun to take the place of an old one.
    """
    taking = workdir / TAKING
    # While its config is there, all of the new run is, and beside it lies the old one.
    moved = not (taking / name).exists() and not (taking / CONFIG).exists()
    return workdir / name if moved else taking / name


def holds_run(workdir: Path) -> bool:
    """Whether this directory holds a run.

    Raises InputError for a directory that cannot hold one.
    """
    try:
        str(workdir.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{str(workdir)!r} is not UTF-8, or Python was started for another encoding "
            "(LC_ALL, PYTHONUTF8): choose another `workdir`."
        ) from None
    try:
        for name in (CONFIG, METRICS, SAMPLES, CURVES, CORPUS):
            _refuse_streams(located(workdir, name))
        return any(located(workdir, name).exists() for name in (CONFIG, CHECKPOINTS))
    except OSError as error:
        raise InputError(
            f"{workdir} cannot be read, {error.strerror}: choose another `workdir`."
        ) from error


def _refuse_streams(path: Path) -> None:
    """Refuses a pipe, socket or device in the place of a file: who opens one may wait."""
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(
                f"{path} is a pipe, socket or device where a run has a file: move it away "
                "or choose another `workdir`."
            )


def read_config(workdir: Path) -> Config:
    """The config with which the run in `workdir` began.

    Raises InputError if `config.json` is absent, damaged or not a config.
    """
    path = located(workdir, CONFIG)
    remedy = "restore a copy, choose another `workdir`, or start over with `fresh=True`"
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"there is no {path}: {remedy}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read, {error.strerror}: {remedy}.") from error
    except InputError as error:
        raise InputError(f"{path} does not fit this version: {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {remedy}.") from error


def make_directory(path: Path) -> None:
    """Makes a directory and those above it; their names survive a loss of power."""
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        # Those above may belong to somebody else, who does not let us.
        with contextlib.suppress(OSError):
            sync(parent)


def write_config(workdir: Path, config: Config) -> None:
    """Write `config.json`, making the directory if need be."""
    workdir.mkdir(parents=True, exist_ok=True)
    with replacing(workdir / CONFIG) as path:
        text = json.dumps(to_dict(config), indent=2, ensure_ascii=False)
        # A character that is none becomes the escape that JSON has for it.
        path.write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def check_apart(workdir: Path, config: Config) -> None:
    """Refuses a run that would write over, or read, its own text's folder, and one among
    the checkpoints of another run, which may delete them."""
    here = Path(os.path.realpath(workdir))
    for folder in (here, here.parent):
        if folder.name == CHECKPOINTS and (folder.parent / CONFIG).exists():
            raise InputError(
                f"`workdir` is {workdir}: it is in the directory of another run, "
                f"{folder.parent}; give that, or a directory outside of it."
            )
    for source in config.data.sources:
        path = Path(os.path.realpath(source))
        inside = path.is_file() and here == path.parent and path.name in WRITTEN
        around = path.is_dir() and (path == here or path in here.parents)
        if inside or around:
            raise InputError(
                f"data.source is {source!r} and the run's directory {workdir}: a run's own "
                "files would be read as text; give the files by name, or another `workdir`."
            )


def check_unwritten(workdir: Path, text: bytes | None) -> None:
    """Refuses to begin a run over files of the same names, which somebody else wrote.

    A `corpus.txt` may be there if it has this text: a kill can leave it.
    """
    for path in (workdir / name for name in (METRICS, SAMPLES, CURVES, CORPUS)):
        same = path.name == CORPUS and path.is_file() and path.read_bytes() == text
        if os.path.lexists(path) and not same:
            raise InputError(
                f"{path} is there already, without a run, and one would write over it: "
                "move it away, or choose another `workdir`."
            )


def create(workdir: Path, config: Config, text: bytes | None) -> None:
    """Begin a run in `workdir`: its config, and a text that no other file holds."""
    make_directory(workdir)
    if text is not None:
        with replacing(workdir / CORPUS) as path:
            path.write_bytes(text)
    # Last, since it is what makes the directory hold a run.
    write_config(workdir, config)


def set_aside(workdir: Path, step: int) -> Path:
    """Gives the metrics and samples of a run that had got to `step` other names, which
    nothing writes to; returns that of the metrics."""
    renamed = {}
    for name in (METRICS, SAMPLES):
        path = workdir / name
        renamed[name] = path.with_stem(f"{path.stem}-until-{step}")
        if path.exists():
            path.replace(renamed[name])
    return renamed[METRICS]


def kept_text(workdir: Path) -> bytes | None:
    """The text that `create` kept, or None if the run's text is in files of its own."""
    path = located(workdir, CORPUS)
    return path.read_bytes() if path.exists() else None


def resumed_config(stored: Config, requested: Config) -> Config:
    """The config to go on with: the stored run, with the length and cadences requested.

    What the run has settled (`optimizer.schedule_steps`, `optimizer.epoch_steps`) stays if
    it is requested as None; so does the model, where the run took its shape from that in
    `train.init_from` and none is requested. Another `optimizer.schedule_steps` holds only
    from the step that the run goes on from (`schedule.with_end`), and whether another
    `data.source` has the run's text is not known here. Raises InputError naming every
    other field that differs.

    >>> begun = Config().replace(**{"optimizer.schedule_steps": 100})
    >>> longer = resumed_config(begun, Config().replace(**{"train.steps": 500}))
    >>> longer.train.steps, longer.optimizer.schedule_steps
    (500, 100)
    """
    if stored.train.init_from is not None and requested.model.shape == ModelConfig().shape:
        model = requested.model.shaped_like(stored.model)
        requested = dataclasses.replace(requested, model=model)
    found, changes, refused = dict(flatten(stored)), {}, []
    for field, wanted in flatten(requested):
        if wanted == found[field]:
            continue
        if field in _CHANGEABLE:
            changes[field] = wanted
        elif field == "train.init_from" and None not in (wanted, found[field]):
            if os.path.abspath(wanted) != os.path.abspath(found[field]):
                refused.append(_differs(field, found[field], wanted))
        elif field == "optimizer.schedule_steps" and stored.optimizer.schedule in ENDING:
            continue
        elif not (field in SETTLED_BY_RUNS and wanted is None):
            refused.append(_differs(field, found[field], wanted))
    if refused:
        raise InputError(
            "a run is resumed with its own config. Leave these as they are, give another "
            "`workdir`, or start over with `fresh=True`:\n  " + "\n  ".join(refused)
        )
    return stored.replace(**changes)


def _differs(field: str, found: object, wanted: object) -> str:
    return f"{field}: the run has {found!r}, asked for {wanted!r}"


def newest_run(root: Path) -> Path:
    """The run directory in `root` that was written to last and has a checkpoint.

    Raises InputError if there is none.
    """
    runs = (
        [path for path in root.iterdir() if has_checkpoint(path)] if root.is_dir() else []
    )
    if not runs:
        raise InputError(
            f"there is no run with a checkpoint in {root}/: train one first, "
            "or name its directory with `workdir`."
        )
    return max(runs, key=_last_written)


def check_replaceable(workdir: Path) -> None:
    """Refuses to delete what only looks like a run: a `config.json`, or a folder of
    checkpoints, of something else."""
    path, checkpoints = located(workdir, CONFIG), located(workdir, CHECKPOINTS)
    if checkpoints.is_symlink():
        raise InputError(
            f"{checkpoints} is a link, and `fresh=True` would put a folder in its place: "
            "give another `workdir`, which may be a link itself, or delete the old run."
        )
    found = list(checkpoints.iterdir()) if checkpoints.is_dir() else []
    if any(map(_may_be_step, found)):
        return
    # Some systems leave hidden files in every folder.
    if others := sorted(each.name for each in found if not each.name.startswith(".")):
        raise InputError(
            f"{checkpoints / others[0]} is not a run's: `fresh=True` would delete it; "
            "move it away or choose another `workdir`."
        )
    if located(workdir, METRICS).exists():
        return
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(values, dict) or not set(values) & set(to_dict(Config())):
        raise InputError(
            f"{path} is not a run's: `fresh=True` will not replace it; "
            "move it away or choose another `workdir`."
        )


def _may_be_step(path: Path) -> bool:
    """Whether this is a step, damaged or not, or what a kill left of one."""
    name, dot, _ = path.name.partition(".")
    return name.isdigit() and (
        bool(dot) or any((path / item).exists() for item in _IN_STEP)
    )


def has_checkpoint(run: Path) -> bool:
    """Whether a run directory has a step to go on from."""
    folder = located(run, CHECKPOINTS)
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def _last_written(run: Path) -> float:
    paths = (located(run, METRICS), *located(run, CHECKPOINTS).iterdir())
    return max(path.stat().st_mtime for path in paths if path.exists())
