"""Compiled programs read: loops, what they go over, and what devices send each other."""

import jax
import jax.numpy as jnp
import pytest

from charjax.compiled import hlo
from charjax.compiled.collectives import collectives
from charjax.devices import mesh as meshes
from charjax.devices import placement

HERE = {"tests/compiled/test_hlo.py": "time"}
STEPS = 7


@pytest.fixture(scope="module")
def devices():
    return meshes.make_mesh(jax.devices()[:4])


def module_of(function, mesh, *shapes):
    """The compiled program of a function whose arguments are split by rows."""
    place = placement.batch_sharding(mesh)
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes
    ]
    whole = placement.replicated(mesh)
    compiled = jax.jit(function, out_shardings=whole).lower(*arguments).compile()
    return hlo.parse(compiled.as_text())


def test_a_sum_over_devices_is_one_all_reduce_of_its_bytes(devices):
    module = module_of(lambda x: x.sum(0), devices, (8, 100))
    (found,) = collectives(module, HERE)
    assert (found.kind, found.count, found.bytes) == ("all-reduce", 1, 400)
    assert found.loops == () and not found.over_time


def test_what_is_sent_inside_a_loop_is_counted_as_often_as_it_runs(devices):
    def looped(x):
        def step(total, _):
            # Of all rows, so that each pass needs the others' part.
            return jnp.sin(total + (x * total).sum(0)), None

        return jax.lax.scan(step, jnp.ones(100), length=STEPS)[0]

    module = module_of(looped, devices, (8, 100))
    (found,) = collectives(module, HERE)
    assert (found.kind, found.count, found.bytes) == ("all-reduce", STEPS, 400 * STEPS)
    assert found.loops == ("time",) and found.over_time


def test_a_loop_over_something_else_is_told_apart_by_its_file(devices):
    def looped(x):
        def step(total, _):
            return jnp.sin(total + (x * total).sum(0)), None

        return jax.lax.scan(step, jnp.ones(100), length=STEPS)[0]

    module = module_of(looped, devices, (8, 100))
    (found,) = collectives(module, {"tests/compiled/test_hlo.py": "layers"})
    assert found.loops == ("layers",) and not found.over_time
    # A loop of an unknown file may be one over time.
    (found,) = collectives(module, {})
    assert found.loops == ("other",) and found.over_time


def test_a_gather_counts_what_is_brought_together(devices):
    module = module_of(lambda x: x * 2, devices, (8, 100))
    (found,) = collectives(module, HERE)
    assert (found.kind, found.count, found.bytes) == ("all-gather", 1, 3200)


TEXT = """HloModule jit_f, is_scheduled=true

FileNames
1 "/x/charjax/model/recurrence/scan.py"
2 "/x/charjax/model/stack.py"

FunctionNames
1 "run"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=4 end_line=4 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%cond (p: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(25)
  %p = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %p = (s32[], f32[4]) parameter(0)
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]) parameter(0)
  ROOT %time = (s32[], /*index=1*/f32[4]{0:T(8,128)(2,1)S(1)}) while(%p), condition=%cond, \
body=%inner, metadata={op_name="jit(f)/transpose(jvp())/while" stack_frame_id=1}
}

ENTRY %main (x: (s32[], f32[4])) -> (s32[], f32[4]) {
  %x = (s32[], f32[4]) parameter(0)
  ROOT %layers = (s32[], f32[4]) while(%x), condition=%none, body=%outer, \
metadata={stack_frame_id=2}, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_loops_have_counts_places_and_origins():
    module = hlo.parse(TEXT)
    origins = {"model/recurrence/": "time", "model/stack.py": "layers"}
    placed = {each.name: place for each, place in hlo.walk(module, origins)}
    assert placed["time"] == hlo.Place(("layers",), 3)
    assert placed["layers"] == hlo.Place((), 1)
    (time,) = (each for each, _ in hlo.walk(module, origins) if each.name == "time")
    # Not noted by the compiler, but in the condition.
    assert hlo.trips(module, time) == 25
    assert hlo.over_what(module, time, origins) == "time"
    assert "transpose(" in time.path
    assert hlo.size(time.shape) == 20


CHAIN = """HloModule jit_f

%begin (a: f32[2]) -> f32[8] {
  %a = f32[2] parameter(0)
  ROOT %g.1 = f32[8] all-gather(%a), frontend_attributes={chain_id="0"}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%go_on (a: f32[2]) -> f32[8] {
  %a = f32[2] parameter(0)
  ROOT %g.2 = f32[8] all-gather(%a), frontend_attributes={chain_id="0"}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%body (p: f32[2]) -> f32[2] {
  %p = f32[2] parameter(0)
  ROOT %f.2 = f32[8] fusion(%p), kind=kOutput, calls=%go_on
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2] parameter(0)
  %f.1 = f32[8] fusion(%x), kind=kCustom, calls=%begin
  ROOT %w = f32[2] while(%x), condition=%none, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_a_message_spread_over_other_work_is_sent_once():
    (found,) = collectives(hlo.parse(CHAIN), {})
    assert (found.kind, found.count, found.bytes, found.loops) == ("all-gather", 1, 32, ())
