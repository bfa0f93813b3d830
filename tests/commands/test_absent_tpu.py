"""What the commands answer in place of a TPU that is not there."""

import os

import pytest

from charjax.commands import absent_tpu


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with libtpu: a function that adds a PCI device of a vendor."""
    for name in [*os.environ]:
        if name.startswith(("TPU_", "JAX_FORCE_TPU", "JAX_PLATFORMS")):
            monkeypatch.delenv(name)
    for name in absent_tpu._ANSWERS:
        # So that what is set is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(absent_tpu, "_installed", lambda: True)

    def add(vendor):
        folder = tmp_path / vendor
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")

    add("0x8086")
    return add


def test_libtpu_is_answered_where_there_is_no_tpu(machine, tmp_path):
    assert absent_tpu.answer_for_absent_tpu(tmp_path)
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
    assert os.environ["TPU_ACCELERATOR_TYPE"]


def test_a_tpu_is_asked_itself(machine, tmp_path):
    machine("0x1ae0")
    assert not absent_tpu.answer_for_absent_tpu(tmp_path)
    assert "TPU_SKIP_MDS_QUERY" not in os.environ


@pytest.mark.parametrize(
    "setting", ["TPU_ACCELERATOR_TYPE=v6e-4", "JAX_PLATFORMS=tpu", "JAX_FORCE_TPU_INIT=1"]
)
def test_what_the_user_has_set_stays(machine, tmp_path, monkeypatch, setting):
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    assert not absent_tpu.answer_for_absent_tpu(tmp_path)
    assert os.environ[name] == value and "TPU_SKIP_MDS_QUERY" not in os.environ


def test_without_libtpu_nothing_is_set(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(absent_tpu, "_installed", lambda: False)
    assert not absent_tpu.answer_for_absent_tpu(tmp_path)
    assert "TPU_SKIP_MDS_QUERY" not in os.environ
