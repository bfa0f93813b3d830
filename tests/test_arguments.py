"""What cannot be meant is refused by name: never an AttributeError, never silence."""

import subprocess
import sys

# Elsewhere in the tests annotations are checked first; a user has only these.
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
import charjax
from charjax import Batch, Config, LanguageModel, ModelConfig, TrainState, Vocabulary

config = Config(model=ModelConfig(hidden_size=8, num_layers=1)).replace(
    **{"data.batch_size": 2, "data.sequence_length": 4}
)
key, vocabulary = jax.random.key(0), Vocabulary.from_text("abc")
params = charjax.init(config, 3, key)
carry = charjax.initial_carry(config, 2)
ids = np.array([[0, 1, 2, 0], [2, 1, 0, 2]])
model = LanguageModel.from_params(config, params, vocabulary)
state = charjax.initial_state(config, 3, key)
short, beyond = ids.astype(np.int32), jnp.array([3])
batch = Batch(short, short, ids >= 0, np.ones((2, 1), bool))
gru = charjax.initial_carry(config.replace(**{"model.cell": "gru"}), 2)

def apply(*arguments, **keywords):
    return charjax.apply(config, *arguments, **keywords)

def step(state=state, batch=batch, key=key):
    return charjax.train_step(config, state, batch, key)

def sample(ids, length=3, key=key, **keywords):
    return charjax.sample(config, params, ids, length, key, **keywords)

def traced(function, *arguments):
    return jax.jit(function)(*arguments)

CASES = [
    # what is called, and what the message says
    (lambda: model.generate(5), "`prime` is 5: expected a string"),
    (lambda: charjax.fit(config, fresh="no"), "`fresh` is 'no': expected True or False"),
    (lambda: charjax.init(config, 3, jax.random.split(key)), "`key` is key<fry>[2]: expec"),
    (lambda: charjax.init(config, 3, jnp.uint32(3)), "`key` is "),
    (lambda: sample(ids, temperature=np.ones(3)), "`temperature` is float64[3]: expected"),
    (lambda: traced(lambda k: sample(ids, top_k=k), 2), "value must be known"),
    (lambda: traced(lambda n: sample(ids, length=n), 2), "value must be known"),
    (lambda: traced(charjax.SamplingOptions, 0.5), "value must be known"),
    (lambda: model.generate(b"a"), "`prime` is b'a': expected a string"),
    (lambda: model.generate(None), "`prime` is None"),
    (lambda: model.generate("a", "5"), "`length` is '5': expected a whole number"),
    (lambda: model.generate("a", 5.0), "`length` is 5.0: expected a whole number"),
    (lambda: model.generate("a", -1), "`length` is -1: give"),
    (lambda: model.generate("a", 10**5000), "`length` is a number too long to show: give"),
    (lambda: model.generate("a", 5, num_samples=2.5), "`num_samples` is 2.5: expected"),
    (lambda: model.generate("a", 5, num_samples=0), "`num_samples` is 0: give"),
    (lambda: model.generate("a", 5, seed="x"), "`seed` is 'x': expected"),
    (lambda: model.generate("a", 5, seed=-1), "`seed` is -1: give"),
    (lambda: model.generate("a", 5, options={}), "`options` is {}: expected a Sampling"),
    (lambda: model.generate("a", temprature=1), "`temprature`; did you mean temperature"),
    (lambda: model.generate("a", on_unknown="drop"), "`on_unknown` is 'drop': expected on"),
    (lambda: model.stream(5), "`prime` is 5: expected a string"),
    (lambda: model.stream("a", "5"), "`length` is '5'"),
    (lambda: model.predict(5), "`text` is 5: expected a string or bytes"),
    (lambda: model.predict("a", carry), "`carry.c` is float32[1, 2, 8]: expected floats"),
    (lambda: model.predict("a", gru), "`carry` is "),
    (lambda: model.predict("a", 3), "`carry` is 3: expected initial_carry(config, 1)"),
    (lambda: model.score(5), "`text` is 5: expected a string or bytes"),
    (lambda: model.score(["a"]), "`text` is ['a']: expected a string or bytes"),
    (lambda: charjax.load(5), "`workdir` is 5: expected a path"),
    (lambda: charjax.load(model), "`workdir` is "),
    (lambda: charjax.load_config(5), "`config` is 5: expected a path"),
    (lambda: charjax.inspect_run(5), "`workdir` is 5: expected a path"),
    (lambda: charjax.inspect_sharding(None), "`workdir` is None: expected a path"),
    (lambda: charjax.evaluate_run(5), "`workdir` is 5: expected a path"),
    (lambda: charjax.text_of_run("x", "tset"), "`split` is 'tset': expected one of train"),
    (lambda: charjax.novelty([3], "a"), "`texts` is 3: expected a string, or several"),
    (lambda: charjax.novelty("a", [b"a"]), "`corpus` is b'a': expected a string"),
    (lambda: charjax.novelty("a", "a", length=2.5), "`length` is 2.5: expected a whole"),
    (lambda: charjax.evaluate_run("x", "tset"), "`split` is 'tset': expected one of train"),
    (lambda: charjax.fit("anna"), "`config` is 'anna': expected a Config, such as charjax"),
    (lambda: charjax.fit(ModelConfig()), "`config` is ModelConfig("),
    (lambda: charjax.fit(config, 5), "`workdir` is 5: expected a path"),
    (lambda: charjax.fit(config, text=5), "`text` is 5: expected a string or bytes or Non"),
    (lambda: charjax.fit(config, stop=True), "`stop` is True: expected a function"),
    (lambda: Vocabulary.from_text(5), "`text` is 5: expected a string"),
    (lambda: Vocabulary.from_text([5]), "`text` is 5: expected a string"),
    (lambda: vocabulary.encode(5), "`text` is 5: expected a string or bytes"),
    (lambda: vocabulary.decode("abc"), "whole numbers"),
    (lambda: charjax.init("anna", 3, key), "`config` is 'anna': expected a Config"),
    (lambda: charjax.init(config.model, 3, key), "`config` is ModelConfig("),
    (lambda: charjax.init(config, 0, key), "`vocab_size` is 0: give a whole number of at"),
    (lambda: charjax.init(config, 3.0, key), "`vocab_size` is 3.0: expected a whole numbe"),
    (lambda: charjax.init(config, 3, 0), "`key` is 0: expected a PRNG key"),
    (lambda: charjax.initial_carry(config, 0), "`rows` is 0: give"),
    (lambda: charjax.initial_state("anna", 3, key), "`config` is 'anna'"),
    (lambda: charjax.initial_state(config, 0, key), "`vocab_size` is 0"),
    (lambda: charjax.apply("anna", params, ids, carry), "`config` is 'anna'"),
    (lambda: apply(None, ids, carry), "`params` is 'NoneType': expected what charjax.init"),
    (lambda: apply({}, ids, carry), "`params` is 'dict': expected what charjax.init"),
    (lambda: apply({**params, "first": {}}, ids, carry), "`params` are not those of this"),
    (lambda: apply(params, ids * 1.0, carry), "`ids` is float64[2, 4]: expected whole num"),
    (lambda: apply(params, ids > 0, carry), "`ids` is bool[2, 4]: expected whole numbers"),
    (lambda: apply(params, ids[0], carry), "`ids` is int64[4]: expected whole numbers [ba"),
    (lambda: apply(params, "abc", carry), "`encode` of a vocabulary"),
    (lambda: apply(params, ids + 1, carry), "`ids` has 3: those of this model go from 0 t"),
    (lambda: apply(params, jnp.array(ids - 1), carry), "`ids` has -1: those of this model"),
    (lambda: apply(params, ids[:1], carry), "`carry.c` is float32[1, 2, 8]: expected floa"),
    (lambda: charjax.apply(params, config, ids, carry), "`config` is a dict of 'first', '"),
    (lambda: charjax.load("a" * 5000), "no path is that long"),
    (lambda: charjax.load_config("a\\0b"), "a path has no NUL"),
    (lambda: charjax.Vocabulary.from_text(b"ab"), "`text` is b'ab': expected a string, or"),
    (lambda: apply(params, ids, None), "`carry` is None: expected initial_carry(config, 2"),
    (lambda: apply(params, ids, gru), "`carry` is "),
    (lambda: apply(params, ids, carry, ids), "`reset` is int64[2, 4]: expected booleans"),
    (lambda: apply(params, ids, carry, ids[:, :2] > 0), "`reset` is bool[2, 2]: expected "),
    (lambda: apply(params, ids, carry, key=0), "`key` is 0: expected a PRNG key"),
    (lambda: apply(params, ids, carry, length=2), "`length` is 2: expected whole numbers "),
    (lambda: jax.jit(lambda: sample(beyond))(), "`prime_ids` has 3: those of this model"),
    (lambda: traced(apply, params, ids[:1], carry), "`carry.c` is float32[1, 2, 8]"),
    (lambda: traced(apply, params, ids * 1.0, carry), "`ids` is float32[2, 4]"),
    (lambda: traced(apply, params, ids[0], carry), "`ids` is int32[4]: expected whole num"),
    (lambda: step(state=params), "`state` is "),
    (lambda: step(batch=tuple(batch)), "`batch` is "),
    (lambda: step(key=1), "`key` is 1"),
    (lambda: step(batch=batch._replace(targets=ids + 9)), "`batch.targets` has 11"),
    (lambda: step(batch=batch._replace(targets=short[:, 1:])), "`batch.targets` is int32["),
    (lambda: step(batch=batch._replace(mask=ids)), "`batch.mask` is int64[2, 4]: expected"),
    (lambda: step(batch=Batch(*(leaf[:1] for leaf in batch))), "`carry.c` is float32[1, 2"),
    (lambda: sample(ids[0] * 1.0), "`prime_ids` is float64[4]: expected whole numbers [pr"),
    (lambda: sample([0, 1]), "`prime_ids` is [0, 1]: expected whole numbers [prime]"),
    (lambda: sample(ids[None]), "`prime_ids` is int64[1, 2, 4]: expected whole numbers [b"),
    (lambda: sample(ids + 1), "`prime_ids` has 3: those of this model go from 0 to 2"),
    (lambda: sample(ids, -1), "`length` is -1: give a whole number of at least 0"),
    (lambda: sample(ids, "3"), "`length` is '3': expected a whole number"),
    (lambda: sample(ids, 3, 0), "`key` is 0: expected a PRNG key"),
    (lambda: sample(ids[:, :0]), "`prime_ids` is empty"),
    (lambda: charjax.evaluate("anna", params, ids[0]), "`config` is 'anna'"),
    (lambda: charjax.evaluate(config, params, "abc"), "`encode` of a vocabulary"),
    (lambda: charjax.evaluate(config, params, ids), "`ids` is int64[2, 4]: expected whole"),
    (lambda: charjax.evaluate(config, params, ids[0] + 1), "`ids` has 3: those of this mo"),
    (lambda: charjax.evaluate(config, params, ids[0], rows=1.5), "`rows` is 1.5: expected"),
    (lambda: charjax.evaluate(config, params, ids[0], window=0), "`window` is 0: give a w"),
    (lambda: charjax.evaluate(config, {}, ids[0]), "`params` is 'dict'"),
]
failed = 0
for number, (call, words) in enumerate(CASES):
    try:
        got = f"returned {call()!r:.80}"
    except charjax.InputError as error:
        got = str(error)
    except Exception as error:
        got = f"raised {type(error).__name__}: {error}"
    if words not in got or "raised" in got.split(":")[0]:
        failed += 1
        print(f"case {number}: expected {words!r}, {got[:300]}")

# What is fine stays fine: NumPy's numbers, JAX's arrays, paths, old keys, no steps.
assert len(model.generate("a", np.int64(3), seed=np.uint8(1))) == 4
assert apply(params, jnp.array(ids), carry)[0].shape == (2, 4, 3)
assert apply(params, ids.astype(np.uint8), carry, ids == 0)[0].shape == (2, 4, 3)
charjax.init(config, np.int64(3), jax.random.PRNGKey(0))
many = jax.vmap(lambda key: charjax.init(config, 3, key))(jax.random.split(key, 2))
assert jax.vmap(lambda p: apply(p, ids, carry)[0])(many).shape == (2, 2, 4, 3)
assert sample(ids[0].astype(np.uint8)).shape == (3,) and sample(ids, 0).shape == (2, 0)
step()
print(len(CASES), "cases,", failed, "failed")
"""


def test_wrong_arguments_are_told_by_name():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.endswith(" 0 failed\n"), done.stdout + done.stderr
