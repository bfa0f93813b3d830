"""Checkpoints: what stays on disk, what comes back, and what is refused."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from subprocesses import run_script

from charjax.errors import InputError
from charjax.storage import manifest
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.digest import digest
from charjax.storage.saver import Saver
from charjax.storage.step import FORMAT


def state(value=1.0, width=40):
    params = {
        "head": {"kernel": jnp.full((30, width), value), "bias": jnp.zeros(3)},
        "layers": [jnp.ones((2, 3), jnp.bfloat16), (jnp.arange(4),)],
    }
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    floats = {"head": params["head"]}
    carry = {"h": jnp.full((2, 4, 8), value), "c": jnp.zeros((2, 4, 8))}
    return {"params": params, "opt_state": chain.init(floats), "carry": carry}


def structs(items, sharding=None):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), items
    )


def save_all(directory, losses, items=None):
    with Saver(directory) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(step, items or state(float(step)), {"validation_loss": loss})
    return checkpoints


# Retention.


@pytest.mark.parametrize(
    ("losses", "kept", "best"),
    [
        ({1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0}, [2, 4], 2),  # the newest is the worst
        ({1: 3.0, 2: 1.0, 3: math.nan}, [2, 3], 2),
        ({1: 3.0, 2: -math.inf, 3: math.inf}, [1, 3], 1),
        ({1: None, 2: None, 3: None}, [3], None),
        ({1: None, 2: 1.0, 3: None, 4: None}, [2, 4], 2),
        ({1: 1.0, 2: 1.0, 3: 1.0}, [1, 3], 1),  # of equals the earliest
        ({1: 3.0, 2: 2.0, 3: 1.0}, [3], 3),
    ],
)
def test_the_best_and_the_newest_stay(tmp_path, losses, kept, best):
    checkpoints = save_all(tmp_path, losses, {"params": {"w": jnp.ones(2)}})
    assert checkpoints.steps() == kept
    assert checkpoints.latest() == kept[-1]
    assert checkpoints.best() == best
    assert checkpoints.resolve("best") == (best or kept[-1])
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, kept))


def test_nothing_is_retired_before_the_newer_step_is_on_disk(tmp_path):
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(1, state(), {})
        checkpoints.wait()
        checkpoints.save(2, state(), {})
        assert 1 in checkpoints.steps()
        checkpoints.wait()
        assert checkpoints.steps() == [2]


def test_a_step_whose_record_is_damaged_is_not_deleted(tmp_path):
    save_all(tmp_path, {1: 1.0})
    (tmp_path / "1/record/metadata").write_text("{")
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(2, state(), {"validation_loss": 2.0})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.best() == 2
        with pytest.raises(InputError, match=r"step 1 .* damaged.* try `step=2`"):
            checkpoints.record(1)


# Saving.


def test_record_and_arrays_come_back(tmp_path):
    items = state()
    record = {"text": "naïve 中 \u2028", "big": 2**70, "list": [1, None, 0.1]}
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(7, items, record)
        checkpoints.wait()
        assert checkpoints.record(7) == {**record, "format": FORMAT}
        restored = checkpoints.restore(7, structs(items))
    assert jax.tree.structure(restored) == jax.tree.structure(items)
    for found, expected in zip(*map(jax.tree.leaves, (restored, items)), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_donated_arrays_may_be_overwritten_after_save(tmp_path):
    bump = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((512, 512))
    with Saver(tmp_path) as checkpoints:
        for step in range(4):
            checkpoints.save(step, {"params": {"x": x}}, {"validation_loss": -step})
            x = bump(x)
        checkpoints.wait()
        restored = checkpoints.restore(3, {"params": structs({"x": x})})
    np.testing.assert_array_equal(restored["params"]["x"], np.full((512, 512), 3.0))


def test_saving_a_step_again_replaces_it(tmp_path):
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(5, state(1.0), {})
        checkpoints.wait()
        shutil.copytree(tmp_path / "5", tmp_path / "5.saving")
        checkpoints.save(5, state(2.0), {"validation_loss": 1.0})
        # The old one is there until the new one is complete.
        assert checkpoints.steps() == [5]
        checkpoints.wait()
        assert checkpoints.record(5)["validation_loss"] == 1.0
        assert digest(checkpoints.restore(5, structs(state()))) == digest(state(2.0))
    assert os.listdir(tmp_path) == ["5"]


def test_a_step_before_the_newest_is_saved_too(tmp_path):
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(5, state(), {})
        checkpoints.save(3, state(), {})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 5]


def test_a_replacement_that_was_not_installed_is_installed_at_the_next_start(tmp_path):
    save_all(tmp_path / "a", {5: 1.0})
    save_all(tmp_path / "b", {5: 2.0})
    for killed_between_the_renames in (False, True):
        directory = tmp_path / str(killed_between_the_renames)
        old = "5.retired" if killed_between_the_renames else "5"
        shutil.copytree(tmp_path / "a/5", directory / old)
        shutil.copytree(tmp_path / "b/5", directory / "5.saving")
        with Saver(directory) as checkpoints:
            assert checkpoints.record(5)["validation_loss"] == 2.0
        assert os.listdir(directory) == ["5"]


def test_a_failed_save_is_reported_and_the_next_succeeds(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
import jax, jax.numpy as jnp
from charjax.storage import manifest
from charjax.storage.saver import Saver
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
items = {"params": {"x": jax.random.normal(jax.random.key(0), (256, 256))}}
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
with Saver(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(1, items, {})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        checkpoints.save(2, items, {})
        checkpoints.wait()
    except OSError as error:
        print(error)
    assert checkpoints.steps() == [1], checkpoints.steps()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for step in (2, 3):
        checkpoints.save(step, items, {})
print(checkpoints.steps())
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
    message, steps = done.stdout.splitlines()
    assert message.startswith("checkpoint step 2 was not saved in")
    assert steps == "[3]"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ending", ["pass", "raise RuntimeError('boom')", "sys.exit(3)"])
def test_the_last_save_survives_the_end_of_the_process(tmp_path, ending):
    script = f"""
import sys
from pathlib import Path
import jax.numpy as jnp
from charjax.storage import manifest
from charjax.storage.saver import Saver
with Saver(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(1, {{"params": {{"x": jnp.ones((1000, 1000))}}}}, {{}})
    {ending}
"""
    done = run_script(script, tmp_path)
    assert ("boom" in done.stderr) == ("boom" in ending)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [1]
    target = checkpoints.metadata(1, "params")
    assert checkpoints.restore(1, {"params": target})["params"]["x"].sum() == 1e6


def test_killed_while_saving(tmp_path):
    script = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from charjax.storage import manifest
from charjax.storage.saver import Saver
with Saver(Path(sys.argv[1])) as checkpoints:
    for step in range(1, 10_000):
        x = jnp.full((200, 200), float(step))
        checkpoints.save(step, {"params": {"x": x}}, {"step": step})
        print(step, flush=True)
"""
    for saves, delay in ((3, 0.0), (2, 0.04)):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(saves):
                process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        with Saver(tmp_path) as checkpoints:
            step = checkpoints.resolve("latest")
            assert step >= saves - 1
            target = {"params": checkpoints.metadata(step, "params")}
            x = checkpoints.restore(step, target)["params"]["x"]
            np.testing.assert_array_equal(x, np.full((200, 200), float(step)))
            # Leftovers are gone, and the interrupted step can be saved again.
            assert all(name.isdigit() for name in os.listdir(tmp_path))
            checkpoints.save(step + 1, {"params": {"x": x}}, {})
        shutil.rmtree(tmp_path)


# Directories.


def test_reading_needs_a_directory_and_leaves_it_alone(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*nowhere"):
        Checkpoints(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    with pytest.raises(InputError, match="there is no checkpoint in"):
        checkpoints.resolve("latest")
    assert os.listdir(tmp_path) == ["3.orbax-checkpoint-tmp"]


def test_a_file_in_the_directory_s_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for kind in (Checkpoints, Saver):
        with pytest.raises(InputError, match="is a file"):
            kind(tmp_path / "file")


def test_stray_names_are_no_steps(tmp_path):
    for name in ("9", "007", "x", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "8").touch()
    (tmp_path / "007/file").touch()
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "notes.saving").touch()
    (tmp_path / "10.saving").touch()
    (tmp_path / "notes.retired").mkdir()
    checkpoints = save_all(tmp_path, {9: None, 10: 1.0})
    assert checkpoints.steps() == [10]
    assert not (tmp_path / "4.orbax-checkpoint-tmp").exists()
    assert not (tmp_path / "10.saving").exists()
    for name in ("007/file", "notes.saving", "notes.retired"):
        assert (tmp_path / name).exists()


def test_resolve_names_the_steps_there_are(tmp_path):
    checkpoints = save_all(tmp_path, {1: 1.0, 5: 2.0, 20: 3.0})
    assert checkpoints.resolve("20") == checkpoints.resolve(20) == 20
    for absent in (5, "5", "newest", "-1", "²", "1_0", "9" * 5000, 10**5000):
        with pytest.raises(InputError, match=r"`step` is .* holds step 1 and 20"):
            checkpoints.resolve(absent)
    with pytest.raises(InputError, match="holds step 1 and 20"):
        checkpoints.restore(5, structs(state()))


# Restoring.


def test_only_the_named_items_are_restored(tmp_path):
    save_all(tmp_path, {1: 1.0})
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(1, {"params": structs(state()["params"])})
    assert set(restored) == {"params"}
    assert digest(restored) == digest({"params": state()["params"]})


# Damage.


def damaged(directory, kind, random):
    """Damages one file of a step, or adds one; says which."""
    if kind == "added":
        (directory / "params/more").write_bytes(b"")
        return kind
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    path = random.choice(files)
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: random.randrange(max(len(data), 1))]
    elif kind == "flipped" and data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif kind == "grown":
        data += b"\0"
    elif kind == "emptied":
        data = b""
    if kind == "deleted" or bytes(data) == path.read_bytes():
        path.unlink()
    else:
        path.write_bytes(bytes(data))
    return f"{kind} {path.relative_to(directory)}"


@pytest.mark.parametrize("kind", ["cut", "flipped", "grown", "emptied", "deleted", "added"])
def test_damage_is_told_and_the_newest_sound_step_is_used(tmp_path, kind, request, capsys):
    save_all(tmp_path / "whole", {1: 2.0, 2: 1.0})
    save_all(tmp_path / "whole", {3: 3.0})
    expected = {step: digest(state(float(step))) for step in (2, 3)}
    random = Random(kind)
    for _ in range(request.config.getoption("--corruptions") // 5):
        directory = tmp_path / "damaged"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", directory)
        what = damaged(directory / "3", kind, random)
        checkpoints = Checkpoints(directory)
        step = checkpoints.resolve("latest")
        found = digest(checkpoints.restore(step, structs(state())))
        assert (step, found) == (2, expected[2]), what
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1, what
        assert "step 3" in told[0], what
        with pytest.raises(InputError, match=r"damaged.*step 2"):
            checkpoints.resolve("latest", strict=True)
        with pytest.raises(InputError, match=r"step 3 .* damaged.*`step=2`"):
            checkpoints.restore(3, structs(state()))


def test_a_step_of_the_first_format_which_had_no_manifest_is_no_damage(tmp_path):
    save_all(tmp_path, {1: 1.0})
    (tmp_path / "1/manifest.json").unlink()
    record = tmp_path / "1/record/metadata"
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": 1}))
    with pytest.raises(InputError, match=r"has format 1, .* the version that wrote it"):
        Checkpoints(tmp_path).resolve("latest")


@pytest.mark.parametrize("emptied", [False, True])
def test_where_every_step_is_damaged_that_is_said(tmp_path, emptied):
    save_all(tmp_path, {1: 1.0})
    (tmp_path / "1/manifest.json").unlink()
    if emptied:
        shutil.rmtree(tmp_path / "1")
        (tmp_path / "1").mkdir()
    with Saver(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        with pytest.raises(
            InputError, match=r"every checkpoint .* no manifest.*`fresh=True`"
        ):
            checkpoints.resolve("latest")


def test_a_step_retired_while_it_is_read_is_no_damage(tmp_path, capsys):
    save_all(tmp_path, {1: 1.0, 2: 2.0})
    asked, checkpoints = [], Checkpoints(tmp_path)

    def read(step):
        asked.append(step)
        if len(asked) == 1:
            save_all(tmp_path, {3: 0.5, 4: 0.7})
        return step, checkpoints.record(step)["validation_loss"]

    assert checkpoints.reading("best", read) == (3, 0.5)
    assert asked == [1, 3]
    with pytest.raises(InputError, match="holds step 3 and 4"):
        checkpoints.reading(2, read)
    assert capsys.readouterr().err == ""


def test_a_failing_last_save_does_not_hide_the_error_before_it(
    tmp_path, monkeypatch, capsys
):
    run, moved, seal = tmp_path / "run", threading.Event(), manifest.seal
    monkeypatch.setattr(manifest, "seal", lambda path: (moved.wait(60), seal(path)))
    with pytest.raises(KeyError), Saver(run) as checkpoints:
        checkpoints.save(1, {"params": {"w": jnp.ones(3)}}, {})
        run.rename(tmp_path / "elsewhere")
        moved.set()
        raise KeyError
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "step 1 was not saved" in told[0]


def test_a_save_that_was_not_sealed_never_counts(tmp_path):
    save_all(tmp_path, {1: 1.0})
    shutil.copytree(tmp_path / "1", tmp_path / "2.saving")
    (tmp_path / "2.saving/manifest.json").unlink()
    with Saver(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert os.listdir(tmp_path) == ["1"]


def test_the_old_step_comes_back_if_its_replacement_was_lost(tmp_path):
    save_all(tmp_path, {5: 1.0})
    (tmp_path / "5").rename(tmp_path / "5.retired")
    (tmp_path / "5.saving").mkdir()
    with Saver(tmp_path) as checkpoints:
        assert checkpoints.record(5)["validation_loss"] == 1.0
    assert os.listdir(tmp_path) == ["5"]


def test_a_retired_folder_that_was_left_goes_at_the_next_start(tmp_path):
    save_all(tmp_path, {1: 1.0})
    shutil.copytree(tmp_path / "1", tmp_path / "7.retired")
    with Saver(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert os.listdir(tmp_path) == ["1"]


def test_steps_are_ordered_by_number(tmp_path):
    save_all(tmp_path, {9: 1.0, 10: 2.0})
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.steps(), checkpoints.latest()) == ([9, 10], 10)


def test_other_bits_given_back_than_were_written_are_a_failed_save(tmp_path):
    """A disk that lies is played by a thread that changes a file once it is listed."""

    def lie():
        while not (sealed / "manifest.json").exists():
            time.sleep(0.001)
        path = max(sealed.rglob("*"), key=lambda path: path.stat().st_size)
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    sealed = tmp_path / "2.saving"
    items = {"params": {"w": np.random.default_rng(0).random(10_000_000)}}
    with Saver(tmp_path) as checkpoints:
        checkpoints.save(1, items, {})
        checkpoints.wait()
        liar = threading.Thread(target=lie)
        liar.start()
        checkpoints.save(2, items, {})
        with pytest.raises(OSError, match=r"step 2 .* cannot be read back: its file"):
            checkpoints.wait()
        liar.join()
        assert checkpoints.steps() == [1]
        checkpoints.save(2, items, {})
    assert checkpoints.steps() == [2]


def test_differences_are_listed(tmp_path):
    save_all(tmp_path, {1: 1.0})
    target = structs(state(width=50))
    target["params"]["extra"] = jax.ShapeDtypeStruct((), jnp.int32)
    del target["params"]["head"]["bias"]
    with Saver(tmp_path) as checkpoints, pytest.raises(InputError) as refusal:
        checkpoints.restore(1, target)
    lines = str(refusal.value).splitlines()
    assert "step 1" in lines[0]
    assert "config it was trained with" in lines[0]
    assert "  params/extra: saved nothing, expected int32[]" in lines
    assert "  params/head/bias: saved float32[3], expected nothing" in lines
    assert "  params/head/kernel: saved float32[30, 40], expected float32[30, 50]" in lines
    assert len(lines) < 12


def test_another_number_of_devices(tmp_path):
    script = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from charjax.storage import manifest
from charjax.storage.saver import Saver
from charjax.storage.digest import digest
mesh = jax.make_mesh((int(sys.argv[2]),), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
x = jnp.arange(64.0).reshape(16, 4)
with Saver(Path(sys.argv[1])) as checkpoints:
    if (step := checkpoints.latest()) is not None:
        target = {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)}
        restored = checkpoints.restore(step, {"params": target})["params"]["x"]
        assert restored.sharding == split and (restored == x).all()
        plain = checkpoints.restore(step, {"params": checkpoints.metadata(step, "params")})
        assert digest(plain) == digest({"params": {"x": x}})
    x = jax.device_put(x, split)
    checkpoints.save((step or 0) + 1, {"params": {"x": x}}, {})
"""
    for devices in (1, 8, 2):
        done = run_script(script, tmp_path, devices)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


@pytest.mark.parametrize("found", [FORMAT + 1, None, "1"])
def test_an_unknown_format_is_refused(tmp_path, found):
    save_all(tmp_path, {1: 1.0})
    path = tmp_path / "1/record/metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": found}))
    manifest.seal(tmp_path / "1")
    refusal = pytest.raises(InputError, match=f"format {found}, .* reads format {FORMAT}")
    checkpoints = Checkpoints(tmp_path)
    with refusal:
        checkpoints.restore(1, structs(state()))


def test_a_damaged_file_is_refused_or_harmless(tmp_path, capfd):
    rng = np.random.default_rng(0)
    items = {
        "params": {str(i): jnp.asarray(rng.normal(size=(40, 50 + i))) for i in range(6)}
    }
    save_all(tmp_path / "whole", {1: 1.0, 2: 2.0}, items)
    refused = 0
    files = [path for path in (tmp_path / "whole/2").rglob("*") if path.is_file()]
    for path in files:
        name = path.relative_to(tmp_path / "whole")
        for keep in (None, 0.5):
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            shutil.copytree(tmp_path / "whole", tmp_path / "copy")
            victim = tmp_path / "copy" / name
            data = victim.read_bytes()
            victim.unlink()
            if keep is not None:
                victim.write_bytes(data[: int(keep * len(data))])
            checkpoints = Checkpoints(tmp_path / "copy")
            try:
                assert digest(checkpoints.restore(2, structs(items))) == digest(items)
            except InputError as error:
                refused += 1
                assert "checkpoint step 2 in" in str(error)
                assert "try `step=1`" in str(error)
                assert len(str(error).splitlines()) == 1
                assert len(str(error)) < 500
    assert refused >= 10
    # Nor do Orbax and TensorStore add anything of their own.
    assert capfd.readouterr() == ("", "")


def test_nothing_is_printed(tmp_path, capfd):
    save_all(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0})
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(InputError):
        checkpoints.metadata(3, "absent")
    assert capfd.readouterr() == ("", "")


def test_restoring_works_where_an_event_loop_runs(tmp_path):
    import asyncio

    save_all(tmp_path, {1: 1.0})

    async def notebook_cell():
        with Saver(tmp_path) as checkpoints:
            checkpoints.save(2, state(), {})
            checkpoints.wait()
            return checkpoints.restore(2, structs(state()))

    assert digest(asyncio.run(notebook_cell())) == digest(state())


# Digest.


def test_digest_is_the_same_live_restored_and_restored_without_types(tmp_path):
    items = state()
    save_all(tmp_path, {1: 1.0}, items)
    checkpoints = Checkpoints(tmp_path)
    typed = checkpoints.restore(1, structs(items))
    targets = {name: checkpoints.metadata(1, name) for name in items}
    plain = checkpoints.restore(1, targets)
    assert jax.tree.structure(plain) != jax.tree.structure(items)
    assert digest(items) == digest(typed) == digest(plain)


def test_digest_notices_every_change():
    items = {"params": {"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.int32)}}
    changes = [
        {"params": {**items["params"], "a": np.zeros((3, 2), np.float32)}},
        {"params": {**items["params"], "a": np.zeros((2, 3), np.int32)}},
        {"params": {**items["params"], "a": -items["params"]["a"]}},
        {"params": {"a": items["params"]["a"], "c": items["params"]["b"]}},
        {"params": {"a": items["params"]["a"]}},
        {"carry": items["params"]},
    ]
    assert len({digest(each) for each in [items, *changes]}) == 7
    assert digest(items) == digest({"params": dict(reversed(items["params"].items()))})
    strided = {"params": {**items["params"], "a": np.zeros((3, 2), np.float32).T}}
    assert digest(items) == digest(strided)


def test_relative_directories_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_all(Path("runs/x/checkpoints"), {1: 1.0})
    assert (tmp_path / "runs/x/checkpoints/1").is_dir()
