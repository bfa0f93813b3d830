"""Which parameters training changes: all but the groups in `train.freeze`."""

from typing import Any

import jax
import optax

from charjax.config.checks import refuse
from charjax.config.schema import Config
from charjax.model.parameters import Params, table


def trainable(config: Config, params: Params) -> Params:
    """Parameters without those that are frozen, in whose place is an `optax.MaskedNode`.

    Raises InputError for a group that the model does not have, and where nothing is left.

    >>> config = Config().replace(**{"train.freeze": ["first", "rest"]})
    >>> shapes = jax.tree.map(lambda each: each.shape, table(config.model, 65))
    >>> trainable(config, shapes)["first"]["bias"]
    MaskedNode()
    """
    frozen = _frozen(config)
    return {
        group: {name: optax.MaskedNode() for name in members}
        if group in frozen
        else members
        for group, members in params.items()
    }


def completed(trained: Any, params: Params) -> Params:
    """All parameters: those that are `trained`, and of `params` those that are frozen."""

    def chosen(part: Any, whole: Any) -> Any:
        return whole if _is_masked(part) else part

    return jax.tree.map(chosen, trained, params, is_leaf=_is_masked)


def _is_masked(part: Any) -> bool:
    return isinstance(part, optax.MaskedNode)


def _frozen(config: Config) -> tuple[str, ...]:
    frozen, groups = config.train.freeze or (), table(config.model, 1)
    for group in frozen:
        if group not in groups:
            remedy = f"this model has no {group}, its groups are {', '.join(groups)}"
            refuse("train.freeze", frozen, remedy)
    if config.model.tied and ("embedding" in frozen) != ("head" in frozen):
        remedy = "model.tied makes embedding and head one; give both of them, or neither"
        refuse("train.freeze", frozen, remedy)
    if len(frozen) == len(groups):
        refuse("train.freeze", frozen, "nothing is left to train; leave one of them out")
    return frozen
