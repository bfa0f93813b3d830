import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from charjax.errors import InputError
from charjax.text import corpus, token_cache
from charjax.text import survey as surveying
from charjax.text.corpus import load
from charjax.text.survey import survey
from charjax.text.watch import silent


def entries(cache):
    return sorted(p.name for p in (cache / "tokens").iterdir() if p.name != "index")


def refuse_to_decode(*_):
    raise AssertionError("decoded again")


def test_a_second_run_maps_the_cache_without_decoding(write, cache, monkeypatch):
    data = write("hello\r\nworld")
    first = survey(data)
    assert not cache.exists()
    loaded = load(first)
    assert entries(cache) == [first.text.fingerprint]
    for module in (corpus, surveying):
        monkeypatch.setattr(module, "pieces", refuse_to_decode)
    for vocabulary in (None, first.text.vocabulary):
        again = survey(data, vocabulary=vocabulary)
        assert again.text.lines() == first.text.lines()
        assert again.text.fingerprint == first.text.fingerprint
        assert np.array_equal(again.text.counts, first.text.counts)
        mapped = load(again)
        assert isinstance(mapped.ids, np.memmap) and not mapped.ids.flags.writeable
        assert np.array_equal(mapped.ids, loaded.ids)
    with pytest.raises(AssertionError):
        survey(write("hello\r\nWorld"))


@pytest.mark.parametrize("file", ["ids.npy", "corpus.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_a_damaged_entry_is_made_again(write, cache, file, damage):
    data = write("hello world")
    first = load(survey(data))
    path = cache / "tokens" / first.text.fingerprint / file
    raw = bytearray(path.read_bytes())
    for in_between in (False, True):
        found = survey(data)
        if damage == "flip":
            raw[-3] ^= 1
        changed = {"truncate": raw[:-1], "flip": raw, "empty": b"", "remove": b""}[damage]
        path.unlink()
        if damage != "remove":
            path.write_bytes(changed)
        # Damage before the survey, and between survey and load.
        found = found if in_between else survey(data)
        again = load(found)
        assert np.array_equal(again.ids, [3, 2, 4, 4, 5, 0, 7, 5, 6, 4, 1])
        assert np.array_equal(load(survey(data)).ids, again.ids)
        assert entries(cache) == [first.text.fingerprint]
        raw = bytearray(path.read_bytes())
    assert np.array_equal(first.ids, again.ids)


def test_a_damaged_index_is_made_again(write, cache):
    data = write("hello")
    load(survey(data))
    (index,) = (cache / "tokens" / "index").iterdir()
    for content in ("", "[]", "{}", index.read_text().replace("hello", "jello")[:-2]):
        index.write_text(content)
        assert load(survey(data)).ids.tolist() == [1, 0, 2, 2, 3]
        assert json.loads(index.read_text())["notes"] == []


def test_leftovers_of_a_killed_run_do_no_harm_and_go(write, cache):
    old, new = (cache / "tokens" / f".writing-{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "ids.npy").write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    assert load(survey(write("hello"))).ids.tolist() == [1, 0, 2, 2, 3]
    assert new.exists() and not old.exists()


def test_a_file_that_changes_after_the_survey_is_refused(write, cache):
    for changed in ("hellO", "hello, hello", "hell"):
        found = survey(write("hello"))
        write(changed)
        with pytest.raises(InputError, match=r"text\.txt: the text has changed"):
            load(found)
        assert entries(cache) == []
    found = survey(write("hello"))
    os.unlink(found.text.sources[0])
    with pytest.raises(InputError, match="cannot be read"):
        load(found)


def test_a_cache_that_cannot_be_written_is_refused(write, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHARJAX_CACHE_DIR", str(tmp_path / "file"))
    found = survey(write("hello"))
    with pytest.raises(InputError, match=r"CHARJAX_CACHE_DIR"):
        load(found)


def test_a_full_disk_leaves_nothing(write, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache, "_write_array", full)
    with pytest.raises(InputError, match="No space left on device"):
        load(survey(write("hello")))
    assert entries(cache) == []


def test_one_writes_and_the_others_wait(write, cache, monkeypatch):
    found = survey(write("hello"))
    told, written, really = [], [], token_cache.write

    def counted(*arguments):
        written.append(1)
        return really(*arguments)

    monkeypatch.setattr(token_cache, "write", counted)
    with ThreadPoolExecutor(1) as pool:
        with token_cache.lock(found.text.fingerprint, silent):
            other = pool.submit(load, found, lambda *what: told.append(what))
            deadline = time.monotonic() + 20
            while not told and time.monotonic() < deadline:
                time.sleep(0.01)
            really(found.text, [np.array([1, 0, 2, 2, 3])], lambda written: None)
        assert other.result(20).ids.tolist() == [1, 0, 2, 2, 3]
    assert told[0] == ("waiting for another process that encodes the text", 0, 0)
    assert written == []
    # One that gave up leaves the work to the next.
    shutil.rmtree(cache / "tokens" / found.text.fingerprint)
    with pytest.raises(RuntimeError), token_cache.lock(found.text.fingerprint, silent):
        raise RuntimeError
    assert load(found).ids.tolist() == [1, 0, 2, 2, 3]
    assert written == [1] and entries(cache) == [found.text.fingerprint]


def test_it_is_told_how_far_reading_is(write):
    told = []

    def watch(what, done, total):
        assert done == total, "one chunk"
        told.append((what, total))

    data = write("hello\r\n" * 1000)
    load(survey(data, watch=watch), watch)
    # A new text is read twice.
    assert told == [("reading the text", 7000), ("encoding the text", 7000)]
    del told[:]
    load(survey(data, watch=watch), watch)
    assert told == [("checking the text", 7000), ("checking the ids", 6128)]
    del told[:]
    # One of the same size is not the same.
    load(survey(write("hallo\r\n" * 1000), watch=watch), watch)
    assert [what for what, _ in told] == [
        *("checking the text", "reading the text", "encoding the text")
    ]


def _load_in_process(data, barrier, results):
    barrier.wait()
    results.put(load(survey(data)).ids[:].sum())


def test_processes_may_load_at_once(write, cache):
    data = write("hello world\n" * 20_000)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_load_in_process, args=(data, barrier, results))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    sums = {int(results.get(timeout=30)) for _ in processes}
    for process in processes:
        process.join()
        process.close()
    results.close()
    results.join_thread()
    assert sums == {int(load(survey(data)).ids[:].sum())}
    assert len(entries(cache)) == 1


def test_a_plausible_lie_in_the_cache_is_found_out(write, cache):
    data = write("aab")
    path = cache / "tokens" / load(survey(data)).text.fingerprint / "corpus.json"
    path.write_text(path.read_text().replace("[2, 1]", "[1, 2]"))
    assert survey(data).text.counts.tolist() == [2, 1]
    load(survey(data))
    assert "[2, 1]" in path.read_text()
