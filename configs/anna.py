"""Anna Karenina with the recipe of the Udacity notebooks.

    python train.py --config anna
    python train.py --config anna --data.source path/to/anna.txt

LSTM 2 x 512 on one-hot characters, dropout 0.5 between layers and before the head, 128
rows of 100 characters, Adam 1e-3, gradient norm 5, 20 epochs, 90/10 split.

Run to its end (20 epochs, 2,800 steps, float32, two CPU cores that were shared with other
work, stopped and resumed several times, so no time is given): validation 1.282 nats at the
end, which is the best of the run, where the notebooks print 1.295 at the end and 1.292 at
best. Validation is the last tenth of the text in 128 rows, scored whole.
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(source="anna", batch_size=128, sequence_length=100),
        model=ModelConfig(cell="lstm", num_layers=2, hidden_size=512, dropout=0.5),
        optimizer=OptimizerConfig(
            name="adam",
            learning_rate=1e-3,
            schedule="constant",
            warmup_steps=0,
            clip_norm=5.0,
        ),
        train=TrainConfig(
            steps=None,
            epochs=20,
            eval_every=140,
            eval_rows=128,
            checkpoint_every=140,
            sample_every=140,
        ),
    )
