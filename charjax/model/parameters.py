"""The table of all parameters, and what is derived from it.

Parameters are a plain nested dict of float32 arrays, by group and name:

    embedding/table  [v, e]            only with an embedding
    first/...        [e or v, g, h]    the first layer, whose input has its own width
    rest/...         [l - 1, ...]      the other layers, stacked
    head/kernel      [h, v]            where the embedding is not tied to it
    head/bias        [v]

The parameters of a layer are its cell's: `kernel_x`, `kernel_h [h, g, h]`, `bias [g, h]`,
for a GRU also `bias_h`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Integer

from charjax.config.checks import check_same, refuse
from charjax.config.model import ModelConfig
from charjax.model.parameter import Parameter
from charjax.model.variants import cell_of

Params = dict[str, Any]
Table = dict[str, dict[str, Parameter]]


def table(config: ModelConfig, vocab_size: int) -> Table:
    """What each parameter of a model is, in the shape of the parameters themselves.

    >>> found = table(ModelConfig(num_layers=3, hidden_size=16), vocab_size=65)
    >>> found["first"]["kernel_x"].shape, found["rest"]["kernel_h"].shape
    ((65, 4, 16), (2, 16, 4, 16))
    """
    cell, hidden = cell_of(config), config.hidden_size
    width, groups = config.embedding_size, {}
    if width is not None:
        # Its width splits, since the number of symbols is rarely divisible. As a head it
        # sums over its width.
        initial = jax.nn.initializers.normal(width**-0.5 if config.tied else 1.0)
        shape = (vocab_size, width)
        groups["embedding"] = {
            "table": Parameter(shape, initial, "table", None, inputs=-1, symbols=-2)
        }
    groups["first"] = cell.parameters(config, width or vocab_size, width is None)
    if config.num_layers > 1:
        groups["rest"] = {
            name: parameter.stacked(config.num_layers - 1)
            for name, parameter in cell.parameters(config, hidden, False).items()
        }
    kernel, bias = jax.nn.initializers.lecun_normal(), jax.nn.initializers.zeros
    groups["head"] = {
        "kernel": Parameter((hidden, vocab_size), kernel, "operand", inputs=-2, symbols=-1),
        "bias": Parameter((vocab_size,), bias, "vector", symbols=-1),
    }
    if config.tied:
        del groups["head"]["kernel"]
    return groups


def vocab_size(params: Params) -> int:
    """How many symbols a model knows."""
    try:
        (size,) = params["head"]["bias"].shape
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        refuse("`params`", type(params).__name__, "expected what charjax.init returns")
    return size


def check(config: ModelConfig, vocab_size: int, params: Any) -> None:
    """Refuses parameters whose names, shapes or types are not those of the table.

    >>> check(ModelConfig(num_layers=1, hidden_size=8), 3, {"head": {}})
    Traceback (most recent call last):
    charjax.errors.InputError: `params` are not those of this config and 3 symbols:
      first/bias: given nothing, expected float[4, 8]
      first/kernel_h: given nothing, expected float[8, 4, 8]
      first/kernel_x: given nothing, expected float[3, 4, 8]
      head/bias: given nothing, expected float[3]
      head/kernel: given nothing, expected float[8, 3]
    """
    given, _ = jax.tree_util.tree_flatten_with_path(params)
    check_same(
        "given",
        {jax.tree_util.keystr(at, simple=True, separator="/"): _type(x) for at, x in given},
        {
            f"{group}/{name}": f"float{list(parameter.shape)}"
            for group, members in table(config, vocab_size).items()
            for name, parameter in members.items()
        },
        f"`params` are not those of this config and {vocab_size} symbols:",
    )


def _type(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return type(leaf).__name__
    kind = "float" if jax.numpy.issubdtype(dtype, jax.numpy.floating) else str(dtype)
    return f"{kind}{list(leaf.shape)}"


def with_parameters(
    function: Callable[[Parameter | None, Any], Any], parameters: Table, tree: Any
) -> Any:
    """A tree of `function(parameter, leaf)` for each leaf of a tree that holds parameters,
    or arrays like them under the same names, at any depth; None is for other leaves."""

    def visit(path: Sequence[Any], leaf: Any) -> Any:
        group, name = ([""] * 2 + [getattr(part, "key", "") for part in path])[-2:]
        return function(parameters.get(group, {}).get(name), leaf)

    return jax.tree_util.tree_map_with_path(visit, tree)


def with_symbols(
    config: ModelConfig,
    params: Params,
    known: Integer[np.ndarray, "symbols"],
    drawn: Params | None = None,
) -> Params:
    """The parameters of the same model for other symbols, as NumPy arrays.

    Args:
      config: the model.
      params: its parameters for the symbols that it has.
      known: for each symbol that it is to have, which of those it is; -1 where it is new.
        At least one is known.
      drawn: parameters for the symbols that it is to have, from which new ones take their
        values; None gives them the mean of the known ones. A bias is that mean in any case.

    >>> config = ModelConfig(num_layers=1, hidden_size=1)
    >>> params = jax.tree.map(lambda each: np.ones(each.shape), table(config, 3))
    >>> params["head"]["bias"] = np.array([1.0, 2.0, 4.0])
    >>> with_symbols(config, params, np.array([2, -1, 0]))["head"]["bias"].tolist()
    [4.0, 2.5, 1.0]
    """
    is_known = known >= 0

    def mapped(parameter: Parameter, leaf: Any, new: Any = None) -> np.ndarray:
        leaf, axis = np.asarray(leaf), parameter.symbols
        if axis is None:
            return leaf
        if new is None or parameter.role == "vector":
            new = leaf.take(known[is_known], axis).mean(axis, keepdims=True)
        of_symbols = is_known.reshape(-1, *[1] * (-1 - axis))
        return np.where(of_symbols, leaf.take(np.maximum(known, 0), axis), new)

    others = () if drawn is None else (drawn,)
    return jax.tree.map(mapped, table(config, len(known)), params, *others)


def decaying(config: ModelConfig) -> dict[str, dict[str, bool]]:
    """Whether weight decay is for a parameter: all but vectors."""
    return jax.tree.map(lambda parameter: parameter.role != "vector", table(config, 1))


def matrix_axes(config: ModelConfig) -> dict[str, dict[str, tuple[int, int] | None]]:
    """The axes of inputs and outputs of the matrices in each kernel of the layers.

    Layers and gates are separate matrices: `[e, g, h]` and `[l, e, g, h]` have inputs at
    axis -3 and outputs at -1. None for embedding, head, vectors, and a first layer that
    reads ids one-hot, whose kernel is an embedding.
    """

    def axes(group: str, parameter: Parameter) -> tuple[int, int] | None:
        units, inputs = parameter.units, parameter.inputs
        if group not in ("first", "rest") or parameter.role != "operand":
            return None
        if units is None or inputs is None:
            return None
        rank = len(parameter.shape)
        return rank + inputs, rank + units

    return {
        group: {name: axes(group, parameter) for name, parameter in members.items()}
        for group, members in table(config, 1).items()
    }


def as_operands(config: ModelConfig, params: Params, dtype: str) -> Params:
    """Parameters for repeated use: operands of products in their type, others as is."""

    def converted(parameter: Parameter | None, leaf: Any) -> Any:
        operand = parameter is not None and parameter.role == "operand"
        return leaf.astype(dtype) if operand else leaf

    return with_parameters(converted, table(config, vocab_size(params)), params)
