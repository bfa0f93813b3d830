"""`compile_for`: a run's programs compiled for devices that need not be here.

Each program is compiled in a process of its own: a compiler that crashes or hangs ends
that process and no more, and what compilers read from the environment is set there alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from charjax.compiled import tpu
from charjax.compiled.names import LAYER, PROGRAMS
from charjax.compiled.result import Compiled, Program, program_from
from charjax.compiled.targets import Target, check_compiler, target_named
from charjax.config.checks import AtLeast, Positive, check_instance, checked, refuse
from charjax.config.schema import Config, to_dict
from charjax.errors import InputError

ASSUMED_CHARACTERS = 96
"""The size of a vocabulary of characters that is not given."""

_BUILD = "charjax.compiled.programs:build"
_CHILD = (sys.executable, "-m", "charjax.compiled.child")

_LAST_LINES = 4


def compile_for(
    config: Config,
    target: str,
    *,
    vocab_size: int | None = None,
    processes: int | None = None,
    streams: int = 1,
    programs: Sequence[str] = PROGRAMS,
    minutes: float = 10.0,
    build: str = _BUILD,
) -> Compiled:
    """Compiles a run's programs for a target, and says what they take.

    Args:
      config: the run's config; its text is not read.
      target: `cpu`, `h100`, `a100`, several as `cpu:8` or `8xh100`, or a TPU topology that
        JAX knows, as `v5e:8x8`.
      vocab_size: number of symbols; None is 256 for bytes, 96 for characters.
      processes: hosts that several GPUs are spread over; a TPU topology has its own.
      streams: texts that `sampling` draws at once.
      programs: which of `training`, `evaluation`, `reading`, `sampling`, and `layer`: one
        layer over time with its gradient, which has a TPU's cycles by the static profile
        in place of bundles.
      minutes: time limit for each program.
      build: what makes a program, as `module:function`, with the contract of
        `charjax.compiled.programs.build`.

    Raises:
      InputError: a target that is not known or whose compiler is not installed, or a
        config that its devices cannot share.

    Returns:
      What was found; a program that its compiler refused, crashed on or did not finish has
      `failure`.
    """
    check_instance("config", config, Config)
    check_instance("target", target, str)
    known = (*PROGRAMS, LAYER)
    several = isinstance(programs, Sequence) and not isinstance(programs, str)
    if not several or not programs or not all(name in known for name in programs):
        refuse("`programs`", programs, f"give a list of some of {', '.join(known)}")
    programs = tuple(dict.fromkeys(programs))
    count = Annotated[int | None, AtLeast(1)]
    for name, value in (("vocab_size", vocab_size), ("processes", processes)):
        checked(f"`{name}`", value, count)
    streams = checked("`streams`", streams, Annotated[int, AtLeast(1)])
    timeout = 60 * checked("`minutes`", minutes, Annotated[float, Positive()])
    place = target_named(target, processes)
    check_compiler(place)
    if vocab_size is None:
        of_bytes = config.data.vocabulary == "bytes"
        vocab_size = 256 if of_bytes else ASSUMED_CHARACTERS
        # With the start and the end of a document.
        vocab_size += 2 * config.data.has_documents
    request = {
        "config": to_dict(config),
        "target": (target, processes),
        "sizes": {"vocab_size": vocab_size, "streams": streams},
        "build": build,
    }
    common: dict[str, Any] = {}
    found = []
    for name in programs:
        program, said = _in_child({**request, "program": name}, place, timeout)
        found.append(program)
        common = common or said
    return Compiled(
        target=target,
        devices=common.get("devices", place.chips),
        processes=common.get("processes", processes or 1),
        vocab_size=vocab_size,
        versions=common.get("versions", {}),
        programs=tuple(found),
    )


def _in_child(
    request: dict[str, Any], target: Target, timeout: float
) -> tuple[Program, dict[str, Any]]:
    """The program that a process of its own compiles, and what else it answers."""
    with tempfile.TemporaryDirectory(prefix="charjax-compile-") as name:
        folder = Path(name)
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [*_CHILD, name],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment(target, folder, request["program"] == LAYER),
                # So that whatever it starts ends with it.
                start_new_session=True,
            )
            try:
                _ask(process, request)
                code = process.wait(timeout)
                ended = f"the compiler's process ended with {_named(code)}"
            except subprocess.TimeoutExpired:
                ended = f"not done after {timeout:g} seconds"
            finally:
                _end(process)
        answer = folder / "answer.json"
        if process.returncode == 0 and answer.exists():
            values = json.loads(answer.read_text("utf-8"))
            if "refused" in values:
                raise InputError(values["refused"])
            return program_from(values.pop("program")), values
        lines = (folder / "said").read_text("utf-8", "replace").splitlines()
        last = " | ".join([line for line in lines if line.strip()][-_LAST_LINES:])
        failure = f"{ended}: {last[-600:]}" if last else f"{ended}, and said nothing"
        return Program(request["program"], failure=failure), {}


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    # Its standard input stays open: where it closes, the child knows that we are gone.
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.close()


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def environment(target: Target, folder: Path, cycles: bool = False) -> dict[str, str]:
    """The environment in which a target's compiler works without the target; of a TPU's
    it asks for the static profile (`cycles`) or for bundles.

    What the user has set in XLA_FLAGS and LIBTPU_INIT_ARGS stays; where a flag is given
    twice, the user's comes last and holds.
    """
    # Ready programs would come without what the compiler says of them.
    ours = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    dump, profile = folder / "dump", folder / "profile"
    dump.mkdir()
    profile.mkdir()
    if target.platform == "gpu":
        ours |= {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        ours["XLA_FLAGS"] = f"--xla_dump_to={dump}"
    if target.platform == "tpu":
        # Else it waits for a server that tells it what host this is; these are also given
        # by the commands, for JAX itself (`commands/absent_tpu.py`).
        ours |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
        ours |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        ours["LIBTPU_INIT_ARGS"] = tpu.flags(dump, profile if cycles else None)
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        if theirs := os.environ.get(name):
            ours[name] = f"{ours.get(name, '')} {theirs}".strip()
    return {**os.environ, **ours}
