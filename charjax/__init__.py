"""Character-level language models in JAX.

Train one on your own text, sample from it, use it as a library:

    import charjax

    result = charjax.fit(charjax.Config(), workdir="runs/mine")
    model = charjax.load("runs/mine")
    print(model.generate("The ", length=500, temperature=0.8))

The pure functions under it, `init`, `apply`, `train_step` and `sample`, need no files and
work under `jit` and `vmap`. A name is imported on its first use, so that `import charjax`
costs next to nothing.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# What type checkers read. `_MODULES` says the same to Python; a test compares the two.
if TYPE_CHECKING:
    from charjax.compiled.compile_for import compile_for as compile_for
    from charjax.compiled.result import Compiled as Compiled
    from charjax.config.data import DataConfig as DataConfig
    from charjax.config.model import ModelConfig as ModelConfig
    from charjax.config.optimizer import OptimizerConfig as OptimizerConfig
    from charjax.config.parallel import ParallelConfig as ParallelConfig
    from charjax.config.presets import load_config as load_config
    from charjax.config.schema import Config as Config
    from charjax.config.train import TrainConfig as TrainConfig
    from charjax.errors import Diverged as Diverged
    from charjax.errors import InputError as InputError
    from charjax.evaluation.evaluate import Evaluation as Evaluation
    from charjax.evaluation.evaluate import evaluate as evaluate
    from charjax.evaluation.novelty import KnownDocuments as KnownDocuments
    from charjax.evaluation.novelty import Novelty as Novelty
    from charjax.evaluation.novelty import known_documents as known_documents
    from charjax.evaluation.novelty import novelty as novelty
    from charjax.evaluation.options import Dynamic as Dynamic
    from charjax.language_model import LanguageModel as LanguageModel
    from charjax.language_model import load as load
    from charjax.model.network import apply as apply
    from charjax.model.network import init as init
    from charjax.model.network import initial_carry as initial_carry
    from charjax.run.fit import FitResult as FitResult
    from charjax.run.fit import fit as fit
    from charjax.run.inspection import inspect_run as inspect_run
    from charjax.run.inspection import inspect_sharding as inspect_sharding
    from charjax.run.scoring import evaluate_run as evaluate_run
    from charjax.run.scoring import text_of_run as text_of_run
    from charjax.sampling.draw import sample as sample
    from charjax.sampling.options import SamplingOptions as SamplingOptions
    from charjax.text.batching import Batch as Batch
    from charjax.text.batching import batch_at as batch_at
    from charjax.text.documents import Documents as Documents
    from charjax.text.vocabulary import Vocabulary as Vocabulary
    from charjax.training.state import TrainState as TrainState
    from charjax.training.state import initial_state as initial_state
    from charjax.training.step import train_step as train_step
else:
    _MODULES = {
        "compiled.compile_for": ("compile_for",),
        "compiled.result": ("Compiled",),
        "config.presets": ("load_config",),
        "config.data": ("DataConfig",),
        "config.model": ("ModelConfig",),
        "config.optimizer": ("OptimizerConfig",),
        "config.parallel": ("ParallelConfig",),
        "config.schema": ("Config",),
        "config.train": ("TrainConfig",),
        "errors": ("Diverged", "InputError"),
        "evaluation.evaluate": ("Evaluation", "evaluate"),
        "evaluation.novelty": (
            "KnownDocuments",
            "Novelty",
            "known_documents",
            "novelty",
        ),
        "evaluation.options": ("Dynamic",),
        "language_model": ("LanguageModel", "load"),
        "model.network": ("apply", "init", "initial_carry"),
        "run.fit": ("FitResult", "fit"),
        "run.inspection": ("inspect_run", "inspect_sharding"),
        "run.scoring": ("evaluate_run", "text_of_run"),
        "sampling.draw": ("sample",),
        "sampling.options": ("SamplingOptions",),
        "text.batching": ("Batch", "batch_at"),
        "text.documents": ("Documents",),
        "text.vocabulary": ("Vocabulary",),
        "training.state": ("TrainState", "initial_state"),
        "training.step": ("train_step",),
    }
    __all__ = [name for names in _MODULES.values() for name in names]

    def __getattr__(name):
        import importlib

        for module, names in _MODULES.items():
            if name in names:
                found = getattr(importlib.import_module(f"charjax.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module 'charjax' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
