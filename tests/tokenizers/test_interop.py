"""tiktoken and Hugging Face as oracles: what is written gives the same ids there, what is read gives their ids here."""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import tokenizers as huggingface
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import TokenizerError
from dataforge.tokenizers import Tokenizer, Vocabulary, train
from dataforge.tokenizers.huggingface_json import _LETTERS
from dataforge.tokenizers.pretokenize import PATTERNS

texts = st.text(st.sampled_from("ab cdAé日1!\n'st"), max_size=40)
short = st.text("abc", min_size=2, max_size=7)


def tiktoken_of(ranks: dict[bytes, int], pattern: str = "gpt2") -> tiktoken.Encoding:
    return tiktoken.Encoding("oracle", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})


def bytes_first(tokens: list[bytes], seed: int = 0) -> dict[bytes, int]:
    """Ranks: the bytes in a shuffled order, as GPT-2 has them, then the tokens as they come."""
    order = random.Random(seed).sample(range(256), 256)
    return {token: rank for rank, token in enumerate([*(bytes([byte]) for byte in order), *tokens])}


def json_of(vocab: dict[str, int], merges: list[list[str]], **model: object) -> dict[str, object]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges, **model},
    }  # fmt: skip


# -- tiktoken


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tiktoken_gives_the_ids_of_plain_bpe(tmp_path, sample_texts, pattern):
    tokenizer = train(sample_texts, algorithm="bpe", vocab_size=1500, pattern=pattern, special_tokens=["<|end|>"])
    file = tokenizer.to_tiktoken(tmp_path / "ranks.tiktoken")
    oracle = tiktoken_of(tiktoken.load.load_tiktoken_bpe(str(file)), pattern)
    for text in [*sample_texts, "x\n  ", " \n \n ", "it'ſ"]:
        assert tokenizer.encode(text).tolist() == oracle.encode_ordinary(text)
    again = Tokenizer.from_tiktoken(file, pattern, {"<|end|>": 256})
    assert again.fingerprint == tokenizer.fingerprint
    assert Tokenizer.from_tiktoken(file, pattern).vocab[256] == b""


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(short, max_size=14, unique=True), text=st.text("abc ", max_size=40), seed=st.integers(0, 3))
def test_any_rank_file_gives_tiktokens_ids_even_one_edited_by_hand(tokens, text, seed):
    """Tokens in any order: longer before shorter, some that no merges reach."""
    ranks = bytes_first([token.encode() for token in tokens], seed)
    tokenizer = Tokenizer.from_tiktoken(ranks, "gpt2")
    assert tokenizer.encode(text).tolist() == tiktoken_of(ranks).encode_ordinary(text)
    assert tokenizer.vocab == sorted(ranks, key=ranks.__getitem__)


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(short, max_size=10, unique=True))
def test_an_imported_rank_file_is_written_back_as_it_was(tmp_path_factory, tokens):
    ranks = bytes_first([token.encode() for token in tokens])
    file = Tokenizer.from_tiktoken(ranks, "cl100k").to_tiktoken(tmp_path_factory.mktemp("ranks") / "ranks")
    assert tiktoken.load.load_tiktoken_bpe(str(file)) == ranks


def test_special_tokens_named_only_get_the_ids_after_the_ranks():
    tokenizer = Tokenizer.from_tiktoken(bytes_first([b"ab"]), PATTERNS["cl100k"], ["<|a|>", "<|b|>"])
    assert tokenizer.special_tokens == {"<|a|>": 257, "<|b|>": 258}
    assert tokenizer.vocab_size == 259
    assert tokenizer.vocabulary.pattern == "cl100k"


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({b"a": 0}, "255 of 256 bytes have no token"),
        ({**bytes_first([]), b"ab": 3}, "both have the rank 3"),
        ({**bytes_first([]), b"ab": -1}, "is no token with a rank"),
        ({**bytes_first([]), "ab": 300}, "is no token with a rank"),
        ({**bytes_first([]), b"": 300}, "is no token with a rank"),
        ({**bytes_first([]), b"ab": 2**40}, "is no token with a rank"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(ranks, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_tiktoken(ranks, "gpt2")


@pytest.mark.parametrize("line", [b"YQ==", b"YQ== x", b"!! 3", b"YQ== 1 2", b"\xff\xfe 1"])
def test_a_rank_file_with_a_bad_line_is_refused_with_its_number(tmp_path, line):
    good = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in bytes_first([]).items())
    (tmp_path / "ranks").write_bytes(good + line + b"\n")
    with pytest.raises(TokenizerError, match="line 257"):
        Tokenizer.from_tiktoken(tmp_path / "ranks", "gpt2")


# -- Hugging Face


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hugging_face_gives_the_ids_of_plain_bpe(tmp_path, sample_texts, pattern):
    tokenizer = train(sample_texts, algorithm="bpe", vocab_size=1500, pattern=pattern, special_tokens=["<|end|>"])
    file = tokenizer.to_huggingface(tmp_path)
    oracle = huggingface.Tokenizer.from_file(str(file))
    for text in [*sample_texts, "x\n  ", " \n \n ", "it's IT'S"]:
        assert tokenizer.encode(text).tolist() == oracle.encode(text).ids
        assert oracle.decode(tokenizer.encode(text)) == text
    assert oracle.get_vocab_size() == tokenizer.vocab_size
    assert oracle.encode("a<|end|>").ids == tokenizer.encode("a<|end|>", allowed_special="all").tolist()
    assert Tokenizer.from_huggingface(tmp_path).fingerprint == tokenizer.fingerprint


def test_a_tokenizer_trained_by_hugging_face_is_read_with_its_ids(tmp_path, sample_texts):
    oracle = huggingface.Tokenizer(huggingface.models.BPE())
    oracle.pre_tokenizer = huggingface.pre_tokenizers.ByteLevel(add_prefix_space=False)
    oracle.decoder = huggingface.decoders.ByteLevel()
    oracle.train_from_iterator(
        sample_texts,
        huggingface.trainers.BpeTrainer(
            vocab_size=1200,
            special_tokens=["<s>"],
            initial_alphabet=huggingface.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    oracle.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_huggingface(tmp_path)
    for text in sample_texts:
        assert tokenizer.encode(text).tolist() == oracle.encode(text).ids
    assert tokenizer.special_tokens == {"<s>": 0}


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(short, max_size=12, unique=True), text=st.text("abc ", max_size=40), data=st.data())
def test_any_list_of_merges_gives_hugging_faces_ids_even_one_edited_by_hand(tokens, text, data):
    vocab = {token: rank for rank, token in enumerate([*_LETTERS, *tokens])}
    splits = [[token[:i], token[i:]] for token in tokens for i in range(1, len(token))]
    possible = [split for split in splits if split[0] in vocab and split[1] in vocab]
    merges = data.draw(st.lists(st.sampled_from(possible), unique_by=tuple)) if possible else []
    told = json_of(vocab, merges, ignore_merges=data.draw(st.booleans()))
    oracle = huggingface.Tokenizer.from_str(json.dumps(told))
    tokenizer = _read(told)
    assert tokenizer.encode(text).tolist() == oracle.encode(text).ids


def _read(told: dict[str, object]) -> Tokenizer:
    from dataforge.tokenizers.huggingface_json import _from_json

    return _from_json(told)


def test_the_template_of_a_file_says_which_tokens_begin_and_end_a_text():
    vocab = {letter: i for i, letter in enumerate(_LETTERS)}
    piece, begin, end = {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}, {"SpecialToken": {"id": "</s>"}}
    added = [{"id": 256, "content": "<s>", "special": True}, {"id": 257, "content": "</s>", "special": True}]
    for single, expected in (
        ([begin, piece, end], (256, 257)),
        ([begin, piece], (256, None)),
        ([piece, end], (None, 257)),
        ([piece], (None, None)),
    ):
        steps = [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": single}]
        told = {
            **json_of(vocab, []),
            "added_tokens": added,
            "post_processor": {"type": "Sequence", "processors": steps},
        }
        tokenizer = _read(told)
        assert (tokenizer.bos_id, tokenizer.eos_id) == expected
        assert tokenizer.encode("ab").tolist() == [vocab["a"], vocab["b"]]


def split_then_bytes(split: dict[str, object], **byte_level: object) -> dict[str, object]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, {**BYTES, **byte_level}]}}


LETTER_IDS = {letter: i for i, letter in enumerate(_LETTERS)}
SPLIT = {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": {"type": "Unigram"}}, "a Unigram model"),
        ({"model": {**json_of(LETTER_IDS, [])["model"], "dropout": 0.1}}, "`dropout`"),
        ({"model": {**json_of(LETTER_IDS, [])["model"], "byte_fallback": True}}, "`byte_fallback`"),
        ({"model": {**json_of(LETTER_IDS, [])["model"], "end_of_word_suffix": "</w>"}}, "`end_of_word_suffix`"),
        ({"model": {**json_of(LETTER_IDS, [])["model"], "continuing_subword_prefix": "##"}}, "`continuing_subword"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer NFC"),
        ({"truncation": {"max_length": 3}}, "`truncation`"),
        ({"padding": {"strategy": "BatchLongest"}}, "`padding`"),
        ({"decoder": {"type": "WordPiece"}}, "the decoder WordPiece"),
        ({"pre_tokenizer": None}, "the pre-tokenizer none"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "the pre-tokenizer Whitespace"),
        ({"pre_tokenizer": {**BYTES, "use_regex": True, "add_prefix_space": True}}, "`add_prefix_space`"),
        ({"pre_tokenizer": BYTES}, "without a regular expression"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, SPLIT, BYTES]}}, "Split . Split . ByteLevel"),
        (split_then_bytes({**SPLIT, "behavior": "Removed"}), "Isolated"),
        (split_then_bytes({**SPLIT, "pattern": {"String": " "}}), "a Split by a plain string"),
        (split_then_bytes(SPLIT, use_regex=True), "two regular expressions"),
        ({"post_processor": {"type": "BertProcessing"}}, "the post-processor BertProcessing"),
        ({"added_tokens": [{"id": 256, "content": "<t>", "special": False}]}, "added token '<t>'"),
        ({"added_tokens": [{"id": 256, "content": "<t>", "special": True, "lstrip": True}]}, "`lstrip` of the added"),
    ],
)
def test_what_a_file_asks_for_beyond_byte_level_bpe_is_refused_by_name(change, named):
    with pytest.raises(TokenizerError, match=named) as told:
        _read({**json_of(LETTER_IDS, []), **change})
    assert "not supported" in told.value.what


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({"a": 0}, [], "255 of 256 bytes have no token"),
        ({**LETTER_IDS, "日": 256}, [], "not spelled in bytes"),
        ({**LETTER_IDS, "ab": 3}, [], "the id 3 is given twice"),
        ({**LETTER_IDS, "ab": -3}, [], "not a whole number"),
        (LETTER_IDS, [["a", "b"]], "merge 0 needs a token"),
        ({**LETTER_IDS, "ab": 256}, ["a b", "a b"], "merge 1 is listed twice"),
        ({**LETTER_IDS, "ab": 256}, ["a b c"], "not a tokenizer.json"),
        ({**LETTER_IDS, "ab": 256}, [7], "not a tokenizer.json"),
    ],
)
def test_a_json_that_contradicts_itself_is_refused(tmp_path, vocab, merges, message):
    (tmp_path / "tokenizer.json").write_text(json.dumps(json_of(vocab, merges)))
    with pytest.raises(TokenizerError, match=message) as told:
        Tokenizer.from_huggingface(tmp_path)
    assert told.value.where == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"model": 3}'])
def test_what_is_no_json_of_theirs_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError):
        Tokenizer.from_huggingface(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.from_huggingface(tmp_path / "missing")


# -- what neither can express


def test_longest_first_and_scaffolds_are_refused_with_what_can_be_done(tmp_path, bpe, scaffold):
    for write in (Tokenizer.to_tiktoken, Tokenizer.to_huggingface):
        with pytest.raises(TokenizerError, match="longest-first") as told:
            write(bpe.with_encoder("lbpe"), tmp_path / "x")
        assert "with_encoder" in str(told.value)
        with pytest.raises(TokenizerError, match=rf"{len(scaffold.scaffolds):,} scaffolds") as told:
            write(scaffold, tmp_path / "x")
        assert "algorithm='bpe'" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_ids_in_another_order_than_the_merges_go_to_hugging_face_and_not_to_tiktoken(tmp_path, bpe):
    old = bpe.vocabulary
    new_id = np.arange(old.num_model_ids, dtype=np.int32)
    new_id[[500, 1000]] = [1000, 500]
    swapped = Vocabulary(
        pattern="gpt2", num_model_ids=2000, merges=new_id[old.merges], special_tokens=dict(old.special_tokens)
    )
    tokenizer = Tokenizer(swapped)
    with pytest.raises(TokenizerError, match="order is not that of the ids"):
        tokenizer.to_tiktoken(tmp_path / "ranks")
    oracle = huggingface.Tokenizer.from_file(str(tokenizer.to_huggingface(tmp_path)))
    text = " ".join(token.decode("utf-8", "ignore") for token in old.tokens[400:1100])
    assert oracle.encode(text).ids == tokenizer.encode(text).tolist()


def test_a_special_token_spelled_like_another_token_cannot_be_written(tmp_path):
    tokenizer = train(["ab ab"], vocab_size=258, algorithm="bpe", special_tokens=["ab"])
    assert tokenizer.vocab[256:] == [b"ab", b"ab"]
    assert tokenizer.encode("ab").tolist() == [257]
    with pytest.raises(TokenizerError, match="spelled like token 257"):
        tokenizer.to_huggingface(tmp_path)
