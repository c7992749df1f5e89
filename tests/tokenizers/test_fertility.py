"""The figures of a tokenizer's report, against counting by hand."""

from __future__ import annotations

import json
import math

import pytest

from dataforge.tokenizers.fertility import fertility


@pytest.mark.parametrize("encoder", ["bpe", "lbpe"])
def test_the_figures_are_those_of_counting_by_hand(scaffold, sample_texts, encoder):
    tokenizer = scaffold.with_encoder(encoder)
    figures = fertility(tokenizer, sample_texts)
    ids = [token for text in sample_texts for token in tokenizer.encode(text).tolist()]
    counts = {token: ids.count(token) for token in set(ids)}
    assert (figures.num_texts, figures.num_tokens) == (len(sample_texts), len(ids))
    assert figures.num_bytes == sum(len(text.encode()) for text in sample_texts)
    assert figures.bytes_per_token == pytest.approx(figures.num_bytes / len(ids))
    assert figures.long_token_share == pytest.approx(sum(len(tokenizer.vocab[t]) >= 8 for t in ids) / len(ids))
    assert figures.ids_used == len(counts)
    assert figures.rarest_token_frequency == min(counts.get(token, 0) for token in range(258, 2000))
    entropy = -sum(n / len(ids) * math.log2(n / len(ids)) for n in counts.values())
    assert figures.entropy_bits == pytest.approx(entropy)
    assert figures.redundancy == pytest.approx(1 - entropy / math.log2(2000))
    assert figures.scaffolds == len(tokenizer.scaffolds) == figures.flags_set - figures.flags_returned
    assert len(figures.longest_tokens[0]) == max(len(tokenizer.vocab[token]) for token in counts)
    assert json.loads(json.dumps(figures.to_json()))["num_tokens"] == len(ids)


def test_no_text_has_figures_too(bpe):
    figures = fertility(bpe, [])
    assert (figures.num_tokens, figures.bytes_per_token, figures.entropy_bits) == (0, 0.0, 0.0)
