"""charjax's rows: the step and the sampler as the commands run them."""

import dataclasses
import functools
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.work import Work
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.model.network import init
from charjax.sampling.chunks import CHUNK, jitted_draw
from charjax.sampling.draw import start
from charjax.sampling.limits import Limits
from charjax.sampling.options import SamplingOptions
from charjax.sampling.past import past_of
from charjax.text.batching import batch_at
from charjax.training.program import training_program
from charjax.training.state import initial_state


def versions() -> dict[str, str]:
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "device": device.device_kind,
    }


def on_device(precision: str) -> str:
    """charjax's precision for a row's: its float32 is JAX's, which a GPU may do in tf32."""
    exact = {"float32": "highest", "tf32": "tensorfloat32"}
    if jax.default_backend() == "gpu" and precision in exact:
        jax.config.update("jax_default_matmul_precision", exact[precision])
    return "float32" if precision == "tf32" else precision


def training(
    work: Work, precision: str, recurrence: str = "auto", resident: bool = False
) -> Any:
    """One update after another, batches from the text, each loss read a step late;
    `resident` uses one batch again and again, which lies on the device."""
    precision = on_device(precision)
    config, ids = work.config(precision, recurrence), work.ids()
    mesh = meshes.make_mesh(jax.devices()[:1])
    make = functools.partial(initial_state, config, work.vocab_size)
    key = jax.random.key(0)
    sharding = placement.state_sharding(mesh, config, jax.eval_shape(make, key))
    chosen = meshes.recurrence_for(config, mesh)
    update = training_program(config, mesh, sharding, chosen)
    held: dict[str, Any] = {"state": jax.device_put(make(key), sharding), "step": 0}

    def batch_of(step: int) -> Any:
        return placement.put_batch(mesh, batch_at(ids, config.data, 0, step))

    if resident:
        placed = batch_of(0)
        batch_of = lambda step: placed  # noqa: E731

    def run(count: int) -> float:
        state, waiting = held["state"], None
        for _ in range(count):
            state, metrics = update(state, batch_of(held["step"]), key)
            if waiting is not None:
                waiting["loss"].item()
            waiting = metrics
            held["step"] += 1
        held["state"] = state
        assert waiting is not None
        return waiting["loss"].item()

    return run, versions()


_FILTERS: dict[str, Any] = {
    "temperature": 0.8,
    "top_p": 0.95,
    "min_p": 0.02,
    "repetition_penalty": 1.2,
}
OPTIONS = {
    "": SamplingOptions(),
    "filters": SamplingOptions(**_FILTERS),
    "filters, no_repeat": SamplingOptions(**_FILTERS, no_repeat=8),
    "stop": SamplingOptions(stop="e" * 12),
}
"""What draws are told, by the name of a variant."""


def sampling(work: Work, precision: str, streams: int, variant: str = "") -> Any:
    """Chunk after chunk of new characters in so many streams, drawn with the options of a
    variant as if a text of 1,000 characters were written."""
    config = work.config(on_device(precision))
    params = jax.jit(functools.partial(init, config, work.vocab_size))(jax.random.key(0))
    mesh = meshes.make_mesh(jax.devices()[:1])
    recurrence = meshes.inference_recurrence(config, mesh, (streams, 1))
    asked = OPTIONS[variant]
    # A text that is hardly ever written, in ids.
    limits = Limits(stops=np.full((1, 12), 4, np.int32) if asked.stop else None)
    past = past_of(np.zeros((streams, 1), np.int32), 1000, asked, limits)
    state = start(config, jnp.zeros((work.vocab_size,)), streams)._replace(past=past)
    held: dict[str, Any] = {"state": state}
    numbers = jax.tree.map(jnp.float32, dataclasses.replace(asked, stop=None))
    key = jax.random.key(0)

    def run(count: int) -> None:
        """Draws `count` chunks in each stream, every chunk brought to the host."""
        state, waiting = held["state"], None
        for _ in range(count):
            state, made = jitted_draw(
                *(config, params, state, CHUNK, key, numbers, recurrence), limits=limits
            )
            if waiting is not None:
                np.asarray(waiting)
            waiting = made.ids
        np.asarray(waiting)
        held["state"] = state

    return run, {**versions(), "chunk": str(CHUNK)}
