"""A text that grows turn by turn: what is told and what is written, each from the state
behind what is there already."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from charjax.config.data import OnUnknown
from charjax.devices.backend import computing
from charjax.errors import InputError
from charjax.sampling import draw as sampling
from charjax.sampling.chunks import CHUNK, drawn, read
from charjax.sampling.limits import limits_of
from charjax.sampling.past import past_of, remembered
from charjax.sampling.settings import Settings
from charjax.sampling.writing import Trained, beginning, check_known, start, with_memory


class Standing(NamedTuple):
    """A text so far, and the state behind it."""

    ids: Int32[np.ndarray, " symbols"]
    state: sampling.SamplingState


@computing()
def begun(model: Trained) -> Standing:
    """Where every text begins; a document with its start symbol."""
    ids = beginning(model.text.vocabulary, "").astype(np.int32)
    return Standing(ids, start(model, [ids]))


@computing()
def told(
    model: Trained, standing: Standing, text: str, on_unknown: OnUnknown = "error"
) -> Standing:
    """Where a text stands after some more of it that was not drawn."""
    if on_unknown == "error":
        check_known(model.text.vocabulary, [text], "the text".format)
    ids = model.text.vocabulary.encode(text, on_unknown)
    return _after(model, standing, ids.astype(np.int32))


def going_on(
    model: Trained, standing: Standing, length: int, settings: Settings
) -> Iterator[tuple[str, Standing]]:
    """Writes `length` more characters at most, piece by piece, each with where the text
    stands after it.

    Two calls in a row write what one of the sum of their lengths does: the draw depends on
    how many characters were drawn before. Where a document ends, a line does in the text,
    and the next document begins.

    Raises:
      InputError: options that mean nothing here, or no text where none can be drawn.
    """
    vocabulary, options = model.text.vocabulary, settings.options
    options.check_vocabulary(vocabulary.size)
    limits, drawn_before = limits_of(options, vocabulary), int(standing.state.position)
    if not len(standing.ids) and not model.text.length:
        raise InputError(
            "this model does not know how often each symbol occurs, to draw the first one: "
            "give some text."
        )
    remembered(len(standing.ids), length, options, limits)
    options = replace(options, min_length=options.min_length + drawn_before)
    decode = vocabulary.decoder()
    # Of bytes the text so far may end amid a character.
    decode(standing.ids)

    def pieces() -> Iterator[tuple[str, Standing]]:
        here = standing
        past = past_of(here.ids[None], length, options, limits)
        chunks = drawn(
            *(model.config, model.params, here.state._replace(past=past), length),
            *(jax.random.key(settings.seed), options, model.recurrence(1, 1)),
            limits=limits,
        )
        lack = f"there is not enough memory for length {length}: make it smaller."
        for chunk in with_memory(chunks, lack):
            new = chunk.drawn.ids[0]
            new = new[new >= 0]
            position = here.state.position + len(new)
            if len(new) and new[-1] == limits.end:
                after = begun(model)
            elif len(new) == CHUNK:
                after = Standing(np.concatenate([here.ids, new]), chunk.state)
            else:
                after = _after(model, here, new)
            state = after.state._replace(position=position, past=None)
            here = Standing(after.ids, state)
            ended = len(new) and new[-1] == limits.end
            yield decode(new) + ("\n" if ended else ""), here

    return pieces()


@computing()
def _after(model: Trained, standing: Standing, ids: Int32[np.ndarray, " more"]) -> Standing:
    state = read(model.config, model.params, standing.state, [ids], model.recurrence)
    return Standing(np.concatenate([standing.ids, ids]), state)
