"""The Mysterious Island with the recipe of chapter 15 of the PyTorch/scikit-learn book.

    python train.py --config mysterious_island
    python train.py --config mysterious_island --data.source path/to/1268-0.txt

Embedding 256, one LSTM layer of 512, shuffled windows of 40 characters from zero state,
batches of 64, Adam 1e-3, no clipping, no dropout, 10,000 steps. The book trains on all of
its text; here the last 5 % are held out, so that overfitting can be seen.

Not run to its end. 1,000 steps on two CPU cores (Sapphire Rapids, float32) took 3.6
minutes: training loss 1.314 nats as the mean of the last 50 steps (1.450 at step 500),
validation 1.296. The notebook prints 1.4705 at step 500 and 1.3571 at 1,000, each of one
batch.
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            source="mysterious-island",
            start_marker="THE MYSTERIOUS ISLAND",
            end_marker="End of the Project Gutenberg",
            split=(0.95, 0.05, 0.0),
            batching="windows",
            batch_size=64,
            sequence_length=40,
        ),
        model=ModelConfig(
            cell="lstm", num_layers=1, hidden_size=512, embedding_size=256, dropout=0.0
        ),
        optimizer=OptimizerConfig(
            name="adam",
            learning_rate=1e-3,
            schedule="constant",
            warmup_steps=0,
            clip_norm=None,
        ),
        train=TrainConfig(
            steps=10_000,
            epochs=None,
            eval_every=500,
            checkpoint_every=500,
            sample_every=500,
        ),
    )
