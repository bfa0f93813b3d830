"""Documents: cut from a text, shared out over splits, and each learned whole."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charjax.config.data import SPLITS, DataConfig
from charjax.errors import InputError
from charjax.text import corpus
from charjax.text import survey as surveying
from charjax.text.batching import batch_at, batches_per_epoch, check_length
from charjax.text.corpus import length_of_split, load
from charjax.text.documents import Documents
from charjax.text.survey import survey
from charjax.text.vocabulary import Vocabulary

shared_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=40,
)


def texts_of(loaded):
    """The documents that were loaded, as text."""
    begins = [0, *loaded.stops[:-1].tolist()]
    vocabulary = loaded.text.vocabulary
    for begin, stop in zip(begins, loaded.stops, strict=True):
        assert loaded.ids[stop - 1] == vocabulary.end
        yield vocabulary.decode(loaded.ids[begin : stop - 1])
    assert loaded.stops[-1] == len(loaded.ids) == loaded.text.length


@shared_fixtures
@given(
    st.text("ab-é\n", min_size=1, max_size=30),
    st.sampled_from(["-", "--", "-a-", "é", "\n\n", "lines"]),
    st.sampled_from(["characters", "bytes"]),
    st.integers(1, 5),
)
def test_documents_are_what_stands_between_separators(
    write, chunk_bytes, text, between, kind, size
):
    chunk_bytes(size)
    data = write(text, documents=between, vocabulary=kind)
    parts = text.split("\n" if between == "lines" else between)
    expected = [part for part in parts if part]
    if not expected:
        with pytest.raises(InputError, match="the text is empty"):
            survey(data)
        return
    if len(parts) == 1 and between != "lines":
        with pytest.raises(InputError, match="does not have it"):
            survey(data)
        return
    found = survey(data)
    loaded = load(found)
    assert list(texts_of(loaded)) == expected
    # Nothing stands behind the last separator; in between, an empty one is skipped.
    empty = len(parts) - len(expected) - (parts[-1] == "")
    plural = "" if empty == 1 else "s"
    note = f"{empty} empty document{plural} skipped"
    assert ([note] if empty else []) == [n for n in found.text.notes if "empty" in n]
    counts, end = found.text.counts, found.text.vocabulary.end
    assert counts[end] == len(expected) and counts[end - 1] == 0
    assert np.array_equal(counts, np.bincount(loaded.ids, minlength=len(counts)))
    in_memory = survey(data, text)
    assert in_memory.text.fingerprint == found.text.fingerprint
    assert np.array_equal(load(in_memory).ids, loaded.ids)


def test_a_document_does_not_go_on_in_the_next_file(write, tmp_path):
    for name, content in (("a", "one\r\ntwo"), ("b", ""), ("c", "three\n"), ("d", "4")):
        write(content, f"{name}.txt")

    def read(**choices):
        return load(survey(DataConfig(source=str(tmp_path), **choices)))

    assert list(texts_of(read(documents="lines"))) == ["one", "two", "three", "4"]
    whole = read(documents="files")
    assert list(texts_of(whole)) == ["one\ntwo", "three\n", "4"]
    assert whole.text.notes[-1] == "1 empty document skipped"
    assert "14 characters in 3 documents, 11 symbols" in whole.text.lines()[0]
    assert list(texts_of(read(documents="w"))) == ["one\nt", "o", "three\n", "4"]
    raw = read(documents="lines", vocabulary="bytes")
    assert list(texts_of(raw)) == ["one\r", "two", "three", "4"]
    assert raw.ids.dtype == np.uint16 and raw.text.vocabulary.start == 256


def test_the_same_documents_have_one_fingerprint(write):
    lines = survey(write("one\ntwo", documents="lines")).text
    for text, documents in (("one--two--", "--"), ("one\n\ntwo", "lines")):
        same = survey(write(text, documents=documents)).text
        assert same.fingerprint == lines.fingerprint
    other = survey(write("on\netwo", documents="lines")).text
    plain = survey(write("one\ntwo")).text
    assert len({lines.fingerprint, other.fingerprint, plain.fingerprint}) == 3


@pytest.mark.parametrize("damage", [None, "flip", "remove"])
def test_where_documents_stop_is_kept_beside_the_ids(write, cache, monkeypatch, damage):
    data = write("one\ntwo\nthree", documents="lines")
    first = load(survey(data))
    path = cache / "tokens" / first.text.fingerprint / "stops.npy"
    if damage == "remove":
        path.unlink()
    elif damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    else:
        for module in (corpus, surveying):
            monkeypatch.setattr(module, "pieces", None)
    again = load(survey(data))
    assert again.stops.tolist() == [4, 8, 14] and np.array_equal(again.ids, first.ids)
    mapped = load(survey(data))
    assert isinstance(mapped.stops, np.memmap) and not mapped.stops.flags.writeable
    # The same file read in another way is another text.
    monkeypatch.undo()
    assert load(survey(write("one\ntwo\nthree", documents="e"))).stops.tolist()[0] == 3


def test_another_text_is_read_as_the_documents_of_a_model(write):
    vocabulary = Vocabulary("characters", "abc", documents=True)
    data = write("ab\nxx\ncxa", documents="lines")
    with pytest.raises(InputError, match="'x'"):
        survey(data, vocabulary=vocabulary)
    skipped = load(survey(data, vocabulary=vocabulary, on_unknown="skip"))
    assert skipped.ids.tolist() == [0, 1, 4, 4, 2, 0, 4]
    assert skipped.stops.tolist() == [3, 4, 7]
    with pytest.raises(InputError, match=r"data\.documents is 'none': the vocabulary"):
        survey(write("ab"), vocabulary=vocabulary)
    with pytest.raises(InputError, match=r"data\.documents is 'lines': the vocabulary"):
        survey(data, vocabulary=Vocabulary("characters", "abcx"))


def some_documents(lengths, part=(0.0, 1.0)):
    """Documents whose every symbol occurs once, and the ids of each."""
    stops = np.cumsum(lengths, dtype=np.int64)
    ids = np.arange(1, stops[-1] + 1, dtype=np.uint32)
    ranks = int(part[0] * len(lengths)), int(part[1] * len(lengths))
    return Documents(ids, stops, 10**6, ranks), np.split(ids, stops[:-1])


random_lengths = st.lists(st.integers(2, 30), min_size=1, max_size=20)


@settings(deadline=None)
@given(
    random_lengths, st.integers(1, 6), st.integers(1, 7), st.integers(0, 3), st.booleans()
)
def test_an_epoch_has_every_symbol_of_every_document_once(
    lengths, rows, length, epoch, half
):
    part = (0.5, 1.0) if half else (0.0, 1.0)
    documents, whole = some_documents(lengths, part)
    data = DataConfig(documents="lines", batch_size=rows, sequence_length=length)
    if len(documents) < rows * length:
        return
    count = batches_per_epoch(len(documents), data)
    batches = [batch_at(documents, data, 5, epoch * count + k) for k in range(count)]
    inputs, targets, mask, reset = (
        np.concatenate(x, 1) for x in zip(*batches, strict=True)
    )
    assert not inputs[~mask].any() and not targets[~mask].any()
    firsts = {int(ids[0]) for ids in whole}
    fresh = np.isin(targets, list(firsts))
    assert (inputs[mask & fresh] == documents.start).all()
    assert (inputs[mask & ~fresh] == targets[mask & ~fresh] - 1).all()
    row_begins = np.arange(mask.shape[1]) == 0
    assert np.array_equal(reset, mask & (fresh | row_begins))
    # Row after row the documents stand whole, in the order of the epoch.
    seen = targets[mask]
    own = [ids for ids in whole if ids[0] in seen]
    assert len(own) == documents.count
    order = [int(each) for each in seen if int(each) in firsts]
    by_first = {int(ids[0]): ids for ids in own}
    assert np.array_equal(seen, np.concatenate([by_first[first] for first in order]))
    step = epoch * count
    some = batch_at(documents, data, 5, step, (rows // 2, rows))
    for leaf, all_rows in zip(some, batches[0], strict=True):
        assert np.array_equal(leaf, all_rows[rows // 2 :])


def test_epochs_and_seeds_shuffle_documents():
    documents, _ = some_documents([3] * 500)
    orders = [documents.order(*key).documents for key in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(500))
    orders.append(np.arange(500))
    for place, one in enumerate(orders):
        for other in orders[:place]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_splits_share_out_whole_documents_by_lot(write):
    lines = "".join(f"{number:03d}\n" * (1 + number % 2) for number in range(300))
    found = survey(write(lines, documents="lines", split=(0.7, 0.2, 0.1)))
    loaded, shares = load(found), found.data.split
    parts = [loaded.split(name, shares) for name in SPLITS]
    assert [part.count for part in parts] == [315, 90, 45]
    assert [len(part) for part in parts] == [length_of_split(found, s) for s in SPLITS]
    drawn = [part.order().documents for part in parts]
    assert np.array_equal(np.sort(np.concatenate(drawn)), np.arange(450))
    # A sorted list leaves no end of the alphabet to one split alone.
    for documents in drawn:
        assert documents.min() < 45 and documents.max() > 405


def test_a_split_without_documents_is_refused():
    data = DataConfig(documents="lines", batch_size=2, sequence_length=3)
    check_length(6, data, "train")
    with pytest.raises(InputError, match=r"need 6 symbols .* are 5\..*batch_size 1 "):
        check_length(5, data, "train")
    check_length(2, data, "validation")
    with pytest.raises(InputError, match=r"data\.split .* no document for validation"):
        check_length(0, data, "validation")
    check_length(0, data, "test")


def test_choices_that_documents_do_not_have_are_refused():
    with pytest.raises(InputError, match=r"data\.batching is 'windows'.*streams"):
        DataConfig(documents="lines", batching="windows")
    with pytest.raises(InputError, match=r"data\.end_marker is 'x'.*leave it out"):
        DataConfig(documents="files", end_marker="x")
    documents, _ = some_documents([3, 4])
    with pytest.raises(InputError, match=r"data\.documents is 'none'"):
        batch_at(documents, DataConfig(batch_size=1, sequence_length=2), 0, 0)
    with pytest.raises(InputError, match="documents=True"):
        Documents.of(["a"], Vocabulary.from_text("a"))


_MEASURE = """
import sys, threading, time
from charjax.config.data import DataConfig
from charjax.text.batching import batch_at
from charjax.text.corpus import load
from charjax.text.survey import survey

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

peak, done = anonymous(), threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
data, marks = DataConfig(source=sys.argv[1], documents="lines"), [time.perf_counter()]
loaded = load(survey(data))
marks.append(time.perf_counter())
part = loaded.split("train", data.split)
batch_at(part, data, 0, 0)
marks.append(time.perf_counter())
for step in range(1, 200):
    batch_at(part, data, 0, step)
marks.append(time.perf_counter())
load(survey(data))
marks.append(time.perf_counter())
done.set()
watcher.join()
spans = [after - before for before, after in zip(marks, marks[1:])]
print(part.count, peak, *spans)
"""


@pytest.mark.slow
def test_ten_million_documents_take_little_memory(tmp_path):
    path = tmp_path / "names.txt"
    with path.open("w") as file:
        for start in range(0, 10_000_000, 100_000):
            file.writelines(f"{number:x}\n" for number in range(start, start + 100_000))
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    count, peak, first, epoch, batches, again = map(float, measured.stdout.split())
    print(
        f"{count:.0f} documents: {peak:.0f} MB, read in {first:.1f} s, found again in "
        f"{again:.1f} s; {epoch:.1f} s for the order of an epoch, "
        f"{batches / 199 * 1000:.2f} ms a batch"
    )
    assert peak < 300


@pytest.mark.parametrize("separator", ["line", "<|none|>", "\\n\\n"])
def test_a_separator_that_the_text_does_not_have_is_refused(separator):
    data = DataConfig(documents=separator)
    with pytest.raises(InputError, match=r"data\.documents.*lines, files or none"):
        survey(data, "Anna\nLevin\n\nKitty\n")
    # A text that a model is to read may be one document.
    of_documents = Vocabulary.from_text("Anna\nLevin\n\nKitty\n")
    known = Vocabulary(of_documents.kind, of_documents.symbols, documents=True)
    assert survey(data, "Anna", known).text.length == 5
