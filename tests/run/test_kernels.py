"""Runs that may use a kernel: which one, and that they stay with it."""

import json

import jax
import pytest
from kernels import install
from subprocesses import ROOT, free_address
from tiny import FOUR_STEPS as TINY
from tiny import TEXT

from charjax import fit
from charjax.devices import proof
from charjax.devices.proof import Proof
from charjax.model.recurrence import plain
from charjax.storage import record
from charjax.storage.checkpoints import Checkpoints
from tests.run.test_several_processes import OPTIONS, ended, start

# Eight rows on each of the eight devices that the tests have.
FOUR_STEPS = TINY.replace(**{"data.batch_size": 64})
LONGER = FOUR_STEPS.replace(**{"train.steps": 6, "optimizer.schedule_steps": 4})


def newest(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints")
    return record.read(checkpoints, checkpoints.latest())


def trained(capsys, workdir, config=FOUR_STEPS):
    """Trains, and returns the lines about the recurrence."""
    fit(config, workdir, text=TEXT)
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if "triton" in line or "recurrence: " in line]


@pytest.fixture
def refuse_to_check(monkeypatch):
    def refuse():
        def checked(*arguments):
            raise AssertionError("it was checked again")

        monkeypatch.setattr(proof, "_checked", checked)

    return refuse


def wrong(cell, dtype, layer, *others):
    hidden, last = plain.run(cell, dtype, layer, *others)
    return 1.1 * hidden, last


def test_a_run_keeps_the_kernel_that_was_proven(
    tmp_path, monkeypatch, capsys, refuse_to_check
):
    install(monkeypatch.setattr)
    said = trained(capsys, tmp_path)
    assert "triton was checked on this device: as the plain scan" in said[0]
    assert said[1] == "recurrence: triton, the fastest for a CPU"
    assert newest(tmp_path).proof.kernels == ("triton",)
    # The config has what was asked for.
    assert (
        json.loads((tmp_path / "config.json").read_text())["model"]["recurrence"] == "auto"
    )
    refuse_to_check()
    assert trained(capsys, tmp_path, LONGER) == said[1:]
    assert newest(tmp_path).step == 6 and newest(tmp_path).proof.kernels == ("triton",)


def test_a_run_stays_with_what_runs_everywhere_where_a_kernel_was_wrong(
    tmp_path, monkeypatch, capsys, refuse_to_check
):
    install(monkeypatch.setattr, wrong)
    said = trained(capsys, tmp_path)
    assert "triton is not used, scan is: its gradient of" in said[0]
    assert said[1].startswith("recurrence: scan, ")
    refuse_to_check()
    install(monkeypatch.setattr)
    assert trained(capsys, tmp_path, LONGER) == said[1:]
    assert newest(tmp_path).proof == Proof(newest(tmp_path).proof.place, ())


def test_a_run_of_before_kernels_were_proven_goes_on(tmp_path, monkeypatch, capsys):
    (said,) = trained(capsys, tmp_path)
    assert newest(tmp_path).proof is None and said.startswith("recurrence: scan, ")
    assert "proof" not in newest(tmp_path).to_dict()
    install(monkeypatch.setattr)
    _, said = trained(capsys, tmp_path, LONGER)
    assert said.startswith("recurrence: triton, ")


def test_another_version_of_jax_is_checked_anew(tmp_path, monkeypatch, capsys):
    install(monkeypatch.setattr)
    trained(capsys, tmp_path)
    install(monkeypatch.setattr, wrong)
    monkeypatch.setattr(jax, "__version__", "99.0")
    said = trained(capsys, tmp_path, LONGER)
    assert "triton is not used" in said[0] and said[1].startswith("recurrence: scan")


def test_a_kernel_that_is_asked_for_is_not_checked_but_shown(
    tmp_path, monkeypatch, capsys, refuse_to_check
):
    install(monkeypatch.setattr)
    refuse_to_check()
    config = FOUR_STEPS.replace(**{"model.recurrence": "triton"})
    said = trained(capsys, tmp_path, config)
    assert said == ["recurrence: triton, asked for, not checked"]
    monkeypatch.undo()
    # Where it cannot run, its model is evaluated and sampled from all the same, and the run
    # goes on with another recurrence.
    said = trained(capsys, tmp_path, LONGER)
    assert said[0].startswith("recurrence: scan, ")


# The second process would fail if it checked.
TOGETHER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import kernels
from charjax.devices import processes
kernels.install(setattr)
from charjax.devices import proof
check = proof._checked
def checked(*arguments):
    assert processes.is_first()
    return check(*arguments)
proof._checked = checked
from charjax.commands.cli import main
sys.exit(main(only="train"))
"""


@pytest.mark.slow
def test_processes_take_the_answer_of_the_first(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    workdir, meeting = tmp_path / "run", free_address()
    for steps in ("4", "6"):
        short = ("--train.steps", steps, "--optimizer.schedule_steps", "4")
        command = (TOGETHER, str(ROOT / "tests"), *OPTIONS, *short)
        how = ("--workdir", str(workdir), "--distributed")
        codes, said = ended(
            [
                start(tmp_path, "-c", *command, *how, f"{meeting},2,{index}")
                for index in range(2)
            ]
        )
        assert codes == [0, 0], said
        assert "recurrence: triton" in said[0] and "recurrence" not in said[1]
        assert ("triton was checked" in said[0]) == (steps == "4")
        assert newest(workdir).proof.kernels == ("triton",)
        meeting = free_address()
