"""Whole texts: prompts in; texts, their log-probabilities and why they end out."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt

from charjax.config.checks import refuse
from charjax.config.data import OnUnknown
from charjax.config.schema import Config
from charjax.devices import memory
from charjax.devices.backend import computing
from charjax.errors import InputError
from charjax.model.parameters import Params
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import draw as sampling
from charjax.sampling.chunks import PASS, Chunk, drawn, read
from charjax.sampling.limits import limits_of
from charjax.sampling.past import ENDS, past_of, remembered
from charjax.sampling.settings import Settings
from charjax.sampling.written import Written
from charjax.text.description import TextDescription
from charjax.text.vocabulary import Vocabulary, describe_unknown
from charjax.text.watch import Watch, silent

# Of each id that options look back at: the id, its neighbours in the next text, and where
# it is marked.
_BYTES_OF_PAST = 32


class Trained(NamedTuple):
    """What writes."""

    config: Config
    params: Params
    text: TextDescription
    recurrence: Callable[[int, int], Recurrence]
    """Rows and steps -> what suits them."""


def chunks(
    model: Trained,
    primes: Sequence[np.ndarray],
    copies: int,
    length: int | None,
    settings: Settings,
    *,
    log_probs: bool = False,
    padding: int = 0,
) -> Iterator[Chunk]:
    """New characters behind each prime `[p]`, so many rows for each, and behind `padding`
    rows more. Checks its arguments at once.

    Raises:
      InputError: options that mean nothing here, or no prime where none can be drawn.
    """
    options = settings.options
    vocabulary = model.text.vocabulary
    options.check_vocabulary(vocabulary.size)
    limits = limits_of(options, vocabulary)
    if not all(map(len, primes)) and not model.text.length:
        raise InputError(
            "`prime` is empty: this model does not know how often each symbol occurs, "
            "to draw the first one; give some text."
        )
    longest = max(map(len, primes))
    past_size = remembered(longest, length, options, limits)
    primes = [*primes, *[primes[0]] * padding]
    rows = len(primes) * copies
    window = options.repetition_window
    looking = f", looking back {window}" if options.repetition_penalty is not None else ""
    lack = (
        f"there is not enough memory for num_samples {rows} of length "
        f"{length}{looking}: make one of them smaller."
    )
    limit = memory.of_device(jax.local_devices()[0])
    if (
        limit is not None
        and rows * (_bytes_of_row(model, 0, length or 0) + _BYTES_OF_PAST * past_size)
        > limit
    ):
        # A machine that swaps would try for hours.
        raise memory.OutOfMemory(lack)

    def made() -> Iterator[Chunk]:
        key = jax.random.key(settings.seed)
        past = past_of(_aligned(primes), length, options, limits)
        state = sampling.repeated(start(model, primes)._replace(past=past), copies)
        yield from drawn(
            *(model.config, model.params, state, length, key, options),
            model.recurrence(rows, 1),
            limits=limits,
            first_row=settings.first_row,
            log_probs=log_probs,
        )

    return with_memory(made(), lack)


def with_memory(made: Iterator[Chunk], lack: str) -> Iterator[Chunk]:
    """The chunks; where the memory is too small for one, that is said."""
    while True:
        # Nothing is left open at the `yield`, where other code runs: what is read half is
        # closed when Python ends, and modules are no longer whole.
        with computing(), memory.explain_shortage(lack):
            chunk = next(made, None)
        if chunk is None:
            return
        yield chunk


def start(
    model: Trained, primes: Sequence[np.ndarray], carry: Any = None
) -> sampling.SamplingState:
    """The state after each row has read its prime, from a carry on if there is one."""
    counts = jnp.asarray(model.text.counts, jnp.float32)
    first = jnp.log(counts / jnp.maximum(counts.sum(), 1))
    state = sampling.start(model.config, first, len(primes))
    state = state if carry is None else state._replace(carry=carry)
    return read(model.config, model.params, state, primes, model.recurrence)


def _aligned(primes: Sequence[np.ndarray]) -> np.ndarray:
    longest = max(map(len, primes))
    rows = [
        np.pad(prime.astype(np.int32), (longest - len(prime), 0), constant_values=-1)
        for prime in primes
    ]
    return np.stack(rows)


def as_primes(prime: Any) -> list[str]:
    """One prime or several as a list. Raises InputError for anything else."""
    primes = [prime] if isinstance(prime, str) else prime
    if not isinstance(primes, Sequence) or not all(
        isinstance(each, str) for each in primes
    ):
        refuse("`prime`", prime, "expected a string, or a list of strings")
    if not primes:
        refuse("`prime`", prime, "give at least one")
    return list(primes)


def stream(
    model: Trained, prime: str, length: int | None, settings: Settings
) -> Iterator[str]:
    """The prime, then new text as it is made."""
    decode = model.text.vocabulary.decoder()
    if settings.on_unknown == "error":
        check_known(model.text.vocabulary, [prime], "`prime`".format)
    prompt, ids = _encoded(model, prime, settings)
    made = chunks(model, [ids], 1, length, settings)

    def pieces() -> Iterator[str]:
        if prompt:
            yield prompt
        for chunk in made:
            new = chunk.drawn.ids[0]
            yield decode(new[new >= 0])

    return pieces()


def written(
    model: Trained,
    primes: Sequence[str],
    length: int,
    samples: int,
    settings: Settings,
    log_probs: bool,
    watch: Watch = silent,
) -> Iterator[Written]:
    """What is written behind each prime, `samples` texts for each, batch by batch: rows of
    one prime in one batch, several primes in batches that fit the memory, of equal size."""
    if settings.on_unknown == "error":
        name = "`prime[{}]`" if len(primes) > 1 else "`prime`"
        check_known(model.text.vocabulary, primes, name.format)
    encoded = [_encoded(model, prime, settings) for prime in primes]
    of, limit = settings.best_of, memory.of_device(jax.local_devices()[0])
    longest = max(len(ids) for _, ids in encoded)
    size = max(1, rows_at_once(model, longest, length, limit) // of)
    size = min(size, 1 << (len(primes) - 1).bit_length())
    whole = len(primes) * samples * of * length

    def batch(first: int) -> tuple[list[str], Iterator[Chunk]]:
        part = encoded[first : first + size]
        here = replace(settings, first_row=(settings.first_row + first) * samples * of)
        made = chunks(
            *(model, [ids for _, ids in part], samples * of, length, here),
            log_probs=log_probs or of > 1,
            padding=size - len(part) if len(primes) > 1 else 0,
        )
        prompts = [prompt for prompt, _ in part for _ in range(samples * of)]
        before = first * samples * of * length
        return prompts, _watched(made, len(prompts), before, whole, watch)

    vocabulary, batches = model.text.vocabulary, range(0, len(primes), size)
    # The first by itself, so that what it refuses is refused at once.
    made = itertools.chain([batch(0)], map(batch, batches[1:]))
    return itertools.chain.from_iterable(
        best(_texts(vocabulary, *each), of) for each in made
    )


def beginning(
    vocabulary: Vocabulary, text: str, on_unknown: OnUnknown = "error"
) -> UInt[np.ndarray, " symbols"]:
    """The ids that a text begins with, a document with its start symbol.

    >>> beginning(Vocabulary("characters", "ab", documents=True), "ba").tolist()
    [2, 1, 0]
    """
    ids = vocabulary.encode(text, on_unknown)
    if vocabulary.start is None:
        return ids
    return np.concatenate([[vocabulary.start], ids]).astype(vocabulary.id_dtype)


def _watched(
    chunks: Iterator[Chunk], rows: int, before: int, whole: int, watch: Watch
) -> Iterator[Chunk]:
    """The chunks, and how many characters of how many are there told with each."""
    for chunk in chunks:
        before += rows * chunk.drawn.ids.shape[1]
        watch("writing", before, whole)
        yield chunk


def check_known(
    vocabulary: Vocabulary, texts: Sequence[str], name: Callable[[int], str]
) -> None:
    """Raises InputError where texts have unknown characters, with the name of each."""
    if vocabulary.kind == "bytes":
        return
    known, found = set(vocabulary.symbols), []
    for place, text in enumerate(texts):
        if unknown := sorted(map(ord, set(text) - known)):
            found.append(f"{name(place)}: {describe_unknown(unknown)}")
    if found:
        more = f"; and so in {len(found) - 10} more" if len(found) > 10 else ""
        raise InputError(
            f"{'; '.join(found[:10])}{more}: take them out, or leave them out with "
            "`on_unknown='skip'`."
        )


def _encoded(model: Trained, prime: str, settings: Settings) -> tuple[str, np.ndarray]:
    """The prime and the ids to read, without what is to be skipped."""
    vocabulary, skipping = model.text.vocabulary, settings.on_unknown == "skip"
    ids = beginning(vocabulary, prime, settings.on_unknown)
    return vocabulary.decode(ids) if skipping else prime, ids


def _texts(
    vocabulary: Vocabulary, prompts: Sequence[str], chunks: Iterator[Chunk]
) -> list[Written]:
    """What the chunks say in the rows of these prompts, the first ones."""
    made = list(chunks)
    parts = [(np.zeros((len(prompts), 0), np.float32),) * 3]
    for chunk in made:
        rows = [leaf[: len(prompts)] for leaf in chunk.drawn if leaf is not None]
        parts.append((rows[0], *(rows[1:] or parts[0][1:])))
    ids, *nats = (np.concatenate(each, 1) for each in zip(*parts, strict=True))
    ended = made[-1].ended if made else None
    found = []
    for row, prompt in enumerate(prompts):
        new = ids[row].astype(np.int32)
        new = new[: int((new >= 0).sum())]
        text = prompt + vocabulary.decoder()(new)
        why = ENDS[0 if ended is None else int(ended[row])]
        found.append(Written(prompt, text, why, *(each[row, : len(new)] for each in nats)))
    return found


def best(candidates: Sequence[Written], of: int) -> list[Written]:
    """Of each `of` in a row the one with the highest mean log-probability."""
    groups = [candidates[k : k + of] for k in range(0, len(candidates), of)]
    return [max(group, key=lambda each: each.log_prob) for group in groups]


def rows_at_once(model: Trained, longest: int, length: int, limit: int | None) -> int:
    """How many rows of such primes and lengths take at most an eighth of a device's memory,
    of which None says nothing; a power of two, so that few sizes are compiled."""
    fitting = (limit or 2**33) // 8 // _bytes_of_row(model, longest, length)
    return 1 << max(0, min(fitting, 4096).bit_length() - 1)


def _bytes_of_row(model: Trained, longest: int, length: int) -> int:
    """Roughly; what a prime takes while it is read, the state, and the text."""
    shape, symbols = model.config.model, model.text.vocabulary.size
    read_at_once = min(longest, PASS) * 6 * shape.hidden_size
    kept = 4 * shape.num_layers * shape.hidden_size + 3 * symbols + longest + length
    return 4 * (read_at_once + kept)
