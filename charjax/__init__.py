"""Character-level language models in JAX.

Train one on your own text, sample from it, use it as a library:

    import charjax

    result = charjax.fit(charjax.Config(), workdir="runs/mine")
    model = charjax.load("runs/mine")
    print(model.generate("The ", length=500, temperature=0.8))

The pure functions under it, `init`, `apply`, `train_step` and `sample`, need no files and
work under `jit` and `vmap`.
"""

from charjax.config import Config as Config
from charjax.config import DataConfig as DataConfig
from charjax.config import InputError as InputError
from charjax.config import ModelConfig as ModelConfig
from charjax.config import OptimizerConfig as OptimizerConfig
from charjax.config import ParallelConfig as ParallelConfig
from charjax.config import TrainConfig as TrainConfig
from charjax.evaluation import Evaluation as Evaluation
from charjax.evaluation import evaluate as evaluate
from charjax.fit import FitResult as FitResult
from charjax.fit import fit as fit
from charjax.language_model import LanguageModel as LanguageModel
from charjax.language_model import load as load
from charjax.loop import Diverged as Diverged
from charjax.model.network import apply as apply
from charjax.model.network import init as init
from charjax.model.network import initial_carry as initial_carry
from charjax.presets import load_config as load_config
from charjax.sampling import sample as sample
from charjax.text.batching import Batch as Batch
from charjax.text.batching import batch_at as batch_at
from charjax.text.vocabulary import Vocabulary as Vocabulary
from charjax.training.state import TrainState as TrainState
from charjax.training.state import initial_state as initial_state
from charjax.training.step import train_step as train_step

__version__ = "0.1.0"
