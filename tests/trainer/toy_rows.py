"""Rows of a made-up language in memory, for tests of the trainer; run as a script it trains on them (to be killed)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

VOCABULARY = 24
EOS = 0


class Batch(NamedTuple):
    token_ids: np.ndarray
    segments: np.ndarray
    cursor: int


def toy_documents(count, *, seed=0, longest=40):
    """Documents in which each token is followed by one of two, and an end of text."""
    generator = np.random.default_rng(seed)
    follow = np.random.default_rng(99).integers(1, VOCABULARY, size=(VOCABULARY, 2))
    documents = []
    for _ in range(count):
        ids = [EOS]
        for _ in range(int(generator.integers(1, longest))):
            ids.append(int(follow[ids[-1], int(generator.random() < 0.2)]))
        documents.append(np.array([*ids[1:], EOS]))
    return documents


class ToyLoader:
    """What the loop asks of a loader, over documents laid one behind the other."""

    def __init__(self, documents, *, row_length=16, global_batch=4):
        self.row_length, self.vocab_size, self.global_batch = row_length, VOCABULARY, global_batch
        self._tokens = np.concatenate(documents)
        self._ends = np.cumsum([len(ids) for ids in documents])
        self._starts = self._ends - [len(ids) for ids in documents]
        self.num_rows = (len(self._tokens) - 1) // row_length
        self.cursor = 0

    def __len__(self):
        return -(-(self.num_rows - self.cursor) // self.global_batch)

    def __iter__(self):
        return self

    def __next__(self):
        if self.cursor >= self.num_rows:
            raise StopIteration
        rows = range(self.cursor, min(self.cursor + self.global_batch, self.num_rows))
        self.cursor = rows.stop
        token_ids = np.stack([self._tokens[r * self.row_length : (r + 1) * self.row_length + 1] for r in rows])
        return Batch(token_ids, self.segments_of(rows), self.cursor)

    def segments_of(self, rows):
        table = []
        for row in rows:
            begin, end = row * self.row_length, (row + 1) * self.row_length + 1
            document = int(np.searchsorted(self._ends, begin, side="right"))
            while document < len(self._ends) and self._starts[document] < end:
                start, stop = max(begin, self._starts[document]), min(end, self._ends[document])
                table.append((row, document, start - self._starts[document], stop - start))
                document += 1
        return np.array(table, dtype=np.int64)

    def state_dict(self):
        return {"cursor": self.cursor}

    def load_state_dict(self, state):
        self.cursor = state["cursor"]


TOY_MODEL = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "num_experts": 4,
    "expert_size": 16,
    "init_std": 0.1,
}


def toy_fit(folder, *, steps=30, held_out=True, loader=None, **changes):
    """A whole run in a folder: a second or two."""
    from dataforge.trainer import FitConfig, HeldOut, TrainConfig, fit

    where = {name: changes.pop(name) for name in ("checkpoint_every", "keep_last", "allow_mixed") if name in changes}
    settings = {"model": TOY_MODEL, "global_batch": 4, "lr": 1e-2, "warmup_steps": 3, "eval_every": 10, **changes}
    config = FitConfig(
        train=TrainConfig(steps=steps, **settings),
        folder=folder,
        device="cpu",
        num_threads=1,
        **{"checkpoint_every": 4, **where},
    )
    loader = loader or ToyLoader(toy_documents(500), global_batch=settings["global_batch"])
    documents = [(ids, len(ids) - 1) for ids in toy_documents(20, seed=7)]
    return fit(config, loader=loader, held_out=HeldOut(documents, eos_id=EOS) if held_out else None)


if __name__ == "__main__":
    toy_fit(Path(sys.argv[1]), steps=int(sys.argv[2]), model={**TOY_MODEL, "router": sys.argv[3]})
