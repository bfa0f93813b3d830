"""Small breakages of the code, one or more for each promise; each must turn a test red.

    python -m tests.mutants                 every mutant, against the tests it names
    python -m tests.mutants --only manifest those whose promise or file says so
    python -m tests.mutants --list          what there is; nothing runs
    python -m tests.mutants --check         first see that the named tests pass unbroken

The tracked files are copied once; the mutants are made in the copy, one at a time. A
mutant is killed if its tests fail, or do not end; it survives if they pass, or if no test
ran. It is stale if the code it changes is no longer there, once and no more. The exit
status is 1 if any survived or is stale.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
TIMEOUT = 600
"""Seconds after which tests count as hanging."""


@dataclass(frozen=True)
class Mutant:
    """One breakage: in `file`, `old` becomes `new`."""

    promise: str
    """What is broken, in a few words."""

    file: str
    """Relative to the repository."""

    old: str
    """Occurs exactly once in the file."""

    new: str

    tests: str = ""
    """A selection for pytest; options may be in it (`-m ""` for slow tests)."""

    expected: str = ""
    """Why it may well survive: what a test would need to see it."""


MUTANTS: tuple[Mutant, ...] = (
    # A step is sealed, then named, then verified, and only then do older ones go.
    Mutant(
        "the manifest is written before the step gets its name",
        "charjax/storage/checkpoints.py",
        "        manifest.seal(self._working(step))\n",
        "        self._install(step)\n        manifest.seal(self._path(step))\n"
        "        return self._retire(step)\n",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "what the disk gives back is compared before the step gets its name",
        "charjax/storage/checkpoints.py",
        "if (reason := manifest.damage(self._working(step))) is not None:",
        "if (reason := None) is not None:",
        "tests/storage/test_checkpoints.py -k given_back",
    ),
    Mutant(
        "a damaged step that is trained again is replaced and sound",
        "charjax/storage/checkpoints.py",
        "        self._damage[step] = None\n        _remove(retired)\n",
        "        _remove(retired)\n",
        "tests/faults/test_faults.py -k newest_step_is_damaged",
    ),
    Mutant(
        "the best step stays",
        "charjax/storage/checkpoints.py",
        "kept = {saved, self.latest(), self.best()}",
        "kept = {saved, self.latest()}",
        "tests/storage/test_checkpoints.py -k best_and_the_newest",
    ),
    Mutant(
        "a deletion that is cut short leaves no damaged step",
        "charjax/storage/checkpoints.py",
        "_remove(_set_aside(self._path(step)))",
        "_remove(self._path(step))",
        "tests/faults/test_kill_anywhere.py -k old_step_is_deleted",
    ),
    Mutant(
        "damaged steps are never deleted",
        "charjax/storage/checkpoints.py",
        "if step not in kept and not self.damage(step):",
        "if step not in kept:",
        'tests/storage/test_checkpoints.py -k "not_deleted"',
    ),
    # Leftovers of a killed run.
    Mutant(
        "a save that was not sealed never counts",
        "charjax/storage/checkpoints.py",
        "if manifest.damage(path) is None:",
        "if path.is_dir():",
        "tests/storage/test_checkpoints.py -k not_sealed",
    ),
    Mutant(
        "a retired step left behind goes at the next start",
        "charjax/storage/checkpoints.py",
        'self.directory.glob(f"*{_RETIRED}")',
        'self.directory.glob(f"*{_SAVING}")',
        "tests/storage/test_checkpoints.py -k retired_folder",
    ),
    Mutant(
        "a temporary directory of Orbax goes at the next start",
        "charjax/storage/checkpoints.py",
        'glob(f"*{_UNFINISHED}*")',
        'glob(f"{_UNFINISHED}")',
        "tests/storage/test_checkpoints.py -k stray",
    ),
    # What has its name is on the disk, also after a loss of power.
    Mutant(
        "a step's files are brought to the disk",
        "charjax/storage/manifest.py",
        "        sync(path)\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "the manifest is brought to the disk",
        "charjax/storage/manifest.py",
        "    sync(manifest)\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "a step's folders are brought to the disk",
        "charjax/storage/manifest.py",
        "        sync(Path(folder))\n",
        "        Path(folder)\n",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "the name of a step is brought to the disk",
        "charjax/storage/checkpoints.py",
        "        sync(self.directory)\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "a file that replaces another is on the disk before it does",
        "charjax/storage/atomic.py",
        "os.fsync(file.fileno())",
        "file.fileno()",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "the metrics before a step are on the disk before it",
        "charjax/run/loop.py",
        "    report.sync()\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    # Files that appear whole, in an order that a kill cannot spoil.
    Mutant(
        "config.json is replaced whole",
        "charjax/storage/run_directory.py",
        "with replacing(workdir / CONFIG) as path:",
        "with contextlib.nullcontext(workdir / CONFIG) as path:",
        "tests/storage/test_run_directory.py -k whole_or_not",
    ),
    Mutant(
        "config.json comes last in a new run",
        "charjax/storage/run_directory.py",
        "    if text is not None:\n        with replacing",
        "    write_config(workdir, config)\n"
        "    if text is not None:\n        with replacing",
        'tests/storage/test_run_directory.py -k "config_comes_last"',
    ),
    Mutant(
        "--fresh deletes the old run only once the new text is encoded",
        "charjax/run/fit.py",
        "            corpus = load_corpus(planned.surveyed, watch)\n",
        "            if fresh and workdir is not None:\n"
        "                run_directory.start_over(workdir)\n"
        "            corpus = load_corpus(planned.surveyed, watch)\n",
        "tests/commands/test_commands.py -k fresh_never",
    ),
    # Damage is detected.
    Mutant(
        "a bit that flipped is detected",
        "charjax/storage/manifest.py",
        "if _describe(found[name]) != facts:",
        'if _describe(found[name])["bytes"] != facts["bytes"]:',
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a file that is missing is detected",
        "charjax/storage/manifest.py",
        "for name, facts in listed.items()}",
        "for name, facts in listed.items() if (directory / name).exists()}",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a file that does not belong there is detected",
        "charjax/storage/manifest.py",
        "sorted(set(found) - set(expected))",
        "sorted(set(expected) - set(found))",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a step without its manifest is damaged",
        "charjax/storage/manifest.py",
        'return f"it has no {NAME}"',
        "return None",
        "tests/storage/test_checkpoints.py -k every_step",
    ),
    Mutant(
        "a manifest that cannot be read is damage",
        "charjax/storage/manifest.py",
        'return f"its {NAME} cannot be read"',
        "return None",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a file that the disk does not give back is damage",
        "charjax/storage/manifest.py",
        'return f"it cannot be read: {error.strerror}"',
        "return None",
        "tests/faults/test_disk_faults.py",
    ),
    Mutant(
        "a damaged step that is asked for by number is refused",
        "charjax/storage/checkpoints.py",
        "        reason = self.damage(step)\n",
        "        reason = None\n",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a cache of tokens that is damaged is made anew",
        "charjax/text/token_cache.py",
        'right = checksum.hexdigest() == entry["ids_checksum"]',
        "right = True",
        "tests/text/test_token_cache.py -k damaged_entry",
    ),
    # The newest sound step is used, and that is said.
    Mutant(
        "the newest step that is not damaged is used",
        "charjax/storage/checkpoints.py",
        "if not self.damage(step)), None)",
        "), None)",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "steps are ordered by number",
        "charjax/storage/checkpoints.py",
        "self.steps()[::-1]",
        "sorted(self.steps(), key=str, reverse=True)",
        "tests/storage/test_checkpoints.py -k ordered",
    ),
    Mutant(
        "a damaged step that is passed over is told of",
        "charjax/storage/checkpoints.py",
        "        for step, reason in damaged.items():\n",
        "        for step, reason in ():\n",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a step whose folder was emptied is damaged",
        "charjax/storage/checkpoints.py",
        "if _is_step(path.name) and path.is_dir()\n",
        "if _is_step(path.name) and path.is_dir() and any(path.iterdir())\n",
        "tests/storage/test_checkpoints.py -k every_step",
    ),
    Mutant(
        "a step retired while it is read is no damage",
        "charjax/storage/checkpoints.py",
        "if self.steps() == before:",
        "if before:",
        "tests/storage/test_checkpoints.py -k retired_while",
    ),
    Mutant(
        "a changed text is noticed although the first step has no name yet",
        "charjax/run/start.py",
        "plan.workdir, run.corpus.text)",
        "plan.workdir, record.text)",
        "tests/run/test_fit.py -k no_name_yet",
    ),
    Mutant(
        "--strict refuses damaged checkpoints",
        "charjax/storage/checkpoints.py",
        "if damaged and strict:",
        "if len(damaged) == len(self.steps()) and strict:",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "damage does not hide the best of the sound steps",
        "charjax/storage/checkpoints.py",
        "sound = [step for step in self.steps() if not self.damage(step)]",
        "sound = self.steps()",
        'tests/storage/test_checkpoints.py -k "damage_is_told or not_deleted"',
    ),
    # A record that others wrote.
    Mutant(
        "a record of another step is refused",
        "charjax/storage/record.py",
        'if _part(values, "step", int) != step:',
        'if _part(values, "step", int) < 0:',
        "tests/faults/test_hostile_checkpoint.py -k record",
    ),
    Mutant(
        "counts of another vocabulary are refused",
        "charjax/storage/record.py",
        "if not sound or len(values) != size or not any(values):",
        "if not sound or not any(values):",
        "tests/faults/test_hostile_checkpoint.py -k record",
    ),
    Mutant(
        "a model that memory does not hold is refused before it is made",
        "charjax/run/plan.py",
        "if limit is not None and needed > limit:",
        "if limit is not None and needed > 10**30:",
        "tests/faults/test_out_of_memory.py -k model",
    ),
    # Saves that fail.
    Mutant(
        "training goes on after a save that failed",
        "charjax/run/loop.py",
        "if run.checkpoints.failures >= FAILED_SAVES:",
        "if run.checkpoints.failures >= 1:",
        "tests/faults/test_faults.py -k save_that_fails",
    ),
    Mutant(
        "the third failed save in a row ends the run",
        "charjax/run/loop.py",
        "if run.checkpoints.failures >= FAILED_SAVES:",
        "if run.checkpoints.failures > FAILED_SAVES:",
        "tests/faults/test_faults.py -k fail_in_a_row",
    ),
    Mutant(
        "a save that succeeds ends the row of failed ones",
        "charjax/storage/checkpoints.py",
        "        self.failures = 0\n\n    def _finish",
        "\n    def _finish",
        "tests/faults/test_disk_faults.py -k every_error",
    ),
    Mutant(
        "a save that failed in the background is told of at the next step",
        "charjax/run/loop.py",
        "_tolerate(run, report, Checkpoints.poll)",
        "pass",
        "tests/faults/test_disk_faults.py -k told",
    ),
    Mutant(
        "a last save that failed is an error",
        "charjax/storage/checkpoints.py",
        "            self.wait()\n        finally:\n",
        "            pass\n        finally:\n",
        'tests/storage/test_checkpoints.py -k "failed_save or failing_last"',
    ),
    Mutant(
        "training goes on where metrics, samples or curves cannot be written",
        "charjax/reporting/report.py",
        "except OSError as error:\n            if name",
        "except BlockingIOError as error:\n            if name",
        "tests/faults/test_disk_faults.py -k metrics",
    ),
    # What is refused, before anything is written.
    Mutant(
        "a second run in one directory is refused",
        "charjax/storage/run_directory.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/storage/test_run_directory.py -k second_holder",
    ),
    Mutant(
        "a checkpoint of another format is refused",
        "charjax/storage/checkpoints.py",
        "if found != FORMAT:\n"
        "            raise self._unknown_format(step, found)\n"
        "        return",
        "if not isinstance(found, int):\n"
        "            raise self._unknown_format(step, found)\n"
        "        return",
        "tests/storage/test_checkpoints.py -k unknown_format",
    ),
    Mutant(
        "a checkpoint of another model is refused, each difference listed",
        "charjax/storage/checkpoints.py",
        "        if differences:\n",
        "        if len(differences) > 10:\n",
        "tests/storage/test_checkpoints.py -k differences",
    ),
    Mutant(
        "parameters of another vocabulary are refused",
        "charjax/run/plan.py",
        "if model.vocabulary != vocabulary:",
        "if model.vocabulary.size != vocabulary.size:",
        "tests/run/test_fit.py -k starting_from_another",
    ),
    Mutant(
        "a resumed run keeps its seed",
        "charjax/storage/run_directory.py",
        '*("train.sample_every", ',
        '*("train.sample_every", "train.seed", ',
        'tests/storage/test_run_directory.py -k "every_other or length_and"',
    ),
    Mutant(
        "each field that may not change on resume is refused",
        "charjax/storage/run_directory.py",
        "    if refused:\n",
        "    if len(refused) > 1:\n",
        "tests/storage/test_run_directory.py -k one_difference",
    ),
    Mutant(
        "a resumed run's new length is kept",
        "charjax/run/fit.py",
        "            if run.own_workdir is not None:\n",
        "            if run.own_workdir is not None and int(state.step) > 0:\n",
        "tests/run/test_fit.py -k new_length",
    ),
    Mutant(
        "a changed text is noticed at resume",
        "charjax/run/plan.py",
        "if record.text.fingerprint != text.fingerprint:",
        "if record.text.length != text.length:",
        'tests/run/test_fit.py -k "another_config_or_text or no_name_yet"',
    ),
    Mutant(
        "a changed text is noticed when a split of it is scored",
        "charjax/run/scoring.py",
        "if found.text.fingerprint != model.text.fingerprint:",
        "if found.text.vocabulary != model.vocabulary:",
        "tests/commands/test_commands.py -k evaluation_refuses",
    ),
    Mutant(
        "a changed text is never found in the cache of tokens",
        "charjax/text/token_cache.py",
        '"raw": raw_digest,',
        '"raw": "",',
        "tests/text/test_token_cache.py",
    ),
    Mutant(
        "a learning rate of zero is refused",
        "charjax/config/schema.py",
        "learning_rate: Annotated[float, Positive()]",
        "learning_rate: Annotated[float, Positive(zero=True)]",
        "tests/config/test_config.py -k impossible",
    ),
    Mutant(
        "a batch that the devices do not divide is refused",
        "charjax/devices/placement.py",
        "if size % (devices * parts):",
        "if size % parts:",
        "tests/devices/test_placement.py -k would_fit",
    ),
    # A resumed run equals one that never stopped.
    Mutant(
        "the recurrent state is restored",
        "charjax/run/start.py",
        "TrainState(step=count, **items)",
        "TrainState(step=count, **items"
        ' | {"carry": jax.tree.map(jax.numpy.zeros_like, items["carry"])})',
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "the optimizer's state is restored",
        "charjax/run/start.py",
        "TrainState(step=count, **items)",
        'TrainState(step=count, **items | {"opt_state": _fresh(run).opt_state})',
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "best loss and patience are restored",
        "charjax/run/start.py",
        "**items), record.standing",
        "**items), Standing(skipped_updates=record.standing.skipped_updates)",
        "tests/run/test_fit.py -k early_stopping",
    ),
    Mutant(
        "the count of skipped updates is restored",
        "charjax/run/start.py",
        "**items), record.standing",
        "**items), dataclasses.replace(record.standing, skipped_updates=0)",
        "tests/faults/test_faults.py -k across_a_resume",
    ),
    Mutant(
        "randomness depends on the step, not on where a run was resumed",
        "charjax/run/loop.py",
        "_, key = prng_keys(config)",
        "key = jax.random.key(0 if plan.record is None else plan.record.step)",
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "the place in the data is the step number",
        "charjax/run/loop.py",
        "ids, data, seed, step, rows",
        "ids, data, seed, step - getattr(run.plan.record, 'step', 0), rows",
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "metrics.jsonl has no step twice after a resume",
        "charjax/reporting/report.py",
        "truncate_after(path, first)",
        "truncate_after(path, total)",
        "tests/faults/test_faults.py -k newest_step_is_damaged",
    ),
    Mutant(
        "metrics.jsonl misses no step after a resume",
        "charjax/reporting/metrics.py",
        '.get("step", 0) <= step',
        '.get("step", 0) < step',
        "tests/reporting/test_metrics.py -k truncation",
    ),
    Mutant(
        "a half-written line of metrics.jsonl is dropped",
        "charjax/reporting/metrics.py",
        "enumerate(data[:-1], start=1)",
        "enumerate(filter(None, data), start=1)",
        "tests/reporting/test_metrics.py -k truncation",
    ),
    Mutant(
        "samples.txt has no sample twice after a resume",
        "charjax/reporting/report.py",
        "run_directory.SAMPLES, first)",
        "run_directory.SAMPLES, total)",
        "tests/faults/test_faults.py -k newest_step_is_damaged",
    ),
    # Skipped updates.
    Mutant(
        "a skipped update is chosen away, not multiplied by zero",
        "charjax/training/step.py",
        "jnp.where(sound, new, old)",
        "sound * new + ~sound * old",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "the carry stays on a skipped update",
        "charjax/training/step.py",
        "with_reset(state.carry, batch.reset),",
        "carry,",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "the moments stay on a skipped update",
        "charjax/training/step.py",
        "(*state.opt_state[:-1], opt_state[-1])",
        "opt_state",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "the schedule follows the steps past a skipped update",
        "charjax/training/step.py",
        "(*state.opt_state[:-1], opt_state[-1])",
        "state.opt_state",
        "tests/training/test_step.py -k rate_used",
    ),
    Mutant(
        "rows begin from zero although their first update was skipped",
        "charjax/training/step.py",
        "with_reset(state.carry, batch.reset),",
        "state.carry,",
        "tests/training/test_step.py -k first_update_was",
    ),
    Mutant(
        "an update of infinite gradient is skipped",
        "charjax/training/step.py",
        "jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "~jnp.isnan(loss) & ~jnp.isnan(grad_norm)",
        'tests/faults/test_faults.py -k "no_number or infinite"',
    ),
    Mutant(
        "an update whose gradient alone is no number is skipped",
        "charjax/training/step.py",
        "jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "jnp.isfinite(loss)",
        'tests/faults/test_faults.py -k "no_number or infinite"',
    ),
    Mutant(
        "a gradient as large as skip_norm is not skipped",
        "charjax/training/step.py",
        "grad_norm <= limit",
        "grad_norm < limit",
        "tests/faults/test_faults.py -k skip_norm",
    ),
    Mutant(
        "a skipped update counts as a step",
        "charjax/training/step.py",
        "TrainState(state.step + 1, *kept)",
        "TrainState(state.step + sound, *kept)",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "a good update ends the row of skipped ones",
        "charjax/run/loop.py",
        "return dataclasses.replace(standing, skipped_updates=0)",
        "return standing",
        'tests/faults/test_faults.py -k "skips_are or good_update"',
    ),
    Mutant(
        "the tenth skipped update in a row ends the run",
        "charjax/run/loop.py",
        "if in_a_row >= SKIPPED_UPDATES:",
        "if in_a_row > SKIPPED_UPDATES:",
        "tests/faults/test_faults.py -k update_after_update",
    ),
    # The best weights, and early stopping.
    Mutant(
        "a validation loss that is no number is never the best in memory",
        "charjax/storage/record.py",
        "if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):",
        "if self.best_loss is None or loss < self.best_loss:",
        'tests/run/test_fit.py -k "no_number"',
    ),
    Mutant(
        "a validation loss that is no number is never the best on disk",
        "charjax/storage/checkpoints.py",
        "isinstance(loss, float) and math.isfinite(loss) else None",
        "isinstance(loss, float) else None",
        "tests/storage/test_checkpoints.py -k best_and",
    ),
    Mutant(
        "the best step is loaded, not the latest",
        "charjax/storage/checkpoints.py",
        "return latest if best is None else best",
        "return latest",
        "tests/storage/test_checkpoints.py -k best_and",
    ),
    Mutant(
        "the test split is scored with the best weights",
        "charjax/run/loop.py",
        'run.checkpoints.resolve("best")',
        'run.checkpoints.resolve("latest")',
        "tests/run/test_fit.py -k test_split",
    ),
    Mutant(
        "an evaluation that improves is saved",
        "charjax/run/loop.py",
        "if save or exhausted or standing.best_step != best:",
        "if save or exhausted:",
        "tests/run/test_fit.py -k test_split",
    ),
    # Signals, pipes and exit codes.
    Mutant(
        "a signal ends the run with a checkpoint",
        "charjax/run/loop.py",
        "save=last or stop or _divides(",
        "save=last or _divides(",
        "tests/commands/test_commands.py -k signal_saves",
    ),
    Mutant(
        "a second signal ends the process",
        "charjax/commands/signals.py",
        "if signals.received or not signals.asked:",
        "if not signals.asked:",
        "tests/faults/test_faults.py -k second_signal",
    ),
    Mutant(
        "a signal where nothing is to be saved ends the process at once",
        "charjax/commands/signals.py",
        "if signals.received or not signals.asked:",
        "if signals.received:",
        "tests/faults/test_faults.py -k before_the_first_step",
    ),
    Mutant(
        "a run that a signal stopped ends with 130 or 143",
        "charjax/commands/train.py",
        "return 128 + signals.received[0]",
        "return 130",
        "tests/commands/test_commands.py -k signal_saves",
    ),
    Mutant(
        "a closed pipe ends quietly",
        "charjax/commands/exit_codes.py",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())",
        "sys.stdout.fileno()",
        "tests/commands/test_commands.py -k closed_pipe",
    ),
    Mutant(
        "a failure of the system exits with 1",
        "charjax/commands/exit_codes.py",
        'error if str(error) else "out of memory", 1)',
        'error if str(error) else "out of memory", 2)',
        "tests/faults/test_out_of_memory.py",
    ),
    Mutant(
        "wrong input exits with 2",
        "charjax/commands/exit_codes.py",
        "return _failed(error, 2)",
        "return _failed(error, 1)",
        "tests/commands/test_commands.py -k wrong_usage",
    ),
    Mutant(
        "a run that diverged exits with 3",
        "charjax/commands/exit_codes.py",
        "return _failed(error, 3)",
        "return _failed(error, 1)",
        "tests/faults/test_faults.py -k diverged",
    ),
    Mutant(
        "out of device memory is told in one line",
        "charjax/devices/memory.py",
        "if not is_lack(error):",
        "if is_lack(error):",
        "tests/faults/test_out_of_memory.py -k batch",
    ),
    # Sampling.
    Mutant(
        "chunks equal one draw",
        "charjax/sampling/draw.py",
        "jax.vmap(noise)(state.position + jnp.arange(length))",
        "jax.vmap(noise)(jnp.arange(length))",
        "tests/sampling/test_draw.py -k chunks",
    ),
    Mutant(
        "each row has randomness of its own",
        "charjax/sampling/draw.py",
        "lambda row: jax.random.fold_in(key, row)",
        "lambda row: jax.random.fold_in(key, row // 2)",
        "tests/sampling/test_draw.py -k neighbouring",
    ),
    Mutant(
        "a row does not depend on the rows beside it",
        "charjax/sampling/draw.py",
        "lambda row: jax.random.fold_in(key, row)",
        "lambda row: jax.random.fold_in(key, rows - 1 - row)",
        "tests/sampling/test_draw.py -k beside",
    ),
    Mutant(
        "temperature 0 takes the likeliest character",
        "charjax/sampling/draw.py",
        "jnp.where(greedy, logits.argmax(-1), drawn)",
        "drawn",
        "tests/sampling/test_draw.py -k greedy",
    ),
    Mutant(
        "a temperature that is no number, or infinite, is refused",
        "charjax/sampling/draw.py",
        "if not 0 <= temperature <= np.finfo(np.float32).max:",
        "if temperature < 0:",
        "tests/sampling/test_draw.py -k mean_nothing",
    ),
    Mutant(
        "top_k above the size of the vocabulary is refused",
        "charjax/sampling/draw.py",
        "not 1 <= top_k <= vocab_size",
        "not 1 <= top_k",
        "tests/sampling/test_draw.py -k mean_nothing",
    ),
    Mutant(
        "a long prime is read whole",
        "charjax/language_model.py",
        "for piece, count in _pieces(ids):",
        "for piece, count in _pieces(ids[-PASS:]):",
        "tests/test_language_model.py -k long_prime",
    ),
    Mutant(
        "padding of a prime is not read",
        "charjax/model/recurrence.py",
        "keep = (t < length)[:, None]",
        "keep = (t <= length)[:, None]",
        "tests/model/test_recurrence.py -k length_holds",
    ),
    Mutant(
        "a character of several bytes survives the border of two chunks",
        "charjax/language_model.py",
        "        decode = self.vocabulary.decoder()\n",
        "        decode = self.vocabulary.decode\n",
        'tests/test_language_model.py -k "several_bytes or streaming"',
    ),
    Mutant(
        "text is written byte for byte",
        "charjax/commands/sample.py",
        'text.encode("utf-8", "surrogatepass")',
        'text.encode("utf-8", "replace")',
        'tests/commands/test_commands.py -k "sampling_writes or odd_characters"',
    ),
    # Text in.
    Mutant(
        "characters above the highest known one are unknown",
        "charjax/text/vocabulary.py",
        "np.full(int(self._codes[-1]) + 2, -1, np.int32)",
        "np.full(int(self._codes[-1]) + 1, -1, np.int32)",
        "tests/text/test_vocabulary.py -k unknown",
    ),
    Mutant(
        "invalid bytes are told at their offset",
        "charjax/text/cleaning.py",
        "consumed - (len(error.object) - given) + error.start",
        "consumed + error.start",
        "tests/text/test_corpus.py -k offset",
    ),
    Mutant(
        "a text that ends inside a character is refused",
        "charjax/text/cleaning.py",
        "final=not chunk",
        "final=False",
        "tests/text/test_corpus.py -k offset",
    ),
    Mutant(
        "a byte-order mark is no character of the text",
        "charjax/text/cleaning.py",
        'mark, encoding = _UTF8_MARK, "utf-8"',
        'mark, encoding = b"", "utf-8"',
        "tests/text/test_corpus.py -k byte_order",
    ),
    Mutant(
        "a line end across the border of two chunks is one line end",
        "charjax/text/cleaning.py",
        'held = "\\r" if window.endswith("\\r") else ""',
        'held = ""',
        "tests/text/test_corpus.py -k line_ends",
    ),
    Mutant(
        "a training text too short for one batch is refused",
        "charjax/text/batching.py",
        "needed = rows * length + 1",
        "needed = rows * length",
        "tests/text/test_batching.py -k too_short",
    ),
    # Each position exactly once an epoch.
    Mutant(
        "a row ends where the next one begins",
        "charjax/text/batching.py",
        "mask = (columns < row_length) & (indices < positions)",
        "mask = indices < positions",
        "tests/text/test_batching.py -k streams",
    ),
    Mutant(
        "shuffled windows are each in the epoch once",
        "charjax/text/batching.py",
        "values[outside] = _feistel(values[outside], bits, keys)",
        "values[outside] %= np.uint64(total)",
        'tests/text/test_batching.py -k "windows or bijection"',
    ),
    Mutant(
        "each epoch has an order of its own",
        "charjax/text/batching.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([seed])",
        "tests/text/test_batching.py",
    ),
    Mutant(
        "the order depends on the seed",
        "charjax/text/batching.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([epoch])",
        "tests/text/test_batching.py",
    ),
    Mutant(
        "rows begin an epoch from zero state",
        "charjax/text/batching.py",
        "np.full(last - first, window == 0)",
        "np.full(last - first, False)",
        "tests/text/test_batching.py",
    ),
    Mutant(
        "shuffled windows begin from zero state",
        "charjax/text/batching.py",
        "return _gather(ids, indices, mask, np.ones(last - first, bool))",
        "return _gather(ids, indices, mask, np.zeros(last - first, bool))",
        "tests/text/test_batching.py",
    ),
    Mutant(
        "only the rows that say so are reset",
        "charjax/model/network.py",
        "keep = ~reset[None, :, None]",
        "keep = ~reset.any()",
        "tests/model/test_network.py -k reset",
    ),
    Mutant(
        "masked positions do not count in training",
        "charjax/training/step.py",
        "return jnp.where(batch.mask, nats, 0.0).sum(), carry",
        "return nats.sum(), carry",
        "tests/training/test_step.py -k masked",
    ),
    # Evaluation scores each character but the first exactly once.
    Mutant(
        "masked positions do not count in evaluation",
        "charjax/training/step.py",
        "return carry, jnp.where(batch.mask, nats, 0.0)",
        "return carry, nats",
        "tests/training/test_step.py -k eval_step",
    ),
    Mutant(
        "windowed evaluation scores the last character",
        "charjax/evaluation/evaluate.py",
        "mask = index < positions",
        "mask = index < positions - 1",
        "tests/evaluation/test_evaluate.py -k windowed",
    ),
    Mutant(
        "stateful evaluation carries the state",
        "charjax/evaluation/evaluate.py",
        "carry, nats = _step(",
        "_, nats = _step(",
        "tests/evaluation/test_evaluate.py -k stateful",
    ),
    # Dropout and clipping.
    Mutant(
        "each step has a dropout mask of its own",
        "charjax/training/step.py",
        "key = jax.random.fold_in(key, state.step)",
        "key = jax.random.fold_in(key, 0)",
        "tests/training/test_step.py -k dropout_depends",
    ),
    Mutant(
        "each layer has a dropout mask of its own",
        "charjax/model/stack.py",
        "jax.random.fold_in(key, index)",
        "key",
        "tests/model/test_stack.py -k each_layer",
    ),
    Mutant(
        "the clip is of the whole gradient's norm",
        "charjax/training/optimizer.py",
        "optax.clip_by_global_norm(options.clip_norm)",
        "optax.clip(options.clip_norm)",
        "tests/training/test_optimizer.py -k clipping",
    ),
    # Gradients equal those of the plain scan.
    Mutant(
        "gradient of kernel_x, features",
        "charjax/model/recurrence.py",
        "_over_positions(inputs, d_x, dtype)",
        "_over_positions(inputs, d_h_proj, dtype)",
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    Mutant(
        "gradient of kernel_x, ids",
        "charjax/model/recurrence.py",
        "_add_rows(dtype, size, inputs, d_x)",
        "_add_rows(dtype, size, inputs[1:], d_x[1:])",
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    Mutant(
        "gradient of kernel_h, also from the state before the window",
        "charjax/model/recurrence.py",
        "previous.swapaxes(0, 1), d_h_proj",
        "previous.swapaxes(0, 1)[:, 1:], d_h_proj[1:]",
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    Mutant(
        "gradient of bias",
        "charjax/model/recurrence.py",
        '"bias": d_x.sum((0, 1))',
        '"bias": d_x[1:].sum((0, 1))',
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    Mutant(
        "gradient of bias_h",
        "charjax/model/recurrence.py",
        'd_layer["bias_h"] = d_h_proj.sum((0, 1))',
        'd_layer["bias_h"] = d_x.sum((0, 1))',
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    Mutant(
        "gradient through the state, back over the whole window",
        "charjax/model/cells.py",
        "d_c = d.c + d.h * squash",
        "d_c = d.h * squash",
        "tests/model/test_recurrence.py -k plain_scan",
    ),
    # Devices and processes.
    Mutant(
        "what refuses one process refuses all",
        "charjax/devices/processes.py",
        "    if error is not None:\n        raise error\n    for",
        "    if error is not None:\n        raise error\n    return\n    for",
        "tests/run/test_several_processes.py -m slow -k refuses_all",
    ),
    Mutant(
        "Ctrl-C in one process saves for all",
        "charjax/devices/processes.py",
        "            signal.raise_signal(signal.SIGTERM)\n",
        "",
        "tests/run/test_several_processes.py -m slow -k ctrl_c",
    ),
    Mutant(
        "processes that disagree are refused",
        "charjax/devices/processes.py",
        "        if len(differing):\n",
        "        if len(differing) > 1:\n",
        "tests/run/test_several_processes.py -m slow -k disagree",
    ),
    Mutant(
        "a test split is scored once, by any number of processes",
        "charjax/run/loop.py",
        "processes.from_first(int(scored))",
        "scored",
        "tests/run/test_several_processes.py -m slow -k another_number",
    ),
    Mutant(
        "no process leaves before all have saved",
        "charjax/devices/processes.py",
        '        raise\n    wait("left")\n',
        "        raise\n",
        "tests/run/test_several_processes.py -m slow -k slow_process",
    ),
    Mutant(
        "processes meet before they read, so that one may be slow",
        "charjax/devices/processes.py",
        "    with all_or_none():\n        pass\n",
        "",
        "tests/run/test_several_processes.py -m slow -k slow_process",
    ),
    Mutant(
        "SIGTERM before training ends a process at once",
        "charjax/devices/processes.py",
        "    _set_sigterm_handler(before)\n",
        "",
        "tests/run/test_several_processes.py -m slow -k asked_to_end",
    ),
    Mutant(
        "a directory that is not shared is refused before it is emptied",
        "charjax/run/opened.py",
        "        agreement.check_directory(plan.workdir, plan.resuming)\n",
        "",
        "tests/run/test_several_processes.py -m slow -k not_shared",
    ),
    Mutant(
        "an evaluation keeps one window ahead and no more",
        "charjax/evaluation/evaluate.py",
        "            sums.append(waiting.item())\n        waiting = nats.sum()\n",
        "            sums.append(waiting)\n        waiting = nats.sum()\n",
        "tests/evaluation/test_evaluate.py -k several",
    ),
    Mutant(
        "initial parameters need no more threads than there are",
        "charjax/model/network.py",
        "    matrices = jax.lax.map(",
        "    matrices = jax.vmap(lambda key: make(key, (shape[0], shape[2])))(keys)\n"
        "    jax.lax.map(",
        "tests/devices/test_placement.py -k deadlock",
    ),
    Mutant(
        "one process encodes a text, the others wait",
        "charjax/text/token_cache.py",
        "                fcntl.flock(file, fcntl.LOCK_EX)\n",
        "",
        "tests/text/test_token_cache.py -k others_wait",
    ),
    Mutant(
        "what another process encoded is not encoded again",
        "charjax/text/corpus.py",
        "        ids = token_cache.read(fingerprint, watch)\n        return _write",
        "        return _write",
        "tests/text/test_token_cache.py -k others_wait",
    ),
    Mutant(
        "the wait for input is told",
        "charjax/run/clock.py",
        "            self.idle += waited\n            self.waited += waited\n",
        "            pass\n",
        "tests/run/test_fit.py -k waits_for_input",
    ),
    Mutant(
        "gradients of parts are not split over devices",
        "charjax/training/step.py",
        "gather(grads)",
        "grads",
        "tests/devices/test_layouts.py -k all_parts",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutants; 1 if any survived or is stale."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", default="", help="part of a promise or of a file's name")
    parser.add_argument("--list", action="store_true", help="print them, run nothing")
    parser.add_argument("--check", action="store_true", help="run the tests unbroken first")
    options = parser.parse_args(arguments)
    wanted = options.only.lower()
    chosen = [m for m in MUTANTS if wanted in f"{m.promise} {m.file}".lower()]
    if options.list:
        for mutant in chosen:
            tests = mutant.tests or mutant.expected or "no tests named"
            print(f"{mutant.promise}\n  {mutant.file}\n  {tests}")
        return 0
    with tempfile.TemporaryDirectory(prefix="charjax-mutants-") as folder:
        copy = Path(folder, "copy")
        _copy_tracked_files(copy)
        if options.check and not _are_green(copy, chosen):
            return 1
        counts = {"killed": 0, "survived": 0, "stale": 0}
        for mutant in chosen:
            began = time.monotonic()
            outcome, why = _try(copy, mutant)
            counts[outcome] += 1
            shown = outcome if outcome == "killed" else outcome.upper()
            seconds = time.monotonic() - began
            print(f"{shown}: {mutant.promise} ({why}, {seconds:.0f} s)", flush=True)
    print(
        f"{len(chosen)} mutants: {counts['killed']} killed, {counts['survived']} survived, "
        f"{counts['stale']} stale"
    )
    return 1 if counts["survived"] or counts["stale"] else 0


def _try(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """What became of a mutant (killed, survived, stale), and by what or why."""
    path = copy / mutant.file
    original = path.read_text("utf-8") if path.is_file() else ""
    found = original.count(mutant.old)
    if found != 1:
        return "stale", f"its code occurs {found} times in {mutant.file}"
    if not mutant.tests:
        return "survived", mutant.expected or "no tests named"
    path.write_text(original.replace(mutant.old, mutant.new), "utf-8", newline="\n")
    try:
        code, output = _run_tests(copy, shlex.split(mutant.tests))
    finally:
        path.write_text(original, "utf-8", newline="\n")
    if code is None:
        return "killed", f"no end within {TIMEOUT} s"
    if code == 1:
        return "killed", next(_failures(output), "a test that is not named")
    if code == 0:
        return "survived", mutant.expected or mutant.tests
    # Not collected, or not there: nothing was tested.
    return "survived", f"pytest ended with {code}: {_last_line(output)}"


def _are_green(copy: Path, mutants: Sequence[Mutant]) -> bool:
    """Whether all the tests named pass where nothing is broken."""
    plain: dict[str, None] = {}
    selections: dict[tuple[str, ...], None] = {}
    for mutant in mutants:
        words = shlex.split(mutant.tests)
        if any(word.startswith("-") for word in words):
            # Its options are not for the tests of others.
            selections[tuple(words)] = None
        else:
            plain.update(dict.fromkeys(words))
    if plain:
        selections[tuple(plain)] = None
    for selection in selections:
        code, output = _run_tests(copy, selection, timeout=None)
        if code != 0:
            failed = next(_failures(output), _last_line(output))
            print(f"unbroken, and yet not green: {failed} (pytest ended with {code})")
            return False
    print("unbroken: all green", flush=True)
    return True


def _run_tests(
    copy: Path, selection: Sequence[str], timeout: float | None = TIMEOUT
) -> tuple[int | None, str]:
    """pytest's exit code, or None if it did not end in time, and what it printed."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            # Two versions of a file may have the same size and be of the same second.
            "PYTHONDONTWRITEBYTECODE": "1",
            # What a mutant leaves there must not reach the next one.
            "CHARJAX_CACHE_DIR": scratch,
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-x", "-q", "-n", "0"),
                *("-p", "no:cacheprovider", *selection),
            ],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own, so that what the tests started can be ended with them.
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def _failures(output: str) -> Iterator[str]:
    for line in output.splitlines():
        if found := re.match(r"(?:FAILED|ERROR) (.+?)(?: - |$)", line):
            yield found[1]


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _copy_tracked_files(target: Path) -> None:
    command = ("git", "ls-files", "-z")
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)


if __name__ == "__main__":
    sys.exit(main())
