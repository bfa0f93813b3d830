"""What `charjax.load` returns: a trained model that writes, predicts and scores text."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charjax.config.checks import AtLeast, check_instance, checked, checked_path, refuse
from charjax.config.data import OnUnknown
from charjax.config.schema import Config
from charjax.devices import memory
from charjax.devices import mesh as meshes
from charjax.devices.backend import computing
from charjax.errors import InputError, counted, suggestion
from charjax.model.arguments import Count, check_carry
from charjax.model.network import init, initial_carry, of_network
from charjax.model.parameters import Params, check
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import draw as sampling
from charjax.sampling.chunks import drawn, pieces, read
from charjax.sampling.options import SamplingKeywords, SamplingOptions
from charjax.storage import saved_model
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.record import Record, Standing, versions
from charjax.storage.record import read as read_record
from charjax.text.batching import Batch
from charjax.text.description import TextDescription
from charjax.text.vocabulary import Vocabulary
from charjax.training.step import eval_step

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
    """What they were trained on; of parameters from elsewhere only the symbols."""

    step: int
    """Updates behind the parameters."""

    def __repr__(self) -> str:
        model, size = self.config.model, sum(map(np.size, jax.tree.leaves(self.params)))
        return (
            f"<LanguageModel {model.num_layers} x {model.hidden_size} {model.cell.upper()}"
            f", {size:,} parameters, step {self.step:,}; {self.text.summary}>"
        )

    @classmethod
    @computing()
    def from_params(
        cls, config: Config, params: Params, vocabulary: Vocabulary
    ) -> "LanguageModel":
        """A model of parameters from elsewhere, whose text is not known.

        Without a text it cannot draw a first character, so it needs a prime to write.

        Args:
          config: of it `model`, `train.precision` and `data.vocabulary` matter here.
          params: a nested dict of floats of any kind, laid out as those of `init`.
          vocabulary: the symbols behind the ids, such as `Vocabulary.from_text(text)`.

        Raises:
          InputError: names or shapes that do not fit, which are listed.
        """
        check_instance("config", config, Config)
        check_instance("vocabulary", vocabulary, Vocabulary)
        if vocabulary.kind != config.data.vocabulary:
            kind = config.data.vocabulary
            refuse("data.vocabulary", kind, f"`vocabulary` is one of {vocabulary.kind}")
        check(config.model, vocabulary.size, jax.tree.map(np.asarray, params))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        unknown = np.zeros(vocabulary.size, np.int64)
        return cls(config, params, TextDescription(vocabulary, unknown, ""), 0)

    @computing()
    def save(self, path: str | Path) -> None:
        """Saves the model in a folder of its own, for `charjax.load` and the commands.

        Config, vocabulary and the counts of its text go with the parameters; the text, the
        optimizer and the rest of a run do not. An earlier model there is replaced as a
        whole.

        Raises:
          InputError: the path holds anything else.
          OSError: it cannot be written.
        """
        path = checked_path("path", path)
        record = Record(self.step, self.config, self.text, None, Standing(), versions())
        saved_model.save(path, {"params": self.params}, record.to_dict())

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
        rows = 1 if num_samples is None else checked("`num_samples`", num_samples, Count)
        prime, prime_ids = self._primed(prime, on_unknown)
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
        prime, prime_ids = self._primed(prime, on_unknown)
        chunks = self._draw(prime_ids, length, _options(options, keywords), seed, 1)
        return self._pieces(prime, chunks)

    def _primed(self, prime: str, on_unknown: OnUnknown) -> tuple[str, np.ndarray]:
        """The prime and its ids, without what is to be skipped."""
        check_instance("prime", prime, str)
        ids = self.vocabulary.encode(prime, on_unknown)
        return self.vocabulary.decode(ids) if on_unknown == "skip" else prime, ids

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
        length = checked("`length`", length, Annotated[int, AtLeast(0)])
        seed = checked("`seed`", seed, Annotated[int, AtLeast(0, 2**32 - 1)])
        options.check_vocabulary(self.vocabulary.size)
        if not len(prime_ids) and not self.text.length:
            raise InputError(
                "`prime` is empty: this model does not know how often each symbol occurs, "
                "to draw the first one; give some text."
            )

        def chunks() -> Iterator[np.ndarray]:
            state, key = self._read(prime_ids, rows), jax.random.key(seed)
            suitable = self._recurrence(rows, 1)
            yield from drawn(
                self.config, self.params, state, length, key, options, suitable
            )

        def with_memory() -> Iterator[np.ndarray]:
            each = chunks()
            lack = (
                f"there is not enough memory for num_samples {rows} of length "
                f"{length}: make one of them smaller."
            )
            while True:
                # Nothing is left open at the `yield`, where other code runs: what is read
                # half is closed when Python ends, and modules are no longer whole.
                with computing(), memory.explain_shortage(lack):
                    ids = next(each, None)
                if ids is None:
                    return
                yield ids

        return with_memory()

    def _read(
        self, ids: np.ndarray, rows: int, carry: Any = None
    ) -> sampling.SamplingState:
        """The sampling state after reading `ids [n]` once, for each of `rows` rows."""
        counts = jnp.asarray(self.text.counts, jnp.float32)
        first = jnp.log(counts / jnp.maximum(counts.sum(), 1))
        state = sampling.start(self.config, first, 1)
        if carry is not None:
            check_carry(self.config, carry, 1)
            state = state._replace(carry=carry)
        state = read(self.config, self.params, state, ids, self._recurrence)
        return sampling.repeated(state, rows)

    @computing()
    def predict(self, text: str, carry: Any = None) -> tuple[np.ndarray, Any]:
        """The distribution of the next character (for a model of bytes, the next byte).

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

        For a model of bytes these are the bytes of the text in UTF-8.

        Raises:
          InputError: fewer than two characters, or unknown ones.
        """
        ids = self.vocabulary.encode(text, on_unknown)
        if len(ids) < 2:
            raise InputError(
                f"`text` has {counted(len(ids), self.vocabulary.kind)}: score needs at "
                "least 2, since the first only serves as context."
            )
        config, carry, nats = of_network(self.config), initial_carry(self.config, 1), []
        inputs, targets = pieces(ids[:-1]), pieces(ids[1:])
        for (piece, count), (target, _) in zip(inputs, targets, strict=True):
            mask = np.arange(len(piece)) < count
            batch = Batch(piece[None], target[None], mask[None], np.zeros((1, 1), bool))
            recurrence = self._recurrence(1, len(piece))
            carry, piece_nats = _score(config, self.params, carry, batch, recurrence)
            nats.append(np.asarray(piece_nats)[0, :count])
        return np.concatenate(nats)

    def _recurrence(self, rows: int, steps: int) -> Recurrence:
        """What suits the devices that the parameters lie on."""
        first = jax.tree.leaves(self.params)[0]
        devices = first.devices() if isinstance(first, Array) else jax.local_devices()[:1]
        mesh = meshes.make_mesh(list(devices))
        return meshes.inference_recurrence(self.config, mesh, (rows, steps))


def _options(
    options: SamplingOptions | None, keywords: SamplingKeywords
) -> SamplingOptions:
    if options is not None:
        check_instance("options", options, SamplingOptions)
    if unknown := sorted(keywords.keys() - vars(SamplingOptions())):
        known = [field.name for field in dataclasses.fields(SamplingOptions)]
        raise InputError(
            f"there is no option `{unknown[0]}`; {suggestion(unknown[0], known)}"
        )
    return dataclasses.replace(options or SamplingOptions(), **keywords)


@computing()
def load(workdir: str | Path, step: str | int = "best") -> LanguageModel:
    """Loads a trained model.

    Reads parameters only, onto the first device.

    Args:
      workdir: a run's directory, or a model that was saved.
      step: "best" (falls back to the newest), "latest", or the number of a step on disk.

    Raises:
      InputError: no run or no such checkpoint there, or a damaged one.
    """
    lack = f"there is not enough memory to load the model in {workdir}."
    with memory.explain_shortage(lack):
        return saved_model.reading(workdir, step, _model)


def _model(checkpoints: Checkpoints, step: int) -> LanguageModel:
    record = read_record(checkpoints, step)
    config, vocab_size = record.config, record.text.vocabulary.size
    shapes = jax.eval_shape(lambda key: init(config, vocab_size, key), jax.random.key(0))
    params = checkpoints.restore(step, {"params": shapes})["params"]
    return LanguageModel(config, params, record.text, step)
