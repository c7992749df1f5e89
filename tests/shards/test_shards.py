"""Token shards: what was written comes back, by number, in spans, and in order."""

import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import ChecksumMismatch, ConfigError, FormatError, InputError, TokenizerError
from dataforge.shards import Shards, ShardWriter, reader, write_index
from dataforge.shards.format import PAGE_BYTES


@pytest.mark.parametrize("vocab_size", [300, 65_536, 65_537, 200_000])
@pytest.mark.parametrize(("bos_id", "eos_id"), [(None, None), (None, 2), (1, None), (1, 2)])
def test_documents_come_back_by_number_with_their_ends_of_text(make_shards, vocab_size, bos_id, eos_id):
    made = make_shards(vocab_size=vocab_size, bos_id=bos_id, eos_id=eos_id)
    shards = Shards(made.folder)
    assert shards.dtype == (np.uint16 if vocab_size <= 65_536 else np.uint32)
    assert (shards.bos_id, shards.eos_id, shards.vocab_size) == (bos_id, eos_id, vocab_size)
    numbers = np.array(list(made.documents))
    assert shards.num_documents == numbers.size
    assert shards.num_tokens == sum(map(len, made.documents.values()))
    assert np.concatenate(list(shards.numbers())).tolist() == numbers.tolist()
    for number in numbers:
        assert shards.tokens(int(number)).tolist() == made.documents[int(number)]
    assert shards.lengths(numbers).tolist() == [len(ids) for ids in made.documents.values()]
    assert shards.text_bytes_of(numbers).tolist() == list(made.text_bytes.values())
    assert shards.text_bytes == sum(made.text_bytes.values())
    shards.check_all()


def test_a_number_that_is_in_no_part_is_refused_whether_parts_have_holes_or_not(make_shards):
    for name, gaps in (("a@0123456789ab", True), ("b@0123456789ab", False)):
        made = make_shards(name, gaps=gaps)
        shards = Shards(made.folder)
        absent = set(range(-2, max(made.documents) + 3)) - set(made.documents)
        for number in absent:
            with pytest.raises(InputError, match="is in none of the 3 parts"):
                shards.locate([min(made.documents), number])
    assert Shards(made.folder).locate(np.zeros(0, np.int64))[0].size == 0


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", "uint16"])
def test_gathered_spans_are_what_plain_slices_give(make_shards, native, dtype, monkeypatch):
    if not native:
        monkeypatch.setattr(reader, "native", None)
    elif reader.native is None:
        pytest.skip("dataforge._native is not built here")
    made = make_shards(eos_id=0)
    shards = Shards(made.folder)
    rng = np.random.default_rng(0)
    numbers = rng.choice(list(made.documents), 200)
    part, start, length = shards.locate(numbers)
    skip = rng.integers(0, length + 1)
    expected = [token for n, s in zip(numbers, skip) for token in made.documents[int(n)][int(s) :]]
    out = np.full(len(expected), -1).astype(dtype)
    shards.gather(part, start + skip, length - skip, out)
    assert out.tolist() == expected


@pytest.mark.skipif(reader.native is None, reason="dataforge._native is not built here")
@pytest.mark.parametrize("gaps", [True, False])
def test_documents_are_found_natively_where_numpy_finds_them(make_shards, gaps, monkeypatch):
    made = make_shards(gaps=gaps, eos_id=0)
    numbers = np.random.default_rng(0).permutation(list(made.documents) * 2)
    fast = Shards(made.folder).locate(numbers)
    absent = [n for n in range(-2, max(made.documents) + 3) if n not in made.documents]
    for number in absent:
        with pytest.raises(InputError, match=f"number {number:,} is in none"):
            Shards(made.folder).locate([*numbers.tolist(), number])
    monkeypatch.setattr(reader, "native", None)
    plain = Shards(made.folder).locate(numbers)
    assert [told.tolist() for told in fast] == [told.tolist() for told in plain]


def test_many_threads_may_touch_the_same_shards_for_the_first_time_at_once(make_shards):
    """Of two threads that map a part at once one wins; the other's map must not be looked at after it is gone."""
    made = make_shards(eos_id=0)
    numbers = np.random.default_rng(0).permutation(list(made.documents))
    expected = [token for number in numbers for token in made.documents[int(number)]]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(60):
            shards, ready = Shards(made.folder), threading.Barrier(16)

            def read(shards=shards, ready=ready):
                ready.wait()
                part, start, length = shards.locate(numbers)
                out = np.empty(int(length.sum()), np.int64)
                shards.gather(part, start, length, out)
                return out.tolist()

            assert all(told == expected for told in pool.map(lambda _, read=read: read(), range(16)))


def test_gathering_outside_a_part_or_into_too_narrow_a_type_is_refused(make_shards):
    made = make_shards("wide@0123456789ab", vocab_size=70_000)
    shards = Shards(made.folder)
    one = np.array([1])
    with pytest.raises(ConfigError, match="cannot be read as uint16"):
        shards.gather(one * 0, one * 0, one, np.empty(1, np.uint16))
    with pytest.raises((IndexError, ValueError)):
        shards.gather(one * 0, one * 0, one * 5, np.empty(4, np.int64))


@given(lengths=st.lists(st.integers(0, 9), max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=40, deadline=None)
def test_batches_of_any_size_write_the_same_shard(tmp_path_factory, lengths, cuts):
    ids = np.arange(sum(lengths)) % 300
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    numbers, sizes = 5 + 2 * np.arange(len(lengths)), 7 * np.arange(len(lengths))
    borders = sorted({0, len(lengths), *(min(cut, len(lengths)) for cut in cuts)})
    folder = tmp_path_factory.mktemp("shards")
    for name, edges in (("whole", [0, len(lengths)]), ("cut", borders)):
        with ShardWriter(folder / name, vocab_size=300, fingerprint=bytes(32), bos_id=7, eos_id=9) as writer:
            for low, high in itertools.pairwise(edges):
                held = slice(int(offsets[low]), int(offsets[high]))
                writer.add_batch(numbers[low:high], ids[held], offsets[low : high + 1] - offsets[low], sizes[low:high])
    assert (folder / "whole").read_bytes() == (folder / "cut").read_bytes()


def test_memory_of_a_writer_does_not_grow_with_the_tokens_it_writes(tmp_path):
    ids = np.arange(50_000) % 300
    tracemalloc.start()
    with ShardWriter(tmp_path / "a.tok", vocab_size=300, fingerprint=bytes(32)) as writer:
        for number in range(200):  # 20 MB of tokens
            writer.add(number, ids, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.tok").stat().st_size > 20_000_000
    assert peak < 5_000_000


def test_a_writer_refuses_what_would_not_come_back(tmp_path):
    def add(numbers, ids, offsets):
        with ShardWriter(tmp_path / "a.tok", vocab_size=300, fingerprint=bytes(32)) as writer:
            writer.add_batch(np.array(numbers), np.array(ids), np.array(offsets), np.zeros(len(numbers), np.int64))

    for numbers in ([3, 3], [3, 2], [-1, 4]):
        with pytest.raises(InputError, match="must rise"):
            add(numbers, [1, 2], [0, 1, 2])
    for offsets in ([0, 1], [1, 1, 2], [0, 2, 1], [0, 1, 3]):
        with pytest.raises(InputError, match="do not cut"):
            add([0, 1], [1, 2], offsets)
    for ids in ([1, 300], [-1, 2]):
        with pytest.raises(TokenizerError, match="not in a vocabulary of 300"):
            add([0, 1], ids, [0, 1, 2])
    with pytest.raises(TokenizerError):
        ShardWriter(tmp_path / "b.tok", vocab_size=300, fingerprint=bytes(32), eos_id=300)
    with pytest.raises(FormatError):  # a writer that failed leaves a file without a header
        write_index(tmp_path / "index.tok", [tmp_path / "a.tok"])


def test_parts_of_two_tokenizers_or_out_of_order_are_not_joined(make_shards, tmp_path):
    one = make_shards("one@0123456789ab", parts=1)
    two = make_shards("two@0123456789ab", parts=1, vocab_size=301)
    with pytest.raises(TokenizerError, match="301 ids"):
        write_index(tmp_path / "index.tok", [one.paths[0], two.paths[0]])
    with pytest.raises(InputError, match="begins with document"):
        write_index(tmp_path / "index.tok", [one.paths[0], one.paths[0]])


def test_a_swapped_a_missing_and_a_foreign_part_are_named(make_shards):
    made = make_shards()
    first, _, last = made.paths
    kept = first.read_bytes()
    first.write_bytes(last.read_bytes())
    number = min(made.documents)
    with pytest.raises(ChecksumMismatch, match=r"part-00000\.tok is another shard"):
        Shards(made.folder).tokens(number)
    first.unlink()
    with pytest.raises(FormatError, match=r"part-00000\.tok is missing"):
        Shards(made.folder).tokens(number)
    first.write_bytes((made.folder / "index.tok").read_bytes())
    with pytest.raises(FormatError, match="'tokens' was expected"):
        Shards(made.folder).tokens(number)
    first.write_bytes(kept)
    assert Shards(made.folder).tokens(number).tolist() == made.documents[number]
    (made.folder / "index.tok").unlink()
    with pytest.raises(FormatError, match=r"no index\.tok"):
        Shards(made.folder)


def test_pages_are_checked_at_their_first_touch_and_only_then(tmp_path):
    folder = tmp_path / "shards" / "t@0123456789ab"
    folder.mkdir(parents=True)
    items = PAGE_BYTES // 2
    with ShardWriter(folder / "part-00000.tok", vocab_size=60_000, fingerprint=bytes(32)) as writer:
        for number in range(6):  # each document takes half a page
            writer.add(number, np.full(items // 2, number), 1)
    write_index(folder / "index.tok", [folder / "part-00000.tok"])
    with open(folder / "part-00000.tok", "r+b") as file:
        file.seek(4096 + PAGE_BYTES + 10)
        file.write(b"\x55")
    shards = Shards(folder)
    for number in (0, 1, 4, 5):  # pages 0 and 2 are sound
        assert set(shards.tokens(number).tolist()) == {number}
    with pytest.raises(ChecksumMismatch) as caught:
        shards.tokens(2)
    message = str(caught.value)
    assert "page 1 of TOKENS (bytes 1,052,672 to 2,101,248)" in message
    assert "shards/t@0123456789ab" in message
    assert "`dataforge tokenize --remake part-00000.tok shards/t`" in message
    with pytest.raises(ChecksumMismatch):  # a span over three pages checks the one in the middle
        shards.gather(np.array([0]), np.array([items - 1]), np.array([items + 2]), np.empty(items + 2, np.int64))
    with pytest.raises(ChecksumMismatch):
        shards.check_all()
