"""Models of random parameters."""

import jax
import numpy as np

from charjax import Config, LanguageModel, init

TWO_LAYERS = Config().replace(**{"model.hidden_size": 8, "model.num_layers": 2})


def untrained(vocabulary, *, start=9.0, end=2.0):
    """A model that would often draw the start of documents, and at times their end."""
    config = TWO_LAYERS.replace(**{"data.vocabulary": vocabulary.kind})
    shapes = jax.eval_shape(lambda: init(config, vocabulary.size, jax.random.key(0)))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)
    if vocabulary.documents:
        config = config.replace(**{"data.documents": "lines"})
        params["head"]["bias"][[vocabulary.start, vocabulary.end]] = start, end
    return LanguageModel.from_params(config, params, vocabulary)
