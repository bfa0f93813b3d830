"""Configs by name: the presets of `configs/`, and files like them."""

import importlib.util
import json
import os
import traceback
from pathlib import Path

from charjax.config.checks import checked_path
from charjax.config.schema import Config, from_dict
from charjax.errors import InputError, suggestion

SETTLED_BY_RUNS = (
    *("optimizer.schedule_steps", "optimizer.epoch_steps"),
    "optimizer.earlier_schedule_steps",
)
"""Fields that are None until a run settles them."""


def load_config(name: str) -> Config:
    """The config of a preset, a `.py` file with `get_config()`, or a JSON file.

    Raises InputError if there is none, or if it is not a valid config.
    """
    path = checked_path("config", name)
    name = str(name)
    if path.suffix not in (".py", ".json"):
        known = presets()
        if name not in known:
            remedy = f"{suggestion(name, known)} A file's name must end in .py or .json."
            if (path / "config.json").is_file():
                remedy = f"for the config of the run there, give {path / 'config.json'}."
            raise InputError(f"`config` is {name!r}: there is no such preset; {remedy}")
        path = known[name]
    if not path.is_file():
        raise InputError(f"`config` is {name!r}: there is no such file.")
    try:
        if path.suffix == ".json":
            config = from_dict(json.loads(path.read_text("utf-8")))
            # These follow from the other run's text, length and resumes.
            return config.replace(**dict.fromkeys(SETTLED_BY_RUNS))
        spec = importlib.util.spec_from_file_location(f"charjax_config_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
    except InputError as error:
        raise InputError(f"`config` is {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f" (line {line.lineno})" if Path(line.filename) == path.absolute() else ""
        raise InputError(
            f"`config` is {name!r}: {path}{where} cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, Config):
        raise InputError(
            f"`config` is {name!r}: get_config() gave a {type(config).__name__}; it must "
            "return a charjax.Config."
        )
    return config


def presets() -> dict[str, Path]:
    """The file of each preset by its name."""
    package = Path(__file__).parents[1]
    # In the installed package, or beside it in a checkout.
    for directory in (package / "configs", package.parent / "configs"):
        if files := sorted(directory.glob("*.py")):
            return {file.stem: file for file in files}
    return {}


def default_name(config: str | None) -> str:
    """The name of the run that a config makes when no other is given.

    >>> default_name("configs/anna.py"), default_name("runs/mine/config.json")
    ('anna', 'mine')
    """
    if config is None:
        return "default"
    path = Path(config)
    return (
        Path(os.path.realpath(path)).parent.name
        if path.name == "config.json"
        else path.stem
    )
