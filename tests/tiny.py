"""A text, a config and options of the command that train in a moment."""

from charjax import Config, DataConfig, ModelConfig, TrainConfig

LINE = "all happy families are alike; every unhappy family is unhappy.\n"
TEXT = LINE * 40
CONFIG = Config(
    data=DataConfig(batch_size=8, sequence_length=8),
    model=ModelConfig(hidden_size=16),
    train=TrainConfig(steps=40, eval_every=None, checkpoint_every=10, log_every=1),
)
FOUR_STEPS = CONFIG.replace(
    **{"model.hidden_size": 8, "model.num_layers": 1, "train.steps": 4},
    **{"train.checkpoint_every": 1000, "train.sample_every": None},
)
OPTIONS = (
    *("--data.batch_size", "8", "--data.sequence_length", "16"),
    *("--model.hidden_size", "16", "--model.num_layers", "1", "--train.log_every", "1"),
)
