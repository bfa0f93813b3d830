"""The process that compiles one program: a request on standard input, an answer in a file.

    python -m charjax.compiled.child FOLDER

The parent (`compile_for.py`) has set the environment, since compilers read theirs when JAX
is imported. What the compiler dumps goes to FOLDER, and so does `answer.json`.
"""

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from charjax.compiled import collectives, estimate, gpu, hlo, tpu
from charjax.compiled.chips import target_config
from charjax.compiled.memory import GPU_SHARE, memory
from charjax.compiled.names import LAYER, TRAINING
from charjax.compiled.programs import Built, Sizes
from charjax.compiled.result import Program, program_to_json
from charjax.compiled.targets import Target, target_named
from charjax.config.schema import Config, from_dict
from charjax.devices.memory import is_shortage, of_device
from charjax.errors import InputError, counted
from charjax.model.arithmetic import own_arithmetic

ANSWER, DUMP, PROFILE = "answer.json", "dump", "profile"


def main() -> None:
    """Compiles what standard input asks for."""
    folder, request = Path(sys.argv[1]), json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer = folder / ANSWER
    try:
        with own_arithmetic():
            answer.write_text(json.dumps(_compiled(request, folder)), "utf-8")
    except InputError as error:
        answer.write_text(json.dumps({"refused": str(error)}), "utf-8")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _compiled(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    config, target = from_dict(request["config"]), target_named(*request["target"])
    devices = devices_of(target)
    module, _, function = request["build"].partition(":")
    build: Callable[..., Built] = getattr(importlib.import_module(module), function)
    begun = time.monotonic()
    built = build(request["program"], config, Sizes(**request["sizes"]), devices)
    versions = {name: version(name) for name in ("jax", "jaxlib")}
    if target.platform == "tpu":
        versions["libtpu"] = version("libtpu")
    found = _program(request, built, begun, config, target, devices, folder)
    return {
        "devices": len(devices),
        "processes": len({device.process_index for device in devices}),
        "versions": versions,
        "program": json.loads(program_to_json(found)),
    }


def devices_of(target: Target) -> list[Any]:
    """The devices of a target, none of which need be here."""
    if target.platform == "cpu":
        jax.config.update("jax_num_cpu_devices", target.chips)
        return jax.devices()
    options: dict[str, Any] = {"platform": "tpu", "topology_name": target.topology}
    if target.platform == "gpu":
        assert target.chip is not None
        text = target_config(target.chip)
        options = {"platform": "cuda", "target_config": text, "topology": target.topology}
    elif target.chips == 1:
        # A host of the usual four would not divide it.
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices = list(topologies.get_topology_desc(**options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"`target` is {target.name!r}: {reason}.") from error
    hosts = len({device.process_index for device in devices})
    if target.processes not in (None, hosts):
        raise InputError(
            f"`processes` is {target.processes}: {target.name} has "
            f"{counted(hosts, 'hosts')}; leave it out."
        )
    return devices


def _program(
    request: dict[str, Any],
    built: Built,
    begun: float,
    config: Config,
    target: Target,
    devices: list[Any],
    folder: Path,
) -> Program:
    name = request["program"]
    platform = {"gpu": "cuda"}.get(target.platform, target.platform)
    facts: dict[str, Any] = {
        **{"name": name, "recurrence": built.recurrence, "rows": built.rows},
        **{"steps": built.steps, "limit": _limit(target, devices)},
    }
    with jax.sharding.use_abstract_mesh(built.mesh.abstract_mesh):
        traced = built.jitted.trace(*built.arguments)
        grids = dict(_grids(traced.jaxpr.jaxpr))
        lowered = traced.lower(lowering_platforms=(platform,))
        try:
            compiled = lowered.compile()
        except Exception as error:
            if not is_shortage(error):
                raise
            said = str(error).partition("\n\n")[0]
            return Program(**facts, failure=f"too little memory: {said}", fits=False)
    facts["seconds"] = time.monotonic() - begun
    taken = memory(compiled.memory_analysis(), built.parts)
    limit = facts["limit"]
    facts |= {"memory": taken, "fits": None if limit is None else taken.peak <= limit}
    module = hlo.parse(compiled.as_text())
    sent = tuple(collectives.collectives(module, built.origins))
    counted = _counted(request, built, config, target, module, grids, sent, folder)
    return Program(**facts, collectives=sent, **counted)


def _counted(
    request: dict[str, Any],
    built: Built,
    config: Config,
    target: Target,
    module: hlo.Module,
    grids: dict[str, int],
    sent: tuple[collectives.Collective, ...],
    folder: Path,
) -> dict[str, Any]:
    """What the platform counts, and the estimate that follows."""
    chip, positions = target.chip, built.rows * built.steps
    if chip is None:
        return {}
    share, precision = built.mesh.size, config.train.precision
    vocab_size = request["sizes"]["vocab_size"]
    training = request["program"] == TRAINING
    work = estimate.products(config, vocab_size, positions, training) / share
    floor = work / estimate.peak(chip, precision)
    if target.platform == "gpu":
        found = gpu.launches(folder / DUMP, module, built.origins, built.steps)
        if found is None:
            return {}
        total, loops = found
        return {
            "kernels": total.kernels,
            "alone": total.alone,
            "command_buffers": total.buffers,
            "loops": tuple(loops),
            "estimate": estimate.of_gpu(
                chip, total.kernels, total.alone, floor, sent, positions
            ),
        }
    rows = built.rows // built.mesh.shape["data"]
    one = estimate.recurrent_product(config, rows) / built.mesh.shape["model"]
    facts: dict[str, Any] = {
        "floor": estimate.cycles_of(chip, precision, work),
        "step_floor": estimate.cycles_of(chip, precision, one),
    }
    if request["program"] == LAYER:
        done = tpu.cycles(folder / PROFILE, module, built.origins, built.steps, grids)
        if done is None:
            return facts
        counted = {"cycles": done.amount, "unknown": done.unknown, "loops": done.loops}
        return {"step_floor": facts["step_floor"], **counted}
    done = tpu.bundles(folder / DUMP, module, built.origins, built.steps, grids)
    if done is None:
        return facts
    expected = estimate.of_tpu(chip, done.amount, floor, sent, positions)
    return {
        **facts,
        "bundles": done.amount,
        "unknown": done.unknown,
        "loops": done.loops,
        "estimate": expected,
    }


def _limit(target: Target, devices: list[Any]) -> int | None:
    if target.chip is None:
        limit = of_device(devices[0])
        return None if limit is None else limit // len(devices)
    if target.platform == "gpu":
        return round(GPU_SHARE * target.chip.memory)
    return target.chip.memory * target.chips // len(devices)


def _grids(jaxpr: Any) -> Iterator[tuple[str, int]]:
    """How often each Pallas kernel of a traced program runs its body, by its name."""
    for equation in jaxpr.eqns:
        if "grid_mapping" in equation.params:
            times = 1
            for size in equation.params["grid_mapping"].grid:
                times *= size if isinstance(size, int) else 1
            yield str(equation.params.get("name")), times
        for value in equation.params.values():
            for each in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from _grids(inner)


if __name__ == "__main__":
    main()
