"""Checkpoints made by somebody with bad intentions, whose checksums are right."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import FOUR_STEPS, TEXT

from charjax import (
    InputError,
    fit,
    inspect_run,
    load,
)
from charjax.storage import manifest

RECORD = "checkpoints/4/record/metadata"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps, to be copied, and what it holds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(FOUR_STEPS, folder, text=TEXT, quiet=True)
    return folder, load(folder)


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def sealed(run):
    manifest.seal(run / "checkpoints/4")
    return run


def refused(action):
    """Says with which words an action is refused."""
    with pytest.raises(InputError) as refusal:
        action()
    words = str(refusal.value)
    assert "step 4" in words and len(words) < 1000
    return words


# Pickles.


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def pickles(folder):
    payload = pickle.dumps(Payload(folder))
    array = folder.with_name("array.npy")
    np.save(array, np.array([Payload(folder)], object), allow_pickle=True)
    return payload, array.read_bytes()


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickles(tmp_path / "ran")[0])
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "_CHECKPOINT_METADATA",
            "record/metadata",
            "params/_METADATA",
            "params/_sharding",
        ),
        *("params/manifest.ocdbt", "params/d/*", "params/ocdbt.process_0/d/*"),
        *("params/ocdbt.process_0/manifest.ocdbt", "params/array_metadatas/*"),
    ],
)
def test_a_pickle_in_place_of_a_file_is_not_read(run, tmp_path, whole, pattern):
    files = list((run / "checkpoints/4").glob(pattern))
    assert files
    for data in pickles(tmp_path / "ran"):
        for file in files:
            file.write_bytes(data)
        try:
            found = load(sealed(run)).params
        except InputError as error:
            assert "step 4" in str(error)
        else:
            # A file that nothing is read from.
            jax.tree.map(np.testing.assert_array_equal, found, whole[1].params)
        assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_the_files_is_not_read(run, tmp_path, whole):
    payload, array = pickles(tmp_path / "ran")
    step = run / "checkpoints/4"
    for folder in (step, step / "params", step / "record", step / "params/d"):
        for name in ("checkpoint", "params.pkl", "state.pt", "head.bias"):
            (folder / name).write_bytes(payload)
        (folder / "head.bias.npy").write_bytes(array)
    try:
        found = load(sealed(run)).params
        jax.tree.map(np.testing.assert_array_equal, found, whole[1].params)
    except InputError:
        pass
    assert not (tmp_path / "ran").exists()


def test_nothing_is_unpickled_on_any_way_to_a_model(run):
    found, listening = [], True

    def hear(event, arguments):
        if listening and event.startswith("pickle."):
            found.append(arguments)

    # It cannot be taken away again, only be made deaf.
    sys.addaudithook(hear)
    pickle.loads(pickle.dumps(Path))
    assert found
    found.clear()
    load(run).generate("all ", 5)
    inspect_run(run)
    fit(FOUR_STEPS, run, text=TEXT, quiet=True)
    listening = False
    assert not found


def test_names_in_the_manifest_lead_nowhere(run, tmp_path):
    (tmp_path / "secret").write_text("secret")
    path = run / "checkpoints/4/manifest.json"
    listed = json.loads(path.read_text())
    for name in ("../../../secret", str(tmp_path / "secret")):
        listed["files"][name] = {
            "bytes": 6,
            "sha256": manifest.hashlib.sha256().hexdigest(),
        }
        path.write_text(json.dumps(listed))
        with pytest.raises(InputError, match=r"step 4: its file .*secret is missing"):
            load(run)


# Records.


def absent(field):
    return pytest.param(lambda record: record.pop(field), id=f"no {field}")


def changing(field, value):
    def change(record):
        *groups, last = field.split(".")
        for group in groups:
            record = record[group]
        record[last] = value

    return change


def changed(field, value):
    return pytest.param(changing(field, value), id=f"{field} {value}"[:50])


def rewritten(run, change):
    path = run / RECORD
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return sealed(run)


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "3", "[]", '"text"', "{}", "{", "\0", '{"format": 2}'),
        *(
            "[" * 100_000,
            '{"format": ' * 100_000,
            '{"format": 2, "step": ' + "9" * 5000 + "}",
        ),
        '{"format": 2, "config": ' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=lambda text: text[:20],
)
def test_a_record_that_is_none_is_refused(run, text):
    (run / RECORD).write_text(text)
    refused(lambda: load(sealed(run)))
    refused(lambda: inspect_run(run))


@pytest.mark.parametrize(
    "change",
    [
        *map(absent, ("step", "config", "vocabulary", "symbol_counts", "corpus")),
        changed("step", 5),
        changed("step", "4"),
        changed("config", []),
        changed("config", {"py/reduce": [{"py/function": "os.mkdir"}, "ran"]}),
        changed("config.model", "lstm"),
        changed("config.model.sise", 8),
        changed("config.model.hidden_size", -8),
        changed("config.model.hidden_size", "8"),
        changed("config.model.hidden_size", 9),
        changed("config.model.hidden_size", 10**9),
        changed("config.model.hidden_size", 10**30),
        changed("config.model.num_layers", 2),
        changed("config.model.num_layers", 10**9),
        changed("config.model.cell", "gru"),
        changed("config.data.vocabulary", "bytes"),
        changed("vocabulary", "abc"),
        changed("vocabulary.kind", "bytes"),
        changed("vocabulary.symbols", []),
        changed("vocabulary.symbols", [97, 98]),
        changed("vocabulary.symbols", [97] * 19),
        changed("vocabulary.symbols", list(range(19, 0, -1))),
        changed("vocabulary.symbols", list(range(100_000))),
        changed("vocabulary.symbols", [[97]] * 19),
        changed("symbol_counts", None),
        changed("symbol_counts", [1, 2]),
        changed("symbol_counts", [1] * 20),
        changed("symbol_counts", [0] * 19),
        changed("symbol_counts", [-1] * 19),
        changed("symbol_counts", [0.5] * 19),
        changed("symbol_counts", ["1"] * 19),
        changed("symbol_counts", [10**30] * 19),
        changed("symbol_counts", [[1] * 19]),
        changed("corpus", None),
        changed("corpus", {}),
        changed("corpus.fingerprint", 3),
        changed("corpus.sources", "text.txt"),
        changed("corpus.sources", [3]),
        changed("config.optimizer.earlier_schedule_steps", []),
        changed("config.optimizer.earlier_schedule_steps", [3]),
        changed("config.optimizer.earlier_schedule_steps", [[3]]),
        changed("config.optimizer.earlier_schedule_steps", [[3, 0]]),
        changed("config.optimizer.earlier_schedule_steps", [[5, 9], [4, 9]]),
    ],
)
def test_a_record_that_does_not_fit_is_refused(run, change):
    refused(lambda: load(rewritten(run, change)))


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize("loss", [HUGE, "1.0", [1.0], {}, float("nan"), -float("inf")])
def test_a_loss_that_is_none_is_no_best_loss(run, loss):
    rewritten(run, changing("validation_loss", loss))
    assert load(run, "best").step == 4


@pytest.mark.parametrize("change", [absent("versions"), changed("versions", [])])
def test_inspection_refuses_a_record_without_its_versions(run, change):
    refused(lambda: inspect_run(rewritten(run, change)))


@pytest.mark.parametrize(
    "change",
    [
        absent("memory"),
        absent("corpus"),
        absent("step"),
        changed("step", 3),
        changed("memory", []),
        changed("memory.surprise", 3),
        changed("memory.best_loss", "low"),
        changed("memory.stale_evaluations", None),
        changed("memory.skipped_updates", "3"),
        changed("corpus.characters", "many"),
        changed("optimizer", 3),
        changed("optimizer_state", 3),
        changed("proof", "triton"),
        changed("proof", {"place": "here"}),
        changed("proof", {"place": "here", "kernels": [3]}),
    ],
)
def test_a_run_does_not_go_on_from_a_record_that_does_not_fit(run, change):
    longer = FOUR_STEPS.replace(**{"train.steps": 5})
    rewritten(run, change)
    before = (run / "config.json").read_bytes()
    words = refused(lambda: fit(longer, run, text=TEXT, quiet=True))
    # It has nothing to do with bytes of memory.
    assert ": memory" not in words
    assert (run / "config.json").read_bytes() == before
