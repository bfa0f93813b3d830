import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charjax.errors import InputError
from charjax.text import corpus
from charjax.text.corpus import boundaries
from charjax.text.description import TextDescription
from charjax.text.survey import survey
from charjax.text.vocabulary import Vocabulary

shared_fixtures = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


any_text = st.text(st.characters(exclude_categories=()), max_size=40)


def unified(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


@shared_fixtures
@given(st.one_of(any_text, st.text("a\r\n", max_size=12)), st.integers(1, 9))
def test_any_text_reads_the_same_in_memory_and_from_files(
    read, write, chunk_bytes, text, size
):
    chunk_bytes(size)
    # A mark at the very start is taken off, wherever the text comes from.
    expected = unified(text.removeprefix("\ufeff"))
    data = write(text.encode("utf-8", "surrogatepass"))
    if not expected:
        with pytest.raises(InputError, match="empty"):
            survey(data)
        return
    found = survey(data).text
    assert found.length == len(expected) == found.counts.sum()
    assert found.vocabulary == Vocabulary.from_text(expected)
    assert [expected.count(s) for s in found.vocabulary.symbols] == found.counts.tolist()
    assert read(data) == read(data, text) == expected
    assert survey(data, text).text.fingerprint == found.fingerprint


SHARES = [(0.9, 0.1, 0.0), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.7, 0.0, 0.3), (1 / 3,) * 3]


@shared_fixtures
@given(st.integers(1, 10**7), st.sampled_from(SHARES))
def test_splits_cover_the_text_in_order(n, shares):
    stops = [boundaries(n, name, shares) for name in ("train", "validation", "test")]
    assert stops[0][0] == 0 and stops[2][1] == n
    assert stops[0][1] == stops[1][0] and stops[1][1] == stops[2][0]
    for (start, stop), share in zip(stops, shares, strict=True):
        assert abs((stop - start) - n * share) < 2 and (share > 0 or start == stop)


def test_a_share_is_not_a_victim_of_floats():
    text = TextDescription(Vocabulary.from_text("a"), np.array([1]), "")
    for n, share, stop in ((1_985_223, 0.9, 1_786_700), (10, 0.7, 7), (100, 0.29, 29)):
        whole = corpus.Corpus(np.broadcast_to(np.uint8(0), n), text)
        assert boundaries(n, "train", (share, 1 - share, 0.0)) == (0, stop)
        assert len(whole.split("validation", (share, 1 - share, 0.0))) == n - stop


_MEASURE = """
import sys, threading, time
from charjax.config.data import DataConfig
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
start = time.perf_counter()
corpus = load(survey(DataConfig(source=sys.argv[1], vocabulary=sys.argv[2])))
first = time.perf_counter() - start
start = time.perf_counter()
load(survey(DataConfig(source=sys.argv[1], vocabulary=sys.argv[2])))
second = time.perf_counter() - start
done.set()
watcher.join()
print(len(corpus.ids), peak, first, second)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_hundred_megabytes_take_little_memory(tmp_path, kind):
    path = tmp_path / "big.txt"
    line = "Le vif zéphyr jubile sur les kumquats du clown gracieux — 😀 0123456789\r\n"
    path.write_text(line * (100_000_000 // len(line.encode())), "utf-8", newline="")
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), kind],
        capture_output=True,
        text=True,
        check=True,
    )
    length, peak, first, second = map(float, measured.stdout.split())
    print(
        f"{kind}: {length:.0f} symbols, {peak:.0f} MB, {first:.1f} s, then {second:.2f} s"
    )
    assert peak < 300
