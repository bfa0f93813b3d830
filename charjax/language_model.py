"""What `charjax.load` returns: a trained model that writes, predicts and scores text."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack, overload

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
from charjax.errors import InputError, counted
from charjax.model.arguments import Count, check_carry
from charjax.model.network import init
from charjax.model.parameters import Params, check
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import writing
from charjax.sampling.chunks import scored
from charjax.sampling.settings import Settings, WritingKeywords
from charjax.sampling.written import Written
from charjax.storage import saved_model
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.record import Record, Standing, versions
from charjax.storage.record import read as read_record
from charjax.text.description import TextDescription
from charjax.text.vocabulary import Vocabulary
from charjax.text.watch import Watch, silent


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

        Without a text it cannot draw a first character, so it needs a prime to write,
        unless it is one of documents.

        Args:
          config: of it `model`, `train.precision`, `data.vocabulary` and `data.documents`
            matter here.
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
        if vocabulary.documents != config.data.has_documents:
            found = f"`vocabulary` has `documents={vocabulary.documents}`"
            refuse("data.documents", config.data.documents, found)
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
        num_samples: None = ...,
        log_probs: Literal[False] = ...,
        **settings: Unpack[WritingKeywords],
    ) -> str: ...

    @overload
    def generate(
        self,
        prime: str = ...,
        length: int = ...,
        *,
        num_samples: int,
        log_probs: Literal[False] = ...,
        **settings: Unpack[WritingKeywords],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prime: Sequence[str],
        length: int = ...,
        *,
        num_samples: None = ...,
        log_probs: Literal[False] = ...,
        **settings: Unpack[WritingKeywords],
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prime: str = ...,
        length: int = ...,
        *,
        num_samples: None = ...,
        log_probs: Literal[True],
        **settings: Unpack[WritingKeywords],
    ) -> Written: ...

    @overload
    def generate(
        self,
        prime: Sequence[str],
        length: int = ...,
        *,
        num_samples: None = ...,
        log_probs: Literal[True],
        **settings: Unpack[WritingKeywords],
    ) -> list[Written]: ...

    @overload
    def generate(
        self,
        prime: str = ...,
        length: int = ...,
        *,
        num_samples: int,
        log_probs: Literal[True],
        **settings: Unpack[WritingKeywords],
    ) -> list[Written]: ...

    def generate(
        self,
        prime: str | Sequence[str] = "",
        length: int = 1000,
        *,
        num_samples: int | None = None,
        log_probs: bool = False,
        **settings: Unpack[WritingKeywords],
    ) -> Any:
        """Writes text.

        Args:
          prime: text to go on from; without it the first character is drawn from the
            corpus's distribution. Several are written on from in one batch, or in batches
            that fit the memory. For a model of documents it is how one begins.
          length: characters to add, at most (bytes, for a model of bytes). A document may
            end before; its end counts as one.
          num_samples: write so many texts after one prime.
          log_probs: return `Written` in place of `str`: the text, the log-probability of
            each new symbol, and why the text ends.
          settings: fields of `Settings` (`seed`, `on_unknown`, `best_of`, `first_row`), and
            how characters are drawn: `options`, or fields of `SamplingOptions`, such as
            `temperature=0.8` and `top_k=5`, in place of those of `options`.

        Returns:
          The prime and the new text; a list of them for several primes or samples.

        Raises:
          InputError: unknown characters in the prime, or an impossible option.
        """
        log_probs = checked("`log_probs`", log_probs, bool)
        made = list(self._written(prime, length, num_samples, settings, log_probs))
        results = made if log_probs else [each.text for each in made]
        return results[0] if isinstance(prime, str) and num_samples is None else results

    def each(
        self,
        prime: str | Sequence[str] = "",
        length: int = 1000,
        *,
        num_samples: int | None = None,
        watch: Watch = silent,
        **settings: Unpack[WritingKeywords],
    ) -> Iterator[Written]:
        """What `generate(log_probs=True)` returns, one by one as each batch is done.

        `watch("writing", done, total)` is called on the way, in characters; there may be
        fewer, where texts end.
        """
        return self._written(prime, length, num_samples, settings, True, watch)

    def _written(
        self, prime: Any, length: Any, num_samples: Any, keywords: Any, *rest: Any
    ) -> Iterator[Written]:
        samples = 1 if num_samples is None else checked("`num_samples`", num_samples, Count)
        length = checked("`length`", length, Annotated[int, AtLeast(0)])
        settings, primes = Settings.of(keywords), writing.as_primes(prime)
        if len(primes) > 1 and samples > 1:
            raise InputError(
                f"`num_samples` is {samples}: with several primes there is one text for "
                "each; name a prime as often as you want texts of it."
            )
        return writing.written(self.trained, primes, length, samples, settings, *rest)

    def stream(
        self,
        prime: str = "",
        length: int | None = 1000,
        **settings: Unpack[WritingKeywords],
    ) -> Iterator[str]:
        """Writes text piece by piece: the prime first, then new text as it is made.

        The pieces joined are what `generate` returns for the same arguments. With `length`
        None there is no end but that of `stop`, or of a document.
        """
        asked = Settings.of(settings)
        if asked.best_of > 1:
            refuse(
                "`best_of`", asked.best_of, "a stream cannot take back text; use generate"
            )
        if length is not None:
            length = checked("`length`", length, Annotated[int, AtLeast(0)])
        check_instance("prime", prime, str)
        return writing.stream(self.trained, prime, length, asked)

    @property
    def trained(self) -> writing.Trained:
        """What the functions of `charjax.sampling` take."""
        return writing.Trained(self.config, self.params, self.text, self._recurrence)

    @computing()
    def predict(self, text: str, carry: Any = None) -> tuple[np.ndarray, Any]:
        """The distribution of the next character (for a model of bytes, the next byte).

        Args:
          text: at least one character; for a model of documents the beginning of one,
            which may be empty.
          carry: the state that an earlier `predict` returned, to go on from there.

        Returns:
          Probabilities `[v]` float32 in the order of the vocabulary (the end of documents
          included), and the state to go on with.
        """
        vocabulary, anew = self.vocabulary, carry is None
        ids = writing.beginning(vocabulary, text) if anew else vocabulary.encode(text)
        if len(ids) == 0:
            raise InputError("`text` is empty: predict needs at least one character.")
        if carry is not None:
            check_carry(self.config, carry, 1)
        state = writing.start(self.trained, [ids], carry)
        return np.asarray(jax.nn.softmax(state.logits[0])), state.carry

    @computing()
    def score(self, text: str, *, on_unknown: OnUnknown = "error") -> np.ndarray:
        """Nats of each character after the first, given all before it: float32 `[n - 1]`.

        For a model of bytes these are the bytes of the text in UTF-8. For a model of
        documents the text is one, of any length, and these are the nats of each character
        and of the end, given the start: `[n + 1]`.

        Raises:
          InputError: fewer than two characters, or unknown ones.
        """
        ids = writing.beginning(self.vocabulary, text, on_unknown)
        if self.vocabulary.end is not None:
            ids = np.append(ids, self.vocabulary.end)
        if len(ids) < 2:
            raise InputError(
                f"`text` has {counted(len(ids), self.vocabulary.kind)}: score needs at "
                "least 2, since the first only serves as context."
            )
        return scored(self.config, self.params, ids, self._recurrence)

    def _recurrence(self, rows: int, steps: int) -> Recurrence:
        """What suits the devices that the parameters lie on."""
        first = jax.tree.leaves(self.params)[0]
        devices = first.devices() if isinstance(first, Array) else jax.local_devices()[:1]
        mesh = meshes.make_mesh(list(devices))
        return meshes.inference_recurrence(self.config, mesh, (rows, steps))


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
