"""A run under way, and what it does between steps: evaluate, sample, save."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from charjax.config.data import SPLITS, Split
from charjax.config.schema import Config
from charjax.devices import placement, processes
from charjax.evaluation.evaluate import evaluate
from charjax.evaluation.units import bits, of_loss, short, unit
from charjax.language_model import LanguageModel
from charjax.reporting.report import Report
from charjax.reporting.samples import laid_out
from charjax.run.directory import take_place
from charjax.run.plan import Plan
from charjax.run.start import items
from charjax.run.text_of_run import from_workdir
from charjax.storage.record import Record, Standing, versions
from charjax.storage.saver import Saver
from charjax.text.corpus import Corpus
from charjax.text.documents import Documents
from charjax.training.state import TrainState

# Symbols of the samples that training shows; of documents at most so many.
SAMPLE_LENGTH = 300
SAMPLE_DOCUMENTS = 10
# So many in a row end the run.
FAILED_SAVES = 3


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same from the first step to the last."""

    plan: Plan
    corpus: Corpus
    saver: Saver | None
    report: Report

    @property
    def config(self) -> Config:
        return self.plan.config

    @functools.cached_property
    def _splits(self) -> dict[Split, np.ndarray | Documents]:
        return {name: self.corpus.split(name, self.config.data.split) for name in SPLITS}

    def split(self, name: Split) -> np.ndarray | Documents:
        return self._splits[name]

    def model(self, state: TrainState) -> LanguageModel:
        """The model as it is now, on one device; all processes must ask."""
        params = state.params
        if self.plan.mesh.size > 1:
            params = placement.on_one_device(params)
        return LanguageModel(self.config, params, self.corpus.text, int(state.step))

    def record(self, step: int, standing: Standing, loss: float | None) -> Record:
        """What makes a checkpoint explain itself; `loss` is that of `save`."""
        text, own = self.corpus.text, self.plan.own_optimizer
        workdir, paths = self.plan.workdir, self.config.data.sources
        near = () if workdir is None else from_workdir(paths, workdir.absolute())
        return Record(
            *(step, self.config, text, loss, standing, versions(), *own),
            sources=near,
            proof=self.plan.proof,
        )


def evaluate_split(run: Run, state: TrainState, split: Split) -> float:
    """Scores a split, and returns its nats per symbol."""
    step, ids = int(state.step), run.split(split)
    score = evaluate(run.config, state.params, ids, mesh=run.plan.mesh)
    nats, per, in_bits = score.loss, unit(run.config), bits(score.loss)
    other = {} if per == "character" else {f"bits_per_{short(per)}": in_bits}
    run.report.write(
        step=step,
        split=split,
        loss=nats,
        unit=of_loss(run.config),
        **other,
        bits_per_char=score.bits_per_char,
        rows=score.rows,
    )
    also = f", {score.bits_per_char:.3f} bits per character" if other else ""
    run.report.message(
        f"step {step:,}: {split} loss {nats:.4f} nats ({in_bits:.3f} bits) per {per}{also}"
    )
    return nats


def score_test(run: Run, state: TrainState) -> None:
    """Scores the test split, once, with the best parameters that were kept."""
    step, history = int(state.step), run.report.history
    scored = any(
        (line.get("split"), line.get("step")) == ("test", step) for line in history
    )
    # The first process alone has read the history.
    if processes.from_first(int(scored)) or len(run.split("test")) < 2:
        return
    if run.saver is not None:
        run.saver.wait()
        processes.wait("saved")
        first = processes.is_first()
        best = processes.from_first(run.saver.resolve("best") if first else 0)
        params = run.saver.restore(best, {"params": run.plan.abstract.params})
        state = dataclasses.replace(state, **params)
    evaluate_split(run, state, "test")


def sample(run: Run, state: TrainState) -> None:
    """Shows and keeps a text that the model writes."""
    model = run.model(state)
    if processes.is_first():
        run.report.sample(model.step, _sample(model))


def _sample(model: LanguageModel) -> str:
    seed, documents = model.step % 2**32, model.vocabulary.documents
    if not documents:
        return model.generate("", SAMPLE_LENGTH, seed=seed)
    texts = model.generate("", SAMPLE_LENGTH, num_samples=SAMPLE_DOCUMENTS, seed=seed)
    # As many as one sample of a whole text is long; the first is no longer.
    ends = np.cumsum([len(text) for text in texts])
    fitting = (text for text, end in zip(texts, ends, strict=True) if end <= SAMPLE_LENGTH)
    return "".join(laid_out(fitting, documents))


def save(run: Run, state: TrainState, standing: Standing, loss: float | None) -> None:
    """Starts saving a checkpoint; `loss` is on the validation split, if it was scored."""
    step = int(state.step)
    record = run.record(step, standing, loss)
    tolerate(run, Saver.wait)
    # A step on the disk whose metrics are not would resume with lines missing.
    run.report.sync()
    tolerate(run, lambda saver: saver.save(step, items(state), record.to_dict()))
    if run.saver is not None and run.saver.replaces:
        tolerate(run, Saver.wait)
        take_place(run.saver)


def tolerate(run: Run, action: Callable[[Saver], None]) -> None:
    """Does something with the checkpoints; training goes on if it fails, for a while."""
    if run.saver is None:
        return
    run.report.check_place()
    try:
        action(run.saver)
    except OSError as error:
        run.report.check_place()
        if run.saver.failures >= FAILED_SAVES:
            raise OSError(
                f"{error}; so have the {FAILED_SAVES - 1} saves before it. Make room on "
                "the disk or repair it, then go on with the same command."
            ) from error
        run.report.message(f"warning: {error}; training goes on")
