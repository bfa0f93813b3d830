"""What a kernel must show before `auto` takes it, with kernels made up for a CPU."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest
from kernels import PROVEN, install, slow

from charjax import Config
from charjax.devices import mesh as meshes
from charjax.devices import proof
from charjax.devices.proof import Proof, prove
from charjax.model.recurrence import plain, triton

CONFIG = Config().replace(
    **{"data.batch_size": 8, "data.sequence_length": 43, "model.hidden_size": 8}
)
SYMBOLS = 11


@pytest.fixture
def found(monkeypatch):
    """Installs a kernel, and gives what is proven of it."""

    def found(run, kept=None, **fields):
        install(monkeypatch.setattr, run)
        return prove(CONFIG.replace(**fields), one_device(), SYMBOLS, kept)

    return found


def one_device():
    return meshes.make_mesh(jax.devices()[:1])


@jax.custom_jvp
def leaning(x):
    return x


@leaning.defjvp
def _lean(primals, tangents):
    return primals[0], 1.02 * tangents[0]


def with_layer(change):
    """The plain scan with one parameter of its layer changed."""

    def run(cell, dtype, layer, *others):
        return plain.run(cell, dtype, {**layer, **change(layer)}, *others)

    return run


def without_resets(cell, dtype, layer, inputs, state, reset, *others):
    return plain.run(cell, dtype, layer, inputs, state, None, *others)


def resets_that_are_missed_at_the_end(cell, dtype, layer, inputs, state, reset, *others):
    return plain.run(cell, dtype, layer, inputs, state, reset.at[-1].set(False), *others)


def no_number(*arguments):
    hidden, last = plain.run(*arguments)
    return hidden * jnp.nan, last


def raises(*arguments):
    raise NotImplementedError("not on this device\nand more of it")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model.cell": "gru", "model.embedding_size": 5, "train.precision": "bfloat16"},
        {"model.cell": "rnn", "model.num_layers": 1, "optimizer.accumulate": 2},
    ],
    ids=["lstm", "gru", "rnn"],
)
def test_a_kernel_that_is_right_and_fast_is_proven(found, fields):
    kernels, lines = found(plain.run, **fields)
    assert kernels.kernels == ("triton",) and f"jax {jax.__version__}" in kernels.place
    (line,) = lines
    assert line.startswith("triton was checked on this device: as the plain scan, and fast")


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (with_layer(lambda layer: {"bias": leaning(layer["bias"])}), "gradient of bias"),
        (with_layer(lambda layer: {"bias": layer["bias"] + 1e-3}), "plain scan's"),
        (without_resets, "plain scan's"),
        (resets_that_are_missed_at_the_end, "plain scan's"),
        (no_number, "by nan of the largest"),
        (raises, "triton is not used, scan is: it fails here (not on this device)"),
    ],
)
def test_a_kernel_that_is_wrong_is_not_used_and_a_line_says_why(found, run, words):
    kernels, (line,) = found(run)
    assert kernels.kernels == ()
    assert line.startswith("triton is not used, scan is: it") and words in line
    assert "\n" not in line


def test_a_kernel_that_is_slower_is_not_used(found):
    kernels, (line,) = found(slow(plain.run, 0.03))
    assert kernels.kernels == ()
    assert line.startswith("triton is not used, scan is: it is not faster (triton ")


def test_a_check_that_does_not_end_is_not_waited_for(found, monkeypatch, capsys):
    ended = threading.Event()

    def hangs(*arguments):
        ended.wait(60)
        raise AssertionError

    monkeypatch.setattr(proof, "SECONDS", 0.5)
    begun = time.monotonic()
    kernels, lines = found(hangs)
    ended.set()
    assert kernels.kernels == () and lines == [] and time.monotonic() - begun < 10
    warned = "warning: triton is not used, scan is: its check had not ended after 0.5 seco"
    assert warned in capsys.readouterr().err


def test_what_was_found_holds_on_such_devices_and_is_found_anew_on_others(
    found, monkeypatch
):
    kept, _ = found(plain.run)
    # Whatever would be found now.
    assert found(raises, kept) == (kept, [])
    nothing = Proof(kept.place, ())
    assert found(plain.run, nothing) == (nothing, [])
    elsewhere = Proof(kept.place.replace("cpu", "gpu"), ("triton",))
    assert found(raises, elsewhere)[0] == nothing
    monkeypatch.setattr(jax, "__version__", "99.0")
    assert found(raises, kept)[0].kernels == ()
    assert "jax 99.0" in found(raises, kept)[0].place


def test_names_of_other_kernels_prove_nothing(found):
    kept, _ = found(plain.run)
    assert found(raises, Proof(kept.place, ("tpu", "unheard-of")))[0].kernels == ()


def test_nothing_is_checked_where_nothing_must_be(found, monkeypatch):
    def checked(*arguments):
        raise AssertionError

    monkeypatch.setattr(proof, "_checked", checked)
    # On a CPU, and where a recurrence is asked for.
    assert prove(CONFIG, one_device(), SYMBOLS, None) == (None, [])
    assert found(plain.run, **{"model.recurrence": "triton"}) == (None, [])
    assert found(plain.run, **{"model.recurrence": "scan"}) == (None, [])


def test_a_proven_kernel_is_what_auto_takes(found):
    kernels, _ = found(plain.run)
    mesh = one_device()
    assert meshes.recurrence_for(CONFIG, mesh, proven=kernels.kernels).name == PROVEN
    assert meshes.recurrence_for(CONFIG, mesh).name == "scan"
    # A model is read anywhere, whatever it was trained with.
    for asked in ("auto", "triton", "tpu", "gpu"):
        config = CONFIG.replace(**{"model.recurrence": asked})
        assert meshes.inference_recurrence(config, mesh).name == "scan"
    plainly = CONFIG.replace(**{"model.recurrence": "plain"})
    assert meshes.inference_recurrence(plainly, mesh).name == "plain"


def test_a_kernel_is_asked_about_the_rows_that_are_read_at_once(monkeypatch):
    asked = []

    def why_not(platform, model, batch, *_):
        asked.append(batch)
        return None if model.recurrence == "triton" else "no"

    install(monkeypatch.setattr)
    monkeypatch.setattr(triton, "why_not", why_not)
    cut = CONFIG.replace(**{"optimizer.accumulate": 2})
    meshes.recurrence_for(cut.replace(**{"model.recurrence": "triton"}), one_device())
    assert asked == [(4, 43)]
    assert prove(cut, one_device(), SYMBOLS, None) == (None, [])
    assert asked == [(4, 43)] * 2


def test_a_kernel_is_checked_with_the_rows_of_one_device(monkeypatch):
    seen = set()

    def run(cell, dtype, layer, inputs, *others):
        seen.add(inputs.shape[1])
        return plain.run(cell, dtype, layer, inputs, *others)

    install(monkeypatch.setattr, run)
    mesh = meshes.make_mesh(jax.devices()[:4])
    cut = CONFIG.replace(**{"data.batch_size": 16, "optimizer.accumulate": 2})
    found, _ = prove(cut, mesh, SYMBOLS, None)
    assert found is not None and found.kernels == (PROVEN,) and seen == {2}
