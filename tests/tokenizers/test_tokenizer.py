"""The tokenizer's surface: round trips, batches, special tokens, and files that are damaged or hostile."""

from __future__ import annotations

import copy
import json
import pickle
import random
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataforge.errors import TokenizerError
from dataforge.tokenizers import Tokenizer, Vocabulary, train
from dataforge.tokenizers.pretokenize import as_bytes, pretokens
from dataforge.tokenizers.tokenizer import FILE
from dataforge.tokenizers.vocabulary import write_file

anything = (
    st.text(st.characters(), max_size=80) | st.binary(max_size=80) | st.sampled_from(["", "\x00", "\ud800", b"\xff"])
)


def all_tokenizers(*tokenizers: Tokenizer) -> list[Tokenizer]:
    return [tokenizer.with_encoder(encoder) for tokenizer in tokenizers for encoder in ("bpe", "lbpe")]


# -- round trips and batches


@settings(max_examples=300, deadline=None)
@given(text=anything)
def test_decoding_gives_back_any_text_byte_for_byte(bpe, scaffold, text):
    for tokenizer in all_tokenizers(bpe, scaffold):
        token_ids = tokenizer.encode(text)
        assert token_ids.dtype == tokenizer.dtype == np.uint16
        assert tokenizer.decode_bytes(token_ids) == as_bytes(text)
        assert tokenizer.decode(token_ids) == as_bytes(text).decode("utf-8", "replace")


@settings(max_examples=100, deadline=None)
@given(text=anything)
def test_a_text_is_its_pretokens_encoded_one_by_one(bpe, scaffold, text):
    for tokenizer in all_tokenizers(bpe, scaffold):
        whole = [token for piece in pretokens(text, tokenizer.vocabulary.pattern) for token in tokenizer.encode(piece)]
        assert tokenizer.encode(text).tolist() == whole


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(anything, max_size=9), threads=st.integers(1, 4))
def test_a_batch_is_its_texts_encoded_one_by_one(bpe, texts, threads):
    token_ids, offsets = bpe.encode_batch(texts, threads)
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    assert len(offsets) == len(texts) + 1
    for i, text in enumerate(texts):
        assert token_ids[offsets[i] : offsets[i + 1]].tolist() == bpe.encode(text).tolist()


def test_the_number_of_threads_and_a_warm_cache_change_nothing(scaffold, sample_texts):
    texts = sample_texts * 12
    for encoder in ("bpe", "lbpe"):
        tokenizer = Tokenizer(scaffold.vocabulary, encoder=encoder)
        cold = tokenizer.encode_batch(texts, 1)
        for threads in (1, 2, 3, 7):
            found = tokenizer.encode_batch(texts, threads)
            assert all(np.array_equal(a, b) for a, b in zip(found, cold, strict=True))


def test_one_tokenizer_serves_many_threads_at_once(scaffold, sample_texts):
    expected = scaffold.encode_batch(sample_texts, 1)[0]
    wrong = []

    def work() -> None:
        for _ in range(5):
            if not np.array_equal(scaffold.encode_batch(sample_texts, 2)[0], expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "arrow_type", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()], ids=str
)
def test_arrow_arrays_are_encoded_as_lists_are_slices_and_chunks_too(bpe, sample_texts, arrow_type):
    array = pa.array(sample_texts).cast(arrow_type)
    expected = bpe.encode_batch(sample_texts[3:50], 1)
    chunked = pa.chunked_array([array[3:20], array[20:20], array[20:50]])
    for texts in (array[3:50], chunked):
        assert all(np.array_equal(a, b) for a, b in zip(bpe.encode_batch(texts, 2), expected, strict=True))
    token_ids, offsets = bpe.encode_batch(array[:0])
    assert (len(token_ids), offsets.tolist()) == (0, [0])


def test_a_pattern_of_one_s_own_gives_the_same_from_lists_and_arrow(sample_texts):
    tokenizer = train(sample_texts, vocab_size=800, pattern=r"\p{L}+|\s+")
    assert tokenizer.vocabulary.pattern == r"\p{L}+|\s+"
    token_ids, offsets = tokenizer.encode_batch(sample_texts)
    assert np.array_equal(tokenizer.encode_batch(pa.array(sample_texts))[0], token_ids)
    for i in (0, 5, 50):
        assert tokenizer.decode(token_ids[offsets[i] : offsets[i + 1]]) == sample_texts[i]


def test_strings_of_every_width_are_encoded_as_their_utf8():
    tokenizer = train(["ab ä é 日本 😀😀 ab"], vocab_size=262, algorithm="bpe")
    for text in ("ab", "äé", "日本ä", "😀日a", "ä" * 3000, "\ud83d\ude00", "a\ud800b"):
        assert tokenizer.encode(text).tolist() == tokenizer.encode(as_bytes(text)).tolist()


@pytest.mark.parametrize("texts", ["one string", b"bytes", [1], ["a", None], [bytearray(b"a")], pa.array([1, 2]), 7])
def test_what_is_no_list_of_texts_is_refused(bpe, texts):
    with pytest.raises(TokenizerError):
        bpe.encode_batch(texts)


def test_nulls_are_refused_with_their_number(bpe):
    with pytest.raises(TokenizerError, match="2 of 3 texts are null"):
        bpe.encode_batch(pa.array(["a", None, None]))


@pytest.mark.parametrize("text", [None, 1, ["a"], bytearray(b"a")])
def test_encode_takes_one_text_only(bpe, text):
    with pytest.raises(TokenizerError, match="not str or bytes"):
        bpe.encode(text)


def test_a_vocabulary_past_65536_ids_gives_four_byte_ids():
    spelled = {256 + i: b"%06d" % i for i in range(70_000)}
    merges = np.zeros((0, 3), dtype=np.int32)
    vocabulary = Vocabulary(pattern="gpt2", num_model_ids=70_256, merges=merges, spelled=spelled)
    tokenizer = Tokenizer(vocabulary, encoder="lbpe")
    text = b"069999 000000 069998x" + b"123456" * 40
    for _ in range(2):  # the second time from the cache
        token_ids = tokenizer.encode(text)
        assert token_ids.dtype == tokenizer.dtype == np.uint32
        assert token_ids[0] == 70_255
        assert tokenizer.decode_bytes(token_ids) == text
    narrow = Vocabulary(
        pattern="gpt2", num_model_ids=65_536, merges=merges, spelled=dict(list(spelled.items())[:65_280])
    )
    assert Tokenizer(narrow, encoder="lbpe").encode(b"065279").tolist() == [65_535]
    assert Tokenizer(narrow).dtype == np.uint16


# -- decoding


@pytest.mark.parametrize("ids", [[2000], [-1], [0, 10**6], [2**40], np.array([2**63], dtype=np.uint64)])
def test_ids_that_are_not_in_the_vocabulary_are_refused(bpe, ids):
    with pytest.raises(TokenizerError, match="not in a vocabulary of 2,000"):
        bpe.decode(ids)


@pytest.mark.parametrize("ids", [[1.5], ["a"], [[1, 2]], [True], [None]])
def test_ids_that_are_no_whole_numbers_are_refused(bpe, ids):
    with pytest.raises(TokenizerError, match="dimensional"):
        bpe.decode(ids)


def test_scaffold_ids_cannot_be_decoded(scaffold):
    with pytest.raises(TokenizerError):
        scaffold.decode([scaffold.vocab_size])


def test_nothing_decodes_to_nothing(bpe):
    assert bpe.decode([]) == ""
    assert bpe.decode(np.zeros(0, dtype=np.uint16)) == ""


def test_an_id_that_is_not_in_use_is_refused():
    vocabulary = Vocabulary(pattern="gpt2", num_model_ids=300, merges=np.zeros((0, 3), np.int32))
    tokenizer = Tokenizer(vocabulary)
    assert tokenizer.vocab[299] == b""
    with pytest.raises(TokenizerError, match="id 270 is not in use"):
        tokenizer.decode([65, 270])


# -- special tokens


def test_text_that_looks_like_a_special_token_is_text(bpe):
    text = "a<|endoftext|>b"
    token_ids = bpe.encode(text)
    assert bpe.eos_id == 256
    assert bpe.bos_id is None
    assert 256 not in token_ids
    assert bpe.decode(token_ids) == text
    assert 256 not in bpe.with_encoder("lbpe").encode(text)


def test_special_tokens_are_recognised_when_asked_for_by_name(scaffold):
    text = "a <|eos|> b<|bos|><|eos|>"
    bos, eos = scaffold.special_tokens["<|bos|>"], scaffold.special_tokens["<|eos|>"]
    everything = scaffold.encode(text, allowed_special="all").tolist()
    between = [scaffold.encode(piece).tolist() for piece in ("a ", " b")]
    assert everything == [*between[0], eos, *between[1], bos, eos]
    only_bos = scaffold.encode(text, allowed_special=["<|bos|>"]).tolist()
    assert only_bos.count(bos) == 1
    assert eos not in only_bos
    assert scaffold.decode(everything) == text
    token_ids, offsets = scaffold.encode_batch(["", text, "plain", b"<|bos|>"], allowed_special="all")
    assert np.diff(offsets).tolist() == [0, len(everything), len(scaffold.encode("plain")), 1]
    assert token_ids[offsets[1] : offsets[2]].tolist() == everything
    array = pa.array(["", text])
    assert scaffold.encode_batch(array, allowed_special="all")[0].tolist() == everything
    assert len(scaffold.encode_batch([], allowed_special="all")[0]) == 0


def test_of_two_special_tokens_the_longer_is_taken():
    tokenizer = train(["x"], vocab_size=258, special_tokens=["<|a|>", "<|a|><|b|>"])
    assert tokenizer.encode("<|a|><|b|><|a|>", allowed_special="all").tolist() == [257, 256]


def test_a_name_that_is_no_special_token_is_refused_with_the_nearest(bpe):
    with pytest.raises(TokenizerError) as told:
        bpe.encode("a", allowed_special=["<|endoftex|>"])
    assert "<|endoftext|>" in str(told.value)
    with pytest.raises(TokenizerError):
        bpe.encode("a", allowed_special="some")


# -- what identifies a tokenizer


def test_the_fingerprint_tells_everything_that_decides_ids_apart_and_nothing_else(bpe, scaffold):
    vocabulary = bpe.vocabulary
    others = [
        bpe.with_encoder("lbpe"),
        Tokenizer(vocabulary),
        Tokenizer(vocabulary, bos="<|endoftext|>", eos="<|endoftext|>"),
        scaffold,
        copy_with(vocabulary, pattern="cl100k"),
        copy_with(vocabulary, special_tokens={"<|end|>": 256}),
        copy_with(vocabulary, merges=vocabulary.merges[:-1]),
    ]
    assert len({tokenizer.fingerprint for tokenizer in (bpe, *others)}) == len(others) + 1
    assert len(bytes.fromhex(bpe.fingerprint)) == 32
    same = copy_with(vocabulary, training={"other": 1})
    assert Tokenizer(same.vocabulary, eos="<|endoftext|>").fingerprint == bpe.fingerprint
    assert bpe.with_encoder("lbpe").with_encoder("bpe").fingerprint == bpe.fingerprint


def copy_with(vocabulary: Vocabulary, **changes: object) -> Tokenizer:
    told = {name: getattr(vocabulary, name) for name in Vocabulary.__dataclass_fields__}
    return Tokenizer(Vocabulary(**{**told, **changes}))


# -- files


def test_a_tokenizer_survives_its_file_and_a_pickle(tmp_path, bpe, scaffold, sample_texts):
    for i, tokenizer in enumerate(all_tokenizers(bpe, scaffold)):
        file = tokenizer.save(tmp_path / str(i))
        assert file == tmp_path / str(i) / FILE
        assert tokenizer.save(tmp_path / f"{i}.json").read_bytes() == file.read_bytes()
        for again in (Tokenizer.load(file), Tokenizer.load(file.parent), pickle.loads(pickle.dumps(tokenizer))):
            assert again.fingerprint == tokenizer.fingerprint
            assert (again.encoder, again.bos_id, again.eos_id) == (
                tokenizer.encoder,
                tokenizer.bos_id,
                tokenizer.eos_id,
            )
            assert (again.vocab, again.merges, again.scaffolds) == (
                tokenizer.vocab,
                tokenizer.merges,
                tokenizer.scaffolds,
            )
            assert again.training == tokenizer.training
            assert again.encode(sample_texts[0]).tolist() == tokenizer.encode(sample_texts[0]).tolist()


def test_a_missing_file_is_an_error_that_says_where(tmp_path):
    with pytest.raises(TokenizerError) as told:
        Tokenizer.load(tmp_path)
    assert told.value.where == str(tmp_path)


def test_every_damaged_byte_and_every_cut_is_noticed(tmp_path, bpe):
    whole = bpe.save(tmp_path).read_bytes()
    rng = random.Random(5)
    damaged = [whole[:size] for size in (0, 1, 10, len(whole) // 2, len(whole) - 3)]
    for _ in range(200):
        at = rng.randrange(len(whole) - 2)  # not the line's end after the last brace
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
    file = tmp_path / FILE
    for data in damaged:
        file.write_bytes(data)
        if _same_json(data, whole):
            continue
        with pytest.raises(TokenizerError) as told:
            Tokenizer.load(file)
        assert told.value.where == str(file)


def _same_json(one: bytes, other: bytes) -> bool:
    """Whether the damage hit white space between values."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


WRONG = [None, -1, 0, 1, 2**31, 2**70, 1.5, True, "x", "", [], [[]], [0, 1], {}, {"a": 1}, [[0, 1, 2**31]], [[1, 2]]]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_a_wrong_value_and_a_right_checksum_is_refused_or_sound(small, data):
    told = copy.deepcopy(small)
    name = data.draw(st.sampled_from(sorted(told)))
    if name == "merges" and data.draw(st.booleans()):
        row = data.draw(st.integers(0, len(told["merges"]) - 1))
        told["merges"][row][data.draw(st.integers(0, 2))] = data.draw(st.integers(-2, 300) | st.sampled_from(WRONG))
    elif data.draw(st.booleans()):
        told[name] = data.draw(st.sampled_from(WRONG))
    else:
        del told[name]
    from dataforge.tokenizers.tokenizer import _from_file

    try:
        tokenizer = _from_file(write_file(told))
    except TokenizerError:
        return
    for encoder in ("bpe", "lbpe"):
        text = b"the cat sat on the mat \xff" * 4
        assert tokenizer.decode_bytes(tokenizer.with_encoder(encoder).encode(text)) == text


@pytest.fixture(scope="module")
def small() -> dict[str, object]:
    tokenizer = train(["the cat sat on the mat", "that cat"], vocab_size=266, special_tokens=["<|a|>"], eos="<|a|>")
    assert tokenizer.scaffolds
    told = json.loads(tokenizer.to_bytes())
    del told["sha256"]
    return told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this dataforge reads 1"),
        ({"kind": "something"}, "not a tokenizer file"),
        ({"vocab_size": 2**40}, "cannot be used"),
        ({"vocab_size": 300}, "two merges|outside|scaffold"),
        ({"num_scaffolds": 10**9}, "cannot be used"),
        ({"merges": [[i, i, i + 1] for i in range(256, 400)]}, "not there yet|outside"),
        ({"merges": [[97, 98, 97]]}, "does not spell id 97"),
        ({"merges": [[97, 256, 257]]}, "not there yet"),
        ({"spelled": {"257": "zz"}}, "cannot be read"),
        ({"spelled": {"257": ""}}, "spelled out"),
        ({"bytes": list(range(255))}, "255 of 256 bytes"),
        ({"bytes": [0] * 256}, "given twice"),
        ({"special_tokens": {"<|a|>": 97}}, "given twice"),
        ({"eos": "<|b|>"}, "no special token"),
        ({"encoder": "magic"}, "no encoder"),
        ({"pattern": "("}, "does not compile"),
        ({"pattern": 7}, "not a string"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_the_reason(tmp_path, small, change, message):
    (tmp_path / FILE).write_bytes(write_file({**small, **change}))
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_that_unfolds_into_terabytes_is_refused(tmp_path, small):
    doubling = [[97, 97, 257], *([i, i, i + 1] for i in range(257, 340))]
    told = {**small, "merges": doubling, "vocab_size": 341, "num_scaffolds": 0}
    (tmp_path / FILE).write_bytes(write_file(told))
    with pytest.raises(TokenizerError, match="bytes in all"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b"{", b"[" * 100_000, b'{"sha256": NaN}', b"\xff\xfe", b'{"a": 1e999}']
)
def test_what_is_no_tokenizer_file_at_all_is_refused(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(TokenizerError, match="not a tokenizer file"):
        Tokenizer.load(tmp_path)
