"""What Orbax abandons after a failure adds nothing to what is printed; all else stays."""

import asyncio
import gc
import sys

import pytest

from charjax.storage.failures import silence_abandoned_work


@pytest.fixture
def silence(monkeypatch):
    """Until the end of the test, as far as hooks go."""
    for hook in ("unraisablehook", "excepthook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    silence_abandoned_work()


@pytest.mark.parametrize(
    ("file", "silent"), [("orbax/checkpoint/_src/path.py", True), ("mine.py", False)]
)
def test_a_future_that_orbax_abandoned_is_silent(silence, caplog, file, silent):
    code = compile("raise OSError('No space left on device')", f"/packages/{file}", "exec")

    async def abandon():
        # The error in the thread says nothing of Orbax but where it was raised.
        asyncio.get_running_loop().run_in_executor(None, exec, code)
        await asyncio.sleep(0.05)

    asyncio.run(abandon())
    gc.collect()
    assert ("never retrieved" in caplog.text) is not silent


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("file", "silent"), [("orbax/checkpoint/_src/arrays.py", True), ("mine.py", False)]
)
def test_a_coroutine_that_orbax_never_began_is_silent(monkeypatch, file, silent):
    heard = []
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", lambda found: heard.append(found.exc_value))
    silence_abandoned_work()
    names = {}
    exec(compile("async def read(): pass", f"/packages/{file}", "exec"), names)
    names["read"]()
    gc.collect()
    assert bool(heard) is not silent
