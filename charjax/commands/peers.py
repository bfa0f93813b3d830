"""Options of other programs, and what they are here.

A name without its dashes, as char-rnn, torch-rnn, nanoGPT and the notebooks write it.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path

from charjax.commands.fields import Option
from charjax.config.presets import presets

_DEVICE = "JAX_PLATFORMS=cpu (or cuda, tpu) in the environment"
_WORKDIR = "out_dir output_dir save_dir checkpoint_dir checkpoint ckpt savefile model_path"
_OF_RUN = {
    "--workdir": f"{_WORKDIR} model model_dir load init_from run run_dir dir d o output",
    _DEVICE: "gpuid gpu gpus device cuda use_gpu no_cuda cpu opencl gpu_backend",
    "--step": "iteration checkpoint_step",
}

# For each command, what is said here and who says it otherwise. An option of ours with
# one dash, or without its section, needs no row.
OTHERWISE: dict[str, dict[str, str]] = {
    "train": {
        "--workdir": f"{_WORKDIR} checkpoint_name log_dir save run_dir name o output",
        "--data.source": "data_dir input_h5 input_json input_txt dataset data data_path "
        "input text input_file text_file file filename corpus train_file",
        "--data.split": "train_frac val_frac test_frac valid_frac val_split",
        "--data.sequence_length": "seq_length seq_len seqlen bptt block_size n_steps "
        "unroll context_length maxlen max_seq_len window",
        "--data.batch_size": "batchsize bs batch mini_batch_size n_seqs",
        "--data.vocabulary bytes": "byte bytes",
        "--model.cell": "model model_type rnn_type cell_type rnn_cell arch architecture",
        "--model.hidden_size": "rnn_size n_hidden hidden hidden_dim hidden_units n_units "
        "num_units units nhid lstm_size num_hidden n_embd d_model",
        "--model.num_layers": "n_layers n_layer nlayers layers num_layer depth",
        "--model.embedding_size": "wordvec_size embed_size embedding_dim emb_size emsize "
        "embed_dim input_size n_embd",
        "--model.dropout": "drop_prob drop p_drop dropout_prob dropout_rate",
        "--optimizer.name": "optimizer optim opt",
        "--optimizer.learning_rate": "lr learningrate max_lr base_lr",
        "--optimizer.schedule": "decay_lr lr_scheduler scheduler lr_schedule",
        "--optimizer.decay_rate with --optimizer.schedule exponential": "lr_decay "
        "learning_rate_decay lr_decay_factor lr_decay_rate",
        "--optimizer.decay_rate (of RMSprop: --optimizer.beta2)": "decay_rate",
        "--optimizer.decay_after_epochs": "learning_rate_decay_after lr_decay_every",
        "--optimizer.schedule_steps": "lr_decay_iters decay_steps",
        "--optimizer.warmup_steps": "warmup_iters warmup num_warmup_steps",
        "--optimizer.final_scale, a share of --optimizer.learning_rate,": "min_lr final_lr",
        "--optimizer.clip_value or --optimizer.clip_norm": "grad_clip clip clipping "
        "gradient_clip clip_grad max_grad_norm clip_gradients",
        "--optimizer.weight_decay": "wd l2 wdecay",
        "--optimizer.beta1": "momentum beta_1 adam_beta1",
        "--optimizer.beta2": "beta_2 adam_beta2",
        "--optimizer.accumulate": "gradient_accumulation_steps accum grad_accum",
        "--train.epochs": "max_epochs num_epochs n_epochs nb_epoch epoch e",
        "--train.steps": "max_iters iterations iters num_iters n_iters max_steps num_steps",
        "--train.seed": "random_seed manual_seed",
        "--train.precision": "dtype fp16 bf16 amp mixed_precision",
        "--train.init_from (a stopped run goes on by --workdir alone)": "init_from load "
        "start_from resume resume_from restore pretrained",
        "--train.eval_every": "eval_val_every eval_interval val_every",
        "--train.checkpoint_every": "save_every save_interval ckpt_every",
        "--train.eval_every or --train.log_every": "print_every",
        "--train.log_every": "log_interval report_every",
        "--train.sample_every": "sample_interval",
        "--train.early_stopping": "patience early_stop",
        "--parallel.model": "tensor_parallel model_parallel tp",
        "--distributed": "ddp backend world_size",
        _DEVICE: _OF_RUN[_DEVICE],
    },
    "sample": {
        **_OF_RUN,
        "--prime": "primetext start_text start prime_text prompt seed_text initial_text "
        "prefix context prime_str init_text input text p",
        "--prime-file": "start_file prompt_file input_file file",
        "--length": "n_chars num_chars max_new_tokens max_tokens max_length maxlength "
        "num_generate gen_length predict_len sample_len sample_size size l n",
        "--temperature": "temp diversity scale_factor t",
        "--temperature 0": "greedy argmax",
        "--temperature 0 (for 0; else left out)": "sample do_sample",
        "--top-k": "topk k",
        "--num-samples": "nsamples n_samples samples num_return_sequences batch_size",
        "--seed": "random_seed manual_seed",
    },
    "evaluate": {
        **_OF_RUN,
        "--text": "data data_path dataset input input_file file test_file filename",
        "--split": "set subset",
        "--rows": "batch_size",
        "--window with --protocol windowed": "block_size seq_length seq_len context_length",
    },
    "inspect": _OF_RUN,
}

# Commands of other programs.
_COMMANDS = {
    "train": "fit resume continue finetune run start",
    "sample": "generate write predict complete infer talk chat",
    "evaluate": "test score validate perplexity ppl",
    "inspect": "info show list ls status describe summary",
    "help": "usage man",
}

# What a word that stands alone is for.
_ALONE = {
    "train": "--data.source",
    "sample": "--prime",
    "evaluate": "--text",
    "inspect": "--workdir",
}
_MODELS = (".t7", ".pt", ".pth", ".ckpt", ".h5", ".safetensors")


def command_for(name: str) -> str | None:
    """Our command that does what one of another program's does.

    >>> command_for("generate")
    'sample'
    """
    return next((ours for ours, names in _COMMANDS.items() if name in names.split()), None)


def remedies(command: str, unknown: Iterable[str], own: Iterable[Option]) -> list[str]:
    """What to write in place of words that a command does not take, a line for each.

    Args:
      command: the command's name.
      unknown: the words, in their order; values may stand between them.
      own: the options of the command.

    >>> remedies("train", ["-rnn_size", "512", "--lr=0.1"], [])
    ['-rnn_size is --model.hidden_size here.', '--lr is --optimizer.learning_rate here.']
    """
    lines, names = [], [option.name for option in own]
    before, alone = "", []
    for word in unknown:
        name = word.partition("=")[0]
        if name.startswith("-") and Path(word).exists():
            lines.append(f"{word} is a file here: write {shlex.quote(f'./{word}')}.")
        elif name.startswith("-"):
            if meant := _meant(command, _key(name), names):
                lines.append(f"{name} is {' or '.join(meant)} here.")
        elif not before.startswith("-"):
            alone.append(word)
        before = word
    if option := _option_for(command, alone):
        words = " ".join(alone if option == "--prime" else alone[:1])
        value = shlex.quote(words)
        lines.insert(0, f"{value} has no option before it: write {option} {value}.")
    return list(dict.fromkeys(lines))


def _meant(command: str, key: str, own: list[str]) -> list[str]:
    rows = OTHERWISE.get(command, {}).items()
    if meant := [here for here, names in rows if key in names.split()]:
        return meant
    # One of ours without a dash or its section. A field is written as in a config.
    meant = [name for name in own if key in (_key(name), _key(name.rpartition(".")[2]))]
    return [f"--{_key(name)}" if "." in name else name for name in meant]


def _key(option: str) -> str:
    return option.lstrip("-").replace("-", "_").lower()


def _option_for(command: str, alone: list[str]) -> str:
    """The option whose value a word that stands alone looks like, or nothing."""
    if not alone:
        return ""
    path = Path(alone[0])
    if command == "train" and (alone[0] in presets() or path.suffix in (".py", ".json")):
        return "--config"
    if command != "train" and (path.is_dir() or path.suffix in _MODELS):
        return "--workdir"
    return (
        _ALONE.get(command, "") if path.exists() or command in ("sample", "inspect") else ""
    )
