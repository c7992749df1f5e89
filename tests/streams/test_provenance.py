"""The thread through the whole chain: every token of a row, back to its line in a raw file."""

import json

import numpy as np
import pytest
from tiny_rows import artifact_of

from dataforge.corpus import Documents
from dataforge.errors import PastTheEnd
from dataforge.plans import SamplingPlan
from dataforge.plans.members import write_members
from dataforge.rows import Rows
from dataforge.rows.pack import PackConfig, pack
from dataforge.shards.tokenize import tokenize
from dataforge.streams.provenance import trace_row
from dataforge.tokenizers import Tokenizer, train


def test_every_token_of_a_row_is_found_in_the_line_of_the_file_it_came_from(workspace, documents, corpus):
    trained = train(["some words to make pairs of, and some more"] * 5, vocab_size=265, special_tokens=["<|end|>"])
    tokenizer = Tokenizer(trained.vocabulary, eos="<|end|>")
    shards = tokenize(workspace, documents, artifact_of(workspace, "tokenizers", tokenizer.save), name="tiny")
    numbers = Documents(documents).training_numbers()
    labels = np.arange(numbers.size) % 4

    def plan(folder):
        built = SamplingPlan.build(np.bincount(labels), num_draws=2 * numbers.size, seed=3)
        built.save(folder)
        write_members(folder / "members.bin", 4, lambda: [(numbers, labels)])

    plans = artifact_of(workspace, "plans", plan)
    artifact = pack(workspace, plans, shards, name="tiny", config=PackConfig(row_length=200))
    rows = Rows(artifact)
    raw = {path.name: path.read_text("utf-8").split("\n") for path in corpus.glob("*.jsonl")}
    held_out = set(Documents(documents).held_out_numbers().tolist())
    for row in range(0, rows.num_rows, max(1, rows.num_rows // 40)):
        told = json.loads(json.dumps(trace_row(artifact, row, rows)))
        token_ids, _ = rows.read(row)
        assert (told["row"], told["num_tokens"]) == (row, 201)
        assert told["plan"] == plans.ref
        assert [s["row_offset"] for s in told["segments"]] == np.cumsum(
            [0, *(s["length"] for s in told["segments"])]
        ).tolist()[:-1]
        for segment in told["segments"]:
            line = json.loads(raw[segment["file"].rpartition("/")[2]][segment["position"] - 1])
            assert line["id"] == segment["id"]
            assert segment["document"] not in held_out
            ids = [*tokenizer.encode(line["text"]).tolist(), tokenizer.eos_id]
            first, length = segment["offset"], segment["length"]
            there = token_ids[segment["row_offset"] : segment["row_offset"] + length].tolist()
            assert there == ids[first : first + length]
            assert segment["reason"]["cluster"] == segment["cluster"]
            assert segment["reason"]["position"] == segment["draw"]
            assert segment["reason"]["epoch"] == segment["epoch"]
    with pytest.raises(PastTheEnd):
        trace_row(artifact, rows.num_rows, rows)
