"""The stages: counts by part, a tokenizer on their sum, nothing held out, growth, and a kill at every publish point."""

from __future__ import annotations

import json

import pytest
from kill_points import run_and_kill

from dataforge.corpus import Documents, IngestConfig, append, ingest
from dataforge.errors import ConfigError, NothingToDo
from dataforge.stage import Forecast, Run
from dataforge.tokenizers import Tokenizer, WordCounts, count, train
from dataforge.tokenizers.stages import TrainTokenizerConfig, train_tokenizer
from dataforge.workspace import Workspace

CONFIG = TrainTokenizerConfig(vocab_size=1200)


def training_texts(documents):
    numbers = Documents(documents).training_numbers()
    return [row["text"] for row in Documents(documents).get(numbers.tolist(), ["text"])]


def test_the_tokenizer_is_the_one_trained_on_the_documents_that_are_not_held_out(workspace, documents):
    artifact = train_tokenizer(workspace, documents, name="tiny", config=CONFIG)
    tokenizer = Tokenizer.load(artifact.path)
    texts = training_texts(documents)
    assert len(texts) < documents.counts["out"]["documents"]
    expected = train(texts, vocab_size=1200, special_tokens=["<|endoftext|>"], eos="<|endoftext|>")
    assert tokenizer.fingerprint == expected.fingerprint
    assert tokenizer.training == expected.training
    assert tokenizer.eos_id == 256
    assert artifact.counts["vocab_size"] == 1200
    assert artifact.counts["in"]["documents"] == len(texts)
    assert artifact.counts["scaffolds"] == len(tokenizer.scaffolds)
    assert workspace.verify(artifact) == []


def test_the_counts_are_those_of_the_training_documents_part_by_part(workspace, documents):
    artifact = train_tokenizer(workspace, documents, name="tiny", config=CONFIG)
    counts = artifact.input("counts")
    parts = [WordCounts.load(counts.file(part["path"])) for part in counts.parts()]
    assert len(parts) == len(Documents(documents).parts) == 2
    texts = training_texts(documents)
    assert list((parts[0] + parts[1]).items()) == list(count(texts).items())
    assert counts.counts["in"] == counts.counts["out"]
    assert counts.counts["out"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert counts.counts["out"]["documents"] + counts.counts["held_out"] == documents.counts["out"]["documents"]


def test_other_settings_count_nothing_again_another_pattern_does(workspace, documents):
    first = train_tokenizer(workspace, documents, name="first", config=CONFIG)
    second = train_tokenizer(
        workspace,
        documents,
        name="second",
        config=TrainTokenizerConfig(vocab_size=900, encoder="lbpe", algorithm="bpe"),
    )
    assert second.id != first.id
    assert second.input("counts").id == first.input("counts").id
    assert Tokenizer.load(second.path).encoder == "lbpe"
    third = train_tokenizer(
        workspace, documents, name="third", config=TrainTokenizerConfig(vocab_size=900, pattern=r"\S+|\s+")
    )
    assert third.input("counts").id != first.input("counts").id
    assert Tokenizer.load(third.path).vocabulary.pattern == r"\S+|\s+"


def test_more_documents_cost_the_counting_of_the_new_part_alone(workspace, corpus, tmp_path):
    parent = ingest(workspace, [corpus], name="tiny", config=IngestConfig(holdout=0.05))
    train_tokenizer(workspace, parent, name="tiny", config=CONFIG)
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "new", "text": "words that were not there before"}) + "\n")
    grown = append(workspace, parent, [more])
    artifact = train_tokenizer(workspace, grown, name="tiny", config=CONFIG)
    counts = artifact.input("counts")
    told = json.loads((counts.path / "run.json").read_text())
    assert (told["made"], told["reused"]) == (1, 2)
    assert Tokenizer.load(artifact.path).training["words"] == count(training_texts(grown)).num_words


def test_a_forecast_makes_nothing(workspace, documents):
    told = train_tokenizer(workspace, documents, name="tiny", config=CONFIG, run=Run(dry_run=True))
    assert isinstance(told, Forecast)
    assert workspace.artifacts("tokenizers") == []


def test_the_same_request_finds_the_same_artifact(workspace, documents):
    first = train_tokenizer(workspace, documents, name="tiny", config=CONFIG)
    assert train_tokenizer(workspace, documents, name="again", config=CONFIG).id == first.id


def test_documents_without_text_for_training_are_refused(workspace, tmp_path):
    (tmp_path / "held.jsonl").write_text(json.dumps({"id": "a", "text": "held out"}) + "\n")
    key = next(key for key in map(str, range(99)) if _held_out("a", key))
    held = ingest(workspace, [tmp_path / "held.jsonl"], name="held", config=IngestConfig(holdout=0.5, holdout_key=key))
    with pytest.raises(NothingToDo, match="no text to train on"):
        train_tokenizer(workspace, held, name="held")


def _held_out(document_id: str, key: str) -> bool:
    from dataforge.corpus.ingest import is_held_out

    return is_held_out(document_id, 0.5, key)


@pytest.mark.parametrize(
    "wrong",
    [{"algorithm": "unigram"}, {"encoder": "x"}, {"vocab_size": 256}, {"eos": "<|no|>"}, {"bos": "<|no|>"},
     {"special_tokens": ()}],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_before_anything_is_made(wrong):
    with pytest.raises(ConfigError):
        TrainTokenizerConfig(**wrong)


def work(path: str, documents: str) -> None:
    """What the killed process does."""
    workspace = Workspace(path)
    train_tokenizer(workspace, workspace.open(documents), name="tiny", config=CONFIG)


def test_a_training_killed_again_and_again_ends_in_the_undisturbed_content(tmp_path, corpus):
    contents = set()
    for name, kills in (("killed", (2, 1, 3)), ("undisturbed", ())):
        workspace = Workspace(tmp_path / name)
        documents = ingest(workspace, [corpus], name="tiny", config=IngestConfig(holdout=0.05))
        for at in kills:
            assert run_and_kill(work, (str(tmp_path / name), documents.ref), at=at, after=at % 2 == 0)
        artifact = train_tokenizer(workspace, documents, name="tiny", config=CONFIG)
        assert workspace.verify(artifact) == []
        contents.add((artifact.content, artifact.input("counts").content))
    assert len(contents) == 1
