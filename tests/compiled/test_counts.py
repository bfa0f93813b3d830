"""What compilers write of a program, counted: launches of a GPU, bundles of a TPU."""

import re

import pytest

from charjax.compiled import gpu, hlo, tpu
from charjax.compiled.loops import Loop

PROGRAM = """HloModule jit_f

%body (p: s32[]) -> s32[] {
  %p = s32[] parameter(0)
  %fusion.2 = f32[8]{0} fusion(%p), kind=kLoop, calls=%c, \
backend_config={"window_config":{"estimated_cycles":"40","iteration_bounds":["3","2"]}}
  ROOT %fusion.3 = f32[8]{0} fusion(%p), kind=kLoop, calls=%c, \
backend_config={"window_config":{"estimated_cycles":"40","iteration_bounds":["3","2"]}}
}

ENTRY %main (x: s32[]) -> s32[] {
  %x = s32[] parameter(0)
  %fusion.1 = f32[8]{0} fusion(%x), kind=kLoop, calls=%c
  %lost = f32[9]{0} fusion(%x), kind=kLoop, calls=%c, \
backend_config={"estimated_cycles":"7"}
  %kernel.4 = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(f)/transpose(jvp())/kernel" source_file="a/recurrence/k.py"}
  ROOT %while.1 = s32[] while(%x), condition=%none, body=%body, \
metadata={op_name="jit(f)/while" source_file="a/recurrence/scan.py"}, \
backend_config={"known_trip_count":{"n":"10"}}
}
"""
ORIGINS = {"/recurrence/": "time"}

THUNKS = """\
000: kCommandBuffer [source       | next=009 (1)] 
    001: kCopy         [source       | next=002 (1)] kCopy
    002: kCustomKernel [source       | sink        ] loop_fusion grid: [1, 1, 1]
003: kWhile         [prev=000 (1) | next=000 (1)]   
condition:
    004: kCustomKernel [source | sink] compare grid: [1, 1, 1]
  body:
    000: kCommandBuffer      [source       | next=019 (1)] 
        005: kCustomKernel [source       | next=012 (1)] convert
        006: kGemm         [source       | next=012 (1)] gemm
        007: kCustomKernel [source       | next=012 (1)] add
    008: kDynamicSliceFusion [prev=000 (1) | sink        ] params=1, results=1
        009: kCopy [source | sink] kCopy
    010: kCustomKernel       [prev=000 (2) | next=022 (1)] counter
011: kCustomKernel [prev=000 (2) | next=022 (1)] last
"""


def test_launches_are_counted_alone_and_in_command_buffers(tmp_path):
    path = tmp_path / "module_1.jit_f.thunk_sequence_after_thunk_passes.txt"
    path.write_text(THUNKS)
    found = gpu.launches(tmp_path, hlo.parse(PROGRAM), ORIGINS, steps=100)
    assert found is not None
    total, loops = found
    # A loop whose count is known asks its condition of nobody.
    assert total == gpu.Launches(alone=10 * 2 + 1, buffers=10 + 1, kernels=10 * 5 + 3)
    assert loops == [Loop("time", "forward", 10, 100, kernels=5)]
    assert loops[0].per_step("kernels") == 0.5


def test_a_loop_of_unknown_length_asks_before_each_pass(tmp_path):
    (tmp_path / "m.thunk_sequence.txt").write_text(THUNKS)
    unknown = re.sub(r", backend_config=\{\"known_trip.*", "", PROGRAM)
    found = gpu.launches(tmp_path, hlo.parse(unknown), ORIGINS, steps=1)
    assert found is not None and found[0].kernels == 3 + 5 + 1


def test_launches_that_are_not_of_the_program_are_not_counted(tmp_path):
    assert gpu.launches(tmp_path, hlo.parse(PROGRAM), ORIGINS, 1) is None
    (tmp_path / "m.thunk_sequence.txt").write_text("000: kCustomKernel [source] a\n")
    assert gpu.launches(tmp_path, hlo.parse(PROGRAM), ORIGINS, 1) is None


@pytest.fixture
def dump(tmp_path):
    """Files as the TPU's compiler writes them: bundles, those in loops marked."""

    def write(name, *depths):
        lines = ["= control target key start", "LB: loop body", ""]
        for place, depth in enumerate(depths):
            mark = "LB" if depth else "  "
            lines.append(f"  {place:#x} {mark}: {'> ' * depth}{{ %s1 = sld [smem:[#a]] }}")
        path = tmp_path / f"123-{name}-01-final_bundles.txt"
        path.write_text("\n".join(lines))

    write("fusion.1", 0, 0)
    write("fusion.2", 0, 1, 1)
    write("kernel.4", 0, 1, 1, 1)
    return tmp_path


def test_bundles_count_loops_as_often_as_they_run(dump):
    work = tpu.bundles(dump, hlo.parse(PROGRAM), ORIGINS, steps=20, grids={"kernel": 5})
    assert work is not None
    # fusion.3 has no file: it is as long as fusion.2, which it equals.
    fusion, kernel = 1 + 2 * 6, 1 + 3 * 5
    assert work.amount == 2 + kernel + 10 * 2 * fusion
    assert work.unknown == 1
    assert Loop("time", "forward", 10, 20, bundles=2 * fusion) in work.loops
    assert Loop("time", "backward", 5, 20, bundles=round(kernel / 5)) in work.loops


def test_without_bundles_nothing_is_said(tmp_path):
    assert tpu.bundles(tmp_path, hlo.parse(PROGRAM), ORIGINS, 1, {}) is None
    assert tpu.cycles(tmp_path, hlo.parse(PROGRAM), ORIGINS, 1, {}) is None


def test_cycles_are_those_of_the_static_profile(tmp_path):
    rows = [("fusion.1", 11), ("fusion.2", 30), ("kernel.4", 500)]
    text = "".join(
        f'ops {{ hlo_op_name: "{name}" estimated_cycles: {n} }}\n' for name, n in rows
    )
    (tmp_path / "profile.textproto").write_text(text)
    work = tpu.cycles(tmp_path, hlo.parse(PROGRAM), ORIGINS, 20, {"kernel": 5})
    assert work is not None and work.amount == 11 + 500 + 10 * 60
    assert Loop("time", "backward", 5, 20, cycles=100) in work.loops
