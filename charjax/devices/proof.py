"""Kernels show on the device at hand that they are right and fast before `auto` takes one.

A kernel was written for devices that its authors did not have, and compilers change. So the
layers of a run are computed with it, with the plain scan and with what would run otherwise:
as wide as they are and as many rows as a device has, over few steps, some rows beginning
again on the way. What differs, fails, is slower or gives no answer in time does not run.

Not checked: layers under `vmap`, and what several devices send each other.
"""

import functools
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import processes
from charjax.model.arithmetic import own_arithmetic
from charjax.model.cells import Cell
from charjax.model.recurrence import plain
from charjax.model.recurrence.choose import unproven
from charjax.model.variants import cell_of

SECONDS = 60
"""The time that all checks together may take, most of it for compilers."""

BOUNDS = {"float32": 1e-5, "bfloat16": 2e-2}
"""How far from the plain scan a value may be, as a share of the largest in its array. If
what would run otherwise is further away, a kernel may be twice as far as that."""

# Divides as a window does by the numbers of steps that kernels may take at once.
_FEW_STEPS = 20

# Of each of two that take turns; and seconds after which there is no further turn.
_TURNS, _CALLS, _ENOUGH = 5, 4, 2.0


@dataclass(frozen=True)
class Proof:
    """What a check of kernels has found, and where."""

    place: str
    """The devices and the version of JAX that it holds for."""

    kernels: tuple[str, ...]
    """Those that were right and fast."""


def prove(
    config: Config, mesh: Mesh, symbols: int, kept: Proof | None
) -> tuple[Proof | None, list[str]]:
    """The kernels that `auto` may take, and lines that say why or why not.

    The first process checks and the others take its answer: all processes must ask.

    Args:
      config: the run's config; where it names a recurrence nothing is checked.
      mesh: the run's devices.
      symbols: size of the vocabulary.
      kept: what the run has found before; where it was found on such devices it holds.

    Returns:
      None where there is no kernel to prove, as on a CPU.
    """
    batch, shape = meshes.read_at_once(config), mesh.shape
    device = mesh.devices.flat[0]
    names = unproven(*(device.platform, config.model, batch, config.train.precision, shape))
    if not names:
        return None, []
    spread = " x ".join(f"{count} {axis}" for axis, count in shape.items())
    place = f"{device.platform} {device.device_kind}, {spread}, jax {jax.__version__}"
    found, lines = (), []
    if kept is not None and kept.place == place:
        found = kept.kernels
    elif processes.is_first():
        found, lines = _checked(_of_one_device(config, mesh), names, symbols)
    answer = processes.from_first(sum(1 << k for k, n in enumerate(names) if n in found))
    kernels = tuple(name for k, name in enumerate(names) if answer >> k & 1)
    return Proof(place, kernels), lines


def _of_one_device(config: Config, mesh: Mesh) -> Config:
    """The config of the rows that each device has of a run's batch."""
    rows = config.data.batch_size // meshes.rows_share(mesh)
    return config.replace(**{"data.batch_size": rows})


def _checked(
    config: Config, names: list[str], symbols: int
) -> tuple[tuple[str, ...], list[str]]:
    """The first of these kernels that stands its check, and a line for each checked."""
    lines, ends = [], time.monotonic() + SECONDS
    mesh = meshes.make_mesh(jax.local_devices()[:1])
    otherwise = meshes.recurrence_for(config, mesh).name
    for name in names:
        check = functools.partial(Check, config, mesh, symbols, name, otherwise)
        answer = _within(ends - time.monotonic(), lambda c=check: c().verdict())
        if answer is None:
            # At once, since the device may be stuck; then nothing else can be tried on it.
            words = f"its check had not ended after {SECONDS} seconds"
            print(
                f"warning: {name} is not used, {otherwise} is: {words}",
                file=sys.stderr,
                flush=True,
            )
            break
        refused, words = answer
        if not refused:
            return (name,), [*lines, f"{name} was checked on this device: {words}"]
        lines.append(f"{name} is not used, {otherwise} is: {words}")
    return (), lines


def _within(
    seconds: float, check: Callable[[], tuple[bool, str]]
) -> tuple[bool, str] | None:
    """Whether a kernel is refused, and why; None where that takes longer."""
    # In a thread, since neither a compiler nor a device can be interrupted.
    answers: list[tuple[bool, str]] = []

    def answer() -> None:
        try:
            with own_arithmetic(), jax.default_device(jax.local_devices()[0]):
                answers.append(check())
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            answers.append((True, f"it fails here ({reason[:200]})"))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    thread.join(max(seconds, 0))
    return answers[0] if answers else None


class Check:
    """One implementation against the plain scan and what would run otherwise.

    Args:
      config: gives layers, batch and precision; rows are those of one device.
      mesh: of that device.
      symbols: size of the vocabulary.
      name: the implementation, a kernel or not.
      otherwise: another one.

    Raises:
      InputError: one of them cannot run there.
    """

    def __init__(
        self, config: Config, mesh: Mesh, symbols: int, name: str, otherwise: str
    ) -> None:
        batch = meshes.read_at_once(config)[0], _steps(config)
        self.name, self.otherwise = name, otherwise
        self.bound = BOUNDS[config.train.precision]
        self.args = _arguments(config, symbols, *batch)
        cell, dtype = cell_of(config.model), config.train.precision
        reset = jnp.asarray(_resets(*batch))

        def gradients(run: Callable[..., Any], *fixed: Any) -> Callable[[Any], Any]:
            return jax.jit(functools.partial(_values_and_gradients, run, reset, *fixed))

        def named(name: str) -> Callable[[Any], Any]:
            asked = config.replace(**{"model.recurrence": name})
            return gradients(meshes.recurrence_for(asked, mesh, batch).run, cell, dtype)

        self.kernel, self.other = named(name), named(otherwise)
        with jax.default_matmul_precision("highest"):
            self.expected = gradients(plain.run, cell, dtype)(self.args)

    def errors(self) -> dict[str, float]:
        """How far each value and gradient is from the plain scan's, as a share of the
        largest in its array."""
        return _errors(self.kernel(self.args), self.expected)

    def verdict(self) -> tuple[bool, str]:
        """Whether the kernel is refused, and what was found, in words."""
        usual = _errors(self.other(self.args), self.expected)
        if differs := self._difference(self.kernel(self.args), usual):
            return True, differs
        last, seconds, usual_seconds = self._timed()
        # What depends on the order in which threads happen to run shows now and then.
        if differs := self._difference(last, usual):
            return True, differs
        times = f"{1e3 * seconds:.2f} ms, {self.otherwise} {1e3 * usual_seconds:.2f} ms"
        if seconds >= usual_seconds:
            return True, f"it is not faster ({self.name} {times})"
        return False, f"as the plain scan, and faster ({self.name} {times})"

    def _difference(self, found: Any, usual: dict[str, float]) -> str | None:
        """The array that differs most from what is allowed, if one does, in words."""
        excess = {
            what: (error / max(self.bound, 2 * usual[what]), error)
            for what, error in _errors(found, self.expected).items()
        }
        # What is no number is furthest away.
        worst = max(excess, key=lambda what: (math.isnan(excess[what][0]), excess[what]))
        times, error = excess[worst]
        if times <= 1:
            return None
        return (
            f"its {worst} differs from the plain scan's by {error:.1e} of the largest "
            f"value, and {error / times:.1e} is allowed"
        )

    def _timed(self) -> tuple[Any, float, float]:
        """Last result of the kernel; seconds of a call of it and of the other one."""

        def timed(run: Callable[[Any], Any]) -> tuple[float, Any]:
            begun = time.perf_counter()
            result = jax.block_until_ready([run(self.args) for _ in range(_CALLS)])[-1]
            return (time.perf_counter() - begun) / _CALLS, result

        last, best, usual = None, math.inf, math.inf
        ends = time.perf_counter() + _ENOUGH
        for _ in range(_TURNS):
            seconds, last = timed(self.kernel)
            best, usual = min(best, seconds), min(usual, timed(self.other)[0])
            if time.perf_counter() > ends:
                break
        return last, best, usual


def _steps(config: Config) -> int:
    length = config.data.sequence_length
    return length if length < 2 * _FEW_STEPS else _FEW_STEPS + length % _FEW_STEPS


def _resets(rows: int, steps: int) -> np.ndarray:
    """`[t, b]`: some rows begin again at the first step, the second, the last, at two."""
    reset = np.zeros((steps, rows), bool)
    for row, places in enumerate(((0,), (1,), (-1,), (2, 4), ())):
        reset[[place % steps for place in places], row::7] = True
    return reset


def _arguments(config: Config, symbols: int, rows: int, steps: int) -> dict[str, Any]:
    """(parameters, inputs, state) of each kind of layer of a model, random numbers."""
    model, random = config.model, np.random.default_rng(0)
    cell, hidden, width = cell_of(model), model.hidden_size, model.embedding_size

    def draw(*shape: int, scale: float = 0.5) -> Array:
        return jnp.asarray(random.standard_normal(shape, np.float32) * scale)

    def layer(width: int, inputs: Array) -> Any:
        table = cell.parameters(model, width, inputs.ndim == 2)
        values = {
            name: draw(
                *each.shape,
                scale=each.shape[0] ** -0.5 if each.role == "operand" else 0.5,
            )
            for name, each in table.items()
        }
        return values, inputs, cell.state(*(draw(rows, hidden) for _ in cell.state._fields))

    ids = jnp.asarray(random.integers(symbols, size=(steps, rows)), jnp.int32)
    kinds = {"of ids": layer(symbols, ids)}
    if width is not None:
        kinds["of an embedding"] = layer(width, draw(steps, rows, width))
    if model.num_layers > 1:
        kinds["of features"] = layer(hidden, draw(steps, rows, hidden))
    return kinds


def _values_and_gradients(
    run: Callable[..., Any], reset: Array, cell: Cell, dtype: str, kinds: dict[str, Any]
) -> Any:
    """Outputs of each kind of layer, and the gradients of a weighted sum of them."""
    found = {}
    for kind, (layer, inputs, state) in kinds.items():
        ids = jnp.issubdtype(inputs.dtype, jnp.integer)

        def total(smooth: Any, fixed: Any = inputs) -> Any:
            read = smooth.get("inputs", fixed)
            hidden, last = run(cell, dtype, smooth["layer"], read, smooth["state"], reset)
            leaves = jax.tree.leaves((hidden, last))
            # Each output counts differently, so that no two can be mistaken.
            weighed = [(leaf * jnp.cos(_count(leaf))).sum() for leaf in leaves]
            return sum(weighed), {"hidden states": hidden, "last state": last}

        smooth = {"layer": layer, "state": state} | ({} if ids else {"inputs": inputs})
        gradients, outputs = jax.grad(total, has_aux=True)(smooth)
        gradients |= gradients.pop("layer")
        found[kind] = outputs | {"gradient of": gradients}
    return found


def _count(leaf: Array) -> Array:
    return jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape)


@jax.jit
def _distances(found: Any, expected: Any) -> Any:
    def distance(a: Array, b: Array) -> Array:
        largest = jnp.abs(b).max()
        return jnp.abs(a - b).max() / jnp.where(largest > 0, largest, 1.0)

    return jax.tree.map(distance, found, expected)


def _errors(found: Any, expected: Any) -> dict[str, float]:
    """How far each array is from what is expected, by its name."""
    distances, _ = jax.tree_util.tree_flatten_with_path(_distances(found, expected))
    errors = {}
    for path, distance in distances:
        kind, *names = (getattr(part, "key", getattr(part, "name", part)) for part in path)
        errors[f"{' '.join(map(str, names))} in a layer {kind}"] = float(distance)
    return errors
