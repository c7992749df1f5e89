"""The tokenizer: how many bytes a token holds, scaffolds, the longest tokens, and how it cuts a text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Pair, paired_bars
from dataforge.analysis.markup import Html, figure, join, table, tag
from dataforge.analysis.section import Section
from dataforge.corpus import Documents

MOST_DOCUMENTS = 200_000
_SAMPLES = 6
_SAMPLE_CHARS = 300
_LONGEST = 40
_SHADES = 5
_RUN = re.compile(r"(.)\1{5,}", re.DOTALL)


@dataclass(frozen=True)
class Fertility:
    """Bytes and tokens of the documents of one language; beginnings and ends of text are not counted as tokens."""

    lang: str
    bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.tokens)


def fertility(chain: Chain) -> list[Fertility]:
    """Bytes a token by language, most bytes first, of at most 200,000 documents; empty without shards."""
    shards_artifact = chain.one("shards")
    if shards_artifact is None:
        return []
    from dataforge.shards import Shards

    shards = Shards(shards_artifact)
    around = (shards.bos_id is not None) + (shards.eos_id is not None)
    sizes: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    seen = 0
    for part in Documents(shards_artifact.input("documents")).parts:
        for numbers, batch in part.batches(["lang"], batch_rows=1 << 14):
            langs, place = np.unique([lang or "(none)" for lang in batch.column(0).to_pylist()], return_inverse=True)
            size = np.bincount(place, weights=shards.text_bytes_of(numbers))
            count = np.bincount(place, weights=shards.lengths(numbers) - around)
            for lang, b, t in zip(langs.tolist(), size.tolist(), count.tolist(), strict=True):
                sizes[lang] += int(b)
                tokens[lang] += int(t)
            seen += len(numbers)
            if seen >= MOST_DOCUMENTS:
                break
        if seen >= MOST_DOCUMENTS:
            break
    return [Fertility(lang, size, tokens[lang]) for lang, size in sizes.most_common()]


def spelled(token: bytes) -> str:
    """A token for people: text where it is text, `\\xe4` for bytes that are not, signs for white space, runs counted.

    >>> spelled(b" the"), spelled(b"\\n\\t"), spelled("é".encode()[:1]), spelled(b"\\n" + b" " * 24)
    ('␣the', '⏎⇥', '\\\\xc3', '⏎␣×24')
    """
    text = token.decode("utf-8", "backslashreplace").replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return _RUN.sub(lambda run: f"{run[1]}×{len(run[0])}", text)


def section(chain: Chain) -> Section:
    """Figures, bytes a token by language, scaffolds, longest tokens, and samples in colour."""
    artifact = chain.one("tokenizers")
    if artifact is None:
        return Section("tokenizer", "Tokenizer", None, "no tokenizer has been trained in this chain.")
    from dataforge.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(artifact.path)
    scaffolds = tokenizer.vocabulary.tokens[tokenizer.vocab_size :]
    lead = tag(
        "p",
        f"{tokenizer.vocab_size:,} token ids, pattern {tokenizer.vocabulary.pattern}, encoder {tokenizer.encoder}. "
        + (
            f"{len(scaffolds):,} scaffolds: tokens that are built with and taken apart again; no id is spent on them."
            if scaffolds
            else "No scaffolds: every merged token has an id."
        ),
    )
    special = set(tokenizer.special_tokens.values())
    ordinary = [token for token_id, token in enumerate(tokenizer.vocab) if token_id not in special]
    longest = sorted(ordinary, key=lambda token: (-len(token), token))[:_LONGEST]
    lists = [tag("h3", "Longest tokens"), _chips(longest)]
    if scaffolds:
        lists += [tag("h3", "First scaffolds, in the order of their merges"), _chips(scaffolds[:_LONGEST])]
    columns = tag("div", _bytes_per_token(chain), tag("div", *lists), class_="two")
    return Section("tokenizer", "Tokenizer", join([lead, _samples(chain, tokenizer), columns]))


def _bytes_per_token(chain: Chain) -> Html:
    told = fertility(chain)
    if not told:
        return tag("p", "Bytes a token are not there: no shards in this chain.", class_="missing")
    shown = told[:24]
    total = sum(f.bytes for f in told) / max(1, sum(f.tokens for f in told))
    most = max(f.bytes_per_token for f in shown)
    rows = [(tag("bdi", f.lang), f"{f.bytes:,}", f"{f.tokens:,}", f"{f.bytes_per_token:.2f}") for f in told[:200]]
    numbers = table(
        ("language", "bytes", "tokens", "bytes a token"), rows, caption="Bytes a token by language", numeric=(1, 2, 3)
    )
    bars = paired_bars(
        [Pair(tag("bdi", f.lang), f.bytes_per_token / most, None) for f in shown],
        title="Bytes a token by language",
        before="bytes of text a token",
        after=None,
        value=lambda share: f"{share * most:.2f}",
    )
    caption = f"{total:.2f} bytes a token over all languages; shown are the {len(shown)} with most bytes."
    return tag("div", tag("h3", "Bytes a token"), figure(bars, caption, numbers))


def _samples(chain: Chain, tokenizer: Any) -> Html | None:
    texts = sample_texts(chain)
    if not texts:
        return None
    figures = []
    vocab = tokenizer.vocab
    for lang, text in texts:
        token_ids = tokenizer.encode(text)
        pieces = [
            tag("span", _inline(vocab[token_id]), class_=f"p{index % _SHADES}", title=f"id {token_id}")
            for index, token_id in enumerate(token_ids.tolist())
        ]
        size = len(text.encode())
        rate = f"{lang}: {size:,} bytes, {len(token_ids):,} tokens, {size / max(1, len(token_ids)):.2f} bytes a token"
        figures.append(figure(tag("p", *pieces, class_="pieces", dir="auto"), rate))
    return join([tag("h3", "How it cuts a text"), tag("div", *figures, class_="two")])


def _inline(token: bytes) -> str:
    """A token within a line: blanks stay, line ends become signs."""
    return token.decode("utf-8", "backslashreplace").replace("\n", "⏎").replace("\t", "⇥")


def sample_texts(chain: Chain) -> list[tuple[str, str]]:
    """The beginnings of some documents, (language, text): the first that is long enough of each of six languages.

    Held-out documents if there are any: the tokenizer has not seen them.
    """
    artifact = chain.one("documents")
    if artifact is None:
        return []
    for held_out in (True, None):
        first: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for part in Documents(artifact).parts:
            for _, batch in part.batches(["lang", "text"], held_out=held_out, batch_rows=256):
                for lang, text in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    seen[lang or "(none)"] += 1
                    if len(text) >= 120:
                        first.setdefault(lang or "(none)", text[:_SAMPLE_CHARS])
                if seen.total() >= MOST_DOCUMENTS // 100:
                    break
        if first:
            return [(lang, first[lang]) for lang, _ in seen.most_common() if lang in first][:_SAMPLES]
    return []


def _chips(tokens: list[bytes]) -> Html:
    items = [tag("li", spelled(token), title=f"{len(token)} bytes", dir="auto") for token in tokens]
    return tag("ul", *items, class_="chips")
