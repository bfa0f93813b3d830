"""What `charjax.load` returns: a trained model that writes, predicts and scores text."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charjax.config.schema import Config, OnUnknown
from charjax.devices import memory
from charjax.devices import mesh as meshes
from charjax.devices.backend import computing
from charjax.errors import InputError, counted
from charjax.model.network import init, initial_carry
from charjax.model.parameters import Params
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import draw as sampling
from charjax.sampling.options import SamplingKeywords, SamplingOptions
from charjax.storage import run_directory
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.record import read
from charjax.text.batching import Batch
from charjax.text.description import TextDescription
from charjax.text.vocabulary import Vocabulary
from charjax.training.step import eval_step

# Characters drawn between two looks at the host: long enough that the device is never
# idle, short enough that text appears as it is made.
CHUNK = 128
# Longest piece of text read in one pass, which bounds memory and compiled shapes.
PASS = 1024

_prefill = jax.jit(sampling.prefill, static_argnums=(0, 5))
_draw = jax.jit(sampling.draw, static_argnums=(0, 3, 6))
_score = jax.jit(eval_step, static_argnums=(0, 4))


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """Parameters, config and text of one checkpoint.

    All text goes in and comes out as `str`. A model of bytes reads text as UTF-8; in what
    it writes, bytes that are no UTF-8 become the replacement character, and a character
    that the last byte leaves unfinished is left out.
    """

    config: Config
    params: Params = dataclasses.field(repr=False)
    text: TextDescription
    """What they were trained on."""

    step: int
    """Updates behind the parameters."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols behind the ids."""
        return self.text.vocabulary

    @overload
    def generate(
        self,
        prime: str = ...,
        length: int = ...,
        *,
        seed: int = ...,
        num_samples: None = ...,
        on_unknown: OnUnknown = ...,
        options: SamplingOptions | None = ...,
        **keywords: Unpack[SamplingKeywords],
    ) -> str: ...

    @overload
    def generate(
        self,
        prime: str = ...,
        length: int = ...,
        *,
        seed: int = ...,
        num_samples: int,
        on_unknown: OnUnknown = ...,
        options: SamplingOptions | None = ...,
        **keywords: Unpack[SamplingKeywords],
    ) -> list[str]: ...

    def generate(
        self,
        prime: str = "",
        length: int = 1000,
        *,
        seed: int = 0,
        num_samples: int | None = None,
        on_unknown: OnUnknown = "error",
        options: SamplingOptions | None = None,
        **keywords: Unpack[SamplingKeywords],
    ) -> str | list[str]:
        """Writes text.

        Args:
          prime: text to go on from; without it the first character is drawn from the
            corpus's distribution.
          length: characters to add (bytes, for a model of bytes).
          seed: the same seed gives the same text.
          num_samples: write so many texts in one batch.
          on_unknown: what to do with characters of the prime outside the vocabulary.
          options: how characters are drawn.
          keywords: fields of `SamplingOptions`, such as `temperature=0.8` and `top_k=5`,
            in place of those of `options`.

        Returns:
          The prime and the new text; with `num_samples` a list of them.

        Raises:
          InputError: unknown characters in the prime, or an impossible option.
        """
        rows = 1 if num_samples is None else num_samples
        prime_ids = self.vocabulary.encode(prime, on_unknown)
        prime = self.vocabulary.decode(prime_ids) if on_unknown == "skip" else prime
        options = _options(options, keywords)
        chunks = list(self._draw(prime_ids, length, options, seed, rows))
        new = np.concatenate([np.zeros((rows, 0), np.int32), *chunks], axis=1)
        texts = [prime + self.vocabulary.decoder()(row) for row in new]
        return texts[0] if num_samples is None else texts

    def stream(
        self,
        prime: str = "",
        length: int = 1000,
        *,
        seed: int = 0,
        on_unknown: OnUnknown = "error",
        options: SamplingOptions | None = None,
        **keywords: Unpack[SamplingKeywords],
    ) -> Iterator[str]:
        """Writes text piece by piece: the prime first, then new text as it is made.

        The pieces joined are what `generate` returns for the same arguments.
        """
        prime_ids = self.vocabulary.encode(prime, on_unknown)
        chunks = self._draw(prime_ids, length, _options(options, keywords), seed, 1)
        prime = self.vocabulary.decode(prime_ids) if on_unknown == "skip" else prime
        return self._pieces(prime, chunks)

    def _pieces(self, prime: str, chunks: Iterator[np.ndarray]) -> Iterator[str]:
        decode = self.vocabulary.decoder()
        if prime:
            yield prime
        for chunk in chunks:
            yield decode(chunk[0])

    def _draw(
        self,
        prime_ids: np.ndarray,
        length: int,
        options: SamplingOptions,
        seed: int,
        rows: int,
    ) -> Iterator[np.ndarray]:
        """New ids in chunks `[rows, <= CHUNK]`; checks its arguments at once."""
        if length < 0:
            raise InputError(f"`length` is {length}: give 0 or more characters.")
        options.check_vocabulary(self.vocabulary.size)
        if rows < 1:
            raise InputError(f"`num_samples` is {rows}: give at least 1.")
        if not 0 <= seed < 2**32:
            raise InputError(f"`seed` is {seed}: give a number from 0 to 4294967295.")

        def chunks() -> Iterator[np.ndarray]:
            # Not around a yield, where code that is not ours runs.
            with computing():
                state, key = self._read(prime_ids, rows), jax.random.key(seed)
                numbers = jax.tree.map(jnp.float32, options)
                recurrence = self._recurrence(rows, 1)
            waiting, left = None, length
            while left > 0:
                with computing():
                    state, ids = _draw(
                        *(self.config, self.params, state, CHUNK, key, numbers),
                        recurrence,
                    )
                # The next chunk is under way while this one is looked at.
                if waiting is not None:
                    yield np.asarray(waiting)
                waiting, left = ids, left - CHUNK
            if waiting is not None:
                yield np.asarray(waiting)[:, : left + CHUNK]

        def with_memory() -> Iterator[np.ndarray]:
            with memory.explain_shortage(
                f"there is not enough memory for num_samples {rows} of length {length}: "
                "make one of them smaller."
            ):
                yield from chunks()

        return with_memory()

    def _read(
        self, ids: np.ndarray, rows: int, carry: Any = None
    ) -> sampling.SamplingState:
        """The sampling state after reading `ids [n]` once, for each of `rows` rows."""
        counts = jnp.asarray(self.text.counts, jnp.float32)
        state = sampling.start(self.config, jnp.log(counts / counts.sum()), 1)
        if carry is not None:
            state = state._replace(carry=carry)
        for piece, count in _pieces(ids):
            lengths = np.full(1, count, np.int32)
            recurrence = self._recurrence(1, len(piece))
            state = _prefill(
                *(self.config, self.params, state, piece[None], lengths, recurrence)
            )
        return sampling.repeated(state, rows)

    @computing()
    def predict(self, text: str, carry: Any = None) -> tuple[np.ndarray, Any]:
        """The distribution of the next character after `text`.

        Args:
          text: at least one character.
          carry: the state that an earlier `predict` returned, to go on from there.

        Returns:
          Probabilities `[v]` float32 in the order of the vocabulary, and the state to go
          on with.
        """
        ids = self.vocabulary.encode(text)
        if len(ids) == 0:
            raise InputError("`text` is empty: predict needs at least one character.")
        state = self._read(ids, 1, carry)
        return np.asarray(jax.nn.softmax(state.logits[0])), state.carry

    @computing()
    def score(self, text: str, *, on_unknown: OnUnknown = "error") -> np.ndarray:
        """Nats of each character after the first, given all before it: float32 `[n - 1]`.

        Raises:
          InputError: fewer than two characters, or unknown ones.
        """
        ids = self.vocabulary.encode(text, on_unknown)
        if len(ids) < 2:
            raise InputError(
                f"`text` has {counted(len(ids), 'characters')}: score needs at least 2, "
                "since the first only serves as context."
            )
        carry, nats = initial_carry(self.config, 1), []
        inputs, targets = _pieces(ids[:-1]), _pieces(ids[1:])
        for (piece, count), (target, _) in zip(inputs, targets, strict=True):
            mask = np.arange(len(piece)) < count
            batch = Batch(piece[None], target[None], mask[None], np.zeros((1, 1), bool))
            recurrence = self._recurrence(1, len(piece))
            carry, piece_nats = _score(self.config, self.params, carry, batch, recurrence)
            nats.append(np.asarray(piece_nats)[0, :count])
        return np.concatenate(nats)

    def _recurrence(self, rows: int, steps: int) -> Recurrence:
        """What suits the devices that the parameters lie on."""
        first = jax.tree.leaves(self.params)[0]
        devices = first.devices() if isinstance(first, Array) else jax.local_devices()[:1]
        mesh = meshes.make_mesh(list(devices))
        return meshes.recurrence_for(self.config, mesh, (rows, steps))


def _options(
    options: SamplingOptions | None, keywords: SamplingKeywords
) -> SamplingOptions:
    return dataclasses.replace(options or SamplingOptions(), **keywords)


def _pieces(ids: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts ids into pieces of at most `PASS`, each padded to a power of two so that few
    shapes are compiled, with the number of ids that count."""
    for first in range(0, len(ids), PASS):
        piece = ids[first : first + PASS].astype(np.int32)
        width = max(8, 1 << (len(piece) - 1).bit_length())
        yield np.pad(piece, (0, width - len(piece))), len(piece)


@computing()
def load(workdir: str | Path, step: str | int = "best") -> LanguageModel:
    """Loads a trained model.

    Reads parameters only, onto the first device.

    Args:
      workdir: a run's directory.
      step: "best" (falls back to the newest), "latest", or the number of a step on disk.

    Raises:
      InputError: no run or no such checkpoint there, or a damaged one.
    """
    lack = f"there is not enough memory to load the model in {workdir}."
    with memory.explain_shortage(lack):
        return reading(workdir, step, _model)


def _model(checkpoints: Checkpoints, step: int) -> LanguageModel:
    record = read(checkpoints, step)
    config, vocab_size = record.config, record.text.vocabulary.size
    shapes = jax.eval_shape(lambda key: init(config, vocab_size, key), jax.random.key(0))
    params = checkpoints.restore(step, {"params": shapes})["params"]
    return LanguageModel(config, params, record.text, step)


def reading(workdir: str | Path, step: str | int, read: Callable[..., Any]) -> Any:
    """What `read(checkpoints, step)` makes of the step of a run that is meant.

    Another run may take its place meanwhile; then it is done again. Raises InputError
    where there is no run.
    """
    workdir = Path(workdir)
    if not run_directory.holds_run(workdir):
        raise InputError(
            f"{workdir} holds no run: give the directory that training wrote to, such as "
            "runs/default."
        )
    while True:
        folder = run_directory.located(workdir, run_directory.CHECKPOINTS)
        try:
            checkpoints = Checkpoints(folder)
            return checkpoints.reading(step, functools.partial(read, checkpoints))
        except (InputError, FileNotFoundError):
            if folder == run_directory.located(workdir, run_directory.CHECKPOINTS):
                raise
