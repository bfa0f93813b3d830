"""The breakages: one or more for each promise; `python -m tests.mutants` tries them."""

from dataclasses import dataclass


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

    tests: str
    """A selection for pytest; options may be in it (`-m slow`)."""


MUTANTS: tuple[Mutant, ...] = (
    # A step is sealed, then named, then verified, and only then do older ones go.
    Mutant(
        "the manifest is written before the step gets its name",
        "charjax/storage/saver.py",
        "        manifest.seal(self._working(step))\n",
        "        retention.install(self.directory, step)\n"
        "        return manifest.seal(self.path(step))\n",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "what the disk gives back is compared before the step gets its name",
        "charjax/storage/saver.py",
        "if (reason := manifest.damage(self._working(step))) is not None:",
        "if (reason := None) is not None:",
        "tests/storage/test_checkpoints.py -k given_back",
    ),
    Mutant(
        "the best step stays",
        "charjax/storage/saver.py",
        "kept = {saved, self.latest(), self.best()}",
        "kept = {saved, self.latest()}",
        "tests/storage/test_checkpoints.py -k best_and_the_newest",
    ),
    Mutant(
        "a deletion that is cut short leaves no damaged step",
        "charjax/storage/retention.py",
        "remove(_set_aside(path))",
        "remove(path)",
        "tests/faults/test_kill_anywhere.py -k old_step_is_deleted",
    ),
    Mutant(
        "damaged steps are never deleted",
        "charjax/storage/saver.py",
        "if step not in kept and not self.damage(step):",
        "if step not in kept:",
        'tests/storage/test_checkpoints.py -k "not_deleted"',
    ),
    # Leftovers of a killed run.
    Mutant(
        "a save that was not sealed never counts",
        "charjax/storage/retention.py",
        "if manifest.damage(path) is None:",
        "if path.is_dir():",
        "tests/storage/test_checkpoints.py -k not_sealed",
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
        "the name of a step is brought to the disk",
        "charjax/storage/retention.py",
        "    sync(directory)\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    Mutant(
        "the metrics before a step are on the disk before it",
        "charjax/run/run.py",
        "    run.report.sync()\n",
        "",
        "tests/faults/test_power_loss.py",
    ),
    # Files that appear whole, in an order that a kill cannot spoil.
    Mutant(
        "the old run stays until the one that replaces it has a checkpoint",
        "charjax/run/directory.py",
        "yield Place(plan.workdir, replaces=plan.replaced is not None)",
        "yield Place(plan.workdir)",
        "tests/run/test_fresh.py -k stays_until",
    ),
    Mutant(
        "no file of a run that takes another one's place is deleted as one of the old",
        "charjax/storage/replacement.py",
        "    if (taking / CONFIG).exists():\n",
        "    if True:\n",
        "tests/storage/test_replacement.py -k killed_at_any_call",
    ),
    Mutant(
        "nothing is written where the run's directory was before it was renamed",
        "charjax/storage/place.py",
        "        if not self.is_there():\n",
        "        if False:\n",
        "tests/run/test_fresh.py -k directory_that_is_gone",
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
        "a file that does not belong there is detected",
        "charjax/storage/manifest.py",
        "sorted(set(found) - set(expected))",
        "sorted(set(expected) - set(found))",
        "tests/storage/test_checkpoints.py -k damage_is_told",
    ),
    Mutant(
        "a cache of tokens that is damaged is made anew",
        "charjax/text/token_cache.py",
        "right = checksum.hexdigest() == expected",
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
        "--strict refuses damaged checkpoints",
        "charjax/storage/checkpoints.py",
        "if damaged and strict:",
        "if len(damaged) == len(self.steps()) and strict:",
        "tests/storage/test_checkpoints.py -k damage_is_told",
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
        "a model that memory does not hold is refused before it is made",
        "charjax/run/plan.py",
        "if limit is not None and needed > limit:",
        "if limit is not None and needed > 10**30:",
        "tests/faults/test_out_of_memory.py -k model",
    ),
    # Saves that fail.
    Mutant(
        "training goes on after a save that failed",
        "charjax/run/run.py",
        "if run.saver.failures >= FAILED_SAVES:",
        "if run.saver.failures >= 1:",
        "tests/faults/test_faults.py -k save_that_fails",
    ),
    Mutant(
        "the third failed save in a row ends the run",
        "charjax/run/run.py",
        "if run.saver.failures >= FAILED_SAVES:",
        "if run.saver.failures > FAILED_SAVES:",
        "tests/faults/test_faults.py -k fail_in_a_row",
    ),
    Mutant(
        "a save that failed in the background is told of at the next step",
        "charjax/run/loop.py",
        "tolerate(run, Saver.poll)",
        "pass",
        "tests/faults/test_disk_faults.py -k told",
    ),
    Mutant(
        "training goes on where metrics, samples or curves cannot be written",
        "charjax/reporting/report.py",
        "except OSError as error:\n            self.check",
        "except BlockingIOError as error:\n            self.check",
        "tests/faults/test_disk_faults.py -k metrics",
    ),
    # What is refused, before anything is written.
    Mutant(
        "a second run in one directory is refused",
        "charjax/storage/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/storage/test_run_directory.py -k second_holder",
    ),
    Mutant(
        "a checkpoint of another format is refused",
        "charjax/storage/step.py",
        "if found != FORMAT:",
        "if not isinstance(found, int):",
        "tests/storage/test_checkpoints.py -k unknown_format",
    ),
    Mutant(
        "a checkpoint of another model is refused, each difference listed",
        "charjax/config/checks.py",
        "    if differences:\n",
        "    if len(differences) > 10:\n",
        "tests/storage/test_checkpoints.py -k differences",
    ),
    Mutant(
        "a resumed run keeps its seed",
        "charjax/storage/run_directory.py",
        '*("train.sample_every", ',
        '*("train.sample_every", "train.seed", ',
        'tests/storage/test_run_directory.py -k "every_other or length_and"',
    ),
    Mutant(
        "a changed text is noticed at resume",
        "charjax/run/text_of_run.py",
        "return text.fingerprint == record.text.fingerprint",
        "return text.length == record.text.length",
        'tests/run/test_fit.py -k "another_config_or_text or no_name_yet"',
    ),
    Mutant(
        "each end of a schedule has its own program",
        "charjax/training/schedule.py",
        "return [(until, _ending(config, end, [])) for until, end in _ends(config)]",
        "return [(math.inf, _ending(config, _ends(config)[-1][1], []))]",
        "tests/run/test_longer_and_shorter.py -k damaged_step",
    ),
    Mutant(
        "a new end holds from the step on where the run goes on",
        "charjax/run/fit.py",
        "planned = going_on(planned, int(state.step), standing)",
        "planned = going_on(planned, 0, standing)",
        "tests/run/test_longer_and_shorter.py -k from_where_it_was_given",
    ),
    Mutant(
        "a learning rate of zero is refused",
        "charjax/config/optimizer.py",
        "learning_rate: Annotated[float, Positive()]",
        "learning_rate: Annotated[float, Positive(zero=True)]",
        "tests/config/test_config.py -k impossible",
    ),
    Mutant(
        "a batch that the devices do not divide is refused",
        "charjax/devices/mesh.py",
        "if size % (devices * parts):",
        "if size % parts:",
        "tests/devices/test_placement.py -k would_fit",
    ),
    # A resumed run equals one that never stopped.
    Mutant(
        "the recurrent state is restored",
        "charjax/run/start.py",
        "TrainState(step=count, **restored)",
        'TrainState(step=count, **restored | {"carry": _fresh(plan).carry})',
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "the optimizer's state is restored",
        "charjax/run/start.py",
        "TrainState(step=count, **restored)",
        'TrainState(step=count, **restored | {"opt_state": _fresh(plan).opt_state})',
        "tests/run/test_determinism.py -k lstm",
    ),
    Mutant(
        "best loss and patience are restored",
        "charjax/run/start.py",
        "**restored), record.standing",
        "**restored), Standing(skipped_updates=record.standing.skipped_updates)",
        "tests/run/test_fit.py -k early_stopping",
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
    # Skipped updates.
    Mutant(
        "a skipped update is chosen away, not multiplied by zero",
        "charjax/training/step.py",
        "jnp.where(skipped, old, new)",
        "skipped * old + ~skipped * new",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "the carry stays on a skipped update",
        "charjax/training/step.py",
        "carry=zeroed(state.carry, batch.reset.any(axis=1)),",
        "carry=after.carry,",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "an update of infinite gradient is skipped",
        "charjax/training/step.py",
        "jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "~jnp.isnan(loss) & ~jnp.isnan(grad_norm)",
        "tests/faults/test_faults.py -k no_number",
    ),
    Mutant(
        "a gradient as large as skip_norm is not skipped",
        "charjax/training/step.py",
        "grad_norm <= limit",
        "grad_norm < limit",
        "tests/faults/test_faults.py -k skip_norm",
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
        "the test split is scored with the best weights",
        "charjax/run/run.py",
        'run.saver.resolve("best")',
        'run.saver.resolve("latest")',
        "tests/run/test_fit.py -k test_split",
    ),
    # Signals, pipes and exit codes.
    Mutant(
        "a signal ends the run with a checkpoint",
        "charjax/run/loop.py",
        "if ending or regular or exhausted",
        "if step == run.plan.total or regular or exhausted",
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
        "wrong input exits with 2",
        "charjax/commands/exit_codes.py",
        "return _failed(as_options(str(error)), 2)",
        "return _failed(as_options(str(error)), 1)",
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
        "if not is_shortage(error):",
        "if is_shortage(error):",
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
        "a row does not depend on the rows beside it",
        "charjax/sampling/draw.py",
        "lambda row: jax.random.fold_in(key, row)",
        "lambda row: jax.random.fold_in(key, rows - 1 - row)",
        "tests/sampling/test_draw.py -k beside",
    ),
    Mutant(
        "temperature 0 takes the likeliest character",
        "charjax/sampling/choice.py",
        "jnp.where(greedy, likeliest, drawn)",
        "drawn",
        "tests/sampling/test_draw.py -k greedy",
    ),
    Mutant(
        "a text ends with the first stop string, and no earlier than min_length",
        "charjax/sampling/past.py",
        "enough = new >= options.min_length",
        "enough = new > options.min_length + 99",
        "tests/sampling/test_writing.py -k first_stop_string",
    ),
    Mutant(
        "no passage is written twice",
        "charjax/sampling/past.py",
        "(text, places + k, 1, 1)",
        "(text, last - 1, 1, 1)",
        "tests/sampling/test_writing.py -k written_twice",
    ),
    Mutant(
        "rows of a batch draw with their numbers in the whole list",
        "charjax/sampling/writing.py",
        "(settings.first_row + first)",
        "settings.first_row",
        "tests/sampling/test_writing.py -k many_prompts",
    ),
    Mutant(
        "the start of documents is never drawn, and their end may be",
        "charjax/sampling/limits.py",
        "np.append(allowed, [False, True])",
        "np.append(allowed, [True, True])",
        "tests/sampling/test_documents.py -k its_end_is_drawn",
    ),
    Mutant(
        "no document ends before min_length",
        "charjax/sampling/choice.py",
        "early = position < options.min_length",
        "early = position < 0 * options.min_length",
        "tests/sampling/test_documents.py -k least_length",
    ),
    Mutant(
        "a long prime is read whole",
        "charjax/sampling/chunks.py",
        "range(0, max(map(len, texts)), PASS)",
        "range(PASS, max(map(len, texts)), PASS)",
        "tests/test_language_model.py -k long_prime",
    ),
    Mutant(
        "text is written byte for byte",
        "charjax/commands/texts.py",
        'text.encode("utf-8", "surrogatepass")',
        'text.encode("utf-8", "replace")',
        'tests/commands/test_commands.py -k "sampling_writes or odd_characters"',
    ),
    # What surrounds a process.
    Mutant(
        "types are charjax's own",
        "charjax/model/arithmetic.py",
        "with usual_promotion(), jax.enable_x64(False), jax",
        "with usual_promotion(), jax",
        "tests/commands/test_environment.py -k settings_of_jax",
    ),
    # Text in.
    Mutant(
        "invalid bytes are told at their offset",
        "charjax/text/cleaning.py",
        "consumed - (len(error.object) - len(chunk)) + error.start",
        "consumed + error.start",
        "tests/text/test_cleaning.py -k offset",
    ),
    Mutant(
        "a byte-order mark is no character of the text",
        "charjax/text/cleaning.py",
        'mark, encoding = _UTF8_MARK, "utf-8"',
        'mark, encoding = b"", "utf-8"',
        "tests/text/test_cleaning.py -k byte_order",
    ),
    Mutant(
        "a line end across the border of two chunks is one line end",
        "charjax/text/cleaning.py",
        "unified = decoder.decode(chunk, final=not chunk)",
        "unified = decoder.decode(chunk, final=True)",
        "tests/text/test_cleaning.py -k line_ends",
    ),
    Mutant(
        "a training text too short for one batch is refused",
        "charjax/text/batching.py",
        "needed = rows * length + first",
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
        "charjax/text/permutation.py",
        "values[outside] = _feistel(values[outside], bits, keys)",
        "values[outside] %= np.uint64(total)",
        'tests/text/test_batching.py -k "windows or bijection"',
    ),
    Mutant(
        "rows begin an epoch from zero state",
        "charjax/text/batching.py",
        "np.full((last - first, 1), window == 0)",
        "np.full((last - first, 1), False)",
        "tests/text/test_batching.py",
    ),
    Mutant(
        "the state is zero before each document",
        "charjax/text/batching.py",
        "mask & (fresh | (columns == 0))",
        "mask & (columns == 0)",
        "tests/text/test_documents.py -k epoch",
    ),
    Mutant(
        "a separator may lie across two chunks",
        "charjax/text/separation.py",
        "settled = max(len(rest) - len(between) + 1, 0)",
        "settled = len(rest)",
        "tests/text/test_documents.py -k separators",
    ),
    Mutant(
        "a row of a score begins with a document",
        "charjax/evaluation/protocols.py",
        "begins = starts[np.searchsorted(starts, -(-np.arange(rows + 1) * total // rows))]",
        "begins = -(-np.arange(rows + 1) * total // rows)",
        "tests/evaluation/test_documents.py",
    ),
    Mutant(
        "only the rows that say so are reset",
        "charjax/model/recurrence/plain.py",
        "jnp.where(asked[..., None], 0.0, leaf)",
        "jnp.where(asked.any(), 0.0, leaf)",
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
        "windowed evaluation scores the last character",
        "charjax/evaluation/protocols.py",
        "mask = index < positions",
        "mask = index < positions - 1",
        "tests/evaluation/test_evaluate.py -k windowed",
    ),
    Mutant(
        "stateful evaluation carries the state",
        "charjax/evaluation/evaluate.py",
        "carry, nats = jitted_step(",
        "_, nats = jitted_step(",
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
    # Gradients equal those of the plain scan.
    Mutant(
        "gradient of kernel_h, also from the state before the window",
        "charjax/model/recurrence/cpu.py",
        "columns.swapaxes(0, 1), d, 2",
        "columns.swapaxes(0, 1)[:, 1:], d[1:], 2",
        "tests/model/recurrence/test_equal_to_plain.py -k plain_scan",
    ),
    Mutant(
        "gradient through the state, back over the whole window",
        "charjax/model/cells/lstm.py",
        "d_c = d.c + d.h * squash",
        "d_c = d.h * squash",
        "tests/model/recurrence/test_equal_to_plain.py -k plain_scan",
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
        "a directory that is not shared is refused before it is emptied",
        "charjax/run/directory.py",
        "        _check_shared(plan.workdir)\n",
        "",
        "tests/run/test_several_processes.py -m slow -k not_shared",
    ),
    # A run goes on from another text's.
    Mutant(
        "what was learned of a symbol is found by the symbol",
        "charjax/model/parameters.py",
        "leaf.take(np.maximum(known, 0), axis)",
        'leaf.take(np.arange(len(known)), axis, mode="clip")',
        "tests/model/test_symbols.py -k kept_for_it",
    ),
    Mutant(
        "an optimizer begins from what was learned, not from what was drawn",
        "charjax/run/start.py",
        "placement.put(jax.jit(plan.make)(key, params), place)",
        "type(plan.abstract)(**vars(placement.put(jax.jit(plan.make)(key), place))"
        ' | {"params": placement.put(params, place.params)})',
        "tests/run/test_origin.py -k begins_from",
    ),
    Mutant(
        "a resumed run freezes what it froze",
        "charjax/storage/run_directory.py",
        '        "model.recurrence",\n    }',
        '        *("model.recurrence", "train.freeze"),\n    }',
        "tests/training/test_freezing.py -k freezes_what",
    ),
    # Kernels prove themselves.
    Mutant(
        "a kernel whose gradients differ is not used",
        "charjax/devices/proof.py",
        "        if times <= 1:\n",
        "        if times:\n",
        "tests/devices/test_proof.py -k wrong",
    ),
    Mutant(
        "a kernel that is slower is not used",
        "charjax/devices/proof.py",
        "if seconds >= usual_seconds:",
        "if seconds < 0:",
        "tests/devices/test_proof.py -k slower",
    ),
    Mutant(
        "a resumed run stays with the kernels that it has found",
        "charjax/run/kernels.py",
        "kept = None if plan.record is None else plan.record.proof",
        "kept = None",
        "tests/run/test_kernels.py -k stays_with",
    ),
)
