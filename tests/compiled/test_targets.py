"""Names of targets, and what is known of each."""

import importlib.util

import pytest

from charjax.compiled.chips import GPUS, TPUS, target_config
from charjax.compiled.targets import EXAMPLES, check_compiler, target_named
from charjax.errors import InputError


@pytest.mark.parametrize(
    "name, platform, chips, topology",
    [
        ("cpu", "cpu", 1, ""),
        ("cpu:8", "cpu", 8, ""),
        ("h100", "gpu", 1, "1x1x1"),
        ("a100", "gpu", 1, "1x1x1"),
        ("8xh100", "gpu", 8, "1x1x8"),
        ("h100:8", "gpu", 8, "1x1x8"),
        ("v5e:8x8", "tpu", 64, "v5e:8x8"),
        ("v5p:2x2x4", "tpu", 16, "v5p:2x2x4"),
        ("tpu7x:2x2x1", "tpu", 4, "tpu7x:2x2x1"),
    ],
)
def test_a_name_is_a_target(name, platform, chips, topology):
    target = target_named(name)
    found = target.platform, target.chips, target.topology
    assert found == (platform, chips, topology)


@pytest.mark.parametrize(
    "name",
    [
        *("", "h200", "v5e", "v9:2x2", "v5e:2", "v5e:0x2", "0xh100", "h100:0", "2xh100:2"),
        *("8x", ":8", "cpu:-1", "h100x8", "v5e:2x2:4", "cpu:2x2"),
    ],
)
def test_another_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(InputError) as refused:
        target_named(name)
    message = str(refused.value)
    for known in (repr(name), "cpu", *GPUS, *TPUS):
        assert known in message, message


def test_chips_that_lie_in_a_plane_have_no_third_axis():
    with pytest.raises(InputError, match=r"`target` is 'v5e:2x2x2': .* in a plane"):
        target_named("v5e:2x2x2")
    assert target_named("v5e:2x2x1").chips == 4


def test_every_example_is_a_target():
    assert [target_named(name).name for name in EXAMPLES] == [*EXAMPLES]


def test_processes_divide_the_devices_of_several_gpus():
    assert target_named("8xh100", processes=2).topology == "1x2x4"
    with pytest.raises(InputError, match=r"`processes` is 3.*divide 8 devices"):
        target_named("8xh100", processes=3)
    with pytest.raises(InputError, match=r"`processes` is 2"):
        target_named("cpu:4", processes=2)


@pytest.mark.parametrize(
    "name, extra", [("v5e:2x2", "tpu"), ("h100", "cuda12")], ids=["tpu", "gpu"]
)
def test_without_a_compiler_the_message_says_what_to_install(monkeypatch, name, extra):
    find = importlib.util.find_spec
    absent = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    check_compiler(target_named("cpu"))
    with pytest.raises(InputError) as refused:
        check_compiler(target_named(name))
    assert "\n" not in str(refused.value)
    assert f'pip install "charjax[{extra}]"' in str(refused.value)


@pytest.mark.parametrize(
    "chip", [*TPUS.values(), *GPUS.values()], ids=lambda chip: chip.name
)
def test_facts_are_of_plausible_size(chip):
    assert 8e9 < chip.memory < 300e9 and 5e11 < chip.bandwidth < 2e13
    assert 4e13 < chip.bfloat16 < 5e15 and chip.float32 <= chip.bfloat16
    assert chip.source
    if chip.clock is not None:
        # Whole matrix units: multiples of 128 x 128 multiply-adds a cycle.
        units = chip.bfloat16 / chip.clock / (2 * 128 * 128)
        assert abs(units - round(units)) < 0.05 * units and units >= 1


def test_a_gpu_is_described_to_its_compiler():
    text = target_config(GPUS["a100"])
    assert "cuda_compute_capability { major: 8 minor: 0 }" in text
    assert "core_count: 108" in text and f"device_memory_size: {80 * 2**30}" in text
