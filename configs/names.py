"""Made-up names, each a document, in a minute on a laptop's CPU.

    python train.py --config names
    python sample.py --workdir runs/names --num-samples 50

The 900 names follow a rule: `charjax.text.builtin.names`. All are learned from. A loss of
held-out names would be best long before the rule is kept, and that checkpoint would be the
one to be sampled from.

Run to its end on two CPU cores that were shared with other work (float32): 24 seconds,
compilation included; of 2,000 samples at temperature 1, 97.1 % keep the rule and 84.6 % are
not in the list. 1,200 steps: 98.3 % and 54.1 %.
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            source="names",
            documents="lines",
            split=(1.0, 0.0, 0.0),
            batch_size=16,
            sequence_length=32,
        ),
        model=ModelConfig(cell="lstm", num_layers=1, hidden_size=128, dropout=0.5),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=20),
        train=TrainConfig(steps=700, sample_every=350),
    )
