"""Ctrl-C while `fit` trains: nothing is lost, and the caller learns of it."""

import signal
import sys
import threading
import types

import jax
import pytest

import charjax
from charjax import Config, DataConfig, InputError, ModelConfig, TrainConfig, inspect_run
from charjax.run import loop, run
from charjax.training import program

TEXT = "the quick brown fox jumps over the lazy dog. " * 20
CONFIG = Config(
    data=DataConfig(batch_size=8, sequence_length=16),
    model=ModelConfig(num_layers=1, hidden_size=8),
    train=TrainConfig(steps=6, eval_every=3, sample_every=None, checkpoint_every=None),
)


def interrupt(*_, **__):
    signal.raise_signal(signal.SIGINT)


def fit(workdir=None, **options):
    return charjax.fit(CONFIG, workdir, text=TEXT, quiet=True, **options)


def before(monkeypatch, module, name, action=interrupt, skip=0):
    """Does `action` when a function is called, once, but for the first few calls."""
    original, calls = getattr(module, name), []

    def called(*arguments, **keywords):
        calls.append(name)
        if len(calls) == skip + 1:
            action()
        return original(*arguments, **keywords)

    monkeypatch.setattr(module, name, called)
    return calls


@pytest.fixture(autouse=True)
def _handler_is_restored():
    # A shell has what it runs in the background ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_ipython(monkeypatch):
    package = types.ModuleType("IPython")
    package.get_ipython = lambda: types.SimpleNamespace()  # pyright: ignore
    monkeypatch.setitem(sys.modules, "IPython", package)


def stop_at(step, then=interrupt):
    """A `stop` that is asked after every step, and interrupts after one of them."""
    asked = []

    def stop():
        asked.append(None)
        if len(asked) == step:
            then()
        return False

    return stop


def test_an_interrupt_raises_with_the_result_and_leaves_a_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(tmp_path / "parts", stop=stop_at(2))
    result = stopped.value.result  # pyright: ignore[reportAttributeAccessIssue]
    assert type(stopped.value) is KeyboardInterrupt
    assert "step 2" in str(stopped.value) and "parts" in str(stopped.value)
    assert result.interrupted and int(result.state.step) == 2
    assert inspect_run(tmp_path / "parts")["step"] == 2
    assert len(result.model.generate("the ", 5)) == 9
    again, whole = fit(tmp_path / "parts"), fit(tmp_path / "whole")
    assert not again.interrupted and int(again.state.step) == 6
    digests = {inspect_run(tmp_path / name)["digest"] for name in ("parts", "whole")}
    assert len(digests) == 1 and not whole.interrupted


def test_without_a_workdir_the_exception_has_all_there_is():
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(stop=stop_at(4))
    result = stopped.value.result  # pyright: ignore[reportAttributeAccessIssue]
    asked = iter([False, False, False, True])
    same = fit(stop=lambda: next(asked))
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail(), result.state, same.state)


def test_a_loop_of_fits_is_stopped_by_one_interrupt():
    begun = []
    with pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            begun.append(None)
            fit(stop=stop_at(2))
    assert len(begun) == 1


def test_in_ipython_fit_returns(in_ipython):
    result = fit(stop=stop_at(2))
    assert result.interrupted and int(result.state.step) == 2
    assert not fit().interrupted
    with pytest.raises(KeyboardInterrupt):
        fit(stop=stop_at(2), on_interrupt="raise")


def test_what_follows_can_be_chosen():
    assert fit(stop=stop_at(2), on_interrupt="return").interrupted
    with pytest.raises(InputError, match="`on_interrupt` is 'stop'"):
        fit(on_interrupt="stop")


def test_a_second_interrupt_raises_at_once():
    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(stop=stop_at(3, twice), on_interrupt="return")
    assert not hasattr(stopped.value, "result")


@pytest.mark.parametrize("name", ["evaluate_split", "sample", "save"])
def test_an_interrupt_between_steps_is_acted_on_after_what_is_under_way(
    monkeypatch, tmp_path, name
):
    calls = before(monkeypatch, loop, name)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(tmp_path)
    result = stopped.value.result  # pyright: ignore[reportAttributeAccessIssue]
    # After the evaluation, and the save, of step 3 there is one more step; the sample is
    # the one of the end.
    step = 6 if name == "sample" else 4
    assert int(result.state.step) == inspect_run(tmp_path)["step"] == step
    assert result.interrupted and result.best_loss is not None and calls


def test_an_interrupt_at_the_very_end_is_told_too(monkeypatch, tmp_path):
    before(monkeypatch, run.Saver, "wait", skip=4)
    result = fit(tmp_path, on_interrupt="return")
    assert result.interrupted and int(result.state.step) == 6
    assert inspect_run(tmp_path)["step"] == 6


@pytest.mark.parametrize(
    ("module", "name"),
    [("fit", "plan"), ("fit", "load_corpus"), ("fit", "first_state"), ("loop", "_update")],
)
def test_before_the_first_step_an_interrupt_raises_at_once(
    monkeypatch, tmp_path, module, name
):
    before(monkeypatch, sys.modules[f"charjax.run.{module}"], name)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(tmp_path, on_interrupt="return")
    assert not hasattr(stopped.value, "result")
    monkeypatch.undo()
    assert int(fit(tmp_path).state.step) == 6


def test_an_interrupt_during_compilation_leaves_the_run_as_it_was(monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, stop=stop_at(2))
    before(monkeypatch, program, "train_step")
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(tmp_path, on_interrupt="return")
    assert not hasattr(stopped.value, "result")
    assert inspect_run(tmp_path)["step"] == 2


def test_the_handler_of_somebody_else_is_left_alone():
    received = []
    handler = lambda *_: received.append(None)  # noqa: E731
    signal.signal(signal.SIGINT, handler)
    try:
        result = fit(stop=stop_at(2))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert not result.interrupted and int(result.state.step) == 6 and len(received) == 1


def test_on_another_thread_nothing_is_handled():
    seen = []

    def train():
        stop = stop_at(2, lambda: seen.append(signal.getsignal(signal.SIGINT)))
        seen.append(fit(stop=stop))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    handler, result = seen
    assert handler is signal.default_int_handler and not result.interrupted


def test_in_ipython_one_interrupt_also_ends_a_loop_of_fits(monkeypatch):
    callbacks, kept = [], []

    def cell_ends():
        for callback in callbacks[:]:
            callback()

    events = types.SimpleNamespace(
        register=lambda _, callback: callbacks.append(callback),
        unregister=lambda _, callback: callbacks.remove(callback),
    )
    package = types.ModuleType("IPython")
    package.get_ipython = lambda: types.SimpleNamespace(events=events)  # pyright: ignore
    monkeypatch.setitem(sys.modules, "IPython", package)
    with pytest.raises(KeyboardInterrupt, match="on_interrupt='return'"):
        for _ in range(3):
            kept.append(fit(stop=stop_at(2)))
    assert [result.interrupted for result in kept] == [True]
    assert not fit(on_interrupt="return").interrupted
    cell_ends()
    assert not fit().interrupted and callbacks == []
