"""The tokenize stage: every kept document is there, whole and in order, from any runner."""

import json

import numpy as np
import pytest
from kill_points import run_and_kill
from tiny_rows import artifact_of

from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.dedup import dedup
from dataforge.errors import TokenizerError
from dataforge.runners import ProcessPool
from dataforge.shards import Shards
from dataforge.shards import tokenize as stage
from dataforge.shards.tokenize import TokenizeConfig, tokenize
from dataforge.stage import Run
from dataforge.tokenizers import Tokenizer, train
from dataforge.workspace import Workspace


@pytest.fixture(scope="module")
def trained():
    """A small tokenizer with an end-of-text token."""
    return train(["the cat sat on the mat, and the dog on the log"] * 9, vocab_size=268, special_tokens=["<|end|>"])


def _artifact(workspace, tokenizer, number=1):
    return artifact_of(workspace, "tokenizers", tokenizer.save, number=number)


def _with(tokenizer, **policy):
    return Tokenizer(tokenizer.vocabulary, encoder=tokenizer.encoder, **policy)


@pytest.mark.parametrize("policy", [{}, {"eos": "<|end|>"}, {"bos": "<|end|>", "eos": "<|end|>"}])
def test_every_kept_document_is_tokenized_in_order_held_out_ones_too(workspace, documents, trained, policy):
    tokenizer = _with(trained, **policy)
    artifact = tokenize(workspace, documents, _artifact(workspace, tokenizer), name="tiny")
    shards, kept = Shards(artifact), Documents(documents)
    numbers = np.concatenate([part.numbers for part in kept.parts])
    assert np.concatenate(list(shards.numbers())).tolist() == numbers.tolist()
    assert set(kept.held_out_numbers()) <= set(numbers)
    texts = {told["number"]: told["text"] for told in kept.get(numbers.tolist(), ["text"])}
    around = [[] if i is None else [i] for i in (tokenizer.bos_id, tokenizer.eos_id)]
    for number in numbers:
        expected = [*around[0], *tokenizer.encode(texts[int(number)]).tolist(), *around[1]]
        assert shards.tokens(int(number)).tolist() == expected
    assert shards.text_bytes_of(numbers).tolist() == [len(texts[int(n)].encode()) for n in numbers]
    assert shards.fingerprint.hex() == tokenizer.fingerprint
    told = artifact.counts
    assert told["in"] == {"documents": numbers.size, "bytes": shards.text_bytes}
    assert told["out"] == {"documents": numbers.size, "bytes": shards.text_bytes, "tokens": shards.num_tokens}
    assert artifact.verify() == []
    shards.check_all()


def test_ends_of_text_can_be_left_out_and_that_is_another_artifact(workspace, documents, trained):
    told = _artifact(workspace, _with(trained, eos="<|end|>"))
    plain = tokenize(workspace, documents, told, name="plain", config=TokenizeConfig(eos=False))
    ended = tokenize(workspace, documents, told, name="ended")
    assert plain.id != ended.id
    assert Shards(plain).eos_id is None
    assert Shards(ended).num_tokens == Shards(plain).num_tokens + Shards(plain).num_documents


def test_long_batches_are_cut_and_give_the_same_shard(workspace, documents, trained, monkeypatch):
    whole = tokenize(workspace, documents, _artifact(workspace, trained), name="tiny")
    digest = whole.part("part-00000.tok")["sha256"]
    monkeypatch.setattr(stage, "_TEXT_BYTES_AT_ONCE", 500)
    run = Run(remake=("part-00000.tok",))
    again = tokenize(workspace, documents, whole.input("tokenizer"), name="tiny", run=run)
    assert again.part("part-00000.tok")["sha256"] == digest


def test_odd_documents_keep_their_places(workspace, tmp_path, trained):
    texts = ["\ufeff", "a", " " * 1000, "\u2028\x0c", "x" * 20_000, "\x00", "<|end|>"]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    documents = ingest(workspace, [path], name="odd")
    tokenizer = _with(trained, eos="<|end|>")
    shards = Shards(tokenize(workspace, documents, _artifact(workspace, tokenizer), name="odd"))
    for number, text in enumerate(texts):
        ids = shards.tokens(number)
        assert ids[-1] == tokenizer.eos_id
        assert tokenizer.eos_id not in ids[:-1]  # text cannot forge the end of text
        assert tokenizer.decode_bytes(ids[:-1]) == text.encode()


def test_appended_documents_are_tokenized_and_the_others_found(workspace, corpus, tmp_path, trained):
    first = ingest(workspace, [corpus / "first.jsonl"], name="web", config=IngestConfig())
    told = _artifact(workspace, trained)
    before = tokenize(workspace, first, told, name="web")
    grown = append(workspace, first, [corpus / "second.jsonl"])
    after = tokenize(workspace, grown, told, name="web")
    assert json.loads((after.path / "run.json").read_text())["made"] == 1
    assert after.part("part-00000.tok")["sha256"] == before.part("part-00000.tok")["sha256"]
    assert Shards(after).num_documents == grown.counts["out"]["documents"]
    for number in (0, first.counts["out"]["documents"] - 1):
        assert Shards(after).tokens(number).tolist() == Shards(before).tokens(number).tolist()


def test_a_pool_of_processes_tokenizes_to_the_same_content(tmp_path, corpus, trained):
    contents = []
    for runner in (None, ProcessPool(2)):
        workspace = Workspace(tmp_path / str(runner is None))
        documents = dedup(workspace, ingest(workspace, [corpus], name="tiny"), name="tiny")
        artifact = tokenize(workspace, documents, _artifact(workspace, trained), name="tiny", run=Run(runner=runner))
        contents.append((artifact.id, artifact.content))
    assert contents[0] == contents[1]


def test_tokenize_killed_at_a_publish_point_goes_on_to_the_same_content(tmp_path, corpus, trained):
    undisturbed = None
    for at in (None, 1, 3, 4):
        workspace = Workspace(tmp_path / str(at))
        documents = ingest(workspace, [corpus], name="tiny")
        told = _artifact(workspace, trained)
        if at is not None:
            assert run_and_kill(tokenize_here, (workspace.path, documents, told), at, after=at == 3)
        artifact = tokenize(workspace, documents, told, name="tiny")
        assert artifact.verify() == []
        undisturbed = undisturbed or artifact.content
        assert artifact.content == undisturbed


def tokenize_here(path, documents, tokenizer):
    tokenize(Workspace(path), documents, tokenizer, name="tiny")


def test_a_tokenizer_that_cannot_be_read_is_a_stated_error(workspace, documents, trained):
    told = _artifact(workspace, trained)
    for file in told.path.glob("tokenizer*"):
        file.write_bytes(b"{}")
    with pytest.raises(TokenizerError):
        tokenize(workspace, documents, told, name="tiny")
