"""The numbers of each section against the chain itself, counted in the plainest way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dataforge.analysis import Chain, headline
from dataforge.analysis.balance import balance, effective
from dataforge.analysis.made import balances
from dataforge.analysis.mixture import mixtures
from dataforge.analysis.seconds import by_step, took
from dataforge.analysis.tokenizer import fertility, sample_texts
from dataforge.analysis.training import curves, held_out
from dataforge.corpus import Documents
from dataforge.plans import SamplingPlan
from dataforge.rows import Rows
from dataforge.shards import Shards
from dataforge.tokenizers import Tokenizer


def test_the_mixture_counts_documents_draws_and_tokens_one_by_one(chain: Chain) -> None:
    plan_artifact, shards = chain.one("plans"), Shards(chain.one("shards"))
    plan = SamplingPlan.open(plan_artifact)
    documents = Documents(plan_artifact.input("documents"))
    sources = {row["number"]: row["source"] for row in documents.get(documents.training_numbers(), ["source"])}
    cluster, inside, _ = plan.at(np.arange(plan.num_draws))
    drawn = plan.document_numbers(cluster, inside).tolist()
    (told,) = mixtures(chain, ("source",))
    assert told.share_of_positions == 1
    assert told.documents == Counter(sources.values())
    assert +told.draws == Counter(sources[number] for number in drawn)
    tokens, tokens_drawn = Counter(), Counter()
    for number, source in sources.items():
        tokens[source] += int(shards.lengths(number)[0])
    for number in drawn:
        tokens_drawn[sources[number]] += int(shards.lengths(number)[0])
    assert told.tokens == tokens
    assert +told.tokens_drawn == tokens_drawn


def test_the_mixture_of_documents_alone_has_no_draws(mini) -> None:
    workspace, made = mini
    source, lang = mixtures(Chain.of(workspace, made["dedup"]))
    assert not source.draws
    assert not source.tokens
    assert source.documents.total() == lang.documents.total() == len(Documents(made["dedup"]).training_numbers())


def test_balance_is_in_the_plans_unit_and_sums_to_one(chain: Chain) -> None:
    told, plan = balance(chain), SamplingPlan.open(chain.one("plans"))
    assert told is not None
    assert told.unit == "tokens"
    np.testing.assert_array_equal(told.sizes_C, plan.sizes_C)
    np.testing.assert_array_equal(told.draws_C, plan.draws_per_cluster)
    assert told.before.sum() == pytest.approx(1)
    assert told.after is not None
    assert told.after.sum() == pytest.approx(1)
    assert effective(told.after) > effective(told.before)


def test_every_balance_of_the_chain_holds_and_one_that_does_not_is_told(chain: Chain) -> None:
    told = [each for artifact in chain.artifacts for each in balances(artifact)]
    assert {each.holds for each in told} == {True, None}
    assert sum(sum(each.dropped.values()) for each in told if each.unit == "documents") > 0
    artifact = chain.one("shards")
    counts = {**artifact.counts, "in": {**artifact.counts["in"], "documents": 10**6}}
    wrong = type(artifact)(artifact.path, type(artifact.manifest)(**{**artifact.manifest.to_json(), "counts": counts}))
    assert next(each.holds for each in balances(wrong) if each.unit == "documents") is False


def test_fertility_by_language_adds_up_to_the_shards(chain: Chain) -> None:
    shards = Shards(chain.one("shards"))
    told = fertility(chain)
    assert sum(each.bytes for each in told) == shards.text_bytes
    assert sum(each.tokens for each in told) == shards.num_tokens - shards.num_documents  # one end of text each
    tokenizer, documents = Tokenizer.load(chain.one("tokenizers").path), Documents(chain.one("documents"))
    numbers = [number for part in documents.parts for number in part.numbers.tolist()]
    python = [row["text"] for row in documents.get(numbers, ["text", "lang"]) if row["lang"] == "python"]
    (found,) = [each for each in told if each.lang == "python"]
    assert found.tokens == sum(len(tokenizer.encode(text)) for text in python)


def test_samples_are_held_out_texts_of_different_languages(chain: Chain) -> None:
    documents = Documents(chain.one("documents"))
    texts = [row["text"] for row in documents.get(documents.held_out_numbers(), ["text"])]
    told = sample_texts(chain)
    assert len({lang for lang, _ in told}) == len(told) > 1
    assert all(any(text.startswith(sample) for text in texts) for _, sample in told)


def test_training_figures_are_those_of_the_metrics_and_the_evaluation(chain: Chain) -> None:
    run = curves(chain.metrics)
    assert run.steps_S.tolist() == list(range(1, 21))
    assert run.eval_steps_N.tolist() == [10, 20]
    assert run.tokens == 20 * 4 * 64
    assert run.tokens_per_s > 0
    assert run.final_loss == pytest.approx((chain.metrics[-1]["loss"] + chain.metrics[-2]["loss"]) / 2)
    bits = held_out(chain)
    assert bits is not None
    assert bits.model == run.bits_per_byte_N[-1] == chain.one("checkpoints").counts["held_out_bits_per_byte"]
    assert bits.below_unigram == pytest.approx(1 - bits.model / bits.unigram)


def test_seconds_are_those_of_run_json_and_every_step_is_there(chain: Chain) -> None:
    steps = by_step(chain)
    assert list(steps) == [
        "ingest", "dedup", "embed", "cluster", "train-tokenizer", "tokenize", "plan", "pack", "train"
    ]  # fmt: skip
    assert sum(steps.values()) == pytest.approx(sum(took(artifact).seconds for artifact in chain.artifacts))
    told = took(chain.one("shards"))
    assert told.rates["tokens"] == pytest.approx(chain.one("shards").counts["out"]["tokens"] / told.seconds)


def test_the_headline_names_the_figures_of_the_chain(chain: Chain) -> None:
    told = {figure.name: figure.value for figure in headline(chain)}
    assert told["documents"] == f"{chain.one('documents').counts['out']['documents']:,}"
    assert told["rows"] == f"{Rows(chain.one('rows')).num_rows:,}"
    assert told["steps"] == "20"
    assert {"held-out bits a byte", "bytes a token", "scaffolds", "seconds"} <= set(told)
