"""Many devices, one answer: layouts over data, model and FSDP, and what they send."""

import functools
import re

import jax
import numpy as np
import pytest

from charjax import Config, InputError, fit, inspect_run
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.text.batching import batch_at
from charjax.training.schedule import resolve
from charjax.training.state import initial_state
from charjax.training.step import train_step

VOCAB, ROWS, LENGTH, LAYERS = 12, 8, 7, 3
IDS = np.random.default_rng(0).integers(VOCAB, size=2000).astype(np.uint8)
# (devices, devices side by side on a layer, fsdp)
LAYOUTS = [
    (2, 1, False),
    (4, 1, False),
    (8, 1, False),
    (2, 2, False),
    (8, 2, False),
    (8, 4, False),
    (8, 1, True),
    (8, 2, True),
]


def make_config(model=1, fsdp=False, **fields):
    values = {
        "data.batch_size": ROWS,
        "data.sequence_length": LENGTH,
        "model.hidden_size": 16,
        "model.num_layers": LAYERS,
        "model.dropout": 0.3,
        "parallel.model": model,
        "parallel.fsdp": fsdp,
    }
    return resolve(Config().replace(**{**values, **fields}), 10)


class Run:
    def __init__(self, devices, model, fsdp, **fields):
        self.config = make_config(model, fsdp, **fields)
        self.mesh = meshes.make_mesh(jax.devices()[:devices], model)
        self.key = jax.random.key(0)
        make = functools.partial(initial_state, self.config, VOCAB)
        shapes = jax.eval_shape(make, self.key)
        sharding = placement.state_sharding(self.mesh, self.config, shapes)
        self.state = jax.jit(make, out_shardings=sharding)(self.key)
        step = functools.partial(
            train_step,
            self.config,
            recurrence=meshes.recurrence_for(self.config, self.mesh),
            gather=placement.gathered(self.mesh, self.config),
        )
        self.update = jax.jit(
            step,
            donate_argnums=0,
            out_shardings=(sharding, placement.replicated(self.mesh)),
        )

    def batch(self, step):
        rows = meshes.local_rows(self.mesh, ROWS)
        return placement.put_batch(
            self.mesh, batch_at(IDS, self.config.data, 0, step, rows)
        )

    def losses(self, steps):
        found = []
        for step in range(steps):
            self.state, metrics = self.update(self.state, self.batch(step), self.key)
            found.append(metrics["loss"].item())
        return found

    def program(self):
        return self.update.lower(self.state, self.batch(0), self.key).compile().as_text()


@functools.cache
def alone(**fields):
    return Run(1, 1, False, **fields).losses(20)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_losses_do_not_depend_on_the_layout(layout):
    np.testing.assert_allclose(Run(*layout).losses(20), alone(), rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"model.cell": "gru", "model.embedding_size": 6, "optimizer.name": "muon"},
        {"model.cell": "rnn", "optimizer.accumulate": 2, "optimizer.name": "adamw"},
    ],
    ids=["gru", "rnn"],
)
@pytest.mark.parametrize("layout", [(4, 2, False), (4, 2, True)], ids=str)
def test_nor_do_those_of_other_cells_and_optimizers(layout, fields):
    np.testing.assert_allclose(
        Run(*layout, **fields).losses(20), alone(**fields), rtol=1e-5
    )


# What the compiled step sends between devices.

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def collectives(program):
    """Kinds of collectives in loops over time and layers, and outside."""
    bodies = {}
    for body, trips in re.findall(
        r"while\(.*body=%?([\w.\-]+).*known_trip_count\D*(\d+)", program
    ):
        bodies[body] = int(trips)
    found = {"time": [], "layers": [], "once": []}
    loops = {LENGTH: "time", LAYERS - 1: "layers"}
    for text in re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \(.*\) -> )", program):
        name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", text.strip())
        where = loops.get(bodies.get(name[1]), "once")
        found[where] += re.findall(rf" ({KINDS})(?:-start)?\(", text)
    return found


def test_gradients_are_reduced_once_a_step_and_nothing_is_sent_in_the_loop_over_time():
    sent = collectives(Run(8, 1, False).program())
    assert sent["time"] == []
    # A layer's parameters together, and the others' with the loss.
    assert sent["layers"] == ["all-reduce"]
    assert set(sent["once"]) == {"all-reduce"} and len(sent["once"]) <= 3


def test_units_on_several_devices_cost_one_collective_in_each_time_step():
    sent = collectives(Run(8, 2, False).program())
    # Forward a gather of the hidden state, in reverse a sum of its gradient; of the first
    # layer and of the others.
    assert sorted(sent["time"]) == ["all-gather"] * 2 + ["all-reduce"] * 2


def test_fsdp_gathers_parameters_outside_the_loops():
    sent = collectives(Run(8, 1, True).program())
    assert sent["time"] == []
    assert "all-gather" in sent["once"]
    assert "all-gather" not in sent["layers"]


def test_fsdp_gathers_parameters_once_for_all_parts():
    # Of which there are as many as layers in the loop.
    run = Run(4, 1, True, **{"optimizer.accumulate": LAYERS - 1})
    sent = collectives(run.program())
    assert sent["time"] == [] and set(sent["layers"]) == {"all-reduce"}
    params = jax.tree.leaves(run.state.params)
    split = [leaf for leaf in params if not leaf.sharding.is_fully_replicated]
    assert sent["once"].count("all-gather") == len(split) == 5


# Placement.


def test_each_device_holds_its_share():
    shapes = jax.eval_shape(lambda: initial_state(make_config(), VOCAB, jax.random.key(0)))
    for model, fsdp in ((1, False), (2, False), (1, True), (2, True)):
        mesh = meshes.make_mesh(model=model)
        sharding = placement.state_sharding(mesh, make_config(model, fsdp), shapes)
        place = sharding.params["rest"]["kernel_h"]
        shape = (2, 16, 4, 16)
        assert shapes.params["rest"]["kernel_h"].shape == shape
        rows = 16 // (8 // model) if fsdp else 16
        assert place.shard_shape(shape) == (2, rows, 4, 16 // model)
        moments = sharding.opt_state[1].mu["rest"]["kernel_h"]
        assert moments == place
        assert sharding.params["head"]["bias"].shard_shape((VOCAB,)) == (VOCAB // model,)
        assert sharding.carry.h.shard_shape((3, 8, 16)) == (3, model, 16 // model)


def test_what_cannot_be_shared_is_refused_with_what_would_fit():
    with pytest.raises(
        InputError, match=r"parallel\.model is 3: .* 1, 2, 4 or 8 would fit"
    ):
        meshes.make_mesh(model=3)
    mesh = meshes.make_mesh(model=4)
    with pytest.raises(
        InputError, match=r"model\.hidden_size is 18: .* 16 or 20 would fit"
    ):
        meshes.check_devices(make_config(**{"model.hidden_size": 18}), mesh)


# Elastic resume.

TEXT = "the quick brown fox jumps over the lazy dog. " * 50


def test_a_run_goes_on_in_another_layout(tmp_path):
    config = Config().replace(
        **{
            "data.batch_size": 8,
            "data.sequence_length": 16,
            "model.hidden_size": 16,
            "train.steps": 12,
            "train.log_every": 1,
            "train.checkpoint_every": 4,
            "train.eval_every": 6,
        }
    )
    whole = fit(config, text=TEXT, quiet=True).history
    layouts = [(2, False), (1, True), (4, True), (1, False)]
    for stop_at, (model, fsdp) in zip((3, 6, 9, 12), layouts, strict=True):
        here = inspect_run(tmp_path)["step"] if stop_at > 3 else 0
        stop = iter([False] * (stop_at - here - 1) + [True]).__next__
        changed = config.replace(**{"parallel.model": model, "parallel.fsdp": fsdp})
        history = fit(changed, tmp_path, text=TEXT, quiet=True, stop=stop).history
    assert [line["step"] for line in history] == [line["step"] for line in whole]
    found, expected = ([line["loss"] for line in lines] for lines in (history, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
