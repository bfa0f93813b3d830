"""A model that goes on learning from what it has been scored on, and from nothing else."""

import jax
import numpy as np
import pytest
from tiny import FOUR_STEPS, TEXT

from charjax import (
    Config,
    DataConfig,
    InputError,
    ModelConfig,
    evaluate_run,
    fit,
    init,
)
from charjax.evaluation.dynamic import Learning, dynamic_nats, learning
from charjax.evaluation.evaluate import evaluate
from charjax.evaluation.options import Dynamic
from charjax.evaluation.protocols import stateful_batches

CONFIG = Config(
    data=DataConfig(sequence_length=10),
    model=ModelConfig(num_layers=1, hidden_size=16, dropout=0.5),
)
PARAMS = init(CONFIG, 6, jax.random.key(0))
# A text with a habit that the untrained model cannot know.
IDS = np.tile(np.array([0, 1, 2, 3, 4, 5, 5, 4, 1], np.uint8), 80)


@pytest.fixture(scope="module")
def squares():
    return learning(CONFIG, PARAMS, stateful_batches(IDS[:200], 1, 10), Dynamic()).squares


def nats(ids, squares, rows=1, **how):
    batches = stateful_batches(ids, rows, 10)
    found = dynamic_nats(CONFIG, PARAMS, batches, Learning(Dynamic(**how), squares))
    return np.concatenate(list(found), 1)


def test_hardly_moving_it_is_the_score_of_a_model_that_stays(squares):
    for rows in (1, 3):
        found = nats(IDS, squares, rows, rate=1e-12, decay=0.0)
        expected = evaluate(CONFIG, PARAMS, IDS, rows=rows)
        np.testing.assert_allclose(found.sum() / (len(IDS) - 1), expected.loss, rtol=1e-5)


def test_it_learns_the_habits_of_the_text(squares):
    found = nats(IDS, squares, rate=2e-3)[0, : len(IDS) - 1]
    assert found[-200:].mean() < 0.8 * found[:50].mean()


def test_no_symbol_is_seen_before_it_is_scored(squares):
    other = IDS.copy()
    other[400:] = 0
    one, two = (nats(ids, squares, rate=2e-3)[0] for ids in (IDS, other))
    # Symbol k is the target at position k - 1.
    np.testing.assert_array_equal(one[:399], two[:399])
    assert (one[399:] != two[399:]).any()


def test_parameters_are_drawn_back_to_where_they_began(squares):
    loose, held = (
        nats(IDS, squares, rate=2e-3, decay=decay)[0, : len(IDS) - 1]
        for decay in (0.0, 1.0)
    )
    assert held[-200:].mean() > loose[-200:].mean()


def test_what_means_nothing_is_refused():
    with pytest.raises(InputError, match="rate"):
        Dynamic(rate=-1)
    with pytest.raises(InputError, match="length"):
        Dynamic(length=0)
    with pytest.raises(InputError, match="batches"):
        learning(CONFIG, PARAMS, [], Dynamic())


@pytest.fixture(scope="module", params=["none", "lines"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamic") / "run"
    config = FOUR_STEPS.replace(**{"data.documents": request.param})
    fit(config, folder, text=TEXT, quiet=True)
    return folder


def test_a_run_is_scored_while_it_learns_by_function_and_command(run, call):
    still = evaluate_run(run, quiet=True)
    found = evaluate_run(run, dynamic=Dynamic(rate=3e-3), quiet=True)
    assert found["protocol"] == "dynamic" and found["rows"] == 1
    assert found["nats_per_char"] < still["nats_per_char"]
    result = call("evaluate", "--workdir", run, "--dynamic-rate", "3e-3")
    assert result.returncode == 0, result.stderr
    assert f"{found['nats_per_char']:.4f} nats" in result.stdout.decode()
    assert "learning from each 20 characters" in result.stdout.decode()
    windowed = ("--protocol", "windowed", "--window", "8")
    refused = call("evaluate", "--workdir", run, "--dynamic", *windowed)
    assert refused.returncode == 2 and b"window" in refused.stderr
