"""The run in `train.init_from`, whose parameters another run starts from."""

import dataclasses
import functools
import os

import jax
import numpy as np
from jax import Array

from charjax.config.model import ModelConfig
from charjax.config.schema import Config
from charjax.errors import InputError, counted
from charjax.language_model import LanguageModel, load
from charjax.model.network import init
from charjax.model.parameters import Params, table, with_symbols
from charjax.text.vocabulary import Vocabulary, listed


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
    """Refuses a model to start from that has another shape, or no symbol of this text."""
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
    kind, kind_there = vocabulary.kind, origin.vocabulary.kind
    if kind != kind_there:
        differs.append(f"data.vocabulary is {kind_there!r} there and {kind!r} here")
        remedies.append(f"give `data.vocabulary={kind_there!r}`")
    elif kind == "characters" and not {*vocabulary.symbols} & {*origin.vocabulary.symbols}:
        differs.append("no character of the text is one of its own")
        remedies.append("give a text that shares characters with its text")
    if differs:
        raise InputError(
            f"train.init_from is {config.train.init_from!r}: its parameters do not fit: "
            f"{'; '.join(differs)}. To start from it, {'; and '.join(remedies)}."
        )


def changes(config: Config, vocabulary: Vocabulary, origin: LanguageModel) -> list[str]:
    """Lines that say which symbols are new, and which are dropped."""
    new = np.flatnonzero(vocabulary.ids_in(origin.vocabulary) < 0)
    lost = np.flatnonzero(origin.vocabulary.ids_in(vocabulary) < 0)
    begin = {"drawn": "drawn as in a new model", "mean": "at the mean of the known ones"}
    groups, lines = table(config.model, 1), []
    stuck = [
        group
        for group in config.train.freeze or ()
        if any(each.symbols is not None for each in groups.get(group, {}).values())
    ]
    if new.size:
        are = f"{counted(new.size, 'symbols')} new, {begin[config.train.init_new]}"
        lines.append(f"train.init_from: {are}: {_listed(vocabulary, new)}")
    if new.size and stuck:
        lines.append(f"warning: in {' and '.join(stuck)} they stay so (train.freeze)")
    if lost.size:
        are = f"{counted(lost.size, 'symbols')} of that run dropped"
        lines.append(f"train.init_from: {are}: {_listed(origin.vocabulary, lost)}")
    return lines


def _listed(vocabulary: Vocabulary, ids: np.ndarray) -> str:
    # Of bytes, none is ever new or lost.
    characters = [ord(vocabulary.symbols[id]) for id in ids if id < len(vocabulary.symbols)]
    ends = {vocabulary.start: "start", vocabulary.end: "end"}
    parts = [f"the {ends[id]} of a document" for id in ids if id in ends]
    return ", ".join([*parts, *([listed(characters)] if characters else [])])


def parameters_for(
    config: Config, vocabulary: Vocabulary, origin: LanguageModel, key: Array
) -> Params:
    """The parameters that a run begins with; `key` is that of a new model's."""
    if vocabulary == origin.vocabulary:
        return origin.params
    known, drawn = vocabulary.ids_in(origin.vocabulary), None
    if config.train.init_new == "drawn":
        drawn = jax.jit(functools.partial(init, config, vocabulary.size))(key)
    return with_symbols(config.model, origin.params, known, drawn)
