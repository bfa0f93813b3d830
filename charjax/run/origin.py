"""The run in `train.init_from`, whose parameters another run starts from."""

import dataclasses
import os

from charjax.config.model import ModelConfig
from charjax.config.schema import Config
from charjax.errors import InputError, counted
from charjax.language_model import LanguageModel, load
from charjax.text.vocabulary import Vocabulary


def read(config: Config) -> LanguageModel | None:
    """The best model of the run in `train.init_from`; None where that is None."""
    directory = config.train.init_from
    if directory is None:
        return None
    try:
        return load(directory)
    except InputError as error:
        raise InputError(f"train.init_from is {directory!r}: {error}") from error


def with_shape(config: Config, origin: LanguageModel) -> tuple[Config, list[str]]:
    """The config with the shape of the model it starts from, where it gives none: where
    every field that decides the shape has its default. And a line that says so."""
    assert config.train.init_from is not None
    # It means the same from any folder, now and when the run starts over.
    config = config.replace(**{"train.init_from": os.path.abspath(config.train.init_from)})
    model = config.model.shaped_like(origin.config.model)
    if config.model.shape != ModelConfig().shape or model == config.model:
        return config, []
    wide = "" if model.embedding_size is None else f", embedding {model.embedding_size}"
    note = (
        f"train.init_from: the model has the shape of the one in {config.train.init_from}: "
        f"{model.num_layers} x {model.hidden_size} {model.cell.upper()}{wide}"
    )
    return dataclasses.replace(config, model=model), [note]


def check_given_shape(config: Config) -> None:
    """Refuses a shape that was given although it is the default, where the model to start
    from has another; a config alone does not tell that from one that gives none."""
    if (origin := read(config)) is not None:
        check_fits(config, origin.vocabulary, origin)


def check_fits(config: Config, vocabulary: Vocabulary, origin: LanguageModel) -> None:
    """Refuses a model to start from that has another shape or vocabulary."""
    there = origin.config.model.shape
    shape = {
        name: f"model.{name} is {there[name]!r} there and {here!r} here"
        for name, here in config.model.shape.items()
        if there[name] != here
    }
    differs, remedies = list(shape.values()), []
    if shape:
        given = ", ".join(f"`model.{name}={there[name]!r}`" for name in shape)
        remedies.append(
            f"give {given}, or leave {', '.join(f'model.{name}' for name in there)} all "
            "out to take its shape"
        )
    if origin.vocabulary != vocabulary:
        here, known = set(vocabulary.symbols), set(origin.vocabulary.symbols)
        only = [
            f"{counted(len(here - known), 'symbols')} only here",
            f"{len(known - here)} only there",
        ]
        differs.append(f"the vocabularies differ ({', '.join(only)})")
        remedies.append(
            "give a text of the same symbols (two runs with data.vocabulary bytes always "
            "have the same)"
        )
    if differs:
        raise InputError(
            f"train.init_from is {config.train.init_from!r}: its parameters do not fit: "
            f"{'; '.join(differs)}. To start from it, {'; and '.join(remedies)}."
        )
