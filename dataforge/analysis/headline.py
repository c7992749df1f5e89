"""The figures that sum a chain up: for the top of the report and the end of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from dataforge.analysis.balance import balance, effective
from dataforge.analysis.chain import Chain
from dataforge.analysis.seconds import by_step
from dataforge.analysis.training import HeldOutBits, curves, held_out


@dataclass(frozen=True)
class Figure:
    """One figure of a chain."""

    name: str
    value: str
    note: str = ""


def headline(chain: Chain) -> list[Figure]:
    """Figures in the order of the chain; what is not there is left out."""
    return [*_documents(chain), *_clusters(chain), *_tokens(chain), *_training(chain), *_seconds(chain)]


def _documents(chain: Chain) -> list[Figure]:
    found = [artifact for artifact in chain.artifacts if artifact.kind == "documents"]
    if not found:
        return []
    first, last = found[0].counts.get("in", {}), found[-1].counts.get("out", {})
    taken, kept = first.get("documents", 0), last.get("documents", 0)
    size = last.get("bytes", 0)
    held = sum(artifact.counts.get("held_out", 0) for artifact in found[:1])
    return [
        Figure("documents", f"{kept:,}", f"of {taken:,} read, {taken - kept:,} dropped, {held:,} held out"),
        Figure("text", f"{size / 1e6:,.1f} MB", f"{size:,} bytes"),
    ]


def _clusters(chain: Chain) -> list[Figure]:
    told = balance(chain)
    if told is None:
        return []
    there = int((told.sizes_C > 0).sum())
    if told.after is None:
        return [Figure("clusters", f"{there:,}", f"as even as {effective(told.before):.1f} equal ones")]
    note = f"as even as {effective(told.before):.1f} equal ones before, {effective(told.after):.1f} after balancing"
    return [Figure("clusters", f"{there:,}", note)]


def _tokens(chain: Chain) -> list[Figure]:
    told = []
    tokenizer, shards, rows = chain.one("tokenizers"), chain.one("shards"), chain.one("rows")
    if shards is not None:
        out = shards.counts["out"]
        told.append(Figure("tokens", f"{out['tokens']:,}", "in the shards, held-out documents included"))
        told.append(Figure("bytes a token", f"{out['bytes'] / max(1, out['tokens']):.2f}", "ends of text counted"))
    if tokenizer is not None:
        size = tokenizer.counts.get("vocab_size", 0)
        told.append(Figure("scaffolds", f"{tokenizer.counts.get('scaffolds', 0):,}", f"beside {size:,} token ids"))
    if rows is not None:
        told.append(Figure("rows", f"{rows.counts['rows']:,}", f"of {rows.counts['row_length']:,} tokens"))
    return told


def _training(chain: Chain) -> list[Figure]:
    if not chain.metrics:
        return []
    run = curves(chain.metrics)
    told = [
        Figure("steps", f"{len(run.steps_S):,}", f"{run.tokens:,} tokens trained on"),
        Figure("final loss", f"{run.final_loss:.3f}", f"nats a token, last tenth; from {run.loss_S[0]:.3f}"),
    ]
    bits = held_out(chain)
    if bits is not None:
        told.append(Figure("held-out bits a byte", f"{bits.model:.3f}", _beside(bits)))
    if run.tokens_per_s > 0:
        told.append(Figure("tokens a second", f"{run.tokens_per_s:,.0f}", "in training, median step"))
    return told


def _beside(bits: HeldOutBits) -> str:
    if bits.unigram is None or bits.bigram is None:
        return ""
    share = abs(1 - bits.model / bits.unigram)
    side = "below" if bits.model <= bits.unigram else "above"
    return f"{share:.1%} {side} a unigram model ({bits.unigram:.3f}); bigram {bits.bigram:.3f}"


def _seconds(chain: Chain) -> list[Figure]:
    steps = by_step(chain)
    if not steps:
        return []
    longest = max(steps, key=lambda step: steps[step])
    return [Figure("seconds", f"{sum(steps.values()):,.0f}", f"in all; {steps[longest]:,.0f} of them {longest}")]
