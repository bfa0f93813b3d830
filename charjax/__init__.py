"""Character-level language models in JAX.

Train one on your own text, sample from it, use it as a library:

    import charjax

    result = charjax.fit(charjax.Config(), workdir="runs/mine")
    model = charjax.load("runs/mine")
    print(model.generate("The ", length=500, temperature=0.8))

The pure functions under it, `init`, `apply`, `train_step` and `sample`, need no files and
work under `jit` and `vmap`.
"""

from charjax.config.presets import load_config as load_config
from charjax.config.schema import Config as Config
from charjax.config.schema import DataConfig as DataConfig
from charjax.config.schema import ModelConfig as ModelConfig
from charjax.config.schema import OptimizerConfig as OptimizerConfig
from charjax.config.schema import ParallelConfig as ParallelConfig
from charjax.config.schema import TrainConfig as TrainConfig
from charjax.errors import Diverged as Diverged
from charjax.errors import InputError as InputError
from charjax.evaluation.evaluate import Evaluation as Evaluation
from charjax.evaluation.evaluate import evaluate as evaluate
from charjax.language_model import LanguageModel as LanguageModel
from charjax.language_model import load as load
from charjax.model.network import apply as apply
from charjax.model.network import init as init
from charjax.model.network import initial_carry as initial_carry
from charjax.run.fit import FitResult as FitResult
from charjax.run.fit import fit as fit
from charjax.sampling.draw import sample as sample
from charjax.text.batching import Batch as Batch
from charjax.text.batching import batch_at as batch_at
from charjax.text.vocabulary import Vocabulary as Vocabulary
from charjax.training.state import TrainState as TrainState
from charjax.training.state import initial_state as initial_state
from charjax.training.step import train_step as train_step

__version__ = "0.1.0"
