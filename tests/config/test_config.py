"""What a config accepts, refuses and says."""

import dataclasses
import importlib
import json
import pkgutil
import re
import typing
from typing import Annotated

import jax
import numpy as np
import pytest

from charjax import (
    Config,
    DataConfig,
    InputError,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    init,
)
from charjax.config.checks import AtLeast, Share, check_fields
from charjax.config.presets import default_name, load_config
from charjax.config.schema import flatten, from_dict, to_dict


def test_json_and_back():
    config = Config().replace(**{"data.source": ["a", "b"], "optimizer.clip_norm": None})
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_absent_fields_have_their_defaults():
    assert from_dict({"model": {"hidden_size": 7}}) == Config(
        model=ModelConfig(hidden_size=7)
    )


def test_whole_numbers_serve_as_floats():
    config = OptimizerConfig(learning_rate=1)
    assert config.learning_rate == 1.0 and isinstance(config.learning_rate, float)
    assert DataConfig(split=(1, 0, 0)) == DataConfig(split=(1.0, 0.0, 0.0))


def test_a_whole_number_too_large_for_a_float_is_refused_by_name():
    for number in (10**400, -(10**400)):
        values = json.loads(f'{{"optimizer": {{"learning_rate": {number}}}}}')
        with pytest.raises(InputError, match=r"optimizer\.learning_rate is -?inf: give a"):
            from_dict(values)


def test_every_field_is_documented():
    import ast
    import inspect

    from charjax.config import schema as config

    for node in ast.parse(inspect.getsource(config)).body:
        if not isinstance(node, ast.ClassDef) or node.name == "Config":
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{node.name}: {ast.unparse(field)}"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DataConfig(batch_size=0), ["data.batch_size", "0", "at least 1"]),
        (lambda: DataConfig(sequence_length=-3), ["data.sequence_length", "-3"]),
        (lambda: DataConfig(split=(0.9, 0.2, 0.0)), ["data.split", "add up to 1"]),
        (lambda: DataConfig(split=(0.0, 1.0, 0.0)), ["data.split", "train on"]),
        (lambda: DataConfig(encoding="utf9"), ["data.encoding", "utf9", "latin-1"]),
        (lambda: DataConfig(source=""), ["data.source"]),
        (lambda: DataConfig(start_marker=""), ["data.start_marker", "None"]),
        (lambda: DataConfig(batching="random"), ["data.batching", "streams, windows"]),
        (lambda: ModelConfig(dropout=1.0), ["model.dropout", "1.0"]),
        (lambda: ModelConfig(dropout=float("nan")), ["model.dropout", "nan"]),
        (lambda: ModelConfig(hidden_size=2.5), ["model.hidden_size", "whole number"]),
        (lambda: ModelConfig(num_layers=True), ["model.num_layers", "True"]),
        (lambda: ModelConfig(cell="transformer"), ["model.cell", "lstm, gru, rnn"]),
        (lambda: ModelConfig(embedding_size=0), ["model.embedding_size"]),
        (lambda: OptimizerConfig(learning_rate=0.0), ["learning_rate", "positive"]),
        (lambda: OptimizerConfig(learning_rate=float("nan")), ["learning_rate", "nan"]),
        (lambda: OptimizerConfig(learning_rate=-1.0), ["learning_rate", "-1.0"]),
        (lambda: OptimizerConfig(clip_norm=0.0), ["clip_norm", "positive", "or None"]),
        (lambda: OptimizerConfig(schedule="cosin"), ["optimizer.schedule", "cosine"]),
        (lambda: OptimizerConfig(beta2=1.0), ["optimizer.beta2"]),
        (lambda: OptimizerConfig(weight_decay=-0.1), ["optimizer.weight_decay"]),
        (lambda: TrainConfig(steps=None, epochs=None), ["train.steps", "train.epochs"]),
        (lambda: TrainConfig(epochs=0.0), ["train.epochs"]),
        (lambda: TrainConfig(seed=-1), ["train.seed"]),
        (lambda: TrainConfig(eval_every=0), ["train.eval_every"]),
        (lambda: Config().replace(**{"optimizer.accumulate": 3}), ["accumulate", "32"]),
        (
            lambda: Config().replace(**{"model.hiden_size": 3}),
            ["did you mean", "hidden_size"],
        ),
        (lambda: from_dict({"modle": {}}), ["modle", "did you mean model"]),
        (lambda: from_dict({"model": 3}), ["model", "3"]),
        (lambda: from_dict({"train": {"stpes": 3}}), ["train.stpes", "train.steps"]),
    ],
)
def test_impossible_values_are_refused_by_name(build, words):
    with pytest.raises(InputError) as refused:
        build()
    for word in words:
        assert word in str(refused.value)


def test_configs_are_frozen_and_hashable():
    config = Config()
    assert hash(config) == hash(Config()) and config == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model = ModelConfig()  # pyright: ignore


PRESETS = [
    *("default", "anna", "mysterious_island", "numpy_lstm", "char_rnn"),
    *("tinyshakespeare", "names"),
]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_by_name(name):
    config = load_config(name)
    assert isinstance(config, Config)
    assert default_name(name) == name


def test_the_default_preset_is_the_default_config():
    assert load_config("default") == Config()


def test_the_seeds_recipes():
    anna = dict(flatten(load_config("anna")))
    assert anna["model.num_layers"] == 2 and anna["model.hidden_size"] == 512
    assert anna["model.dropout"] == 0.5 and anna["model.embedding_size"] is None
    assert (anna["data.batch_size"], anna["data.sequence_length"]) == (128, 100)
    assert anna["optimizer.learning_rate"] == 1e-3 and anna["optimizer.clip_norm"] == 5.0
    island = dict(flatten(load_config("mysterious_island")))
    assert island["data.batching"] == "windows" and island["model.embedding_size"] == 256
    assert (island["data.batch_size"], island["data.sequence_length"]) == (64, 40)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("get_config = 3", ["TypeError"]),
        ("def get_config(): return 3", ["int", "charjax.Config"]),
        ("import nonsense_module", ["line 1", "nonsense_module"]),
        ("def get_config(:", ["SyntaxError"]),
        (
            "from charjax import Config, ModelConfig\n"
            "def get_config(): return Config(model=ModelConfig(hidden_size=0))",
            ["model.hidden_size", "0"],
        ),
        (
            "from charjax import Config, ModelConfig\n"
            "def get_config(): return Config(model=ModelConfig(hiden=0))",
            ["line 2", "hiden"],
        ),
    ],
)
def test_a_broken_preset_is_refused_in_a_line(tmp_path, content, words):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        load_config(str(path))
    for word in [str(path), *words]:
        assert word in str(refused.value)


def test_a_missing_preset_names_the_closest(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match=r"the run there, give .*/config\.json"):
        load_config(str(tmp_path))
    with pytest.raises(InputError, match="did you mean anna"):
        load_config("ana")
    with pytest.raises(InputError, match="no such file"):
        load_config("configs/ana.py")


def test_numbers_and_paths_of_libraries_become_plain_values(tmp_path):
    config = Config(
        data=DataConfig(source=tmp_path, split=np.array([1, 0, 0])),  # pyright: ignore
        model=ModelConfig(hidden_size=np.int64(8), dropout=np.float64(0.5)),  # pyright: ignore
    )
    values = from_dict(json.loads(json.dumps(to_dict(config))))
    assert values == config and type(values.model.hidden_size) is int


def test_a_check_is_declared_beside_the_field_and_knows_none():
    @dataclasses.dataclass(frozen=True)
    class Options:
        count: Annotated[int | None, AtLeast(2)] = None
        shares: Annotated[tuple[float, ...], Share(one=False)] = (0,)

        def __post_init__(self):
            check_fields(self, "options")

    assert Options().shares == (0.0,) and Options(count=2).count == 2
    for wrong, words in [
        ({"count": 1}, "options.count is 1: give a whole number of at least 2, or None"),
        ({"count": 2**31}, f"up to {2**31 - 1}"),
        ({"count": "2"}, "options.count is '2': expected a whole number or None"),
        ({"shares": (0.5, 1)}, "options.shares is (0.5, 1.0): give a number from 0"),
        ({"shares": ()}, "options.shares"),
    ]:
        with pytest.raises(InputError, match=re.escape(words)):
            Options(**wrong)


def choices(section: type, name: str) -> tuple[str, ...]:
    return typing.get_args(typing.get_type_hints(section)[name])


def test_the_cells_of_the_schema_are_those_there_are():
    from charjax.model.cells import names

    assert sorted(choices(ModelConfig, "cell")) == names()


def test_the_recurrences_of_the_schema_are_those_there_are():
    from charjax.model import recurrence

    modules = [
        importlib.import_module(f"{recurrence.__name__}.{module.name}")
        for module in pkgutil.iter_modules(recurrence.__path__)
    ]
    found = {
        module.__name__.rpartition(".")[2] for module in modules if hasattr(module, "run")
    }
    assert set(choices(ModelConfig, "recurrence")) == {"auto", *found}


def test_each_optimizer_of_the_schema_makes_an_update_of_its_own():
    from charjax.training.optimizer import optimizer

    params = init(Config().replace(**{"model.hidden_size": 4}), 5, jax.random.key(0))
    gradients = jax.tree.map(lambda leaf: leaf**2 - 0.01, params)
    updates = {}
    for name in choices(OptimizerConfig, "name"):
        config = Config().replace(
            **{"model.hidden_size": 4, "optimizer.name": name, "optimizer.warmup_steps": 0}
        )
        chain = optimizer(config)
        state = jax.jit(chain.init)(params)
        update, _ = jax.jit(chain.update)(gradients, state, params)
        updates[name] = np.asarray(update["first"]["kernel_h"]).tobytes()
    # Without weight decay adamw is adam.
    assert updates.pop("adamw") == updates["adam"]
    assert len(set(updates.values())) == len(updates)


def test_each_schedule_of_the_schema_is_another_curve():
    from charjax.training.schedule import schedule

    curves = set()
    for name in choices(OptimizerConfig, "schedule"):
        config = Config().replace(**{"optimizer.schedule": name, "train.steps": 400})
        rate = schedule(config.replace(**{"optimizer.epoch_steps": 10}))
        curves.add(tuple(float(rate(count)) for count in (100, 200, 300)))
    assert len(curves) == len(choices(OptimizerConfig, "schedule"))
