"""Word counts: equal to a Counter over the twin's pre-tokens, and additive."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import TokenizerError
from dataforge.tokenizers import WordCounts, count
from dataforge.tokenizers.pretokenize import pretokens

texts = st.lists(
    st.text(max_size=40) | st.binary(max_size=40) | st.sampled_from(["", "word " * 9, "x" * 300]), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(texts=texts, pattern=st.sampled_from(["gpt2", "cl100k", r"\w+|\W"]), threads=st.integers(1, 3))
def test_counts_are_those_of_a_counter_over_the_pretokens(texts, pattern, threads):
    expected = Counter(piece for text in texts for piece in pretokens(text, pattern))
    found = count(texts, pattern=pattern, num_threads=threads)
    assert list(found.items()) == sorted(expected.items())
    assert (len(found), found.num_words) == (len(expected), expected.total())
    assert found.num_bytes == sum(len(word) * times for word, times in expected.items())


@settings(max_examples=50, deadline=None)
@given(texts=texts, cut=st.integers(0, 6))
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(texts, cut):
    whole = count(texts)
    assert list((count(texts[:cut]) + count(texts[cut:])).items()) == list(whole.items())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(sample_texts, threads):
    one = count(sample_texts, num_threads=1)
    assert list(count(sample_texts, num_threads=threads).items()) == list(one.items())


def test_counts_are_the_same_from_a_list_a_generator_and_arrow(sample_texts):
    told = list(count(sample_texts).items())
    assert list(count(iter(sample_texts)).items()) == told
    assert list(count(pa.array(sample_texts)).items()) == told
    assert list(count(pa.chunked_array([sample_texts[:7], sample_texts[7:]], pa.large_string())).items()) == told


def test_counts_survive_a_file_with_sorted_words(tmp_path, sample_texts):
    counts = count([*sample_texts, b"\xff\xfe", "x" * 70_000], pattern="cl100k")
    counts.save(tmp_path / "counts.parquet")
    table = pq.read_table(tmp_path / "counts.parquet")
    assert table.schema.names == ["word", "count"]
    assert table.schema.types == [pa.binary(), pa.int64()]
    words = table.column("word").to_pylist()
    assert words == sorted(set(words))
    loaded = WordCounts.load(tmp_path / "counts.parquet")
    assert (loaded.pattern, list(loaded.items())) == ("cl100k", list(counts.items()))


def test_no_counts_survive_a_file_too(tmp_path):
    count([]).save(tmp_path / "none.parquet")
    loaded = WordCounts.load(tmp_path / "none.parquet")
    assert (len(loaded), loaded.num_words, loaded.num_bytes) == (0, 0, 0)
    assert len(loaded + loaded) == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"word": [b"b", b"a"], "count": [1, 1]},
        {"word": [b"a", b"a"], "count": [1, 1]},
        {"word": [b"a", b""], "count": [1, 1]},
        {"word": [b"a", b"b"], "count": [1, 0]},
        {"word": [b"a", b"b"], "count": [1, -3]},
        {"word": [b"a", None], "count": [1, 1]},
        {"word": [b"a", b"b"], "count": [1 << 61, 1 << 61]},
        {"word": [b"a"], "times": [1]},
    ],
)
def test_a_damaged_counts_file_is_refused(tmp_path, columns):
    table = pa.table(columns).replace_schema_metadata({"dataforge.pattern": "gpt2"})
    pq.write_table(table, tmp_path / "counts.parquet")
    with pytest.raises(TokenizerError):
        WordCounts.load(tmp_path / "counts.parquet")


def test_a_file_that_is_no_counts_file_is_refused(tmp_path):
    (tmp_path / "counts.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(TokenizerError, match="cannot be read"):
        WordCounts.load(tmp_path / "counts.parquet")
    with pytest.raises(TokenizerError, match="cannot be read"):
        WordCounts.load(tmp_path / "missing.parquet")


def test_words_cut_by_two_patterns_are_not_added():
    with pytest.raises(TokenizerError, match="cannot be added"):
        count(["a"]) + count(["a"], pattern="cl100k")
