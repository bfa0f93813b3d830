"""A run that is asked to be longer or shorter than it is, and its schedule."""

import json
import shutil

import pytest

import charjax
from charjax import (
    Config,
    DataConfig,
    InputError,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    inspect_run,
    load_config,
)
from charjax.commands.cli import main
from charjax.storage.run_directory import read_config

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def small(schedule="cosine", **changes) -> Config:
    config = Config(
        data=DataConfig(batch_size=8, sequence_length=16),
        model=ModelConfig(num_layers=1, hidden_size=8, dropout=0.2),
        optimizer=OptimizerConfig(schedule=schedule, warmup_steps=0),
        train=TrainConfig(
            steps=10, eval_every=None, checkpoint_every=5, log_every=1, sample_every=None
        ),
    )
    return config.replace(**changes)


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def fit(config, workdir=None, **options):
    return charjax.fit(config, workdir, text=TEXT, quiet=True, **options)


def rates(result):
    lines = [line for line in result.history if line["split"] == "train"]
    return {line["step"]: line["learning_rate"] for line in lines}


LONGER = {"train.steps": 20, "optimizer.schedule_steps": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 10 steps whose schedule ends with it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fit(small(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def stretched(finished, tmp_path_factory):
    """The same made longer, to the end without a stop."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("stretched") / "run")
    return folder, fit(small(**LONGER), folder)


def stopping_after(count):
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == count

    return stop


def test_a_longer_run_at_rate_0_is_refused_with_the_way_out(run):
    before = contents(run)
    longer = small(**{"train.steps": 12})
    with pytest.raises(InputError) as refused:
        fit(longer, run)
    for word in ("train.steps is 12", "step 10", "`optimizer.schedule_steps=12`"):
        assert word in str(refused.value)
    epochs = small(**{"train.steps": None, "train.epochs": 1.0})
    with pytest.raises(InputError, match=r"train\.epochs is 1\.0, which is 13 steps"):
        fit(epochs, run)
    short = longer.replace(**{"optimizer.schedule_steps": 9})
    with pytest.raises(InputError, match="ends at step 9 "):
        fit(short, run)
    assert contents(run) == before


def test_a_new_end_holds_from_where_it_was_given(stretched):
    folder, result = stretched
    assert int(result.state.step) == 20
    options = read_config(folder).optimizer
    assert options.schedule_steps == 20
    assert options.earlier_schedule_steps == ((10, 10),)
    short, long = fit(small()), fit(small(**{"train.steps": 20}))
    expected = {**rates(long), **rates(short)}
    assert rates(result) == pytest.approx(expected, rel=1e-6)
    assert all(rate > 0 for rate in rates(result).values())


def test_stops_around_a_new_end_change_no_bit(stretched, run):
    whole, _ = stretched

    # Stopped soon after it was given, killed before anything was saved, resumed as it is.
    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small(**LONGER), run, stop=killed)
    fit(small(**{"train.steps": 20}), run, stop=stopping_after(3))
    assert inspect_run(run)["step"] == 13
    fit(read_config(run), run, stop=stopping_after(4))
    fit(small(**LONGER), run)
    assert inspect_run(run)["digest"] == inspect_run(whole)["digest"]


def test_a_damaged_step_after_a_new_end_changes_no_bit(stretched, tmp_path):
    whole, _ = stretched
    run = tmp_path / "run"
    born = {"optimizer.schedule_steps": 10}
    fit(small(**born, **{"train.steps": 6}), run)
    shutil.copytree(run / "checkpoints/6", tmp_path / "6")
    fit(small(), run)
    fit(small(**LONGER), run, stop=stopping_after(2))
    steps = run / "checkpoints"
    shutil.rmtree(steps / "6", ignore_errors=True)
    shutil.copytree(tmp_path / "6", steps / "6")
    for path in steps.iterdir():
        if path.name != "6":
            (path / "record/metadata").write_bytes(b"")
    result = fit(small(**{"train.steps": 20}), run)
    assert min(rates(result)) == 1
    assert inspect_run(run)["digest"] == inspect_run(whole)["digest"]


def test_a_step_without_a_name_yet_is_where_a_new_end_holds_from(stretched, run):
    steps = run / "checkpoints"
    (steps / "10").rename(steps / "10.saving")
    with pytest.raises(InputError, match=r"train\.steps is 9.*step 10"):
        fit(small(**{"train.steps": 9}), run)
    assert read_config(run).train.steps == 10
    (steps / "10").rename(steps / "10.saving")
    fit(small(**LONGER), run)
    assert inspect_run(run)["digest"] == inspect_run(stretched[0])["digest"]


def test_the_config_of_a_longer_run_makes_it_again_from_the_start(stretched, tmp_path):
    whole, result = stretched
    # As a preset it starts afresh.
    preset = load_config(str(whole / "config.json")).optimizer
    assert preset.schedule_steps is preset.earlier_schedule_steps is None
    fit(result.config, tmp_path)
    assert inspect_run(tmp_path)["digest"] == inspect_run(whole)["digest"]


def test_a_run_that_keeps_its_end_says_nothing_of_others(finished):
    for values in (
        json.loads((finished / "config.json").read_text()),
        inspect_run(finished)["config"],
    ):
        assert "earlier_schedule_steps" not in values["optimizer"]
    with pytest.raises(InputError, match="ascend"):
        Config().replace(**{"optimizer.earlier_schedule_steps": [[5, 9], [5, 8]]})


def test_a_schedule_without_an_end_is_given_none(tmp_path):
    fit(small("constant"), tmp_path)
    with pytest.raises(InputError, match=r"optimizer\.schedule_steps"):
        fit(small("constant", **LONGER), tmp_path)
    longer = fit(small("constant", **{"train.steps": 12}), tmp_path)
    assert int(longer.state.step) == 12


def test_an_own_optimizer_has_a_rate_of_its_own(tmp_path):
    import optax

    own = optax.adam(1e-2)
    fit(small(), tmp_path, optimizer=own)
    longer = fit(small(**{"train.steps": 12}), tmp_path, optimizer=own)
    assert int(longer.state.step) == 12


def test_a_run_is_not_made_shorter_than_it_is(run):
    before = contents(run)
    with pytest.raises(InputError, match=r"train\.steps is 9.*step 10"):
        fit(small(**{"train.steps": 9}), run)
    epochs = {"train.steps": None, "train.epochs": 0.5}
    with pytest.raises(InputError, match=r"train\.epochs is 0\.5.* 6 steps.*step 10"):
        fit(small(**epochs), run)
    assert contents(run) == before


def test_the_command_says_it_too(run, capsys):
    place = ["train", "--workdir", str(run)]
    assert main([*place, "--train.steps", "9"]) == 2
    assert main([*place, "--train.steps", "12"]) == 2
    said = capsys.readouterr().err
    assert "--optimizer.schedule_steps 12" in said and "Traceback" not in said
    assert main([*place, "--train.steps", "10"]) == 0
    said = capsys.readouterr().err
    assert "this run ended at step 10" in said
    assert "train.steps" in said and "optimizer.schedule_steps for the step" in said
    longer = ["--train.steps", "12", "--optimizer.schedule_steps", "14"]
    assert main([*place, *longer]) == 0
    said = capsys.readouterr().err
    assert "from step 10 on, the cosine schedule ends at step 14" in said
    assert inspect_run(run)["step"] == 12
    assert main([*place, "--train.steps", "14"]) == 0
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "earlier" not in capsys.readouterr().out


def shown(config, capsys, workdir=None):
    charjax.fit(config, workdir, text=TEXT)
    said = capsys.readouterr().err.splitlines()
    return [line for line in said if line.startswith(("warning:", "hint: the learning"))]


def test_a_tenth_at_rate_0_and_a_long_warm_up_are_told(capsys, tmp_path):
    zero = "warning: the learning rate is 0 in {} of the {} steps to come"
    assert shown(small(), capsys) == []
    (line,) = shown(small(**{"optimizer.schedule_steps": 8}), capsys)
    assert line.startswith(zero.format(2, 10)) and "optimizer.schedule_steps 10" in line
    assert shown(small(**{"optimizer.schedule_steps": 9}), capsys) == []
    charjax.fit(small(), tmp_path, text=TEXT, quiet=True, stop=stopping_after(6))
    (line,) = shown(small(**{"train.steps": 12}), capsys, tmp_path)
    assert line.startswith(zero.format(2, 6))
    assert shown(small(**{"optimizer.warmup_steps": 1}), capsys) == []
    (line,) = shown(small(**{"optimizer.warmup_steps": 2}), capsys)
    assert "during 2 steps (optimizer.warmup_steps)" in line
    assert "has 10; a tenth of them would be 1" in line


def test_a_run_that_is_over_says_which_limit_ended_it(run, capsys):
    place, longer = ["train", "--workdir", str(run)], {"train.steps": 11}
    fit(small(**longer, **{"optimizer.schedule_steps": 40}), run)
    assert main([*place, "--train.epochs", "0.85", "--train.steps", "90"]) == 0
    assert main([*place, "--train.steps", "95"]) == 0
    said = capsys.readouterr().err
    assert "a larger train.epochs (now 0.85) goes on" in said


def test_another_end_of_a_schedule_that_no_step_would_use_is_refused(run):
    before = contents(run)
    with pytest.raises(InputError, match=r"schedule_steps is 40.*train\.steps \(now 10\)"):
        fit(small(**{"optimizer.schedule_steps": 40}), run)
    assert contents(run) == before
    fit(small(**{"optimizer.schedule_steps": 10}), run)
