"""Two processes of two devices through the command, against one process of four."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from subprocesses import ROOT, free_address
from tiny import LINE

from charjax import InputError, inspect_run
from charjax.devices import meeting, processes
from charjax.storage.lock import lock

OPTIONS = [
    *("--data.source", "text.txt"),
    *("--data.batch_size", "8", "--data.sequence_length", "16"),
    *("--model.hidden_size", "16", "--train.steps", "24", "--train.log_every", "1"),
    *("--train.eval_every", "8", "--train.checkpoint_every", "6"),
    *("--train.sample_every", "10", "--data.split", "0.8", "0.1", "0.1"),
]


# Longer than any test waits, with the schedule of the run above.
ENDLESS = ("--train.steps", "100000", "--optimizer.schedule_steps", "24")

IMPATIENT = """
import sys
from charjax.commands.cli import main
from charjax.devices import meeting
meeting.TIMEOUT = 4
sys.exit(main(only="train"))
"""


SOON = """
import sys
import charjax.commands.cli
from charjax.run import directory
directory.PATIENCE = 3
sys.exit(charjax.commands.cli.main(only="train"))
"""

# Says when it reads the text, and takes its time there and with the last seal.
SLOW = """
import sys, time
import charjax.commands.cli
from charjax.storage import manifest
reading, sealing = float(sys.argv.pop(1)), float(sys.argv.pop(1))
from charjax.run import text_of_run
survey, seal = text_of_run.survey, manifest.seal
def slow_survey(*arguments, **options):
    print("reading", file=sys.stderr, flush=True)
    time.sleep(reading)
    return survey(*arguments, **options)
def slow_seal(path):
    time.sleep(sealing if path.name.startswith("12") else 0)
    seal(path)
text_of_run.survey, manifest.seal = slow_survey, slow_seal
sys.exit(charjax.commands.cli.main(only="train"))
"""


def start(folder, *command, devices=2):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def begin(folder, workdir, count, *options, others=()):
    """Starts the processes of one run; `others` are options of all but the first."""
    meeting, started = free_address(), []
    for index in range(count):
        extra = [*options, *(others if index else ())]
        if count > 1:
            extra += ["--distributed", f"{meeting},{count},{index}"]
        command = [str(ROOT / "train.py"), *OPTIONS, "--workdir", workdir, *extra]
        started.append(start(folder, *command, devices=4 // count))
    return started


def ended(processes, timeout=180):
    """Exit codes and what was said."""
    try:
        said = [process.communicate(timeout=timeout)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [process.returncode for process in processes], said


def metrics(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def same_losses(one, other):
    found, expected = metrics(one), metrics(other)
    assert [(line["step"], line["split"]) for line in found] == [
        (line["step"], line["split"]) for line in expected
    ]
    losses = [[line["loss"] for line in lines] for lines in (found, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def under_way(workdir, processes):
    """Waits for some steps."""
    while logged(workdir) < 9:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and a run of one process."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "text.txt").write_text(LINE * 60)
    codes, said = ended(begin(folder, "one", 1))
    assert codes == [0], said
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), ("--parallel.model", "2", "--parallel.fsdp")], ids=str
)
def test_two_processes_train_as_one_does(folder, tmp_path, options):
    codes, said = ended(begin(folder, str(tmp_path / "two"), 2, *options))
    assert codes == [0, 0], said
    same_losses(tmp_path / "two", folder / "one")
    # The first one alone speaks and writes.
    assert "sample at step" in said[0] and "loss" not in said[1]
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {path.name for path in (folder / "one").iterdir()}


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(folder, tmp_path):
    run = tmp_path / "run"
    processes = begin(folder, str(run), 2)
    under_way(run, processes)
    # One is asked to end; all agree on a last step.
    processes[1].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    assert 8 < inspect_run(run)["step"] < 24
    codes, said = ended(begin(folder, str(run), 1))
    assert codes == [0], said
    same_losses(run, folder / "one")
    # Finished: two find nothing to do, and do not score the test split again.
    before = metrics(run)
    codes, said = ended(begin(folder, str(run), 2))
    assert codes == [0, 0] and "this run ended at step 24" in said[0], said
    assert metrics(run) == before


@pytest.mark.slow
def test_ctrl_c_in_one_saves_for_all(folder, tmp_path):
    run = tmp_path / "run"
    processes = begin(folder, str(run), 2, *ENDLESS)
    under_way(run, processes)
    processes[0].send_signal(signal.SIGINT)
    codes, said = ended(processes)
    assert codes == [130, 143], said
    assert "stopping after this step, with a checkpoint" in said[0]
    assert inspect_run(run)["step"] == metrics(run)[-1]["step"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(folder, tmp_path, victim):
    run = tmp_path / "run"
    running = begin(folder, str(run), 2, *ENDLESS)
    under_way(run, running)
    running[victim].kill()
    begun = time.monotonic()
    codes, said = ended(running, timeout=150)
    print(
        f"the other ended after {time.monotonic() - begun:.0f} s with {codes[1 - victim]}"
    )
    print("\n".join(said[1 - victim].splitlines()[-8:]))
    assert codes[1 - victim] != 0
    # Our own line, or the runtime's where it is faster than we are.
    words = said[1 - victim]
    assert "the other processes do not answer" in words or "another task died" in words
    if codes[1 - victim] != 1 and time.monotonic() - begun > processes.SILENCE / 2:
        assert "if another process died, this one ends" in words
    codes, said = ended(begin(folder, str(run), 2))
    assert codes == [0, 0], said
    same_losses(run, folder / "one")


@pytest.mark.slow
def test_processes_that_disagree_are_refused(folder, tmp_path):
    others = ("--model.hidden_size", "8")
    codes, said = ended(begin(folder, str(tmp_path / "run"), 2, others=others))
    assert codes == [2, 2], said
    for words in said:
        assert "process 1 has another model.hidden_size than process 0" in words
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_refuses_one_refuses_all(folder, tmp_path):
    run = tmp_path / "run"
    codes, said = ended(begin(folder, str(run), 2, others=("--data.source", "none.txt")))
    assert codes == [2, 2], said
    reason = f"data.source is '{folder / 'none.txt'}': there is no such file"
    assert f"error: {reason}" in said[1]
    assert f"error: process 1 was refused: {reason}" in said[0]
    assert not run.exists()
    # One that reads another run's parameters meanwhile waits for nobody.
    origin = ("--train.init_from", "one")
    options = (*origin, "--data.source", "none.txt")
    codes, said = ended(begin(folder, str(run), 2, *origin, others=options))
    assert codes == [2, 2] and "process 1 was refused" in said[0], said
    with lock(run):
        codes, said = ended(begin(folder, str(run), 2))
        assert codes == [2, 2], said
        assert all("is in use by process" in words for words in said), said
        assert [path.name for path in run.iterdir()] == [".charjax-lock"]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_processes_that_never_meet_end_with_a_clear_line(folder, index):
    how = f"{free_address()},2,{index}"
    codes, said = ended([start(folder, "-c", IMPATIENT, "--distributed", how)])
    assert codes == [2], said
    (line,) = said[0].splitlines()
    assert f"error: --distributed is '{how}': after 4 seconds" in line
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_slow_process_is_waited_for(folder, tmp_path):
    # One reads longer than gloo waits for a first meeting, the other saves longer than
    # JAX's shutdown waits.
    run, meeting = tmp_path / "run", free_address()
    last = ("--train.steps", "12", "--data.split", "0.9", "0.1", "0")
    codes, said = ended(
        [
            start(
                folder,
                *("-c", SLOW, *slowness, *OPTIONS, *last, "--workdir", str(run)),
                *("--distributed", f"{meeting},2,{index}"),
            )
            for index, slowness in enumerate([("0", "15"), ("40", "0")])
        ]
    )
    assert codes == [0, 0], said
    assert inspect_run(run)["step"] == 12


@pytest.mark.slow
def test_one_that_is_asked_to_end_does(folder, tmp_path):
    run, how = tmp_path / "run", ("--distributed", f"{free_address()},1,0")
    arguments = (*OPTIONS, "--workdir", str(run), *how)
    process = start(folder, "-c", SLOW, "60", "0", *arguments)
    assert process.stderr is not None
    while process.stderr.readline() != b"reading\n":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    codes, said = ended([process], timeout=20)
    assert codes == [143] and not run.exists(), said

    process = start(folder, "-c", SLOW, "0", "0", *arguments, *ENDLESS)
    under_way(run, [process])
    process.send_signal(signal.SIGTERM)
    codes, said = ended([process])
    assert codes == [143], said
    assert inspect_run(run)["step"] == metrics(run)[-1]["step"]


@pytest.mark.slow
def test_processes_start_over_together(folder, tmp_path):
    run = tmp_path / "run"
    codes, said = ended(begin(folder, str(run), 2, "--train.seed", "1"))
    assert codes == [0, 0], said
    # What a killed one left: a run that had begun to take the place of this one.
    shutil.copytree(run, run / ".taking")
    codes, said = ended(begin(folder, str(run), 2, "--fresh", "--train.seed", "0"))
    assert codes == [0, 0], said
    assert f"replaces the run in {run} (step 24" in said[0]
    same_losses(run, folder / "one")
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_directory_that_is_not_shared_is_refused_and_kept(folder, tmp_path):
    places, meeting = [tmp_path / "one", tmp_path / "two"], free_address()
    for place in places:
        place.mkdir()
        shutil.copytree(folder / "one", place / "run")
    text = ("--data.source", str(folder / "text.txt"))
    codes, said = ended(
        [
            start(
                place,
                *("-c", SOON, *OPTIONS, *text, "--workdir", "run", "--fresh"),
                *("--distributed", f"{meeting},2,{index}"),
            )
            for index, place in enumerate(places)
        ]
    )
    assert codes == [2, 2], said
    assert all("a file system that all processes share" in words for words in said)
    for place in places:
        assert inspect_run(place / "run")["step"] == 24
        same_losses(place / "run", folder / "one")


@pytest.mark.slow
def test_processes_have_as_many_devices_each(folder, tmp_path):
    meeting = free_address()
    codes, said = ended(
        [
            start(
                folder,
                *(str(ROOT / "train.py"), *OPTIONS, "--workdir", str(tmp_path / "run")),
                *("--distributed", f"{meeting},2,{index}"),
                devices=3 - 2 * index,
            )
            for index in range(2)
        ]
    )
    assert codes == [2, 2], said
    assert all("error: the processes have 3, 1 devices" in words for words in said)


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen at port {port}"):
            meeting.join(f"127.0.0.1:{port},2,0")


@pytest.mark.parametrize(
    "how",
    [
        *("on", "", "10.0.0.1:80", "10.0.0.1,2,0", "10.0.0.1:80,2,2", "10.0.0.1:80,a,0"),
        *("10.0.0.1:0,2,0", "10.0.0.1:65536,2,0", "10.0.0.1:http,2,0"),
    ],
)
def test_an_odd_way_to_meet_is_refused(how):
    with pytest.raises(InputError, match="`distributed`"):
        meeting.join(how)
